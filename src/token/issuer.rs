//! `Issuer`: an authorization server whose endpoints are found by its metadata, and what was found last.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::net::Origin;
use crate::oauth::metadata::{IssuerSettings, ServerMetadata};

/// An issuer; clones share what was found of it.
#[derive(Clone)]
pub struct Issuer {
    /// Its identifier, and what the configuration allows.
    pub settings: Arc<IssuerSettings>,
    found: Arc<Found>,
}

/// The last good metadata.
#[derive(Default)]
struct Found {
    metadata: ArcSwapOption<ServerMetadata>,
    /// The time of the last good answer. Held across a fetch, so that the tokens of a credential share one.
    fetched: Mutex<Option<Instant>>,
    /// Set after a failed token request: the endpoint may have moved.
    doubted: AtomicBool,
}

impl Issuer {
    /// An issuer of which nothing is known yet.
    pub fn new(settings: IssuerSettings) -> Self {
        Self { settings: Arc::new(settings), found: Arc::default() }
    }

    /// The metadata that were found last; `None` before the first token request.
    pub fn found(&self) -> Option<Arc<ServerMetadata>> {
        self.found.metadata.load_full()
    }

    /// Shares what was found by an equal issuer of the configuration before this one.
    pub fn adopt(&mut self, before: &Self) {
        if self == before {
            self.found = Arc::clone(&before.found);
        }
    }

    /// Tells whether a path at an origin is that of an endpoint that was found. `could_alias` compares
    /// two paths.
    pub fn has_endpoint(
        &self,
        origin: &Origin,
        path: &str,
        could_alias: fn(&str, &str) -> bool,
    ) -> bool {
        self.found.metadata.load().as_ref().is_some_and(|found| {
            let mut endpoints = std::iter::once(&found.token).chain(&found.revocation);
            endpoints.any(|endpoint| {
                could_alias(path, endpoint.path())
                    && Origin::with_cleartext(endpoint.uri(), endpoint.cleartext())
                        .is_ok_and(|of| of == *origin)
            })
        })
    }

    /// Has the metadata fetched again before the next token request.
    pub(super) fn doubt(&self) {
        self.found.doubted.store(true, Ordering::Relaxed);
    }

    /// The time of the last good answer. Held across a fetch.
    pub(super) fn fetched(&self) -> &Mutex<Option<Instant>> {
        &self.found.fetched
    }

    /// Returns true, once, if a token request has failed since the last fetch.
    pub(super) fn take_doubt(&self) -> bool {
        self.found.doubted.swap(false, Ordering::Relaxed)
    }

    /// Replaces the metadata.
    pub(super) fn store(&self, metadata: Arc<ServerMetadata>) {
        self.found.metadata.store(Some(metadata));
    }
}

impl PartialEq for Issuer {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

impl Eq for Issuer {}

impl Hash for Issuer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.settings.hash(state);
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Issuer").field(&self.settings).finish()
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.settings.issuer)
    }
}
