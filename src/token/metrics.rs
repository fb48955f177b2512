//! The metrics of this folder. Labels are names and scopes from the configuration.
//!
//! Counters are counted where things happen. Gauges are computed at each scrape from the state of the
//! tokens, so that a token that ends takes no gauge of its successor with it.

use std::time::{SystemTime, UNIX_EPOCH};

use super::handle::ManagerHandle;
use super::status::TokenStatus;
use crate::clock::Moment;
use crate::telemetry::Registry;
use crate::telemetry::family::{Counters, Gauges, Histograms};
use crate::telemetry::metrics::TOKEN_SECONDS;

/// Values of the `result` label.
const RESULTS: [&str; 5] = ["ok", "denied", "error", "timeout", "malformed"];

/// Computes the value of a gauge; `None` if there is none at the moment.
type Value = fn(&TokenStatus, Moment) -> Option<f64>;

/// Name, help text and value of each gauge of a token.
const TOKEN_GAUGES: [(&str, &str, Value); 8] = [
    ("bearer_proxy_token_usable", "Whether a token is held that may be sent.", |token, now| {
        Some(flag(token.usable(now)))
    }),
    (
        "bearer_proxy_token_wanted",
        "1 if the token is to be kept; 0 for a lazy one that was not used lately.",
        |token, _| Some(flag(token.wanted())),
    ),
    (
        "bearer_proxy_token_consecutive_failures",
        "Failed calls since the token was last obtained.",
        |token, _| Some(token.failures.into()),
    ),
    ("bearer_proxy_token_expiry_timestamp_seconds", "When the held token ends.", |token, _| {
        token.expires.map(epoch)
    }),
    (
        "bearer_proxy_token_refresh_due_timestamp_seconds",
        "When the next call for this token is due.",
        |token, _| token.refresh_due.map(epoch),
    ),
    (
        "bearer_proxy_token_last_success_timestamp_seconds",
        "When a token was last obtained.",
        |token, _| token.last_success.map(epoch),
    ),
    (
        "bearer_proxy_token_missing_scopes",
        "Scopes that were asked for and not granted.",
        |token, _| token.last_success.map(|_| token.missing_scopes.len() as f64),
    ),
    (
        "bearer_proxy_token_server_clock_offset_seconds",
        "How far the token server's clock is ahead of ours.",
        |token, _| token.clock_offset,
    ),
];

/// Name, help text and value of each gauge of a credential, of which any of its tokens knows.
const CREDENTIAL_GAUGES: [(&str, &str, Value); 3] = [
    ("bearer_proxy_token_budget", "Calls that token_budget allows in any hour.", |token, _| {
        token.budget.map(|calls| calls.get().into())
    }),
    (
        "bearer_proxy_token_budget_left",
        "Calls that token_budget leaves for this hour.",
        |token, _| token.budget_left.map(f64::from),
    ),
    (
        "bearer_proxy_secret_refused",
        "1 if the token server refused the client secret last, and accepted none since.",
        |token, _| Some(flag(token.secret_refused)),
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
    last_change: Gauges,
    contended: Counters,
    disagreements: Counters,
    pub(super) clock_jumps: Counters,
}

impl TokenMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// Where a family of the same name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let tokens = ManagerHandle::default();
        register_gauges(registry, &tokens)?;
        Ok(Self {
            tokens,
            requests: registry.counter_vec(
                "bearer_proxy_token_requests_total",
                "Calls to token endpoints, by result.",
                &["credential", "result"],
            )?,
            duration: registry.histogram_vec(
                "bearer_proxy_token_request_duration_seconds",
                "Time of a call to a token endpoint, connecting included.",
                &["credential"],
                TOKEN_SECONDS,
            )?,
            rotations: registry.counter_vec(
                "bearer_proxy_secret_rotations_total",
                "Changed client secrets, by what the token server thought of them.",
                &["credential", "result"],
            )?,
            last_change: registry.gauge_vec(
                "bearer_proxy_secret_last_change_timestamp_seconds",
                "When a changed client secret was first shown to the token server.",
                &["credential"],
            )?,
            contended: registry.counter_vec(
                "bearer_proxy_token_contended_total",
                "Times that an upstream had refused three tokens within one life.",
                &["credential"],
            )?,
            disagreements: registry.counter_vec(
                "bearer_proxy_token_expiry_disagreements_total",
                "Answers whose relative and absolute expiry differ by more than 60 s.",
                &["credential"],
            )?,
            clock_jumps: registry.counter_vec(
                "bearer_proxy_clock_jumps_total",
                "Times that the clocks parted, or the program stood still.",
                &["kind"],
            )?,
        })
    }

    /// The tokens whose state the gauges show: the list that the manager keeps.
    pub(super) fn tokens(&self) -> ManagerHandle {
        self.tokens.clone()
    }

    /// The metrics of one login; its counters appear at once, at 0.
    pub(super) fn of_client_secret(&self, credential: &str) -> ClientSecretMetrics {
        for result in ["accepted", "refused"] {
            self.rotations.with_label_values(&[credential, result]);
        }
        ClientSecretMetrics {
            rotations: self.rotations.clone(),
            last_change: self.last_change.clone(),
            credential: credential.to_owned(),
        }
    }

    /// The counters of the calls of one credential; they appear at once, at 0.
    pub(super) fn of(&self, credential: &str) -> CallMetrics {
        for result in RESULTS {
            self.requests.with_label_values(&[credential, result]);
        }
        for counter in [&self.contended, &self.disagreements] {
            counter.with_label_values(&[credential]);
        }
        CallMetrics { all: self.clone(), credential: credential.to_owned() }
    }
}

fn register_gauges(registry: &Registry, tokens: &ManagerHandle) -> Result<(), prometheus::Error> {
    for (name, help, value) in TOKEN_GAUGES {
        let tokens = tokens.clone();
        registry.polled_gauge_vec(name, help, &["credential", "scopes"], move |gauges| {
            each(&tokens, value, |token, value| {
                let labels = [&*token.credential, &token.scopes_label()];
                gauges.with_label_values(&labels).set(value);
            });
        })?;
    }
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

/// Calls `set` with each token that has the value at the moment.
fn each(tokens: &ManagerHandle, value: Value, set: impl Fn(&TokenStatus, f64)) {
    let now = Moment::now();
    for token in tokens.statuses() {
        value(&token, now).into_iter().for_each(|value| set(&token, value));
    }
}

/// The metrics of one login.
pub(super) struct ClientSecretMetrics {
    rotations: Counters,
    last_change: Gauges,
    credential: String,
}

impl ClientSecretMetrics {
    /// A changed secret was `accepted` or `refused`.
    pub(super) fn rotated(&self, result: &str) {
        self.rotations.with_label_values(&[&self.credential, result]).inc();
        self.last_change.with_label_values(&[&self.credential]).set(epoch(SystemTime::now()));
    }
}

impl Drop for ClientSecretMetrics {
    fn drop(&mut self) {
        self.last_change.remove_label_values(&[&self.credential]);
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

    pub(super) fn contended(&self) {
        self.all.contended.with_label_values(&[&self.credential]).inc();
    }

    pub(super) fn disagreement(&self) {
        self.all.disagreements.with_label_values(&[&self.credential]).inc();
    }
}

fn flag(value: bool) -> f64 {
    u8::from(value).into()
}

fn epoch(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
