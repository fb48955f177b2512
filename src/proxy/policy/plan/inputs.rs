//! What a plan is built from beside the settings, and why it cannot be built.
//!
//! Each input is found by a key that the settings name too, never by its place in a list: were one
//! missing from a list, all later routes would get the token, header or listener of another.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::listen::settings::Listen;
use crate::proxy::policy::metrics::ProxyMetrics;
use crate::route::Conflict;
use crate::telemetry::log::RequestLog;
use crate::token::{Credential, TokenReaders};

/// Values of fixed headers (`set_headers`), by the name of the upstream and of the header; `None`
/// where the secret could not be read.
pub type SetHeaders = HashMap<(Arc<str>, HeaderName), Option<HeaderValue>>;

/// Local keys, by the name of the client; `None` where the secret could not be read. Clients that
/// prove who they are in another way have none.
pub type LocalKeys = HashMap<Arc<str>, Option<HeaderValue>>;

/// The sockets of listeners, by what `UpstreamSettings::listener` calls a listener: its index into
/// `ProxySettings::listeners`. The address is no key: with port 0, several listeners have the same.
pub type BoundListeners = HashMap<usize, BoundListener>;

/// What [`Plan::build`](crate::proxy::policy::plan::Plan::build) needs beside the settings.
pub struct PlanInputs<'a> {
    /// All credentials of the configuration.
    pub credentials: &'a [Arc<Credential>],
    /// A reader for each token that [`wanted`](crate::proxy::policy::plan::wanted) names.
    pub readers: TokenReaders,
    /// The values of all fixed headers.
    pub set_headers: SetHeaders,
    /// The local keys of all clients that have one.
    pub local_keys: LocalKeys,
    /// All listeners as they are bound.
    pub bound: BoundListeners,
    /// What is counted.
    pub metrics: &'a ProxyMetrics,
    /// Which requests leave a line in the log.
    pub request_log: RequestLog,
}

/// A listener as it is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundListener {
    /// Its number, which its connections carry.
    pub id: usize,
    /// Its addresses; none where it is a Unix socket.
    pub addresses: Vec<SocketAddr>,
}

/// Why a plan cannot be built. The checks of a configuration let none of this through, so that each
/// is a defect of this program; it must not end in a route without its token, or with another's.
#[derive(Debug, PartialEq, Eq)]
pub enum PlanError {
    /// Routes claim the same requests.
    Conflicts(Vec<Conflict>),
    /// A route names a credential that is not there.
    NoCredential {
        /// The upstream of the route.
        upstream: Arc<str>,
        /// The route.
        route: Arc<str>,
        /// The credential that it names.
        credential: Arc<str>,
    },
    /// Nobody keeps the token that a route needs.
    NoReader {
        /// The upstream of the route.
        upstream: Arc<str>,
        /// The route.
        route: Arc<str>,
        /// The credential whose token it needs.
        credential: Arc<str>,
    },
    /// Nobody has looked for the value of a fixed header.
    NoHeader {
        /// The upstream that is sent the header.
        upstream: Arc<str>,
        /// The header.
        header: HeaderName,
    },
    /// Nobody has looked for the local key of a client.
    NoLocalKey {
        /// The client.
        client: Arc<str>,
    },
    /// An upstream is behind a listener that is not there.
    NoListener {
        /// The upstream.
        upstream: Arc<str>,
    },
    /// A listener is not bound.
    NotBound {
        /// Where it was to be bound.
        listen: Listen,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflicts(_) => f.write_str("routes conflict; `bearer-proxy check` says which"),
            Self::NoCredential { upstream, route, credential } => write!(
                f,
                "route `{upstream}.{route}` names credential `{credential}`, which is not there"
            ),
            Self::NoReader { upstream, route, credential } => write!(
                f,
                "route `{upstream}.{route}` needs a token of credential `{credential}` that nobody \
                 keeps"
            ),
            Self::NoHeader { upstream, header } => {
                write!(f, "header `{header}` of upstream `{upstream}` was never read")
            }
            Self::NoLocalKey { client } => {
                write!(f, "the local key of client `{client}` was never read")
            }
            Self::NoListener { upstream } => {
                write!(f, "upstream `{upstream}` is behind a listener that is not there")
            }
            Self::NotBound { listen } => write!(f, "listener {listen} is not bound"),
        }
    }
}

impl std::error::Error for PlanError {}
