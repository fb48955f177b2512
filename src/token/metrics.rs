//! What this folder counts. Labels are names from the configuration and a token's number.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::telemetry::Registry;
use crate::telemetry::family::{Counters, Gauges, Histograms};
use crate::telemetry::metrics::TOKEN_SECONDS;

/// Values of the `result` label.
const RESULTS: [&str; 5] = ["ok", "denied", "error", "timeout", "malformed"];

/// The families of this folder.
#[derive(Clone)]
pub struct TokenMetrics {
    requests: Counters,
    duration: Histograms,
    expiry: Gauges,
    refresh_due: Gauges,
    last_success: Gauges,
    usable: Gauges,
    missing_scopes: Gauges,
    rotations: Counters,
    last_change: Gauges,
    clock_offset: Gauges,
    budget_left: Gauges,
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
        let token = &["credential", "token"];
        Ok(Self {
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
            expiry: registry.gauge_vec(
                "bearer_proxy_token_expiry_timestamp_seconds",
                "When the held token ends.",
                token,
            )?,
            refresh_due: registry.gauge_vec(
                "bearer_proxy_token_refresh_due_timestamp_seconds",
                "When the next call for this token is due.",
                token,
            )?,
            last_success: registry.gauge_vec(
                "bearer_proxy_token_last_success_timestamp_seconds",
                "When a token was last obtained.",
                token,
            )?,
            usable: registry.gauge_vec(
                "bearer_proxy_token_usable",
                "Whether a token is held that may be sent.",
                token,
            )?,
            missing_scopes: registry.gauge_vec(
                "bearer_proxy_token_missing_scopes",
                "Scopes that were asked for and not granted.",
                token,
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
            clock_offset: registry.gauge_vec(
                "bearer_proxy_token_server_clock_offset_seconds",
                "How far the token server's clock is ahead of ours.",
                token,
            )?,
            budget_left: registry.gauge_vec(
                "bearer_proxy_token_budget_left",
                "Calls that token_budget leaves for this hour.",
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

    /// The metrics of one token; its counters appear at once, at 0.
    pub(super) fn of(&self, credential: &str, token: &str) -> PerTokenMetrics {
        for result in RESULTS {
            self.requests.with_label_values(&[credential, result]);
        }
        for counter in [&self.contended, &self.disagreements] {
            counter.with_label_values(&[credential]);
        }
        self.usable.with_label_values(&[credential, token]).set(0);
        PerTokenMetrics {
            all: self.clone(),
            credential: credential.to_owned(),
            token: token.to_owned(),
        }
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

/// The metrics of one token; its gauges go with it.
pub(super) struct PerTokenMetrics {
    all: TokenMetrics,
    credential: String,
    token: String,
}

impl PerTokenMetrics {
    pub(super) fn called(&self, result: &str, seconds: f64) {
        self.all.requests.with_label_values(&[&self.credential, result]).inc();
        self.all.duration.with_label_values(&[&self.credential]).observe(seconds);
    }

    pub(super) fn issued(&self, expires: SystemTime, missing_scopes: usize) {
        let labels = [self.credential.as_str(), self.token.as_str()];
        self.all.expiry.with_label_values(&labels).set(epoch(expires));
        self.all.last_success.with_label_values(&labels).set(epoch(SystemTime::now()));
        self.all.missing_scopes.with_label_values(&labels).set(missing_scopes as f64);
    }

    pub(super) fn contended(&self) {
        self.all.contended.with_label_values(&[&self.credential]).inc();
    }

    pub(super) fn disagreement(&self) {
        self.all.disagreements.with_label_values(&[&self.credential]).inc();
    }

    pub(super) fn clock_offset(&self, seconds: f64) {
        let labels = [self.credential.as_str(), self.token.as_str()];
        self.all.clock_offset.with_label_values(&labels).set(seconds);
    }

    pub(super) fn budget_left(&self, calls: u32) {
        self.all.budget_left.with_label_values(&[&self.credential]).set(calls);
    }

    /// A gauge of a moment goes when there is no such moment.
    pub(super) fn state(&self, usable: bool, due: Option<SystemTime>) {
        let labels = [self.credential.as_str(), self.token.as_str()];
        self.all.usable.with_label_values(&labels).set(u8::from(usable));
        match due {
            Some(due) => self.all.refresh_due.with_label_values(&labels).set(epoch(due)),
            None => self.all.refresh_due.remove_label_values(&labels),
        }
    }

    pub(super) fn let_go(&self) {
        let labels = [self.credential.as_str(), self.token.as_str()];
        self.all.expiry.remove_label_values(&labels);
    }
}

impl Drop for PerTokenMetrics {
    fn drop(&mut self) {
        let labels = [self.credential.as_str(), self.token.as_str()];
        let all = &self.all;
        let moments = [&all.expiry, &all.refresh_due, &all.last_success, &all.clock_offset];
        for gauge in moments.into_iter().chain([&all.usable, &all.missing_scopes]) {
            gauge.remove_label_values(&labels);
        }
        all.budget_left.remove_label_values(&[&self.credential]);
    }
}

fn epoch(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
