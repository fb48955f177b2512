//! The HTTP client for remote stores, which the SDKs are given too.
//!
//! The official SDKs find an identity and sign; their own HTTP clients are left out, so that roots of
//! trust, TLS versions and bounds are those of the configuration.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};

use crate::net::Origin;
use crate::net::connect::{ConnectSettings, Connector};
use crate::net::control::{self, Limits};
use crate::net::egress::TunnelProxy;
use crate::net::no_proxy::NoProxy;
use crate::net::tls::{Alpn, TlsCache, TlsSettings};
use crate::x509::TlsSetupError;

/// Time for DNS, TCP and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time to reach the metadata service, which is on the same machine or absent.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that sent bytes may stay unacknowledged.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read, in bytes: a secret of 64 KiB with JSON escapes, and its envelope.
const MAX_RESPONSE_BYTES: usize = 512 * 1024;

/// Sends the requests for one reading of one secret.
pub(super) struct StoreClient {
    tls: TlsSettings,
    cache: TlsCache,
    proxy: Option<TunnelProxy>,
    no_proxy: NoProxy,
}

impl StoreClient {
    pub(super) fn new(tls: TlsSettings, proxy: Option<TunnelProxy>, no_proxy: NoProxy) -> Self {
        Self { tls, cache: TlsCache::default(), proxy, no_proxy }
    }

    /// Sends one request and reads the whole answer.
    pub(super) async fn send(
        &self,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, TransportError> {
        let (origin, timeout) = match Origin::of_metadata(request.uri()) {
            Some(origin) => (origin, METADATA_TIMEOUT),
            None => (Origin::of(request.uri()).map_err(TransportError::new)?, CONNECT_TIMEOUT),
        };
        let connector = self.connector(origin, timeout).map_err(TransportError::new)?;
        let limits = Limits { time: CALL_TIMEOUT, body_bytes: MAX_RESPONSE_BYTES };
        let answer = control::call(&connector, request, limits, |_, _| false).await;
        answer.map(|answer| answer.response).map_err(TransportError::new)
    }

    fn connector(&self, origin: Origin, timeout: Duration) -> Result<Connector, TlsSetupError> {
        let direct = origin.is_loopback() || self.no_proxy.covers(&origin);
        let proxy = self.proxy.clone().filter(|_| !direct);
        let settings = ConnectSettings { timeout, tcp_user_timeout: TCP_USER_TIMEOUT };
        Connector::new(&self.cache, origin, &self.tls, Alpn::Http1, settings)?.via_proxy(proxy)
    }
}

impl fmt::Debug for StoreClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreClient")
    }
}

/// A request that got no answer.
#[derive(Debug)]
pub(super) struct TransportError(String);

impl TransportError {
    fn new(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for TransportError {}

/// The error of our own network among the causes of an SDK's error.
#[cfg(any(feature = "aws", feature = "azure"))]
pub(super) fn transport_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e TransportError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        next = error.source();
    }
    None
}
