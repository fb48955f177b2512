//! `Store`: reads references for the life of the process, counts the readings, and caches the values of
//! remote stores.
//!
//! A local source is read each time, so that the next token request uses a rotated secret. A remote
//! store is read again when the cached value has reached its time to live, or at once when the token
//! server refused the value. While the store cannot be reached, its last value stays in use for an
//! hour: a secret that is an hour old is mostly right, and no secret is always wrong.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::SecretError;
use super::reference::Reference;
use super::source_states::SourceStates;
use super::text::CredentialPart;
use crate::sensitive::Sensitive;
use crate::telemetry::Registry;
use crate::telemetry::family::Counters;

/// Cached values; when there would be more, the cache is emptied and read again.
const MAX_CACHED: usize = 256;
/// The time for which a value stays in use beyond its time to live while its source cannot be reached.
const STALE: Duration = Duration::from_secs(3600);

/// The required freshness of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// A cached value will do within its time to live.
    Cached,
    /// The value must be read now, because the cached one was refused.
    Fresh,
}

/// Reads references.
pub struct Store {
    /// A value of `None` has not been read yet. Its lock is held across the reading, so that callers
    /// who need the same value wait for one reading.
    cache: StdMutex<HashMap<Reference, Arc<Mutex<Option<CachedSecret>>>>>,
    reads: Counters,
    sources: SourceStates,
}

struct CachedSecret {
    value: Sensitive,
    read_at: Instant,
}

impl Store {
    /// A store with an empty cache.
    ///
    /// # Errors
    /// The name of its metric is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = "bearer_proxy_secret_reads_total";
        let help = "Readings of secrets and client ids, by kind of source and result.";
        let reads = registry.counter_vec(name, help, &["source", "result"])?;
        Ok(Self { cache: StdMutex::default(), reads, sources: SourceStates::default() })
    }

    /// The states of all sources that were read.
    pub fn sources(&self) -> &SourceStates {
        &self.sources
    }

    /// Makes the counters of a source appear, at 0.
    pub fn register_counters(&self, reference: &Reference) {
        for result in ["ok", "missing", "unreadable"] {
            self.reads.with_label_values(&[reference.kind().as_str(), result]);
        }
    }

    /// Reads a value.
    ///
    /// # Errors
    /// As [`Reference::read`].
    pub async fn read(
        &self,
        reference: &Reference,
        kind: CredentialPart,
        freshness: Freshness,
    ) -> Result<Sensitive, SecretError> {
        let ttl = reference.cache_ttl();
        if ttl.is_zero() {
            return self.read_source(reference, kind).await;
        }
        let requested_at = Instant::now();
        let entry = self.entry(reference);
        let mut cached = entry.lock().await;
        if let Some(CachedSecret { value, read_at }) = &*cached {
            let within_ttl = freshness == Freshness::Cached && read_at.elapsed() < ttl;
            // A value that was read while this caller waited for the lock is fresh enough for it.
            if within_ttl || *read_at >= requested_at {
                return Ok(value.clone());
            }
        }
        match (self.read_source(reference, kind).await, &*cached) {
            (Ok(value), _) => {
                *cached = Some(CachedSecret { value: value.clone(), read_at: Instant::now() });
                Ok(value)
            }
            (Err(error), Some(CachedSecret { value, read_at }))
                if error.is_transient() && read_at.elapsed() < ttl + STALE =>
            {
                tracing::warn!(%error, read_s_ago = read_at.elapsed().as_secs(),
                    "secret store unreachable; the value that was read last stays in use");
                Ok(value.clone())
            }
            (Err(error), _) => Err(error),
        }
    }

    fn entry(&self, reference: &Reference) -> Arc<Mutex<Option<CachedSecret>>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= MAX_CACHED && !cache.contains_key(reference) {
            cache.clear();
        }
        Arc::clone(cache.entry(reference.clone()).or_default())
    }

    async fn read_source(
        &self,
        reference: &Reference,
        kind: CredentialPart,
    ) -> Result<Sensitive, SecretError> {
        let found = reference.read_as(kind).await;
        let result = found.as_ref().map_or_else(SecretError::result, |_| "ok");
        self.reads.with_label_values(&[reference.kind().as_str(), result]).inc();
        self.sources.note(reference, &found);
        found
    }
}
