//! The metrics of this folder. Labels are names and scopes from the configuration.
//!
//! Counters are counted where things happen. Gauges are computed at each scrape from the state of the
//! tokens, so that a token that ends takes no gauge of its successor with it.

use std::time::SystemTime;

use super::handle::ManagerHandle;
use super::status::TokenStatus;
use crate::clock::{Moment, unix_seconds};
use crate::telemetry::Registry;
use crate::telemetry::family::{Counters, Histogram, Histograms};
use crate::telemetry::metrics::TOKEN_SECONDS;

/// Values of the `result` label: `ok`, and those of [`FetchError::result`].
const RESULTS: [&str; 10] = [
    "ok",
    "denied",
    "rate_limited",
    "redirect",
    "malformed",
    "unreachable",
    "refused",
    "tls",
    "timeout",
    "error",
];
/// The `result` label of a rotation to a secret that the token server accepted.
pub(super) const ACCEPTED: &str = "accepted";
/// The `result` label of a rotation to a secret that the token server refused.
pub(super) const REFUSED: &str = "refused";

/// Computes the value of a gauge; `None` if there is none at the moment.
type Value = fn(&TokenStatus, Moment) -> Option<f64>;

/// Name, help text and value of each gauge of a token.
const TOKEN_GAUGES: [(&str, &str, Value); 8] = [
    ("bearer_proxy_token_usable", "1 if a usable token is held.", |token, now| {
        Some(flag(token.usable(now)))
    }),
    (
        "bearer_proxy_token_wanted",
        "1 if the token is kept fresh; 0 for a lazy one that was not used lately.",
        |token, _| Some(flag(token.wanted())),
    ),
    (
        "bearer_proxy_token_consecutive_failures",
        "Failed token requests since the token was last obtained.",
        |token, _| Some(token.failures.into()),
    ),
    (
        "bearer_proxy_token_expiry_timestamp_seconds",
        "Expiry time of the held token.",
        |token, _| token.expires.map(epoch),
    ),
    (
        "bearer_proxy_token_refresh_due_timestamp_seconds",
        "Time at which the next token request is due.",
        |token, _| token.refresh_due.map(epoch),
    ),
    (
        "bearer_proxy_token_last_success_timestamp_seconds",
        "Time at which a token was last obtained.",
        |token, _| token.last_success.map(epoch),
    ),
    (
        "bearer_proxy_token_missing_scopes",
        "Requested scopes that the token server did not grant.",
        |token, _| token.last_success.map(|_| token.missing_scopes.len() as f64),
    ),
    (
        "bearer_proxy_token_server_clock_offset_seconds",
        "Seconds by which the token server's clock is ahead of ours.",
        |token, _| token.clock_offset,
    ),
];

/// Name, help text and value of each gauge of a credential, of which any of its tokens knows.
const CREDENTIAL_GAUGES: [(&str, &str, Value); 4] = [
    (
        "bearer_proxy_token_budget",
        "Token requests that token_budget allows in any hour.",
        |token, _| token.budget.map(|calls| calls.get().into()),
    ),
    (
        "bearer_proxy_token_budget_left",
        "Token requests that are left of token_budget in this hour.",
        |token, _| token.budget_left.map(f64::from),
    ),
    (
        "bearer_proxy_secret_refused",
        "1 if the token server refused the client secret last, and accepted none since.",
        |token, _| Some(flag(token.secret_refused)),
    ),
    (
        "bearer_proxy_secret_last_change_timestamp_seconds",
        "Time at which a changed client secret was first sent to the token server.",
        |token, _| token.secret_changed.map(epoch),
    ),
];

/// Name, help text and value of each gauge of a token that replicas share.
#[cfg(feature = "share")]
const SHARE_GAUGES: [(&str, &str, Value); 3] = [
    ("bearer_proxy_share_leader", "1 if this replica obtained the held token.", |token, _| {
        token.share.as_ref().map(|share| flag(share.leads()))
    }),
    (
        "bearer_proxy_share_generation",
        "Generation of the held token among all replicas; 0 without a token.",
        |token, _| token.share.as_ref().map(|share| share.generation as f64),
    ),
    (
        "bearer_proxy_share_alone",
        "1 if this replica acts without the store of shared tokens.",
        |token, _| token.share.as_ref().map(|share| flag(share.trouble.is_some())),
    ),
];

/// The families of this folder, of one manager.
#[derive(Clone)]
pub struct TokenMetrics {
    /// The tokens whose state the gauges show.
    tokens: ManagerHandle,
    requests: Counters,
    duration: Histograms,
    rotations: Counters,
    contended: Counters,
    disagreements: Counters,
    handover_wait: Histograms,
    handover_timeouts: Counters,
    pub(super) clock_jumps: Counters,
}

impl TokenMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// A family of the same name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let tokens = ManagerHandle::default();
        register_gauges(registry, &tokens)?;
        Ok(Self {
            tokens,
            requests: registry.counter_vec(
                "bearer_proxy_token_requests_total",
                "Token requests, by result: ok, denied (a 4xx of the token server), rate_limited, redirect, \
                 malformed, unreachable (DNS, TCP, egress proxy), refused (nothing listens there), tls, timeout, or \
                 error (5xx, a broken exchange). Without a call, for want of a secret, none is counted.",
                &["credential", "result"],
            )?,
            duration: registry.histogram_vec(
                "bearer_proxy_token_request_duration_seconds",
                "Duration of a token request, including the connection.",
                &["credential"],
                TOKEN_SECONDS,
            )?,
            rotations: registry.counter_vec(
                "bearer_proxy_secret_rotations_total",
                "Client secret rotations, by whether the token server accepted the new secret.",
                &["credential", "result"],
            )?,
            contended: registry.counter_vec(
                "bearer_proxy_token_contended_total",
                "Times that an upstream refused three tokens within the life of one.",
                &["credential"],
            )?,
            disagreements: registry.counter_vec(
                "bearer_proxy_token_expiry_disagreements_total",
                "Token responses whose absolute expiry is past, more than 24 h off or unreadable.",
                &["credential"],
            )?,
            handover_wait: registry.histogram_vec(
                "bearer_proxy_token_handover_wait_seconds",
                "Time that a request waited because a renewal handed over (one_live_token).",
                &["credential"],
                TOKEN_SECONDS,
            )?,
            handover_timeouts: registry.counter_vec(
                "bearer_proxy_token_handover_timeouts_total",
                "Renewals that asked for the next token while requests were in flight with the old one, because \
                 their answers had not begun within 2 s.",
                &["credential"],
            )?,
            clock_jumps: registry.counter_vec(
                "bearer_proxy_clock_jumps_total",
                "Clock jumps detected (suspend, step forward, step back, stall).",
                &["kind"],
            )?,
        })
    }

    /// Registers the gauges of tokens that replicas share.
    ///
    /// # Errors
    /// A family of the same name is registered already.
    #[cfg(feature = "share")]
    pub fn register_shared(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        register_token_gauges(registry, &self.tokens, &SHARE_GAUGES)
    }

    /// The tokens whose state the gauges show: the list that the manager keeps.
    pub(super) fn tokens(&self) -> ManagerHandle {
        self.tokens.clone()
    }

    /// The counters of the calls of one credential; they appear at once, at 0.
    pub(super) fn of(&self, credential: &str, one_live_token: bool) -> CallMetrics {
        for result in RESULTS {
            self.requests.with_label_values(&[credential, result]);
        }
        for counter in [&self.contended, &self.disagreements] {
            counter.with_label_values(&[credential]);
        }
        if one_live_token {
            self.handover_timeouts.with_label_values(&[credential]);
            self.handover_wait.with_label_values(&[credential]);
        }
        for result in [ACCEPTED, REFUSED] {
            self.rotations.with_label_values(&[credential, result]);
        }
        CallMetrics { all: self.clone(), credential: credential.to_owned() }
    }
}

fn register_gauges(registry: &Registry, tokens: &ManagerHandle) -> Result<(), prometheus::Error> {
    register_token_gauges(registry, tokens, &TOKEN_GAUGES)?;
    for (name, help, value) in CREDENTIAL_GAUGES {
        let tokens = tokens.clone();
        registry.polled_gauge_vec(name, help, &["credential"], move |gauges| {
            each(&tokens, value, |token, value| {
                gauges.with_label_values(&[&*token.credential]).set(value);
            });
        })?;
    }
    Ok(())
}

/// Registers gauges of single tokens.
fn register_token_gauges(
    registry: &Registry,
    tokens: &ManagerHandle,
    gauges: &[(&'static str, &'static str, Value)],
) -> Result<(), prometheus::Error> {
    for (name, help, value) in gauges.iter().copied() {
        let tokens = tokens.clone();
        registry.polled_gauge_vec(name, help, &["credential", "scopes"], move |gauges| {
            each(&tokens, value, |token, value| {
                let labels = [&*token.credential, &token.scopes_label()];
                gauges.with_label_values(&labels).set(value);
            });
        })?;
    }
    Ok(())
}

/// Calls `set` with each token that has the value at the moment.
fn each(tokens: &ManagerHandle, value: Value, set: impl Fn(&TokenStatus, f64)) {
    let now = Moment::now();
    for token in tokens.statuses() {
        value(&token, now).into_iter().for_each(|value| set(&token, value));
    }
}

/// The counters of the calls of one credential.
pub(super) struct CallMetrics {
    all: TokenMetrics,
    credential: String,
}

impl CallMetrics {
    pub(super) fn called(&self, result: &str, seconds: f64) {
        self.all.requests.with_label_values(&[&self.credential, result]).inc();
        self.all.duration.with_label_values(&[&self.credential]).observe(seconds);
    }

    /// Counts a changed secret by its first verdict.
    pub(super) fn rotated(&self, result: &str) {
        self.all.rotations.with_label_values(&[&self.credential, result]).inc();
    }

    pub(super) fn contended(&self) {
        self.all.contended.with_label_values(&[&self.credential]).inc();
    }

    pub(super) fn handover_timed_out(&self) {
        self.all.handover_timeouts.with_label_values(&[&self.credential]).inc();
    }

    /// The histogram of the waits of requests for a handover.
    pub(super) fn handover_wait(&self) -> Histogram {
        self.all.handover_wait.with_label_values(&[&self.credential])
    }

    pub(super) fn disagreement(&self) {
        self.all.disagreements.with_label_values(&[&self.credential]).inc();
    }
}

fn flag(value: bool) -> f64 {
    u8::from(value).into()
}

fn epoch(time: SystemTime) -> f64 {
    unix_seconds(time).unwrap_or_default()
}
