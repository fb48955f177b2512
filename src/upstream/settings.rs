//! What the pool of one upstream needs to know.

use std::sync::Arc;
use std::time::Duration;

use crate::net::Origin;
use crate::net::connect::Connector;
use crate::net::tls::{Alpn, TlsCache, TlsSettings, TlsSetupError};
use crate::secret::EgressProxy;

/// Where one upstream is and how its connections are made and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name in the configuration, and the `upstream` label of metrics.
    pub name: Arc<str>,
    /// Scheme, host and port.
    pub origin: Origin,
    /// TLS towards it.
    pub tls: TlsSettings,
    /// The egress proxy on the way to it.
    pub egress: Option<EgressProxy>,
    /// Which HTTP versions are offered.
    pub protocol: Protocol,
    /// Whether requests may ask for another protocol, on HTTP/1.1 connections of their own.
    pub upgrades: bool,
    /// Time for DNS, TCP and TLS together.
    pub connect_timeout: Duration,
    /// A connection idle for longer is closed.
    pub idle_timeout: Duration,
    /// A connection older than this, give or take 10 %, is not used again.
    pub max_age: Duration,
    /// How long a connection may have been idle to carry an unsafe method.
    pub unsafe_max_idle: Duration,
    /// Idle connections kept by one worker.
    pub max_idle: usize,
    /// How long an HTTP/2 server may be silent while it owes an answer, and then how long for saying
    /// that it is there.
    pub ping: Duration,
    /// Unacknowledged bytes end the connection after this time (TCP_USER_TIMEOUT).
    pub tcp_user_timeout: Duration,
}

impl Settings {
    /// Settings with every default, for an origin.
    pub fn new(name: impl Into<Arc<str>>, origin: Origin) -> Self {
        Self {
            name: name.into(),
            origin,
            tls: TlsSettings::default(),
            egress: None,
            protocol: Protocol::default(),
            upgrades: false,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            max_age: Duration::from_secs(300),
            unsafe_max_idle: Duration::from_secs(1),
            max_idle: 64,
            ping: Duration::from_secs(10),
            tcp_user_timeout: Duration::from_secs(20),
        }
    }

    /// What makes its connections.
    ///
    /// # Errors
    /// TLS settings that cannot be used.
    pub fn connector(&self, cache: &TlsCache) -> Result<Connector, TlsSetupError> {
        let alpn = match self.protocol {
            Protocol::Auto => Alpn::Both,
            Protocol::Http1 => Alpn::Http1,
            Protocol::Http2 => Alpn::Http2,
        };
        self.connector_with(cache, alpn)
    }

    /// The same with other HTTP versions on offer.
    ///
    /// # Errors
    /// TLS settings that cannot be used.
    pub fn connector_with(&self, cache: &TlsCache, alpn: Alpn) -> Result<Connector, TlsSetupError> {
        let (origin, timeout) = (self.origin.clone(), self.connect_timeout);
        Connector::sharing(cache, origin, &self.tls, alpn, timeout, self.tcp_user_timeout)?
            .through(self.egress.as_ref().map(EgressProxy::way))
    }
}

/// HTTP versions offered to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// HTTP/2 where ALPN agrees on it, else HTTP/1.1; HTTP/1.1 without TLS.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only; with prior knowledge where there is no TLS.
    Http2,
}
