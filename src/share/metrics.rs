//! The metrics of the store of shared tokens.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::protocol::{AcquireReply, PublishReply};
use super::store::StoreError;
use crate::telemetry::Registry;
use crate::telemetry::family::{Counters, Histograms};

/// Buckets of an operation, in seconds, up to the default time-out.
const OPERATION_SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5];

/// An operation of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOperation {
    /// Asking for a token or the lead.
    Acquire,
    /// Renewing a lease.
    Renew,
    /// Publishing a token.
    Publish,
    /// Giving the lead back.
    Fail,
    /// Announcing a handover.
    Handover,
}

impl StoreOperation {
    const ALL: [Self; 5] = [Self::Acquire, Self::Renew, Self::Publish, Self::Fail, Self::Handover];

    /// The `operation` label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::Renew => "renew",
            Self::Publish => "publish",
            Self::Fail => "fail",
            Self::Handover => "handover",
        }
    }

    /// The results that an operation may have.
    fn outcomes(self) -> &'static [Outcome] {
        match self {
            Self::Acquire => {
                &[Outcome::Ok, Outcome::Held, Outcome::Wait, Outcome::Unreachable, Outcome::Refused]
            }
            Self::Renew | Self::Publish | Self::Fail => {
                &[Outcome::Ok, Outcome::Superseded, Outcome::Unreachable, Outcome::Refused]
            }
            Self::Handover => &[Outcome::Ok, Outcome::Unreachable, Outcome::Refused],
        }
    }
}

/// The result of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did what was asked.
    Ok,
    /// Another replica renews the token.
    Held,
    /// No replica may renew the token now.
    Wait,
    /// Another replica has taken the lead, or has published a later token.
    Superseded,
    /// The store was not reached in time.
    Unreachable,
    /// The store refused the operation, or replied with something unknown.
    Refused,
}

impl Outcome {
    /// The result of an operation that failed.
    pub fn of_error(error: &StoreError) -> Self {
        match error {
            StoreError::Unreachable(_) => Self::Unreachable,
            StoreError::Refused(_)
            | StoreError::Misconfigured(_)
            | StoreError::Unusable(_)
            | StoreError::Malformed => Self::Refused,
        }
    }

    /// The result of asking for a token or the lead.
    pub(super) fn of_acquired(reply: &AcquireReply) -> Self {
        match reply {
            AcquireReply::Held(_) => Self::Held,
            AcquireReply::Wait(_) => Self::Wait,
            AcquireReply::Token(_) | AcquireReply::NoOther | AcquireReply::Lead(_) => Self::Ok,
        }
    }

    /// The result of a publication.
    pub(super) fn of_published(reply: &PublishReply) -> Self {
        match reply {
            PublishReply::Accepted => Self::Ok,
            PublishReply::Superseded(_) => Self::Superseded,
        }
    }

    /// The result of an operation of a leader, by whether it still leads.
    pub(super) fn of_lease(kept: &bool) -> Self {
        if *kept { Self::Ok } else { Self::Superseded }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Held => "held",
            Self::Wait => "wait",
            Self::Superseded => "superseded",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
        }
    }
}

/// The families of the store. Clones share them.
#[derive(Clone)]
pub struct ShareMetrics {
    operations: Counters,
    duration: Histograms,
    /// The state of the store that was made last; a reload may make another one.
    reached: Arc<Mutex<Option<watch::Receiver<bool>>>>,
}

impl ShareMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// A family of the same name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reached = Arc::<Mutex<Option<watch::Receiver<bool>>>>::default();
        let shown = Arc::clone(&reached);
        registry.polled_gauge_vec(
            "bearer_proxy_share_connected",
            "1 if the store of shared tokens is reached. Without [share] there is no value.",
            &[],
            move |gauges| {
                let reached = shown.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(reached) = &*reached {
                    gauges.with_label_values(&[]).set(u8::from(*reached.borrow()));
                }
            },
        )?;
        Ok(Self {
            operations: registry.counter_vec(
                "bearer_proxy_share_operations_total",
                "Operations of the store of shared tokens, by result: ok, held (another replica renews the \
                 token), wait (none may renew it now), superseded (another replica has taken over), unreachable, \
                 or refused (a login or a right that is missing).",
                &["operation", "result"],
            )?,
            duration: registry.histogram_vec(
                "bearer_proxy_share_operation_duration_seconds",
                "Duration of an operation of the store of shared tokens.",
                &["operation"],
                OPERATION_SECONDS,
            )?,
            reached,
        })
    }

    /// Shows the state of a store from now on. The counters appear, at 0.
    pub fn follow(&self, reached: watch::Receiver<bool>) {
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner) = Some(reached);
        for operation in StoreOperation::ALL {
            for outcome in operation.outcomes() {
                self.operations.with_label_values(&[operation.as_str(), outcome.as_str()]);
            }
            self.duration.with_label_values(&[operation.as_str()]);
        }
    }

    /// Runs an operation, and counts its outcome and its duration.
    pub async fn counted<T>(
        &self,
        operation: StoreOperation,
        outcome: fn(&T) -> Outcome,
        result: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let result = result.await;
        let outcome = result.as_ref().map_or_else(Outcome::of_error, outcome);
        self.ended(operation, outcome, started.elapsed());
        result
    }

    fn ended(&self, operation: StoreOperation, outcome: Outcome, duration: Duration) {
        let operation = operation.as_str();
        self.operations.with_label_values(&[operation, outcome.as_str()]).inc();
        self.duration.with_label_values(&[operation]).observe(duration.as_secs_f64());
    }
}
