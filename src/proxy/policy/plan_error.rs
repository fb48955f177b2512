//! The reasons why a plan cannot be built.

use std::fmt;
use std::sync::Arc;

use http::HeaderName;

use crate::listen::settings::Listen;
use crate::route::Conflict;

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
