//! `Plan`: an immutable snapshot of all that a request may need, resolved once.
//!
//! A request loads one plan and keeps it to its end, so that a reload never mixes two
//! configurations in one request. Whatever can be known beforehand is made here: header values,
//! token readers, metric handles, the paths that are never forwarded.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::clients::{Admission, Clients};
use super::metrics::RouteMetrics;
use super::settings::{
    AllowedHosts, ClientCredential, ForwardingHeaders, IncomingAuthorization, ListenerSettings,
    ProxySettings, QueryAccessToken, RequestLimits, RetryUnsafe, RouteSettings, UpgradePolicy,
    UpstreamSettings,
};
use crate::listen::settings::AllowedPeers;
use crate::oauth::{Scope, ScopeSet, TokenEndpoint};
use crate::proxy::headers;
use crate::proxy::headers::rewrite::{ResponseRewrite, Rewrite};
use crate::proxy::limits::web_origin::WebOrigin;
use crate::route::target::could_alias;
use crate::route::{Authority, HostPattern, Methods, Rule, Table};
use crate::telemetry::log::RequestLog;
use crate::token::credential::MissingScopes;
use crate::token::{Bearer, Credential, Reader, TokenReaders, TokenSpec};
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
    /// Who may ask.
    pub clients: Clients,
    /// One for each upstream of the configuration, in its order.
    pub upstreams: Vec<Arc<UpstreamPlan>>,
    /// Bounds on each request.
    pub limits: RequestLimits,
    /// Which requests leave a line in the log.
    pub request_log: RequestLog,
}

/// What one listener answers to.
pub struct ListenerPlan {
    /// Its number, which its connections carry; it keeps it across reloads.
    pub id: usize,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Which processes may use it.
    pub peers: AllowedPeers,
    /// Host names it answers to.
    pub hosts: HostPolicy,
    /// Origins of web pages it accepts.
    pub origins: Vec<WebOrigin>,
    /// Who may use any of its routes.
    pub admission: Admission,
    /// Its routes, in the order of the configuration.
    pub routes: Vec<Arc<RoutePlan>>,
    /// Its routes, to be found by target.
    pub table: Table<Arc<RoutePlan>>,
}

/// One upstream, ready to be sent to.
pub struct UpstreamPlan {
    /// How its connections are made.
    pub connection: Arc<upstream::Settings>,
    /// Value of the Host header.
    pub host: HeaderValue,
    /// Fixed headers; `None` where the secret could not be read.
    pub set_headers: Vec<(HeaderName, Option<HeaderValue>)>,
    /// What happens to an Authorization of the app.
    pub incoming_authorization: IncomingAuthorization,
    /// What happens to an `access_token` in the query.
    pub query_access_token: QueryAccessToken,
    /// Whether our hop is added to the forwarding fields.
    pub append_forwarding: bool,
    /// Time until the head of an answer.
    pub response_timeout: Duration,
    /// Time without a byte in either body.
    pub body_idle_timeout: Duration,
    /// What leads to it in answers is made to lead back through us.
    pub response_rewrite: ResponseRewrite,
}

/// One route, ready to be followed.
pub struct RoutePlan {
    /// Its name.
    pub name: Arc<str>,
    /// The pattern of its path, mount included.
    pub path: Box<str>,
    /// Its methods.
    pub methods: Box<[Method]>,
    /// Index into [`Plan::upstreams`].
    pub upstream: usize,
    /// Who may use it.
    pub admission: Admission,
    /// Where its token is read from; `None` where the app's own Authorization is kept.
    pub token: Option<Reader>,
    /// How long a request waits for a token.
    pub token_wait: Duration,
    /// Scopes without which a token is not used, where the credential asks for that.
    pub required_scopes: Option<ScopeSet>,
    /// Inbound target to upstream target.
    pub rewrite: Rewrite,
    /// Whether unsafe methods may be sent a second time.
    pub retry_unsafe: RetryUnsafe,
    /// Which other protocols it lets through.
    pub upgrade: UpgradePolicy,
    /// Whether `;` may stand in the path.
    pub allow_semicolon: bool,
    /// Whether an encoded slash may stand in the path.
    pub allow_encoded_slash: bool,
    /// Whether its upstream takes `/Pay` for `/pay`.
    pub case_insensitive: bool,
    /// What its messages may carry.
    pub header_policy: headers::HeaderPolicy,
    /// Its metric handles.
    pub metrics: RouteMetrics,
    /// Paths of token endpoints on the upstream's origin.
    token_paths: Arc<[String]>,
}

impl RoutePlan {
    /// Scopes for want of which this token is not used.
    pub fn lacking(&self, bearer: &Bearer) -> Option<String> {
        let missing = bearer.lacks(self.required_scopes.as_ref()?);
        let names: Vec<_> = missing.into_iter().map(Scope::as_str).collect();
        (!names.is_empty()).then(|| names.join(" "))
    }

    /// Whether an upstream path is that of a token endpoint, in any spelling that some server may
    /// take for it, whatever the route's opt-ins let pass.
    pub fn is_token_endpoint(&self, path: &str) -> bool {
        self.token_paths.iter().any(|token| could_alias(path, token))
    }
}

/// The tokens that the routes need.
pub fn wanted(settings: &ProxySettings, credentials: &[Arc<Credential>]) -> Vec<TokenSpec> {
    let needs = routes(settings).map(|(_, upstream, route)| need(upstream, route, credentials));
    // A credential that is not there is refused when the plan is built, by the name of the route.
    needs.filter_map(|need| need.ok().flatten()).collect()
}

/// The rules of one listener's table, with the indexes of upstream and route they come from.
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
    /// Resolves everything.
    ///
    /// # Errors
    /// Conflicting routes, and inputs that are missing; a configuration that was loaded, with what
    /// was read and bound for it, has neither.
    pub fn build(settings: &ProxySettings, inputs: PlanInputs<'_>) -> Result<Self, PlanError> {
        let PlanInputs {
            credentials,
            readers,
            set_headers,
            local_keys,
            bound,
            metrics,
            request_log,
        } = inputs;
        let clients = Clients::new(&settings.clients, &local_keys)?;
        let upstreams: Vec<_> = settings
            .upstreams
            .iter()
            .map(|upstream| UpstreamPlan::new(upstream, &set_headers).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let mut tables: Vec<Vec<_>> = settings.listeners.iter().map(|_| Vec::new()).collect();
        for (index, upstream, route) in routes(settings) {
            let needed = need(upstream, route, credentials)?;
            let token = needed.as_ref().map(|needed| reader(upstream, route, needed, &readers));
            let policy = needed.as_ref().map(|needed| &needed.credential.policy);
            let plan = RoutePlan {
                name: Arc::clone(&route.name),
                path: rule(upstream, route).path.to_string().into(),
                methods: route.methods.clone().into(),
                upstream: index,
                admission: clients.admission(&route.clients),
                token: token.transpose()?,
                token_wait: policy.map_or(Duration::ZERO, |policy| policy.wait),
                required_scopes: policy
                    .filter(|policy| policy.missing_scopes == MissingScopes::Refuse)
                    .map(|_| route.scopes.clone()),
                rewrite: Rewrite::new(&upstream.mount, upstream.strip_mount, &upstream.base_path),
                retry_unsafe: route.retry_unsafe,
                upgrade: route.upgrade,
                allow_semicolon: route.allow_semicolon,
                allow_encoded_slash: route.allow_encoded_slash,
                case_insensitive: upstream.case_insensitive,
                header_policy: header_policy(settings, upstream, route),
                metrics: metrics.route(
                    &upstream.connection.name,
                    &route.name,
                    &route.methods,
                    &settings.clients,
                ),
                token_paths: token_paths(upstream, credentials),
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
        Ok(Self { listeners, clients, upstreams, limits: settings.limits, request_log })
    }

    /// All routes with their upstreams, by listener.
    pub fn routes(&self) -> impl Iterator<Item = (&UpstreamPlan, &RoutePlan)> {
        let routes = self.listeners.iter().flat_map(|listener| &listener.routes);
        routes.filter_map(|route| Some((&**self.upstreams.get(route.upstream)?, &**route)))
    }

    /// The plan of a listener, where this configuration has it.
    pub fn listener(&self, id: usize) -> Option<&ListenerPlan> {
        self.listeners.iter().find(|listener| listener.id == id)
    }
}

impl UpstreamPlan {
    fn new(settings: &UpstreamSettings, values: &SetHeaders) -> Result<Self, PlanError> {
        let mut set_headers = Vec::with_capacity(settings.set_headers.len());
        for (header, _) in &settings.set_headers {
            let key = (Arc::clone(&settings.connection.name), header.clone());
            // A value that could not be read is there, as `None`, and fails requests; a header that
            // nobody tried to read would silently not be sent.
            let Some(value) = values.get(&key) else {
                let (upstream, header) = key;
                return Err(PlanError::NoHeader { upstream, header });
            };
            set_headers.push((header.clone(), value.clone()));
        }
        let authority = settings.connection.origin.authority();
        Ok(Self {
            connection: Arc::new(settings.connection.clone()),
            host: HeaderValue::try_from(authority).unwrap_or_else(|_| HeaderValue::from_static("")),
            set_headers,
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

/// Tells this process from others of its name, for as long as it lives.
static INSTANCE: LazyLock<u32> = LazyLock::new(|| fastrand::u32(..));

fn header_policy(
    settings: &ProxySettings,
    upstream: &UpstreamSettings,
    route: &RouteSettings,
) -> headers::HeaderPolicy {
    let keys = settings.clients.iter().filter_map(|client| match &client.credential {
        ClientCredential::LocalKey { header, .. } => Some(header),
        ClientCredential::Certificate(_) | ClientCredential::Process { .. } => None,
    });
    headers::HeaderPolicy {
        keep_overrides: route.allow_override_headers,
        keep_forwarding: upstream.forwarding_headers != ForwardingHeaders::Drop,
        reserved: upstream.set_headers.iter().map(|(name, _)| name).chain(keys).cloned().collect(),
        trailers: route.trailers.clone(),
        via: headers::Via::new(settings.via.clone(), *INSTANCE),
    }
}

/// The token that a route needs; `None` for routes that keep the app's own Authorization.
///
/// Both what the manager is asked for and what the plan looks up come from here, so that they cannot
/// differ.
fn need(
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
        crate::net::Origin::of(endpoint.uri())
            .is_ok_and(|origin| origin == upstream.connection.origin)
    };
    credentials
        .iter()
        .filter(|credential| same_origin(&credential.endpoint))
        .map(|credential| credential.endpoint.path().to_owned())
        .collect()
}

/// Which hosts a listener answers to: a guard against DNS rebinding.
pub struct HostPolicy {
    patterns: Vec<HostPattern>,
}

impl HostPolicy {
    fn new<T>(listener: &ListenerSettings, bound: &[SocketAddr], rules: &[(Rule, T)]) -> Self {
        let names = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        // Nobody is called 0.0.0.0, but browsers take it for this machine.
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

    /// Whether a request addressed to this authority is for us. The port is not looked at: port
    /// forwarding and Services change it, and rebinding cannot forge a name.
    pub fn allows(&self, authority: &Authority) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(authority.host()))
    }
}
