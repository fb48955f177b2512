//! Header values from the configuration: `set_headers` of upstreams and local keys of clients.
//!
//! Secrets among them are re-read, so a rotated key needs neither restart nor reload, and a secret that
//! was missing at the start is found later.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::proxy::policy::plan::{LocalKeys, SetHeaders};
use crate::proxy::policy::settings::{ClientCredential, HeaderText, ProxySettings};
use crate::secret::{Reference, SourceStates};

/// The header values of one configuration.
#[derive(Debug, Default)]
pub(super) struct HeaderValues {
    /// `set_headers` with a literal value, by upstream and name.
    literals: Vec<((Arc<str>, HeaderName), HeaderValue)>,
    /// `set_headers` with a secret value.
    set_headers: Vec<(HeaderName, HeaderSecret)>,
    local_keys: Vec<HeaderSecret>,
    /// Where each reading is noted for operators.
    sources: SourceStates,
    /// True if a value differs from that in the current plan.
    changed: bool,
}

/// A secret that is the value of a header.
#[derive(Debug)]
struct HeaderSecret {
    /// `upstream` or `client`, for the log.
    kind: &'static str,
    /// Name of the upstream or client.
    owner: Arc<str>,
    reference: Reference,
    value: Option<HeaderValue>,
    /// Time of the last attempt to read it.
    tried: Instant,
    /// True if the last attempt failed, which has been logged.
    failing: bool,
}

impl HeaderValues {
    /// Reads all values.
    pub(super) async fn read(settings: &ProxySettings, sources: &SourceStates) -> Self {
        let mut values = Self { sources: sources.clone(), ..Self::default() };
        for upstream in &settings.upstreams {
            let owner = &upstream.connection.name;
            for (name, text) in &upstream.set_headers {
                match text {
                    HeaderText::Value(value) => {
                        let key = (Arc::clone(owner), name.clone());
                        values.literals.push((key, value.clone()));
                    }
                    HeaderText::Secret(reference) => {
                        let secret = HeaderSecret::new("upstream", owner, reference, sources).await;
                        values.set_headers.push((name.clone(), secret));
                    }
                }
            }
        }
        for client in &settings.clients {
            if let ClientCredential::LocalKey { value, .. } = &client.credential {
                let secret = HeaderSecret::new("client", &client.name, value, sources).await;
                values.local_keys.push(secret);
            }
        }
        values
    }

    /// Re-reads secrets that are missing or due. Returns true if any value differs from that in the plan.
    ///
    /// Cancel safe: `changed` is updated after each secret, so a dropped call loses no change.
    pub(super) async fn reread(&mut self) -> bool {
        let set_headers = self.set_headers.iter_mut().map(|(_, secret)| secret);
        for secret in set_headers.chain(&mut self.local_keys) {
            self.changed |= secret.reread(&self.sources).await;
        }
        self.changed
    }

    /// The values as a plan takes them; the plan then counts as up to date.
    pub(super) fn values(&mut self) -> (SetHeaders, LocalKeys) {
        self.changed = false;
        let literals =
            self.literals.iter().map(|(header, value)| (header.clone(), Some(value.clone())));
        let secrets = self.set_headers.iter().map(|(name, secret)| {
            ((Arc::clone(&secret.owner), name.clone()), secret.value.clone())
        });
        let local_keys =
            self.local_keys.iter().map(|secret| (Arc::clone(&secret.owner), secret.value.clone()));
        (literals.chain(secrets).collect(), local_keys.collect())
    }
}

impl HeaderSecret {
    async fn new(
        kind: &'static str,
        owner: &Arc<str>,
        reference: &Reference,
        sources: &SourceStates,
    ) -> Self {
        let mut secret = Self {
            kind,
            owner: Arc::clone(owner),
            reference: reference.clone(),
            value: None,
            tried: Instant::now(),
            failing: false,
        };
        secret.read(sources).await;
        secret
    }

    /// Reads the secret. If that fails, the last value stays: a file may be in the middle of a rotation.
    async fn read(&mut self, sources: &SourceStates) {
        self.tried = Instant::now();
        let read = self.reference.read().await;
        sources.note(&self.reference, &read);
        let value = read.as_ref().ok().and_then(|secret| secret.header(""));
        if value.is_none() && !self.failing {
            let (kind, owner) = (self.kind, &*self.owner);
            let why = read.err().map_or("no header can hold it".into(), |error| error.to_string());
            match self.value {
                Some(_) => tracing::warn!(
                    kind,
                    owner,
                    why,
                    "the secret of a header cannot be read again; its last value stays"
                ),
                None => tracing::error!(
                    kind,
                    owner,
                    why,
                    "the secret of a header cannot be read; requests that need it get 503"
                ),
            }
        }
        self.failing = value.is_none();
        self.value = value.or_else(|| self.value.take());
    }

    /// Re-reads the secret if it is missing or due; returns true if its value has changed.
    async fn reread(&mut self, sources: &SourceStates) -> bool {
        let due = self.reference.recheck().is_some_and(|every| self.tried.elapsed() >= every);
        if self.value.is_some() && !due {
            return false;
        }
        let before = self.value.clone();
        self.read(sources).await;
        before != self.value
    }
}
