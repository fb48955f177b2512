//! The four scripts with the names that a server keeps them under.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::super::protocol;

/// A script and the SHA-1 of its text, which names it in EVALSHA.
#[derive(Debug)]
pub(super) struct StoreScript {
    pub(super) text: &'static str,
    pub(super) sha1: String,
    /// True if it uses the token beside the state. A server that moves keys to another one refuses commands
    /// that name a key which it does not have.
    pub(super) uses_token: bool,
}

impl StoreScript {
    fn new(text: &'static str, uses_token: bool) -> Self {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let sha1 = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text, sha1, uses_token }
    }
}

/// Ends the keys of a token. It needs no right that the other scripts do not need.
const DROP: &str =
    "redis.call('PEXPIRE', KEYS[1], 1) redis.call('PEXPIRE', KEYS[2], 1) return {'dropped', 0}";

/// The scripts of [`protocol`], and one that removes what a test left.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) acquire: StoreScript,
    pub(super) renew: StoreScript,
    pub(super) publish: StoreScript,
    pub(super) fail: StoreScript,
    pub(super) drop: StoreScript,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            acquire: StoreScript::new(protocol::ACQUIRE, true),
            renew: StoreScript::new(protocol::RENEW, false),
            publish: StoreScript::new(protocol::PUBLISH, true),
            fail: StoreScript::new(protocol::FAIL, false),
            drop: StoreScript::new(DROP, true),
        }
    }
}
