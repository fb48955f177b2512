//! Values of the upstreams' fixed headers. Secrets among them are read again, so that a rotated key
//! needs neither restart nor reload, and one that was missing at the start is found later.

use http::{HeaderName, HeaderValue};

use crate::proxy::settings::{HeaderText, ProxySettings};
use crate::secret::Reference;

/// For each upstream its fixed headers; no value where the secret could not be read, which fails
/// requests to that upstream only.
pub(super) type Values = Vec<Vec<(HeaderName, Option<HeaderValue>)>>;

/// The fixed headers of one configuration.
#[derive(Debug, Default)]
pub(super) struct FixedHeaders {
    /// By upstream.
    all: Vec<Vec<Fixed>>,
    /// A value is another than when a plan was made of them.
    changed: bool,
}

#[derive(Debug, Clone)]
struct Fixed {
    name: HeaderName,
    value: Option<HeaderValue>,
    /// The last attempt to read it failed, and the log says so.
    failing: bool,
}

impl FixedHeaders {
    /// Reads all of them.
    pub(super) async fn read(settings: &ProxySettings) -> Self {
        let mut all = Vec::with_capacity(settings.upstreams.len());
        for upstream in &settings.upstreams {
            let mut headers = Vec::with_capacity(upstream.set_headers.len());
            for (name, text) in &upstream.set_headers {
                let mut fixed = Fixed { name: name.clone(), value: None, failing: false };
                match text {
                    HeaderText::Value(value) => fixed.value = Some(value.clone()),
                    HeaderText::Secret(reference) => {
                        fixed.read(reference, &upstream.connection.name).await;
                    }
                }
                headers.push(fixed);
            }
            all.push(headers);
        }
        Self { all, changed: false }
    }

    /// Reads anew what can have changed without a word to us, files, and what is missing. Tells
    /// whether any value is another than in the plan. It may be dropped on its way.
    pub(super) async fn reread(&mut self, settings: &ProxySettings) -> bool {
        for (upstream, headers) in settings.upstreams.iter().zip(&mut self.all) {
            for ((_, text), fixed) in upstream.set_headers.iter().zip(headers) {
                let HeaderText::Secret(reference) = text else { continue };
                if reference.kind() == "file" || fixed.value.is_none() {
                    let before = fixed.value.clone();
                    fixed.read(reference, &upstream.connection.name).await;
                    self.changed |= before != fixed.value;
                }
            }
        }
        self.changed
    }

    /// As a plan takes them, which is then up to date.
    pub(super) fn values(&mut self) -> Values {
        self.changed = false;
        let pair = |fixed: &Fixed| (fixed.name.clone(), fixed.value.clone());
        self.all.iter().map(|headers| headers.iter().map(pair).collect()).collect()
    }
}

impl Fixed {
    /// A value that cannot be read again stays: a file may be in the middle of its rotation.
    async fn read(&mut self, reference: &Reference, upstream: &str) {
        let read = reference.read().await;
        let value = read.as_ref().ok().and_then(|secret| sensitive(secret.expose()));
        if value.is_none() && !self.failing {
            let header = &self.name;
            let why = read.err().map_or("no header can hold it".into(), |error| error.to_string());
            match self.value {
                Some(_) => tracing::warn!(%upstream, %header, why,
                    "a fixed header cannot be read again; its last value stays"),
                None => tracing::error!(%upstream, %header, why,
                    "a fixed header cannot be set; requests to this upstream get 503"),
            }
        }
        self.failing = value.is_none();
        if value.is_some() {
            self.value = value;
        }
    }
}

fn sensitive(secret: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(secret).ok()?;
    value.set_sensitive(true);
    Some(value)
}
