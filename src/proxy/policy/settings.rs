//! The settings of the request path, as configuration gives them: listeners, clients, upstreams, routes.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use crate::proxy::headers::challenge::RenewOn;
use crate::proxy::headers::{AllowedTrailers, Pseudonym};
use crate::proxy::limits::web_origin::WebOrigin;

use crate::listen::settings::{AllowedPeers, Listen, ServerTls};
use crate::oauth::ScopeSet;
use crate::route::target::QuirkSet;
use crate::route::{HostPattern, PathPattern};
use crate::secret::Reference;
use crate::upstream;

/// All settings of the request path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxySettings {
    /// Listeners, one for each address: first those of `server.listen`, then those of upstreams that
    /// have their own.
    pub listeners: Vec<ListenerSettings>,
    /// Known clients, in the order of the file.
    pub clients: Vec<ClientSettings>,
    /// Upstreams in the order of the file.
    pub upstreams: Vec<UpstreamSettings>,
    /// Limits of each request.
    pub limits: RequestLimits,
    /// The proxy's name in Via.
    pub via: Pseudonym,
}

/// One socket that apps talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSettings {
    /// The address to bind.
    pub listen: Listen,
    /// Processes that may use it, for a Unix socket.
    pub peers: AllowedPeers,
    /// The certificate, for a listener with TLS.
    pub tls: Option<ServerTls>,
    /// Host names, without port, that requests may be addressed to (RFC 9110 section 7.4): a guard
    /// against DNS rebinding.
    pub allowed_hosts: AllowedHosts,
    /// Origins of web pages that may send requests; none by default.
    pub allowed_origins: Vec<WebOrigin>,
}

/// Host names that a listener answers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHosts {
    /// `localhost`, `127.0.0.1`, `[::1]`, the bound address, and host patterns of routes.
    Own,
    /// The same, and these.
    These(Vec<HostPattern>),
}

/// One known client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Its name; the `client` label of metrics and logs.
    pub name: Arc<str>,
    /// The credential by which it is recognized.
    pub credential: ClientCredential,
}

/// The credential by which a client is recognized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCredential {
    /// A secret in a header of its requests.
    LocalKey {
        /// The header; it is removed before a request is forwarded.
        header: HeaderName,
        /// The reference to the secret.
        value: Reference,
    },
    /// A name in the certificate of its TLS connection.
    Certificate(CertificateName),
    /// The process at the other end of its Unix socket, by one of these users or groups.
    Process {
        /// Effective users.
        uids: Vec<u32>,
        /// Effective groups; the supplementary groups of a process are not known.
        gids: Vec<u32>,
    },
}

/// A name in a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateName {
    /// The whole subject as RFC 4514 writes it, such as `CN=erp,O=Example Bank`.
    Subject(String),
    /// A DNS name among the subject alternative names.
    Dns(String),
    /// A URI among the subject alternative names.
    Uri(String),
}

/// The clients that may use a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AllowedClients {
    /// Any client that reaches the listener.
    #[default]
    Anyone,
    /// Any known client.
    Known,
    /// The known clients of these names.
    These(Vec<Arc<str>>),
}

/// Limits of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes of a request target, 256 to 65,534; a longer one gets 414 `uri_too_long`. Default: 8 KiB.
    pub max_uri_bytes: usize,
    /// Bytes of a request body; a longer one gets 413 `body_too_large`. Default: 16 MiB.
    pub max_request_body: u64,
    /// Requests under way over all listeners; more get 503 `overloaded`. Each counts from its head
    /// until both bodies, its own and its answer's, have ended; WebSockets and event streams count
    /// for as long as they are open. Default: 256.
    pub max_in_flight: usize,
    /// Bytes of a request body that are buffered for a second try. Default: 64 KiB.
    pub replay_buffer_bytes: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            max_uri_bytes: 8 * 1024,
            max_request_body: 16 * 1024 * 1024,
            max_in_flight: 256,
            replay_buffer_bytes: 64 * 1024,
        }
    }
}

/// One upstream API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// The settings of its connections, and its name.
    pub connection: upstream::Settings,
    /// Path of its URL, prepended to each forwarded path: `` or `/api`, without a trailing slash.
    pub base_path: String,
    /// Path prefix under which apps find it: `` (the root) or `/qbank`.
    pub mount: String,
    /// Removes the mount prefix before forwarding.
    pub strip_mount: bool,
    /// Set for an upstream that takes `/Pay` for `/pay`: a path that another route claims in another
    /// case is refused.
    pub case_insensitive: bool,
    /// Indexes into [`ProxySettings::listeners`]; upstreams have all of them in common, or none.
    pub listeners: Range<usize>,
    /// The credential of routes that name no other.
    pub credential: Arc<str>,
    /// Fixed headers, which replace those of the app.
    pub set_headers: Vec<(HeaderName, HeaderText)>,
    /// The header that tells the upstream the id of a request; none by default. An id that the app sent
    /// leaves the app's own header of this name as it is; an id that was made here replaces it.
    pub request_id_header: Option<HeaderName>,
    /// Handling of an Authorization header of the app.
    pub incoming_authorization: IncomingAuthorization,
    /// Handling of an `access_token` in the query.
    pub query_access_token: QueryAccessToken,
    /// Handling of `Forwarded`, `X-Forwarded-*` and their like.
    pub forwarding_headers: ForwardingHeaders,
    /// Rewrites `Path` and `Domain` of each `Set-Cookie` (RFC 6265 section 4.1.2) from the
    /// upstream's paths to those of apps, so that cookies come back through the proxy. Default:
    /// false.
    pub rewrite_cookies: bool,
    /// Longest time from sending a request to the head of the response.
    pub response_timeout: Duration,
    /// Longest time without a byte of a body, in either direction.
    pub body_idle_timeout: Duration,
    /// Its routes.
    pub routes: Vec<RouteSettings>,
}

/// Text of a fixed header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderText {
    /// Written in the configuration; not secret.
    Value(HeaderValue),
    /// The reference to a secret; its value is marked sensitive.
    Secret(Reference),
}

/// Handling of an Authorization header of the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncomingAuthorization {
    /// The proxy's replaces it.
    #[default]
    Replace,
    /// The request is refused.
    Reject,
    /// It is forwarded and no token is attached; not allowed for routes with scopes.
    Keep,
}

/// Handling of an `access_token` in the query (RFC 6750 section 2.3).
///
/// Beside Authorization it would be a second token in one request, which RFC 6750 section 2 forbids, and
/// it would be open which of the two the upstream obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueryAccessToken {
    /// The request is refused: the app should learn that it puts a credential where proxies log it.
    #[default]
    Reject,
    /// The parameter is removed; the rest of the query stays as it is.
    Strip,
    /// It is forwarded: the name has another meaning in this API, or the app's Authorization is kept.
    Pass,
}

/// Handling of the fields in which earlier proxies describe the client: `Forwarded`, `X-Forwarded-*` and
/// their like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardingHeaders {
    /// They are removed: the upstream need not know how the app is reached.
    #[default]
    Drop,
    /// This hop is added to `Forwarded` (RFC 7239) and `X-Forwarded-For`; fields that are not lists are
    /// removed.
    Append,
    /// They are forwarded as they are.
    Pass,
}

/// One route: the requests that it claims, and what is done with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSettings {
    /// Its name, unique within the upstream; the `route` label of metrics.
    pub name: Arc<str>,
    /// Host name that requests must be addressed to; `None` for any.
    pub host: Option<HostPattern>,
    /// Path below the mount.
    pub path: PathPattern,
    /// Methods; GET includes HEAD.
    pub methods: Vec<Method>,
    /// Scopes that the token must carry.
    pub scopes: ScopeSet,
    /// Credential to use instead of the upstream's.
    pub credential: Option<Arc<str>>,
    /// The clients that may use it.
    pub clients: AllowedClients,
    /// Condition for sending a request with an unsafe method a second time.
    pub retry_unsafe: RetryUnsafe,
    /// Sends a request once more, whatever its method, if the upstream asks for a nonce in the proof of
    /// DPoP: it has refused the request before it acted on it.
    pub retry_dpop_nonce: bool,
    /// The statuses after which a newer token is tried.
    pub renew_on: RenewOn,
    /// The protocols that it allows an upgrade to.
    pub upgrade: UpgradePolicy,
    /// Features of paths that servers interpret differently and that it allows all the same.
    pub allowed_quirks: QuirkSet,
    /// Forwards fields by which some frameworks let a request name another method or path than it
    /// has: the route then restricts less than it seems to.
    pub allow_override_headers: bool,
    /// Trailers that are forwarded in both directions, beside the usual ones.
    pub trailers: AllowedTrailers,
}

/// Condition for sending a request with an unsafe method a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetryUnsafe {
    /// Never.
    #[default]
    Never,
    /// The request has an `Idempotency-Key`.
    IdempotencyKey,
    /// No condition: the API is known to be idempotent.
    Always,
}

/// The protocol upgrades that a route allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpgradePolicy {
    /// Allows WebSocket.
    pub websocket: bool,
    /// Longest time without a byte in either direction.
    pub idle: Duration,
    /// Handling of a stream that outlives its token.
    pub at_token_expiry: AtTokenExpiry,
}

impl Default for UpgradePolicy {
    fn default() -> Self {
        Self {
            websocket: false,
            idle: Duration::from_secs(300),
            at_token_expiry: AtTokenExpiry::default(),
        }
    }
}

/// Handling of a stream that outlives the token of its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtTokenExpiry {
    /// It is closed.
    #[default]
    Close,
    /// It stays open: the upstream is trusted to close it.
    Keep,
}
