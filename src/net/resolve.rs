//! The system's resolver, so the hosts file and split DNS count.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;

/// The system's resolver. It counts pending lookups, and marks its errors as errors of DNS.
#[derive(Clone)]
pub(super) struct Resolver {
    system: GaiResolver,
    /// Number of pending lookups.
    pub(super) pending: Arc<AtomicUsize>,
}

impl Resolver {
    pub(super) fn new() -> Self {
        Self { system: GaiResolver::new(), pending: Arc::default() }
    }
}

/// Counts one pending lookup while it exists.
pub(super) struct PendingLookup(Arc<AtomicUsize>);

impl PendingLookup {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for PendingLookup {
    fn drop(&mut self) {
        // A guard, because a time-out drops the lookup's future in the middle. `Relaxed` is enough: the
        // count only chooses the words of an error.
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A lookup failed. A type of its own, so that it can be found in the source chain of hyper-util's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct DnsError(io::Error);

impl Service<Name> for Resolver {
    type Response = <GaiResolver as Service<Name>>::Response;
    type Error = DnsError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DnsError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DnsError>> {
        self.system.poll_ready(cx).map_err(DnsError)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let lookup = self.system.call(name);
        // Counted from the call, not from the first poll: the system's thread starts with the call.
        let pending = PendingLookup::new(&self.pending);
        Box::pin(async move {
            let found = lookup.await.map_err(DnsError);
            drop(pending);
            found
        })
    }
}
