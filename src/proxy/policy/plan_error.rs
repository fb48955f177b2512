//! The reasons why a plan cannot be built.

use std::sync::Arc;

use http::HeaderName;

use crate::listen::settings::Listen;
use crate::route::Conflict;

/// The reason why a plan cannot be built. A checked configuration leads to none of them, so that
/// each is a defect of this program; it must not end in a route without its token, or with another
/// route's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Several routes claim the same requests.
    #[error("routes conflict; `bearer-proxy check` says which")]
    Conflicts(Vec<Conflict>),
    /// A route names a credential that does not exist.
    #[error("route `{upstream}.{route}` names credential `{credential}`, which is not there")]
    NoCredential {
        /// The upstream of the route.
        upstream: Arc<str>,
        /// The route.
        route: Arc<str>,
        /// The credential that it names.
        credential: Arc<str>,
    },
    /// No reader was given for the token that a route needs.
    #[error(
        "route `{upstream}.{route}` needs a token of credential `{credential}` that nobody keeps"
    )]
    NoReader {
        /// The upstream of the route.
        upstream: Arc<str>,
        /// The route.
        route: Arc<str>,
        /// The credential of the token.
        credential: Arc<str>,
    },
    /// No value was given for a fixed header.
    #[error("header `{header}` of upstream `{upstream}` was never read")]
    NoHeader {
        /// The upstream that the header is for.
        upstream: Arc<str>,
        /// The header.
        header: HeaderName,
    },
    /// No local key was given for a client.
    #[error("the local key of client `{client}` was never read")]
    NoLocalKey {
        /// The client.
        client: Arc<str>,
    },
    /// An upstream belongs to a listener that does not exist.
    #[error("upstream `{upstream}` is behind a listener that is not there")]
    NoListener {
        /// The upstream.
        upstream: Arc<str>,
    },
    /// A listener is not bound.
    #[error("listener {listen} is not bound")]
    NotBound {
        /// The configured address.
        listen: Listen,
    },
}
