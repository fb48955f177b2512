//! The settings of one upstream's connections.

use std::sync::Arc;
use std::time::Duration;

use crate::net::Origin;
use crate::net::connect::{ConnectSettings, Connector};
use crate::net::tls::{Alpn, TlsCache, TlsSettings};
use crate::secret::EgressProxy;
use crate::x509::TlsSetupError;

/// The address of one upstream, and the limits of its connections.
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
    /// The HTTP versions that are offered.
    pub protocol: Protocol,
    /// True if names of header fields keep their case, in requests and responses, over HTTP/1: some old
    /// servers compare `SOAPAction` byte by byte, although RFC 9110 section 5.1 has names compared without
    /// regard to case. Default: true.
    pub preserve_header_case: bool,
    /// True if requests may ask for another protocol, on HTTP/1.1 connections of their own.
    pub upgrades: bool,
    /// Time for DNS, TCP and TLS together.
    pub connect_timeout: Duration,
    /// A connection idle for longer is closed.
    pub idle_timeout: Duration,
    /// A connection older than this, plus or minus 10 %, is not reused.
    pub max_age: Duration,
    /// How long a connection may have been idle to carry an unsafe method.
    pub unsafe_max_idle: Duration,
    /// Idle connections kept by one worker.
    pub max_idle: usize,
    /// Open connections to this upstream over all workers together, at least 1. Workers share them
    /// evenly, with at least one each. Beyond it requests wait within `connect_timeout` and are then
    /// answered 503 `overloaded`. Default: [`Settings::MAX_CONNECTIONS`].
    pub max_connections: usize,
    /// Lines of header fields in the head of one answer, 1 to 1000. Default:
    /// [`Settings::MAX_RESPONSE_HEADERS`].
    pub max_response_headers: usize,
    /// Bytes of the head of one answer, 8 KiB to 1 MiB. Default:
    /// [`Settings::MAX_RESPONSE_HEADER_BYTES`].
    pub max_response_header_bytes: usize,
    /// How long an HTTP/2 server may be silent while it owes a response, and then how long it may take to
    /// acknowledge a ping.
    pub ping: Duration,
    /// Unacknowledged bytes end the connection after this time (TCP_USER_TIMEOUT).
    pub tcp_user_timeout: Duration,
}

impl Settings {
    /// The default limit on open connections to an upstream.
    pub const MAX_CONNECTIONS: usize = 256;
    /// The default limit on lines of header fields in a response's head.
    pub const MAX_RESPONSE_HEADERS: usize = 256;
    /// The default limit on bytes of a response's head: 64 KiB.
    pub const MAX_RESPONSE_HEADER_BYTES: usize = 64 * 1024;

    /// Settings with every default, for an origin.
    pub fn new(name: impl Into<Arc<str>>, origin: Origin) -> Self {
        Self {
            name: name.into(),
            origin,
            tls: TlsSettings::default(),
            egress: None,
            protocol: Protocol::default(),
            preserve_header_case: true,
            upgrades: false,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            max_age: Duration::from_secs(300),
            unsafe_max_idle: Duration::from_secs(1),
            max_idle: 64,
            max_connections: Self::MAX_CONNECTIONS,
            max_response_headers: Self::MAX_RESPONSE_HEADERS,
            max_response_header_bytes: Self::MAX_RESPONSE_HEADER_BYTES,
            ping: Duration::from_secs(10),
            tcp_user_timeout: Duration::from_secs(20),
        }
    }

    /// A connector that offers the HTTP versions of `protocol`.
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

    /// A connector that offers other HTTP versions than `protocol`.
    ///
    /// # Errors
    /// TLS settings that cannot be used.
    pub fn connector_with(&self, cache: &TlsCache, alpn: Alpn) -> Result<Connector, TlsSetupError> {
        let (timeout, tcp_user_timeout) = (self.connect_timeout, self.tcp_user_timeout);
        let settings = ConnectSettings { timeout, tcp_user_timeout };
        Connector::new(cache, self.origin.clone(), &self.tls, alpn, settings)?
            .via_proxy(self.egress.as_ref().map(EgressProxy::tunnel_proxy))
    }
}

/// HTTP versions offered to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// With TLS, HTTP/2 if ALPN selects it, else HTTP/1.1. Without TLS, HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only; without TLS, with prior knowledge.
    Http2,
}
