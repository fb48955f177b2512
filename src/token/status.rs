//! What others may know of a token: nothing in it is secret.

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
    /// Calls that the credential's hourly budget leaves.
    pub budget_left: Option<u32>,
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
