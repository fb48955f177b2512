//! Values of headers that the configuration knows: fixed headers that upstreams are sent, local keys
//! that clients show. Secrets among them are read again, so that a rotated key needs neither restart
//! nor reload, and one that was missing at the start is found later.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::proxy::policy::plan::{LocalKeys, SetHeaders};
use crate::proxy::policy::settings::{ClientCredential, ClientSettings, HeaderText, ProxySettings};
use crate::secret::Reference;

/// The values of one configuration. Each carries whose it is and where it is read from, so that
/// nothing has to be found again in the settings.
#[derive(Debug, Default)]
pub(super) struct HeaderValues {
    set_headers: Vec<FixedHeader>,
    local_keys: Vec<LocalKey>,
    /// A value is another than when a plan was made of them.
    changed: bool,
}

/// A fixed header of an upstream.
#[derive(Debug)]
struct FixedHeader {
    upstream: Arc<str>,
    name: HeaderName,
    value: HeaderSource,
}

#[derive(Debug)]
enum HeaderSource {
    /// Literal in the configuration.
    Literal(HeaderValue),
    Secret(ManagedSecret),
}

/// The local key of a client.
#[derive(Debug)]
struct LocalKey {
    client: Arc<str>,
    key: ManagedSecret,
}

/// A secret that is read again now and then.
#[derive(Debug)]
struct ManagedSecret {
    reference: Reference,
    value: Option<HeaderValue>,
    /// When it was last tried.
    tried: Option<Instant>,
    /// The last attempt to read it failed, and the log says so.
    failing: bool,
}

impl HeaderValues {
    /// Reads all of them.
    pub(super) async fn read(settings: &ProxySettings) -> Self {
        let mut set_headers = Vec::new();
        for upstream in &settings.upstreams {
            let owner = &upstream.connection.name;
            for (name, text) in &upstream.set_headers {
                let value = match text {
                    HeaderText::Value(value) => HeaderSource::Literal(value.clone()),
                    HeaderText::Secret(reference) => HeaderSource::Secret(
                        ManagedSecret::first(reference, "upstream", owner).await,
                    ),
                };
                set_headers.push(FixedHeader {
                    upstream: Arc::clone(owner),
                    name: name.clone(),
                    value,
                });
            }
        }
        let mut local_keys = Vec::new();
        for client in &settings.clients {
            if let Some(reference) = local_key(client) {
                let key = ManagedSecret::first(reference, "client", &client.name).await;
                local_keys.push(LocalKey { client: Arc::clone(&client.name), key });
            }
        }
        Self { set_headers, local_keys, changed: false }
    }

    /// Reads anew what can have changed without a word to us and is due, and what is missing. Tells
    /// whether any value is another than in the plan. It may be dropped on its way.
    pub(super) async fn reread(&mut self) -> bool {
        for FixedHeader { upstream, value, .. } in &mut self.set_headers {
            if let HeaderSource::Secret(secret) = value {
                self.changed |= secret.reread("upstream", upstream).await;
            }
        }
        for LocalKey { client, key } in &mut self.local_keys {
            self.changed |= key.reread("client", client).await;
        }
        self.changed
    }

    /// As a plan takes them, which is then up to date: fixed headers, and local keys.
    pub(super) fn values(&mut self) -> (SetHeaders, LocalKeys) {
        self.changed = false;
        let set_headers = self.set_headers.iter().map(|header| {
            let value = match &header.value {
                HeaderSource::Literal(value) => Some(value.clone()),
                HeaderSource::Secret(secret) => secret.value.clone(),
            };
            ((Arc::clone(&header.upstream), header.name.clone()), value)
        });
        let local_keys = self
            .local_keys
            .iter()
            .map(|known| (Arc::clone(&known.client), known.key.value.clone()));
        (set_headers.collect(), local_keys.collect())
    }
}

fn local_key(client: &ClientSettings) -> Option<&Reference> {
    match &client.credential {
        ClientCredential::LocalKey { value, .. } => Some(value),
        ClientCredential::Certificate(_) | ClientCredential::Process { .. } => None,
    }
}

impl ManagedSecret {
    /// The secret as it is read for the first time.
    async fn first(reference: &Reference, kind: &'static str, owner: &str) -> Self {
        let reference = reference.clone();
        let mut secret = Self { reference, value: None, tried: None, failing: false };
        secret.read(kind, owner).await;
        secret
    }

    /// A value that cannot be read again stays: a file may be in the middle of its rotation.
    async fn read(&mut self, kind: &'static str, owner: &str) {
        self.tried = Some(Instant::now());
        let read = self.reference.read().await;
        let value = read.as_ref().ok().and_then(|secret| secret.header(""));
        if value.is_none() && !self.failing {
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
        if value.is_some() {
            self.value = value;
        }
    }

    /// Tells whether the value is another now.
    async fn reread(&mut self, kind: &'static str, owner: &str) -> bool {
        let fresh = |tried: Instant| match self.reference.recheck() {
            Some(every) => tried.elapsed() < every,
            None => true,
        };
        if self.value.is_some() && self.tried.is_some_and(fresh) {
            return false;
        }
        let before = self.value.clone();
        self.read(kind, owner).await;
        before != self.value
    }
}
