//! `Bearer`: a token as requests carry it: a header value made once, marked sensitive.

use std::fmt;
use std::time::Duration;

use http::HeaderValue;

use crate::clock::Moment;
use crate::oauth::{Scope, ScopeSet};
use crate::sensitive::Sensitive;

/// A token in use.
#[derive(Clone)]
pub struct Bearer {
    header: HeaderValue,
    generation: u64,
    /// Usable until then, on both clocks.
    pub(super) usable_until: Moment,
    /// Its end as the server sees it.
    pub(super) ends: Moment,
    fingerprint: String,
    /// The scopes that the answer named.
    granted: Option<ScopeSet>,
}

const SCHEME: &str = "Bearer ";

impl Bearer {
    /// Makes the header of a token that was asked for at `sent` and lives for `life` from then;
    /// `None` where the token is no header value, which a checked one never is.
    pub fn new(token: &Sensitive, generation: u64, sent: Moment, life: Duration) -> Option<Self> {
        let header = token.header(SCHEME)?;
        let usable_until = sent.after(life.saturating_sub(margin(life)));
        let fingerprint = fingerprint(token);
        let (ends, granted) = (sent.after(life), None);
        Some(Self { header, generation, usable_until, ends, fingerprint, granted })
    }

    /// The same with the scopes that the answer named; `None` grants what was asked for
    /// (RFC 6749 section 5.1).
    #[must_use]
    pub fn granting(self, granted: Option<ScopeSet>) -> Self {
        Self { granted, ..self }
    }

    /// Those of these scopes that it does not grant.
    pub fn lacks<'a>(&self, wanted: &'a ScopeSet) -> Vec<&'a Scope> {
        self.granted.as_ref().map_or_else(Vec::new, |granted| wanted.missing_from(granted))
    }

    /// The same after a clock has jumped: it ends on both clocks when it ends on one.
    pub(super) fn anchored(&self, now: Moment) -> Self {
        let (usable_until, ends) = (self.usable_until.anchored(now), self.ends.anchored(now));
        Self { usable_until, ends, ..self.clone() }
    }

    /// Value of the Authorization header (RFC 6750 section 2.1).
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// The token's own bytes, to find where an upstream echoes them.
    pub fn token_bytes(&self) -> &[u8] {
        self.header.as_bytes().get(SCHEME.len()..).unwrap_or_default()
    }

    /// The token itself, to be shown to its own server once more.
    pub(super) fn token(&self) -> Sensitive {
        Sensitive::new(String::from_utf8_lossy(self.token_bytes()))
    }

    /// Counts the tokens of one cell: a newer token has a greater one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether it may still be sent.
    pub fn is_usable(&self, now: Moment) -> bool {
        now.is_before(self.usable_until)
    }

    /// For how long it may still be sent, by the clock that says less.
    pub fn usable_for(&self, now: Moment) -> Duration {
        let by_wall = self.usable_until.wall.duration_since(now.wall).unwrap_or_default();
        self.usable_until.mono.saturating_duration_since(now.mono).min(by_wall)
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
