//! `Plan`: an immutable snapshot of all that a request may need, resolved once.
//!
//! A request loads one plan and keeps it to its end, so that a reload never mixes two
//! configurations in one request. Whatever can be known beforehand is made here: header values,
//! token readers, metric handles, the paths that are never forwarded.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Method};

use super::clients::{Admission, Clients};
use super::metrics::RouteMetrics;
use super::settings::{
    AllowedHosts, ClientCredential, ForwardingHeaders, IncomingAuthorization, ListenerSettings,
    ProxySettings, QueryAccessToken, RequestLimits, RetryUnsafe, RouteSettings, UpgradePolicy,
    UpstreamSettings,
};
use crate::listen::settings::AllowedPeers;
use crate::net::Origin;
use crate::oauth::{Scope, ScopeSet, TokenEndpoint};
use crate::proxy::headers;
use crate::proxy::headers::challenge::RenewOn;
use crate::proxy::headers::rewrite::{ResponseRewrite, Rewrite};
use crate::proxy::limits::web_origin::WebOrigin;
use crate::route::target::{QuirkSet, could_alias};
use crate::route::{Authority, HostPattern, Methods, Rule, Table};
use crate::telemetry::family::Counter;
use crate::telemetry::log::RequestLog;
use crate::token::credential::MissingScopes;
use crate::token::issuer::Issuer;
use crate::token::{Bearer, Credential, Reader, TokenKey, TokenReaders, TokenSpec};
use crate::upstream;

mod inputs;
#[cfg(test)]
mod tests;

pub use super::clients::LocalKeys;
pub use super::plan_error::PlanError;
pub use inputs::{BoundListener, BoundListeners, PlanInputs, SetHeaders};

/// All that requests need, from one configuration.
pub struct Plan {
    /// One for each listener of the configuration, in its order.
    pub listeners: Vec<ListenerPlan>,
    /// The known clients.
    pub clients: Clients,
    /// One for each upstream of the configuration, in its order.
    pub upstreams: Vec<Arc<UpstreamPlan>>,
    /// Limits of each request.
    pub limits: RequestLimits,
    /// The requests that leave a line in the log.
    pub request_log: RequestLog,
    /// SHA-256 of the configuration file, in hexadecimal digits.
    pub config_sha256: Arc<str>,
}

/// The rules of one listener.
pub struct ListenerPlan {
    /// Its number, which its connections carry and which stays the same across reloads.
    pub id: usize,
    /// Set for a listener with TLS.
    pub tls: bool,
    /// Processes that may use it.
    pub peers: AllowedPeers,
    /// Host names it answers to.
    pub hosts: HostPolicy,
    /// Origins of web pages that may send requests.
    pub origins: Vec<WebOrigin>,
    /// The clients that may use any of its routes.
    pub admission: Admission,
    /// Its routes, in the order of the configuration.
    pub routes: Vec<Arc<RoutePlan>>,
    /// Its routes, to be found by target.
    pub table: Table<Arc<RoutePlan>>,
}

/// One upstream, with all that requests to it need.
pub struct UpstreamPlan {
    /// The settings of its connections.
    pub connection: Arc<upstream::Settings>,
    /// The prefix of its routes' paths; may be empty.
    pub mount: Box<str>,
    /// Value of the Host header.
    pub host: HeaderValue,
    /// Its origin, such as `https://host:8443`: the URL in proofs begins with it.
    pub origin: Box<str>,
    /// Fixed headers; `None` for a secret that could not be read.
    pub set_headers: Vec<(HeaderName, Option<HeaderValue>)>,
    /// The header for the id of a request.
    pub request_id_header: Option<HeaderName>,
    /// Handling of an Authorization header of the app.
    pub incoming_authorization: IncomingAuthorization,
    /// Handling of an `access_token` in the query.
    pub query_access_token: QueryAccessToken,
    /// Adds this hop to the forwarding fields.
    pub append_forwarding: bool,
    /// Longest time from sending a request to the head of the response.
    pub response_timeout: Duration,
    /// Longest time without a byte of a body, in either direction.
    pub body_idle_timeout: Duration,
    /// Rewrites references to it in its responses.
    pub response_rewrite: ResponseRewrite,
}

/// One route, with all that its requests need.
pub struct RoutePlan {
    /// Its name.
    pub name: Arc<str>,
    /// The pattern of its path, mount included.
    pub path: Box<str>,
    /// Its methods.
    pub methods: Box<[Method]>,
    /// Index into [`Plan::upstreams`].
    pub upstream: usize,
    /// The clients that may use it.
    pub admission: Admission,
    /// Names its token; `None` if the app's own Authorization is kept.
    token_key: Option<TokenKey>,
    /// Reads its token; `None` if the app's own Authorization is kept.
    pub token: Option<Reader>,
    /// The header that carries its token, if it is not Authorization.
    pub token_header: Option<HeaderName>,
    /// The rules for proofs; `None` for a token that needs none.
    pub dpop: Option<DpopPlan>,
    /// Longest time that a request waits for a token.
    pub token_wait: Duration,
    /// The scopes that its token is requested with.
    pub scopes: ScopeSet,
    /// Scopes without which a token is not used; `None` if the credential does not ask for that.
    pub required_scopes: Option<ScopeSet>,
    /// Rewrites the target of a request for the upstream.
    pub rewrite: Rewrite,
    /// Condition for sending a request with an unsafe method a second time.
    pub retry_unsafe: RetryUnsafe,
    /// The statuses after which a newer token is tried.
    pub renew_on: RenewOn,
    /// The protocols that it allows an upgrade to.
    pub upgrade: UpgradePolicy,
    /// Features of paths that servers interpret differently and that it allows all the same.
    pub allowed_quirks: QuirkSet,
    /// Set if its upstream takes `/Pay` for `/pay`.
    pub case_insensitive: bool,
    /// The header rules of its messages.
    pub header_policy: headers::HeaderPolicy,
    /// Its metric handles.
    pub metrics: RouteMetrics,
    /// Paths of token endpoints on the upstream's origin.
    token_paths: Arc<[String]>,
    /// Issuers whose metadata may name a token endpoint on the upstream's origin.
    issuers: Arc<[Issuer]>,
    /// The origin of the upstream.
    origin: Origin,
}

/// The rules of a route whose requests prove that they may carry their token (RFC 9449).
pub struct DpopPlan {
    /// Sends a request once more with a nonce that the upstream asks for.
    pub retry_nonce: bool,
    /// Requests that were sent once more so.
    pub nonce_retries: Counter,
}

impl RoutePlan {
    /// The required scopes that a token lacks, separated by spaces; `None` if it may be used.
    pub fn lacking(&self, bearer: &Bearer) -> Option<String> {
        let missing = bearer.lacks(self.required_scopes.as_ref()?);
        let names: Vec<_> = missing.into_iter().map(Scope::as_str).collect();
        (!names.is_empty()).then(|| names.join(" "))
    }

    /// True if a request may be taken for one of the other route without harm: both go to one upstream,
    /// for the same clients, with the same token and the same headers.
    pub fn is_like(&self, other: &Self) -> bool {
        self.upstream == other.upstream
            && self.token_key == other.token_key
            && self.admission == other.admission
            && self.header_policy == other.header_policy
    }

    /// True if an upstream path is that of a token endpoint, in any spelling that some server may
    /// take for it, whatever the route allows in paths.
    pub fn is_token_endpoint(&self, path: &str) -> bool {
        self.token_paths.iter().any(|token| could_alias(path, token))
            || self.issuers.iter().any(|it| it.has_endpoint(&self.origin, path, could_alias))
    }
}

/// The tokens that the routes need, each once for each route.
pub fn token_specs(settings: &ProxySettings, credentials: &[Arc<Credential>]) -> Vec<TokenSpec> {
    let needs =
        routes(settings).map(|(_, upstream, route)| token_spec(upstream, route, credentials));
    // A credential that is not there is refused when the plan is built, by the name of the route.
    needs.filter_map(|need| need.ok().flatten()).collect()
}

/// The rules of one listener's table, each with the indexes of its upstream and route.
pub fn rules(settings: &ProxySettings, listener: usize) -> Vec<(Rule, (usize, usize))> {
    let mut rules = Vec::new();
    for (upstream_index, upstream) in settings.upstreams.iter().enumerate() {
        if !upstream.listeners.contains(&listener) {
            continue;
        }
        for (route_index, route) in upstream.routes.iter().enumerate() {
            rules.push((rule(upstream, route), (upstream_index, route_index)));
        }
    }
    rules
}

impl Plan {
    /// Resolves settings and inputs into a plan.
    ///
    /// # Errors
    /// Routes conflict, or an input is missing; neither happens for a configuration that was checked.
    pub fn build(settings: &ProxySettings, inputs: PlanInputs<'_>) -> Result<Self, PlanError> {
        let PlanInputs {
            credentials,
            readers,
            set_headers,
            local_keys,
            bound,
            metrics,
            request_log,
            config_sha256,
        } = inputs;
        let clients = Clients::new(&settings.clients, &local_keys)?;
        let upstreams: Vec<_> = settings
            .upstreams
            .iter()
            .map(|upstream| UpstreamPlan::new(upstream, &set_headers).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let mut tables: Vec<Vec<_>> = settings.listeners.iter().map(|_| Vec::new()).collect();
        for (index, upstream, route) in routes(settings) {
            let needed = token_spec(upstream, route, credentials)?;
            let token = needed.as_ref().map(|needed| reader(upstream, route, needed, &readers));
            let policy = needed.as_ref().map(|needed| &needed.credential.policy);
            let token_header = needed.as_ref().map(|needed| needed.credential.attach.name.clone());
            let token_header = token_header.filter(|name| *name != AUTHORIZATION);
            let header_policy = header_policy(settings, upstream, route, token_header.as_ref());
            let dpop = needed.as_ref().is_some_and(|needed| needed.credential.dpop.is_some());
            let plan = RoutePlan {
                name: Arc::clone(&route.name),
                path: rule(upstream, route).path.to_string().into(),
                methods: route.methods.clone().into(),
                upstream: index,
                admission: clients.admission(&route.clients),
                token_key: needed.as_ref().map(TokenSpec::key),
                token: token.transpose()?,
                token_header,
                dpop: dpop.then(|| DpopPlan {
                    retry_nonce: route.retry_dpop_nonce,
                    nonce_retries: metrics
                        .dpop_nonce_retries(&upstream.connection.name, &route.name),
                }),
                token_wait: policy.map_or(Duration::ZERO, |policy| policy.wait),
                scopes: route.scopes.clone(),
                required_scopes: policy
                    .filter(|policy| policy.missing_scopes == MissingScopes::Refuse)
                    .map(|_| route.scopes.clone()),
                rewrite: Rewrite::new(&upstream.mount, upstream.strip_mount, &upstream.base_path),
                retry_unsafe: route.retry_unsafe,
                renew_on: route.renew_on,
                upgrade: route.upgrade,
                allowed_quirks: route.allowed_quirks,
                case_insensitive: upstream.case_insensitive,
                header_policy,
                metrics: metrics.route(
                    &upstream.connection.name,
                    &route.name,
                    &route.methods,
                    &settings.clients,
                ),
                token_paths: token_paths(upstream, credentials),
                issuers: credentials.iter().filter_map(|one| one.issuer().cloned()).collect(),
                origin: upstream.connection.origin.clone(),
            };
            let behind = tables.get_mut(upstream.listeners.clone());
            let behind = behind.filter(|tables| !tables.is_empty());
            let behind = behind.ok_or_else(|| PlanError::NoListener {
                upstream: Arc::clone(&upstream.connection.name),
            })?;
            let plan = Arc::new(plan);
            for table in behind {
                table.push((rule(upstream, route), Arc::clone(&plan)));
            }
        }
        let mut listeners = Vec::with_capacity(tables.len());
        // The tables were made from these listeners above, one for each.
        for (index, (listener, table)) in settings.listeners.iter().zip(tables).enumerate() {
            let bound = bound
                .get(&index)
                .ok_or_else(|| PlanError::NotBound { listen: listener.listen.clone() })?;
            let hosts = HostPolicy::new(listener, &bound.addresses, &table);
            let admission = clients.for_listener(table.iter().map(|(_, route)| &route.admission));
            listeners.push(ListenerPlan {
                id: bound.id,
                tls: listener.tls.is_some(),
                peers: listener.peers.clone(),
                hosts,
                origins: listener.allowed_origins.clone(),
                admission,
                routes: table.iter().map(|(_, route)| Arc::clone(route)).collect(),
                table: Table::build(table).map_err(PlanError::Conflicts)?,
            });
        }
        Ok(Self {
            listeners,
            clients,
            upstreams,
            limits: settings.limits,
            request_log,
            config_sha256,
        })
    }

    /// All routes with their upstreams, by listener.
    pub fn routes(&self) -> impl Iterator<Item = (&UpstreamPlan, &RoutePlan)> {
        let routes = self.listeners.iter().flat_map(|listener| &listener.routes);
        routes.filter_map(|route| Some((&**self.upstreams.get(route.upstream)?, &**route)))
    }

    /// The plan of a listener; `None` if this configuration no longer has it.
    pub fn listener(&self, id: usize) -> Option<&ListenerPlan> {
        self.listeners.iter().find(|listener| listener.id == id)
    }
}

impl UpstreamPlan {
    fn new(settings: &UpstreamSettings, values: &SetHeaders) -> Result<Self, PlanError> {
        let mut set_headers = Vec::with_capacity(settings.set_headers.len());
        for (header, _) in &settings.set_headers {
            let key = (Arc::clone(&settings.connection.name), header.clone());
            // A value that could not be read is `None` and fails requests. A missing entry would
            // silently leave the header out, and is an error.
            let Some(value) = values.get(&key) else {
                let (upstream, header) = key;
                return Err(PlanError::NoHeader { upstream, header });
            };
            set_headers.push((header.clone(), value.clone()));
        }
        let authority = settings.connection.origin.authority();
        Ok(Self {
            connection: Arc::new(settings.connection.clone()),
            mount: settings.mount.as_str().into(),
            host: HeaderValue::try_from(authority).unwrap_or_else(|_| HeaderValue::from_static("")),
            origin: settings.connection.origin.to_string().into(),
            set_headers,
            request_id_header: settings.request_id_header.clone(),
            incoming_authorization: settings.incoming_authorization,
            query_access_token: settings.query_access_token,
            append_forwarding: settings.forwarding_headers == ForwardingHeaders::Append,
            response_timeout: settings.response_timeout,
            body_idle_timeout: settings.body_idle_timeout,
            response_rewrite: ResponseRewrite::new(
                settings.connection.origin.clone(),
                &settings.mount,
                settings.strip_mount,
                &settings.base_path,
                settings.rewrite_cookies,
            ),
        })
    }
}

fn routes(
    settings: &ProxySettings,
) -> impl Iterator<Item = (usize, &UpstreamSettings, &RouteSettings)> {
    settings.upstreams.iter().enumerate().flat_map(|(index, upstream)| {
        upstream.routes.iter().map(move |route| (index, upstream, route))
    })
}

fn rule(upstream: &UpstreamSettings, route: &RouteSettings) -> Rule {
    Rule {
        host: route.host.clone(),
        path: route.path.under(&upstream.mount),
        methods: Methods::new(route.methods.iter().cloned()),
    }
}

/// A number that tells this process from others of the same name in Via.
static INSTANCE: LazyLock<u32> = LazyLock::new(|| fastrand::u32(..));

fn header_policy(
    settings: &ProxySettings,
    upstream: &UpstreamSettings,
    route: &RouteSettings,
    token_header: Option<&HeaderName>,
) -> headers::HeaderPolicy {
    let keys = settings.clients.iter().filter_map(|client| match &client.credential {
        ClientCredential::LocalKey { header, .. } => Some(header),
        ClientCredential::Certificate(_) | ClientCredential::Process { .. } => None,
    });
    let fixed = upstream.set_headers.iter().map(|(name, _)| name);
    headers::HeaderPolicy {
        keep_overrides: route.allow_override_headers,
        keep_forwarding: upstream.forwarding_headers != ForwardingHeaders::Drop,
        reserved: fixed.chain(keys).chain(token_header).cloned().collect(),
        trailers: route.trailers.clone().without(token_header),
        via: headers::Via::new(settings.via.clone(), *INSTANCE),
    }
}

/// The token that a route needs; `None` for routes that keep the app's own Authorization.
///
/// The token manager is asked for this, and the plan looks it up by the same, so that they cannot
/// differ.
fn token_spec(
    upstream: &UpstreamSettings,
    route: &RouteSettings,
    credentials: &[Arc<Credential>],
) -> Result<Option<TokenSpec>, PlanError> {
    if upstream.incoming_authorization == IncomingAuthorization::Keep {
        return Ok(None);
    }
    let name = route.credential.as_ref().unwrap_or(&upstream.credential);
    let Some(credential) = credentials.iter().find(|credential| credential.name == *name) else {
        return Err(PlanError::NoCredential {
            upstream: Arc::clone(&upstream.connection.name),
            route: Arc::clone(&route.name),
            credential: Arc::clone(name),
        });
    };
    Ok(Some(TokenSpec { credential: Arc::clone(credential), scopes: route.scopes.clone() }))
}

/// The reader of the token that a route needs.
fn reader(
    upstream: &UpstreamSettings,
    route: &RouteSettings,
    needed: &TokenSpec,
    readers: &TokenReaders,
) -> Result<Reader, PlanError> {
    readers.get(&needed.key()).cloned().ok_or_else(|| PlanError::NoReader {
        upstream: Arc::clone(&upstream.connection.name),
        route: Arc::clone(&route.name),
        credential: Arc::clone(&needed.credential.name),
    })
}

/// Paths of all token endpoints on an upstream's origin.
fn token_paths(upstream: &UpstreamSettings, credentials: &[Arc<Credential>]) -> Arc<[String]> {
    let same_origin = |endpoint: &TokenEndpoint| {
        Origin::with_cleartext(endpoint.uri(), endpoint.cleartext())
            .is_ok_and(|origin| origin == upstream.connection.origin)
    };
    credentials
        .iter()
        .filter_map(|credential| credential.endpoint())
        .filter(|endpoint| same_origin(endpoint))
        .map(|endpoint| endpoint.path().to_owned())
        .collect()
}

/// Hosts that a listener answers to: a guard against DNS rebinding.
pub struct HostPolicy {
    patterns: Vec<HostPattern>,
}

impl HostPolicy {
    fn new<T>(listener: &ListenerSettings, bound: &[SocketAddr], rules: &[(Rule, T)]) -> Self {
        let names = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        // No request is addressed to 0.0.0.0 on purpose, but browsers take it for this machine.
        let named = bound.iter().filter(|address| !address.ip().is_unspecified());
        let addresses = named.map(|address| match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        });
        let mut patterns: Vec<_> = names
            .into_iter()
            .chain(addresses)
            .filter_map(|name| HostPattern::parse(&name).ok())
            .collect();
        patterns.extend(rules.iter().filter_map(|(rule, _)| rule.host.clone()));
        if let AllowedHosts::These(allowed) = &listener.allowed_hosts {
            patterns.extend(allowed.iter().cloned());
        }
        Self { patterns }
    }

    /// True if a request may be addressed to this authority. The port is ignored: port forwarding and
    /// Kubernetes Services change it, and DNS rebinding cannot forge a name.
    pub fn allows(&self, authority: &Authority) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(authority.host()))
    }
}
