//! What others may know of a token: nothing in it is secret.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::SystemTime;

use crate::clock::Moment;

/// The state of one token.
#[derive(Debug, Clone, Default)]
pub struct TokenStatus {
    /// The credential's name.
    pub credential: Arc<str>,
    /// The token's number among those of its credential.
    pub token: String,
    /// Where it is asked from.
    pub token_url: String,
    /// The scopes it is asked with.
    pub scopes: Vec<String>,
    /// Usable until then.
    pub usable_until: Option<Moment>,
    /// Its end as the server sees it.
    pub expires: Option<SystemTime>,
    /// When its successor is to be fetched.
    pub refresh_due: Option<SystemTime>,
    /// Scopes that it was asked with and that were not granted.
    pub missing_scopes: Vec<String>,
    /// Fetched at its first use only.
    pub lazy: bool,
    /// Another instance seems to revoke what we obtain.
    pub contended: bool,
    /// How far the token server's clock is ahead of ours, in seconds.
    pub clock_offset: Option<f64>,
    /// Calls that the credential may make in any hour.
    pub budget: Option<NonZeroU32>,
    /// Calls that this budget leaves.
    pub budget_left: Option<u32>,
    /// True if the token server refused the credential's client secret last.
    pub secret_refused: bool,
    /// When a token was last obtained.
    pub last_success: Option<SystemTime>,
    /// Whether the first attempt has ended, either way.
    pub attempted: bool,
    /// Since when fetching fails.
    pub failing_since: Option<SystemTime>,
    /// Failures in a row.
    pub failures: u32,
    /// Word of the last failure.
    pub last_error: Option<&'static str>,
}

impl TokenStatus {
    /// Whether a request could use it.
    pub fn usable(&self, now: Moment) -> bool {
        self.usable_until.is_some_and(|end| now.is_before(end))
    }

    /// True if the token is to be kept. A lazy one is from its first use until it was not used for long
    /// enough: then no call is due.
    pub fn wanted(&self) -> bool {
        !self.lazy || self.refresh_due.is_some()
    }

    /// The value of the label `scopes`, which no other token of the credential has: the scopes in
    /// alphabetical order, separated by spaces.
    pub fn scopes_label(&self) -> String {
        let mut scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        scopes.sort_unstable();
        scopes.join(" ")
    }

    /// In a word: `fresh`, `ageing` (its renewal is due), `expired` or `none`.
    pub fn state(&self, now: Moment) -> &'static str {
        match (self.usable_until, self.refresh_due) {
            (None, _) => "none",
            (Some(_), _) if !self.usable(now) => "expired",
            (Some(_), Some(due)) if due <= now.wall => "ageing",
            _ => "fresh",
        }
    }
}
