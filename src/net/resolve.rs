//! The system's resolver: the hosts file and split DNS count.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;

/// The system's resolver; its failures are told apart from those of TCP.
#[derive(Clone)]
pub(super) struct Resolver {
    system: GaiResolver,
    /// How many lookups are under progress.
    pub(super) pending: Arc<AtomicUsize>,
}

impl Resolver {
    pub(super) fn new() -> Self {
        Self { system: GaiResolver::new(), pending: Arc::default() }
    }
}

/// Counts a lookup for as long as somebody waits for it.
pub(super) struct PendingLookup(Arc<AtomicUsize>);

impl PendingLookup {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for PendingLookup {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(super) struct DnsError(io::Error);

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for DnsError {}

impl Service<Name> for Resolver {
    type Response = <GaiResolver as Service<Name>>::Response;
    type Error = DnsError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DnsError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DnsError>> {
        self.system.poll_ready(cx).map_err(DnsError)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let lookup = self.system.call(name);
        let pending = PendingLookup::new(&self.pending);
        Box::pin(async move {
            let found = lookup.await.map_err(DnsError);
            drop(pending);
            found
        })
    }
}
