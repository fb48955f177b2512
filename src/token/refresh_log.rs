//! `RefreshLog`: the log lines of one token. Each names the credential and its scopes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::bearer::Bearer;
use super::credential::Credential;
use super::fetch::FetchError;
use super::gate::Rotation;
use super::schedule::MIN_CALL_INTERVAL;
use super::token_cell::UnavailableReason;
use crate::clock::{date, seconds};
use crate::oauth::ScopeSet;
use crate::oauth::lifetime::IgnoredExpiry;
use crate::telemetry::throttle::Throttle;

/// Duration from which a successful token request is reported as slow. Requests wait as long for a token
/// by default.
pub const SLOW_CALL: Duration = Duration::from_secs(2);

/// The log lines of one token.
pub(super) struct RefreshLog {
    credential: Arc<str>,
    /// The token endpoint, or the source of a static token in words.
    token_url: String,
    /// Separated by spaces, in alphabetical order; empty for none.
    scopes: String,
    /// The time since which requests find no token because it cannot be obtained.
    unusable_since: Option<Instant>,
    /// The last failure in words, and whether a token served on; equal ones are logged now and then.
    last_failure: (String, bool),
    repeated: Throttle,
}

/// A failed token request, with the facts that are logged beside its error.
pub(super) struct FailedCall<'a> {
    pub(super) error: &'a FetchError,
    /// Refusals of the secret that was sent, this one included.
    pub(super) refusals: Option<u32>,
    /// Failures in a row.
    pub(super) failures: u32,
    /// The time to the next attempt, if no request can bring it forward.
    pub(super) next_try: Option<Duration>,
    /// The duration of the call.
    pub(super) took: Duration,
    /// The token that serves on.
    pub(super) held: Option<Arc<Bearer>>,
}

impl RefreshLog {
    pub(super) fn new(credential: &Credential, scopes: &ScopeSet) -> Self {
        let mut names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        names.sort_unstable();
        let token_url = credential.source.to_string();
        let (credential, scopes) = (Arc::clone(&credential.name), names.join(" "));
        let (last_failure, repeated) = Default::default();
        Self { credential, token_url, scopes, unusable_since: None, last_failure, repeated }
    }

    /// A token came, by a call that took this long.
    pub(super) fn obtained(
        &self,
        bearer: &Bearer,
        life: Duration,
        renew_in: Option<Duration>,
        took: Duration,
    ) {
        let Self { credential, scopes, .. } = self;
        tracing::info!(
            %credential,
            scopes,
            life_s = life.as_secs(),
            renew_in_s = renew_in.map(|due| due.as_secs()),
            fingerprint = bearer.fingerprint(),
            took_ms = milliseconds(took),
            "token obtained"
        );
    }

    /// The token that another replica obtained is used.
    #[cfg(feature = "share")]
    pub(super) fn adopted(&self, bearer: &Bearer, owner: &str, generation: u64) {
        let Self { credential, scopes, .. } = self;
        let fingerprint = bearer.fingerprint();
        tracing::info!(%credential, scopes, owner, generation, fingerprint,
            "the token of another replica is used");
    }

    /// A token request succeeded after this time.
    pub(super) fn succeeded(&mut self, took: Duration) {
        self.last_failure = Default::default();
        let Self { credential, scopes, .. } = self;
        if took > SLOW_CALL {
            tracing::warn!(%credential, scopes, took_ms = milliseconds(took), "slow token request");
        }
    }

    /// A token request has not been answered for [`SLOW_CALL`].
    pub(super) fn unanswered(&self) {
        let Self { credential, scopes, token_url, .. } = self;
        tracing::warn!(%credential, scopes, token_url, under_way_s = SLOW_CALL.as_secs(),
            "token request not answered yet");
    }

    /// The tokens end so soon that requests wait for the next one.
    pub(super) fn short_life(&self) {
        let Self { credential, scopes, .. } = self;
        tracing::warn!(
            %credential,
            scopes,
            "token life is not above the least time between two calls; requests wait for the next token"
        );
    }

    /// The server granted less than it was asked for.
    pub(super) fn missing_scopes(&self, missing: &[String]) {
        let Self { credential, scopes, .. } = self;
        let missing = missing.join(" ");
        tracing::warn!(%credential, scopes, missing, "fewer scopes granted than requested");
    }

    /// The server issued the held token again.
    pub(super) fn same_token(&self) {
        let Self { credential, scopes, .. } = self;
        tracing::info!(%credential, scopes, "token server issued the same token again");
    }

    /// An upstream refuses the static token, and its source has no other.
    pub(super) fn static_token_rejected(&self) {
        let Self { credential, .. } = self;
        tracing::warn!(%credential, "an upstream refuses the static token; write a new one to its source");
    }

    /// The absolute expiry of an answer does not count, for this reason.
    pub(super) fn ignored_expiry(&self, reason: IgnoredExpiry) {
        let Self { credential, scopes, .. } = self;
        tracing::warn!(
            %credential,
            scopes,
            reason = reason.as_str(),
            "expires_at is past, more than 24 h off or unreadable; using expires_in"
        );
    }

    /// A token request failed. Equal failures leave at most one line in ten seconds, with their number.
    pub(super) fn failed(&mut self, call: &FailedCall<'_>) {
        let FailedCall { error, refusals, failures, next_try, took, held } = call;
        let failure = (error.to_string(), held.is_some());
        if failure != self.last_failure {
            (self.last_failure, self.repeated) = (failure, Throttle::default());
        }
        let Some(suppressed) = self.repeated.allow() else { return };
        let Self { credential, token_url, scopes, .. } = self;
        let hint = error.hint();
        // One macro for both lines, so that they have the same fields.
        macro_rules! line {
            ($($message:tt)*) => {
                tracing::warn!(
                    %credential,
                    scopes,
                    %error,
                    hint = hint.as_deref(),
                    token_url,
                    refusals_of_this_secret = refusals,
                    failures,
                    suppressed,
                    usable = held.is_some(),
                    next_try_s = next_try.map(seconds),
                    took_ms = error.called().then(|| milliseconds(*took)),
                    $($message)*
                )
            };
        }
        match held {
            Some(held) => {
                let until = date(held.usable_until.wall);
                line!("token request failed: renewal failed, the held token serves until {until}");
            }
            None => line!("token request failed"),
        }
    }

    /// A changed secret got its first verdict.
    pub(super) fn secret_changed(&self, rotation: Rotation, accepted: bool) {
        let (Self { credential, .. }, Rotation { from, to }) = (self, rotation);
        match accepted {
            true => tracing::info!(%credential, fingerprint = %to, was = %from,
                "the changed client secret is accepted"),
            false => tracing::warn!(%credential, fingerprint = %to, was = %from,
                "the changed client secret is refused; a token of the old one stays in use"),
        }
    }

    /// The server accepts the refresh token no more.
    pub(super) fn refresh_token_refused(&self) {
        let Self { credential, scopes, .. } = self;
        tracing::info!(%credential, scopes, "refresh token no longer accepted");
    }

    /// The lazy token was not used for its idle period.
    pub(super) fn dropped(&self) {
        let Self { credential, scopes, .. } = self;
        tracing::info!(%credential, scopes, "lazy token dropped after idle period");
    }

    /// Upstreams refuse each new token; the credential has this many tokens.
    pub(super) fn contended(&self, tokens: usize, shared: bool) {
        let Self { credential, scopes, .. } = self;
        if tokens > 1 {
            tracing::warn!(
                %credential,
                scopes,
                tokens,
                "contended: the upstream has refused three tokens within one life. The credential's own second \
                 token may revoke this one, which tokens = \"union\" avoids; or another instance does, or the API \
                 does not accept this client"
            );
        } else if shared {
            tracing::warn!(
                %credential,
                scopes,
                "contended: the upstream has refused three tokens within one life. A replica with another store, \
                 key_prefix or name_key in [share] may revoke ours, another program with the same client id may, \
                 or the API does not accept this client"
            );
        } else {
            tracing::warn!(
                %credential,
                scopes,
                "contended: the upstream has refused three tokens within one life. Another \
                 instance with the same client id may revoke ours, or the API does not accept \
                 this client"
            );
        }
    }

    /// The renewal waits for the answers of this many requests before it asks for the next token.
    pub(super) fn handing_over(&self, in_flight: usize) {
        let Self { credential, scopes, .. } = self;
        tracing::debug!(%credential, scopes, in_flight, "renewal hands over: new requests wait for its outcome");
    }

    /// This many requests got no head of an answer in time, and may get 401.
    pub(super) fn handover_timed_out(&self, in_flight: usize) {
        let Self { credential, scopes, .. } = self;
        tracing::info!(
            %credential,
            scopes,
            in_flight,
            "handover timeout: the next token is requested while requests are in flight with the old one"
        );
    }

    /// The token of a renewal without a known outcome was rejected by an upstream.
    pub(super) fn revoked_by_lost_renewal(&self) {
        let Self { credential, scopes, .. } = self;
        tracing::warn!(
            %credential,
            scopes,
            "token dropped: an upstream rejects it, and a renewal whose answer was lost may have revoked it"
        );
    }

    /// The budget of the hour is spent; another call is possible after this time.
    pub(super) fn over_budget(&self, usable: bool, free_in: Duration) {
        let Self { credential, scopes, .. } = self;
        tracing::error!(
            %credential,
            scopes,
            usable,
            free_in_s = free_in.as_secs(),
            "token_budget is spent; no token request until the hour has room for one"
        );
    }

    /// Reports when the token becomes unusable, and when it is usable again. A token whose next one has
    /// not failed is in neither state: requests wait for it.
    pub(super) fn usability(&mut self, usable: bool, reason: UnavailableReason, life: Duration) {
        let Self { credential, scopes, unusable_since, .. } = self;
        let cause = match reason {
            UnavailableReason::Failing(cause) => cause,
            UnavailableReason::BudgetSpent => "token_budget",
            UnavailableReason::Pending | UnavailableReason::HandingOver => "",
        };
        match (usable, *unusable_since) {
            // Tokens that live no longer than the interval of calls are unusable all the time.
            (false, None) if !cause.is_empty() && (life.is_zero() || life > MIN_CALL_INTERVAL) => {
                *unusable_since = Some(Instant::now());
                tracing::error!(%credential, scopes, cause,
                    "token unusable: requests that need it get 503");
            }
            (true, Some(since)) => {
                *unusable_since = None;
                let unusable_s = seconds(since.elapsed());
                tracing::info!(%credential, scopes, unusable_s, "token usable again");
            }
            _ => {}
        }
    }
}

/// Whole milliseconds.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
