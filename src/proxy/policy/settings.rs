//! What the life of a request depends on: listeners, clients, upstreams, and the routes that lead
//! to them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use crate::proxy::headers::{AllowedTrailers, Pseudonym};
use crate::proxy::limits::web_origin::WebOrigin;

use crate::listen::settings::{AllowedPeers, Listen, ServerTls};
use crate::oauth::ScopeSet;
use crate::route::{HostPattern, PathPattern};
use crate::secret::Reference;
use crate::upstream;

/// Everything the request path is built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxySettings {
    /// Listeners, one for each address: first those of `server.listen`, then those of upstreams that
    /// have their own.
    pub listeners: Vec<ListenerSettings>,
    /// Who may ask, in the order of the file.
    pub clients: Vec<ClientSettings>,
    /// Upstreams in the order of the file.
    pub upstreams: Vec<UpstreamSettings>,
    /// Bounds on each request.
    pub limits: RequestLimits,
    /// Our name in Via.
    pub via: Pseudonym,
}

/// One socket that apps talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Where it is bound.
    pub listen: Listen,
    /// Which processes may use it, where it is a Unix socket.
    pub peers: AllowedPeers,
    /// Its certificate, where it speaks TLS.
    pub tls: Option<ServerTls>,
    /// Host names (without port) that requests may be addressed to, beside the names of loopback
    /// and the bound address itself: a guard against DNS rebinding. RFC 9110 section 7.4.
    pub allowed_hosts: AllowedHosts,
    /// Origins of web pages that may use us; by default none may.
    pub allowed_origins: Vec<WebOrigin>,
}

/// Host names a listener answers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHosts {
    /// `localhost`, `127.0.0.1`, `[::1]`, the bound address, and host patterns of routes.
    Own,
    /// Those, and these.
    These(Vec<HostPattern>),
}

/// One client: who may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Its name; the `client` label of metrics and logs.
    pub name: Arc<str>,
    /// How it proves who it is.
    pub credential: ClientCredential,
}

/// How a client proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCredential {
    /// By a secret in a header of its requests.
    LocalKey {
        /// The header, which goes no further.
        header: HeaderName,
        /// Where the secret is.
        value: Reference,
    },
    /// By the certificate of its TLS connection.
    Certificate(CertificateName),
    /// By the process on the other end of its Unix socket: one of these users, or of these groups.
    Process {
        /// Effective users.
        uids: Vec<u32>,
        /// Effective groups; a process may be in others that nobody tells.
        gids: Vec<u32>,
    },
}

/// A name in a client's certificate, compared as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateName {
    /// The whole subject as RFC 4514 writes it, such as `CN=erp,O=Example Bank`.
    Subject(String),
    /// One of the DNS names of the subject alternative names.
    Dns(String),
    /// One of their URIs.
    Uri(String),
}

/// Which clients may use a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AllowedClients {
    /// Whoever reaches the listener.
    #[default]
    Anyone,
    /// Every client that has a name.
    Known,
    /// These.
    These(Vec<Arc<str>>),
}

/// Bounds on each request.
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
    /// Bytes of a request body that are remembered for a second try.
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
    /// Its connections; also its name.
    pub connection: upstream::Settings,
    /// Path of its URL, put before every forwarded path: `` or `/api`, never with a slash at its end.
    pub base_path: String,
    /// Path prefix under which apps find it: `` (the root) or `/qbank`.
    pub mount: String,
    /// Whether the mount prefix is taken off before forwarding.
    pub strip_mount: bool,
    /// Whether it takes `/Pay` for `/pay`, so that other cases of other routes' paths are refused.
    pub case_insensitive: bool,
    /// Indexes into [`ProxySettings::listeners`]; upstreams have all of them in common, or none.
    pub listeners: Range<usize>,
    /// The credential of its routes, where they name no other.
    pub credential: Arc<str>,
    /// Fixed headers beside the token; the app's own are replaced.
    pub set_headers: Vec<(HeaderName, HeaderText)>,
    /// What happens to an Authorization header of the app.
    pub incoming_authorization: IncomingAuthorization,
    /// What happens to an `access_token` in the query.
    pub query_access_token: QueryAccessToken,
    /// What happens to `Forwarded`, `X-Forwarded-*` and their like.
    pub forwarding_headers: ForwardingHeaders,
    /// Whether `Path` and `Domain` of each `Set-Cookie` (RFC 6265 section 4.1.2) are rewritten from
    /// where the upstream is to where apps find it, so that cookies come back through the proxy.
    /// Default: false, they pass as they are.
    pub rewrite_cookies: bool,
    /// Time from the request being sent to the head of the answer.
    pub response_timeout: Duration,
    /// Time without a byte, in either direction of either body.
    pub body_idle_timeout: Duration,
    /// Its routes.
    pub routes: Vec<RouteSettings>,
}

/// Text of a fixed header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderText {
    /// Written in the configuration; not secret.
    Value(HeaderValue),
    /// Read from where secrets are; marked sensitive.
    Secret(Reference),
}

/// What happens to an Authorization header of the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncomingAuthorization {
    /// Ours takes its place.
    #[default]
    Replace,
    /// The request is refused.
    Reject,
    /// The app's passes and no token of ours is attached; refused on routes with scopes.
    Keep,
}

/// What happens to an `access_token` in the query (RFC 6750 section 2.3).
///
/// Beside our Authorization it would be a second token in one request, which RFC 6750 section 2
/// forbids, and nobody could say which of the two the upstream obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueryAccessToken {
    /// The request is refused: a credential in a place where proxies log it is worth knowing of.
    #[default]
    Reject,
    /// The parameter is taken out, all else passes byte for byte.
    Strip,
    /// It passes: the name means something else to this API, or the app's Authorization is kept.
    Pass,
}

/// What happens to what proxies before us say of the client: `Forwarded`, `X-Forwarded-*` and
/// their like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardingHeaders {
    /// Removed: how the app is reached is nobody's business upstream.
    #[default]
    Drop,
    /// Our hop is added to `Forwarded` (RFC 7239) and `X-Forwarded-For`; fields that are no lists
    /// are removed.
    Append,
    /// They pass as they are.
    Pass,
}

/// One route: which requests it claims and what they need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSettings {
    /// Its name, unique within the upstream; the `route` label of metrics.
    pub name: Arc<str>,
    /// Host name that requests must be addressed to, where it matters.
    pub host: Option<HostPattern>,
    /// Path below the mount.
    pub path: PathPattern,
    /// Methods; HEAD is added wherever GET is.
    pub methods: Vec<Method>,
    /// Scopes that the token must carry.
    pub scopes: ScopeSet,
    /// Credential in place of the upstream's.
    pub credential: Option<Arc<str>>,
    /// Who may use it.
    pub clients: AllowedClients,
    /// Whether unsafe methods may be sent a second time.
    pub retry_unsafe: RetryUnsafe,
    /// Which other protocols it lets through.
    pub upgrade: UpgradePolicy,
    /// Whether `;` may stand in the path.
    pub allow_semicolon: bool,
    /// Whether `%2F` may stand in the path.
    pub allow_encoded_slash: bool,
    /// Whether fields pass by which some frameworks let a request name another method or path than
    /// it has: this route then decides less than it seems to.
    pub allow_override_headers: bool,
    /// Trailers that pass in both directions, beside the usual ones.
    pub trailers: AllowedTrailers,
}

/// Whether unsafe methods may be sent a second time after a 401 that blamed the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetryUnsafe {
    /// Never.
    #[default]
    Never,
    /// Where the request carries an `Idempotency-Key`.
    IdempotencyKey,
    /// Always: the API is known to be idempotent.
    Always,
}

/// What a route says of upgrades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpgradePolicy {
    /// Whether WebSocket is let through.
    pub websocket: bool,
    /// How long a stream may be silent in both directions.
    pub idle: Duration,
    /// What becomes of a stream that outlives its token.
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

/// What becomes of a stream that outlives the token of its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtTokenExpiry {
    /// It is closed.
    #[default]
    Close,
    /// It goes on: the upstream is trusted to end what it no longer wants.
    Keep,
}
