//! Values of headers that the configuration knows: fixed headers that upstreams are sent, local keys
//! that clients show. Secrets among them are read again, so that a rotated key needs neither restart
//! nor reload, and one that was missing at the start is found later.

use http::{HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::proxy::settings::{ClientSettings, HeaderText, Proof, ProxySettings};
use crate::secret::Reference;

/// For each upstream its fixed headers; no value where the secret could not be read, which fails
/// requests to that upstream only.
pub(super) type Fixed = Vec<Vec<(HeaderName, Option<HeaderValue>)>>;

/// The values of one configuration.
#[derive(Debug, Default)]
pub(super) struct HeaderValues {
    /// By upstream.
    fixed: Vec<Vec<(HeaderName, Kept)>>,
    /// By client; for those without a local key, nothing is ever read.
    keys: Vec<Kept>,
    /// A value is another than when a plan was made of them.
    changed: bool,
}

#[derive(Debug, Default)]
struct Kept {
    value: Option<HeaderValue>,
    /// When it was last tried.
    tried: Option<Instant>,
    /// The last attempt to read it failed, and the log says so.
    failing: bool,
}

impl HeaderValues {
    /// Reads all of them.
    pub(super) async fn read(settings: &ProxySettings) -> Self {
        let mut fixed = Vec::with_capacity(settings.upstreams.len());
        for upstream in &settings.upstreams {
            let mut headers = Vec::with_capacity(upstream.set_headers.len());
            for (name, text) in &upstream.set_headers {
                let mut kept = Kept::default();
                match text {
                    HeaderText::Value(value) => kept.value = Some(value.clone()),
                    HeaderText::Secret(reference) => {
                        kept.read(reference, "upstream", &upstream.connection.name).await;
                    }
                }
                headers.push((name.clone(), kept));
            }
            fixed.push(headers);
        }
        let mut keys = Vec::with_capacity(settings.clients.len());
        for client in &settings.clients {
            let mut kept = Kept::default();
            if let Some(reference) = local_key(client) {
                kept.read(reference, "client", &client.name).await;
            }
            keys.push(kept);
        }
        Self { fixed, keys, changed: false }
    }

    /// Reads anew what can have changed without a word to us and is due, and what is missing. Tells
    /// whether any value is another than in the plan. It may be dropped on its way.
    pub(super) async fn reread(&mut self, settings: &ProxySettings) -> bool {
        for (upstream, headers) in settings.upstreams.iter().zip(&mut self.fixed) {
            for ((_, text), (_, kept)) in upstream.set_headers.iter().zip(headers) {
                if let HeaderText::Secret(reference) = text {
                    self.changed |=
                        kept.reread(reference, "upstream", &upstream.connection.name).await;
                }
            }
        }
        for (client, kept) in settings.clients.iter().zip(&mut self.keys) {
            if let Some(reference) = local_key(client) {
                self.changed |= kept.reread(reference, "client", &client.name).await;
            }
        }
        self.changed
    }

    /// As a plan takes them, which is then up to date: fixed headers, and local keys.
    pub(super) fn values(&mut self) -> (Fixed, Vec<Option<HeaderValue>>) {
        self.changed = false;
        let pair = |(name, kept): &(HeaderName, Kept)| (name.clone(), kept.value.clone());
        let fixed = self.fixed.iter().map(|headers| headers.iter().map(pair).collect()).collect();
        (fixed, self.keys.iter().map(|kept| kept.value.clone()).collect())
    }
}

fn local_key(client: &ClientSettings) -> Option<&Reference> {
    match &client.proof {
        Proof::LocalKey { value, .. } => Some(value),
        Proof::Certificate(_) | Proof::Process { .. } => None,
    }
}

impl Kept {
    /// A value that cannot be read again stays: a file may be in the middle of its rotation.
    async fn read(&mut self, reference: &Reference, kind: &'static str, owner: &str) {
        self.tried = Some(Instant::now());
        let read = reference.read().await;
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
    async fn reread(&mut self, reference: &Reference, kind: &'static str, owner: &str) -> bool {
        let fresh = |tried: Instant| match reference.recheck() {
            Some(every) => tried.elapsed() < every,
            None => true,
        };
        if self.value.is_some() && self.tried.is_some_and(fresh) {
            return false;
        }
        let before = self.value.clone();
        self.read(reference, kind, owner).await;
        before != self.value
    }
}
