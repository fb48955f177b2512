//! `Bearer`: a token as requests carry it: a header value made once, marked sensitive.

use std::fmt;
use std::time::Duration;

use http::HeaderValue;

use super::clock::Moment;
use crate::sensitive::Sensitive;

/// A token in use.
pub struct Bearer {
    header: HeaderValue,
    generation: u64,
    /// Usable until then, on both clocks.
    pub(super) usable_until: Moment,
    /// Its end as the server sees it.
    pub(super) ends: Moment,
    fingerprint: String,
}

const SCHEME: &str = "Bearer ";

impl Bearer {
    /// Makes the header of a token that was asked for at `sent` and lives for `life` from then;
    /// `None` where the token is no header value, which a checked one never is.
    pub fn new(token: &Sensitive, generation: u64, sent: Moment, life: Duration) -> Option<Self> {
        let mut header = HeaderValue::try_from(format!("{SCHEME}{}", token.expose())).ok()?;
        header.set_sensitive(true);
        let usable_until = sent.after(life.saturating_sub(margin(life)));
        let fingerprint = fingerprint(token);
        Some(Self { header, generation, usable_until, ends: sent.after(life), fingerprint })
    }

    /// Value of the Authorization header (RFC 6750 section 2.1).
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// The token's own bytes, to find where an upstream echoes them.
    pub fn token_bytes(&self) -> &[u8] {
        self.header.as_bytes().get(SCHEME.len()..).unwrap_or_default()
    }

    /// Counts the tokens of one cell: a newer token has a greater one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether it may still be sent.
    pub fn is_usable(&self, now: Moment) -> bool {
        now.is_before(self.usable_until)
    }

    /// A few salted hexadecimal digits for the log: the same token has the same ones within this
    /// process, and nobody can find the token from them.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bearer([redacted], generation {})", self.generation)
    }
}

/// A token is not used in its last moments, since it must still live when it arrives.
fn margin(life: Duration) -> Duration {
    life.div_f64(10.0).min(Duration::from_secs(5))
}

/// `RandomState` is keyed anew in each process.
pub(super) fn fingerprint(secret: &Sensitive) -> String {
    use std::hash::{BuildHasher, RandomState};
    use std::sync::LazyLock;
    static SALT: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    format!("{:08x}", SALT.hash_one(secret.expose()) & 0xffff_ffff)
}
