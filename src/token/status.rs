//! `TokenStatus`: the state of a token for operators. Nothing in it is secret.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

#[cfg(feature = "share")]
use super::sharing::renewal::ShareStatus;
use super::spec::TokenSpec;
use crate::clock::Moment;

/// The state of one token.
#[derive(Debug, Clone, Default)]
pub struct TokenStatus {
    /// The name of the credential.
    pub credential: Arc<str>,
    /// The token's number among those of its credential.
    pub token: String,
    /// The token endpoint, or the source of a static token in words.
    pub token_url: String,
    /// The issuer whose metadata name the token endpoint.
    pub issuer: Option<String>,
    /// The requested scopes.
    pub scopes: Vec<String>,
    /// The end of its use, a margin before it expires.
    pub usable_until: Option<Moment>,
    /// The stated expiry of the held token.
    pub expires: Option<SystemTime>,
    /// The time of the next token request.
    pub refresh_due: Option<SystemTime>,
    /// Requested scopes that were not granted.
    pub missing_scopes: Vec<String>,
    /// Set for a token that is fetched at its first use.
    pub lazy: bool,
    /// Set while another instance seems to revoke our tokens.
    pub contended: bool,
    /// Set while a renewal hands over, so that requests wait.
    pub handing_over: bool,
    /// The seconds by which the token server's clock is ahead of ours.
    pub clock_offset: Option<f64>,
    /// Calls that the credential may make in any hour.
    pub budget: Option<NonZeroU32>,
    /// Calls that are left of this budget.
    pub budget_left: Option<u32>,
    /// The time of the next call, where none is left.
    pub budget_spent_until: Option<SystemTime>,
    /// Number of tokens of the credential: each one may end another at a server that keeps one per client.
    pub tokens_of_credential: usize,
    /// Set when the token server refused the credential's client secret last.
    pub secret_refused: bool,
    /// The time before which no call is made because the token server refused the client secret lately.
    pub secret_closed_until: Option<SystemTime>,
    /// The time of the server's first verdict on the last changed client secret.
    pub secret_changed: Option<SystemTime>,
    /// The time at which a token was last obtained.
    pub last_success: Option<SystemTime>,
    /// Set once the first attempt has ended, with or without success.
    pub attempted: bool,
    /// The time of the first of the failures in a row.
    pub failing_since: Option<SystemTime>,
    /// Failures in a row.
    pub failures: u32,
    /// The last failure as a word of a fixed list.
    pub last_error: Option<&'static str>,
    /// The last failure in words: the `error` of its log line.
    pub error_text: Option<String>,
    /// The remedy for the last failure, where one is known.
    pub error_hint: Option<String>,
    /// The end of the wait, where the token server said that the client makes too many calls.
    pub rate_limited_until: Option<SystemTime>,
    /// The duration of the last token request.
    pub last_call: Option<Duration>,
    /// The start of the token request that is under way.
    pub call_began: Option<Instant>,
    /// The time since which a token request waits for the answer to another one of its credential or
    /// endpoint.
    pub call_waits_since: Option<Instant>,
    /// The life of the token that was obtained last.
    pub life: Option<Duration>,
    /// The time from the request of that token to its planned renewal.
    pub renewal: Option<Duration>,
    /// The part of this replica in the renewal of a token that others hold too; `None` for one of its own.
    #[cfg(feature = "share")]
    pub share: Option<ShareStatus>,
}

impl TokenStatus {
    /// The status before the first attempt.
    pub(super) fn new(spec: &TokenSpec, number: usize) -> Self {
        Self {
            credential: Arc::clone(&spec.credential.name),
            token: number.to_string(),
            token_url: spec.credential.source.to_string(),
            issuer: spec.credential.issuer().map(ToString::to_string),
            scopes: spec.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            lazy: spec.credential.policy.lazy.is_some(),
            budget: spec.credential.policy.budget,
            ..Self::default()
        }
    }

    /// Tells whether a request could use the token.
    pub fn usable(&self, now: Moment) -> bool {
        self.usable_until.is_some_and(|end| now.is_before(end))
    }

    /// The time for which a token request has been under way; `None` if there is none.
    pub fn call_under_way(&self, now: Moment) -> Option<Duration> {
        self.call_began.map(|began| now.mono.saturating_duration_since(began))
    }

    /// The time for which a token request has waited for the answer to another one; `None` if none waits.
    pub fn call_waits(&self, now: Moment) -> Option<Duration> {
        self.call_waits_since.map(|since| now.mono.saturating_duration_since(since))
    }

    /// True if a token is requested again within this time.
    pub fn renews_within(&self, time: Duration) -> bool {
        self.renewal.is_some_and(|renewal| renewal < time)
    }

    /// True if the token is to be kept. A lazy one is from its first use until the end of its idle period:
    /// then no call is due.
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

    /// The state as a word: `fresh`, `ageing` (its renewal is due), `expired` or `none`.
    pub fn state(&self, now: Moment) -> &'static str {
        match (self.usable_until, self.refresh_due) {
            (None, _) => "none",
            (Some(_), _) if !self.usable(now) => "expired",
            (Some(_), Some(due)) if due <= now.wall => "ageing",
            _ => "fresh",
        }
    }
}
