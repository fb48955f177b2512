//! The client certificates of credentials and upstreams: their expiry for operators, and new tokens for
//! a certificate that was renewed, if tokens are bound to it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::admin::report::{ClientCertificateStatus, RENEW_CERTIFICATE_DAYS};
use crate::clock::{date, unix_seconds};
use crate::config::Config;
use crate::net::tls::{ClientCertificate, ClientIdentity};
use crate::telemetry::Registry;
use crate::telemetry::family::Gauges;
use crate::token::client_identity::{LoadError, load_identity};
use crate::token::credential::{Binding, CertificateSource};
use crate::token::{Credential, ManagerHandle};

/// The client certificates of one configuration.
pub(super) struct ClientCertificateWatch {
    watched: Vec<Watched>,
    expiry: Gauges,
    statuses: ClientCertificateStatuses,
}

/// The client certificates as `/status` shows them.
pub(super) type ClientCertificateStatuses = Arc<Mutex<Vec<ClientCertificateStatus>>>;

/// One certificate.
struct Watched {
    /// `credential` or `upstream`.
    kind: &'static str,
    name: Arc<str>,
    source: Source,
    /// The time of the last reading.
    tried: Instant,
    /// The certificate as it was last read with success.
    identity: Option<Arc<ClientIdentity>>,
    /// The error of the last reading.
    error: Option<LoadError>,
}

/// The place of a certificate.
enum Source {
    Credential(Arc<Credential>),
    /// Files of an upstream.
    Files(ClientCertificate),
}

impl ClientCertificateWatch {
    /// No certificates yet.
    ///
    /// # Errors
    /// The name of the metric is taken.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let expiry = registry.gauge_vec(
            "bearer_proxy_tls_client_certificate_expiry_timestamp_seconds",
            "Expiry time of the client certificate of a credential or an upstream.",
            &["kind", "name"],
        )?;
        Ok(Self { watched: Vec::new(), expiry, statuses: Arc::default() })
    }

    /// The states for operators, which are kept up to date.
    pub(super) fn statuses(&self) -> ClientCertificateStatuses {
        Arc::clone(&self.statuses)
    }

    /// Reads the certificates of a configuration, and warns of those that end soon.
    pub(super) async fn read(&mut self, config: &Config) {
        self.watched = Vec::new();
        for credential in &config.credentials {
            if credential.has_client_certificate() {
                let source = Source::Credential(Arc::clone(credential));
                self.watched.push(Watched::new("credential", &credential.name, source).await);
            }
        }
        for upstream in &config.proxy.upstreams {
            if let Some(files) = &upstream.connection.tls.client_certificate {
                let source = Source::Files(files.clone());
                self.watched
                    .push(Watched::new("upstream", &upstream.connection.name, source).await);
            }
        }
        self.watched.iter().for_each(Watched::warn_of_expiry);
        self.publish();
    }

    /// Reads the certificates again. Where tokens are bound to one that has changed, new tokens are
    /// requested with it; until they come, requests carry the old pair of both.
    ///
    /// Cancel safe: each certificate is replaced and acted on in one step.
    pub(super) async fn reread(&mut self, tokens: &ManagerHandle) {
        for watched in &mut self.watched {
            if !watched.is_due() || !watched.reread().await {
                continue;
            }
            let (kind, name) = (watched.kind, &watched.name);
            tracing::info!(kind, %name, "a client certificate has changed");
            watched.warn_of_expiry();
            if watched.is_bound() {
                tokens.renew(name);
            }
        }
        self.publish();
    }

    fn publish(&self) {
        self.expiry.reset();
        for watched in &self.watched {
            if let Some(expires) = watched.expires().and_then(unix_seconds) {
                let labels = [watched.kind, &watched.name];
                self.expiry.with_label_values(&labels).set(expires);
            }
        }
        let statuses = self.watched.iter().map(Watched::status).collect();
        *self.statuses.lock().unwrap_or_else(PoisonError::into_inner) = statuses;
    }
}

impl Watched {
    async fn new(kind: &'static str, name: &Arc<str>, source: Source) -> Self {
        let (name, tried) = (Arc::clone(name), Instant::now());
        let mut watched = Self { kind, name, source, tried, identity: None, error: None };
        watched.reread().await;
        watched
    }

    /// True if tokens are bound to it.
    fn is_bound(&self) -> bool {
        matches!(&self.source, Source::Credential(it) if it.binding == Binding::Certificate)
    }

    /// True if it is time to read it again: a program or a store is asked at longer intervals than files.
    fn is_due(&self) -> bool {
        let Source::Credential(credential) = &self.source else { return true };
        let references =
            credential.client_certificate.iter().flat_map(CertificateSource::references);
        let every = references.filter_map(|(reference, _)| reference.recheck()).max();
        every.is_none_or(|every| self.tried.elapsed() >= every)
    }

    async fn load(&self) -> Result<Option<Arc<ClientIdentity>>, LoadError> {
        match &self.source {
            Source::Credential(credential) => load_identity(credential, None).await,
            Source::Files(files) => Ok(Some(Arc::new(files.load()?))),
        }
    }

    /// Reads the files again; returns true if there is another certificate than before. Files that do
    /// not match may be in the middle of a renewal.
    async fn reread(&mut self) -> bool {
        let loaded = self.load().await;
        self.tried = Instant::now();
        let error = match loaded {
            Ok(identity) => {
                self.error = None;
                let before = std::mem::replace(&mut self.identity, identity);
                return before.is_some() && before != self.identity;
            }
            Err(error) => error,
        };
        if self.error.as_ref() != Some(&error) {
            let (kind, name) = (self.kind, &self.name);
            tracing::error!(kind, %name, %error, "a client certificate cannot be used");
        }
        self.error = Some(error);
        false
    }

    fn expires(&self) -> Option<SystemTime> {
        Some(self.identity.as_ref()?.certificate()?.valid_until)
    }

    /// Whole days until it expires, 0 if it has expired.
    fn days_left(&self) -> Option<u64> {
        let certificate = self.identity.as_ref()?.certificate()?;
        Some(certificate.days_left(SystemTime::now()).unwrap_or(0))
    }

    fn warn_of_expiry(&self) {
        if let Some((days_left, expires)) = self.days_left().zip(self.expires())
            && days_left < RENEW_CERTIFICATE_DAYS
        {
            let (kind, name, expires) = (self.kind, &self.name, date(expires));
            tracing::warn!(kind, %name, days_left, expires, "a client certificate expires soon");
        }
    }

    fn status(&self) -> ClientCertificateStatus {
        ClientCertificateStatus {
            kind: self.kind,
            name: self.name.to_string(),
            expires: self.expires().map(date),
            days_left: self.days_left(),
            error: self.error.as_ref().map(ToString::to_string),
        }
    }
}
