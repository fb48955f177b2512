//! `Store`: reads references for the life of the process, counts it, and keeps for a while what came
//! from far away.
//!
//! What is local is read each time, so that a rotated secret is used by the next token call. A
//! remote store is asked again when its value's time has passed, or at once when the value was
//! refused. While it cannot be reached, the last value stays in use for an hour: a secret that is an
//! hour old is mostly right, and no secret is always wrong.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Reference, SecretError};
use crate::sensitive::Sensitive;
use crate::telemetry::Registry;
use crate::telemetry::family::Counters;

/// References that are remembered; above it, all are forgotten and read again.
const MAX_KEPT: usize = 256;
/// How long a value outlives its time while its source cannot be reached.
const STALE: Duration = Duration::from_secs(3600);

/// How new a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// As its source allows: a remote one says for how long a value may be kept.
    Cached,
    /// Read now: what is kept was refused.
    Fresh,
}

/// Reads references.
pub struct Store {
    kept: StdMutex<HashMap<Reference, Arc<Mutex<Option<Kept>>>>>,
    reads: Counters,
}

/// A value, and when it was read.
struct Kept {
    value: Sensitive,
    read: Instant,
}

impl Store {
    /// A store that has read nothing.
    ///
    /// # Errors
    /// Where its metric's name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = "bearer_proxy_secret_reads_total";
        let help = "Readings of secrets and client ids, by kind of source and result.";
        let reads = registry.counter_vec(name, help, &["source", "result"])?;
        Ok(Self { kept: StdMutex::default(), reads })
    }

    /// Lets the counters of a source appear, at 0.
    pub fn register_counters(&self, reference: &Reference) {
        for result in ["ok", "missing", "unreadable"] {
            self.reads.with_label_values(&[reference.kind(), result]);
        }
    }

    /// Reads a secret.
    ///
    /// # Errors
    /// As [`Reference::read`].
    pub async fn read(
        &self,
        reference: &Reference,
        freshness: Freshness,
    ) -> Result<Sensitive, SecretError> {
        if reference.cache_ttl().is_zero() {
            return self.counted(reference, reference.read().await);
        }
        self.remote(reference, freshness).await
    }

    /// Reads a client id.
    ///
    /// # Errors
    /// As [`Reference::read_id`].
    pub async fn read_id(
        &self,
        reference: &Reference,
        freshness: Freshness,
    ) -> Result<Sensitive, SecretError> {
        if reference.cache_ttl().is_zero() {
            return self.counted(reference, reference.read_id().await);
        }
        self.remote(reference, freshness).await
    }

    /// Asks a remote source where the kept value will not do; whoever else asks meanwhile waits for
    /// the same answer.
    async fn remote(
        &self,
        reference: &Reference,
        freshness: Freshness,
    ) -> Result<Sensitive, SecretError> {
        let asked = Instant::now();
        let entry = self.entry(reference);
        let mut kept = entry.lock().await;
        if let Some(Kept { value, read }) = &*kept {
            let recent = freshness == Freshness::Cached && read.elapsed() < reference.cache_ttl();
            if recent || *read >= asked {
                return Ok(value.clone());
            }
        }
        match self.counted(reference, reference.read().await) {
            Ok(value) => {
                *kept = Some(Kept { value: value.clone(), read: Instant::now() });
                Ok(value)
            }
            Err(error) => fallback(kept.as_ref(), reference, error),
        }
    }

    fn entry(&self, reference: &Reference) -> Arc<Mutex<Option<Kept>>> {
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_KEPT && !all.contains_key(reference) {
            all.clear();
        }
        Arc::clone(all.entry(reference.clone()).or_default())
    }

    fn counted(
        &self,
        reference: &Reference,
        found: Result<Sensitive, SecretError>,
    ) -> Result<Sensitive, SecretError> {
        let result = found.as_ref().map_or_else(SecretError::result, |_| "ok");
        self.reads.with_label_values(&[reference.kind(), result]).inc();
        found
    }
}

/// The last value, where only the way to its source is broken.
fn fallback(
    kept: Option<&Kept>,
    reference: &Reference,
    error: SecretError,
) -> Result<Sensitive, SecretError> {
    match kept {
        Some(kept)
            if error.is_transient() && kept.read.elapsed() < reference.cache_ttl() + STALE =>
        {
            tracing::warn!(%error, read_s_ago = kept.read.elapsed().as_secs(),
                "the value that was read last stays in use");
            Ok(kept.value.clone())
        }
        _ => Err(error),
    }
}
