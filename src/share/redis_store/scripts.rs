//! The four scripts with the names that a server keeps them under.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::super::protocol;

/// A script and the SHA-1 of its text, which names it in EVALSHA.
#[derive(Debug)]
pub(super) struct StoreScript {
    pub(super) text: &'static str,
    pub(super) sha1: String,
}

impl StoreScript {
    fn new(text: &'static str) -> Self {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let sha1 = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text, sha1 }
    }
}

/// The scripts of [`protocol`].
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) acquire: StoreScript,
    pub(super) renew: StoreScript,
    pub(super) publish: StoreScript,
    pub(super) fail: StoreScript,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            acquire: StoreScript::new(protocol::ACQUIRE),
            renew: StoreScript::new(protocol::RENEW),
            publish: StoreScript::new(protocol::PUBLISH),
            fail: StoreScript::new(protocol::FAIL),
        }
    }
}
