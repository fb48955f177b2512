//! `StoreHttpSettings`: how remote stores are reached: through `net`, like all that leaves this process.
//!
//! The official SDKs know who we are and how to sign; their own HTTP clients are left out, so that
//! roots of trust, TLS versions and bounds are those of the configuration.

use std::hash::{Hash, Hasher};

use super::EgressProxy;
use crate::net::no_proxy::NoProxy;
use crate::net::tls::TlsSettings;

/// What a configuration settles for all remote stores.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreHttpSettings {
    /// `[tls]`.
    pub tls: TlsSettings,
    /// The proxy of `[egress]`.
    pub proxy: Option<EgressProxy>,
    /// What is reached without it, beside this machine and its cloud's metadata service.
    pub no_proxy: NoProxy,
}

/// Few ways differ in one process; those that do are told apart by `Eq`.
impl Hash for StoreHttpSettings {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tls.hash(state);
    }
}

#[cfg(any(feature = "aws", feature = "azure"))]
pub(super) use transport::{Transport, lost};

#[cfg(any(feature = "aws", feature = "azure"))]
mod transport {
    use std::error::Error;
    use std::fmt;
    use std::time::Duration;

    use bytes::Bytes;
    use http::{Request, Response};

    use super::{EgressProxy, StoreHttpSettings};
    use crate::net::Origin;
    use crate::net::connect::{ConnectSettings, Connector};
    use crate::net::control;
    use crate::net::tls::{Alpn, TlsCache};
    use crate::x509::TlsSetupError;

    /// Time for DNS, TCP and TLS.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
    /// Time to reach the metadata service, which is on the same machine or nowhere.
    const METADATA_TIMEOUT: Duration = Duration::from_secs(1);
    /// Time for one call.
    const CALL_TIMEOUT: Duration = Duration::from_secs(5);
    /// How long unacknowledged bytes may stand.
    const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);
    /// Largest answer that is read, in bytes: a secret of 64 KiB, escaped, and what is around it.
    const MAX_REPLY_BYTES: usize = 512 * 1024;

    /// Sends the requests of one reading of one secret.
    pub(in crate::secret) struct Transport {
        settings: StoreHttpSettings,
        tls: TlsCache,
    }

    impl Transport {
        pub(in crate::secret) fn new(settings: &StoreHttpSettings) -> Self {
            Self { settings: settings.clone(), tls: TlsCache::default() }
        }

        /// Sends one request and reads its whole answer.
        pub(in crate::secret) async fn send(
            &self,
            request: Request<Bytes>,
        ) -> Result<Response<Bytes>, Lost> {
            let (origin, patience) = match Origin::of_metadata(request.uri()) {
                Some(origin) => (origin, METADATA_TIMEOUT),
                None => (Origin::of(request.uri()).map_err(Lost::new)?, CONNECT_TIMEOUT),
            };
            let connector = self.connector(origin, patience).map_err(Lost::new)?;
            let reply = control::call(&connector, request, CALL_TIMEOUT, MAX_REPLY_BYTES).await;
            reply.map(|reply| reply.response).map_err(Lost::new)
        }

        fn connector(
            &self,
            origin: Origin,
            patience: Duration,
        ) -> Result<Connector, TlsSetupError> {
            let direct = origin.is_loopback() || self.settings.no_proxy.covers(&origin);
            let proxy =
                self.settings.proxy.as_ref().filter(|_| !direct).map(EgressProxy::tunnel_proxy);
            let (tls, alpn) = (&self.settings.tls, Alpn::Http1);
            let settings =
                ConnectSettings { timeout: patience, tcp_user_timeout: TCP_USER_TIMEOUT };
            Connector::new(&self.tls, origin, tls, alpn, settings)?.via_proxy(proxy)
        }
    }

    impl fmt::Debug for Transport {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Transport")
        }
    }

    /// A request that brought no answer.
    #[derive(Debug)]
    pub(in crate::secret) struct Lost(String);

    impl Lost {
        fn new(why: impl fmt::Display) -> Self {
            Self(why.to_string())
        }
    }

    impl fmt::Display for Lost {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.0)
        }
    }

    impl Error for Lost {}

    /// Our own network's error among the causes of an SDK's.
    pub(in crate::secret) fn lost<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Lost> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(lost) = error.downcast_ref() {
                return Some(lost);
            }
            next = error.source();
        }
        None
    }
}
