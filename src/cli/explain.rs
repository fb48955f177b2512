//! `explain`: which route a request takes, with which scopes, and what is sent upstream.

use std::path::Path;
use std::sync::Arc;

use http::header::HOST;
use http::{Method, Request};

use super::exit::Exit;
use super::output::{errln, out, outln};
use super::setup::load;
use crate::config::Config;
use crate::listen::settings::Listen;
use crate::proxy::nearest_route::{KnownRoute, NearestRoute, nearest_route};
use crate::proxy::policy::metrics::ProxyMetrics;
use crate::proxy::policy::plan::{
    BoundListener, ListenerPlan, Plan, PlanInputs, rules, token_specs,
};
use crate::proxy::policy::settings::AllowedClients;
use crate::proxy::rejection::{Code, Rejection};
use crate::proxy::request::decide::{Decision, decide};
use crate::telemetry::Registry;
use crate::token::TokenReaders;

/// Explains one request. The exit code is [`Exit::Refused`] where no listener would forward it.
pub(super) fn explain(path: Option<&Path>, method: &str, url: &str) -> anyhow::Result<Exit> {
    let config = load(path)?;
    let written = method;
    let Ok(method) = method.to_ascii_uppercase().parse::<Method>() else {
        errln!("error: `{written}` is not a method");
        return Ok(Exit::Usage);
    };
    // Methods are case-sensitive (RFC 9110 section 9.1), and people type them in lower case.
    if method.as_str() != written {
        errln!("note: `{written}` is read as {method}; a request with `{written}` would get 405");
    }
    let (authority, target) = split(url);
    let plan = plan_without_tokens(&config)?;
    let mut exit = Exit::Refused;
    for (listener, rules) in config.proxy.listeners.iter().zip(&plan.listeners) {
        outln!("listener {}", listener.listen)?;
        match decided(&plan, rules, &method, authority, target) {
            Ok(decision) => {
                exit = Exit::Done;
                out!("{}", described(&config, &method, &decision))?;
            }
            Err(refusal) => {
                outln!("  refused with {}", refused(&refusal))?;
                let path = target.split('?').next().filter(|_| refusal.code == Code::NoRoute);
                let near = path.and_then(|path| nearest_to(&config, rules.id, path));
                if let Some(near) = near {
                    outln!("  nearest     {}", near.words)?;
                    let missing = near.missing_mount;
                    missing.map_or(Ok(()), |mount| outln!("  missing     the mount {mount}"))?;
                }
            }
        }
    }
    Ok(exit)
}

/// Splits a URL into authority and target; a bare path is addressed to localhost.
fn split(url: &str) -> (&str, &str) {
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
        return ("localhost", url);
    };
    match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    }
}

/// The plan that `run` would have, without tokens and secrets: they decide nothing here.
fn plan_without_tokens(config: &Config) -> anyhow::Result<Plan> {
    let settings = &config.proxy;
    let set_headers = settings.upstreams.iter().flat_map(|upstream| {
        let owner = &upstream.connection.name;
        upstream.set_headers.iter().map(|(name, _)| ((Arc::clone(owner), name.clone()), None))
    });
    let bound = settings.listeners.iter().enumerate().map(|(id, listener)| {
        let addresses = match &listener.listen {
            Listen::Tcp(address) => vec![*address],
            Listen::Localhost(_) | Listen::All(_) | Listen::Unix(_) | Listen::Systemd(_) => {
                Vec::new()
            }
        };
        (id, BoundListener { id, addresses })
    });
    let metrics = ProxyMetrics::register(&Registry::new())?;
    let inputs = PlanInputs {
        credentials: &config.credentials,
        readers: TokenReaders::without_tokens(&token_specs(settings, &config.credentials)),
        set_headers: set_headers.collect(),
        local_keys: settings
            .clients
            .iter()
            .map(|client| (Arc::clone(&client.name), None))
            .collect(),
        bound: bound.collect(),
        metrics: &metrics,
        request_log: config.log.requests,
        config_sha256: Arc::clone(&config.sha256),
    };
    Ok(Plan::build(settings, inputs)?)
}

/// Decides about the request as if an app had sent it over HTTP/1.1.
fn decided(
    plan: &Plan,
    listener: &ListenerPlan,
    method: &Method,
    authority: &str,
    target: &str,
) -> Result<Decision, Rejection> {
    let request = Request::builder().method(method).uri(target).header(HOST, authority).body(());
    let request = request.ok().filter(|request| request.uri().authority().is_none());
    let request = request.ok_or_else(|| {
        let detail = match target.starts_with('/') {
            true => "the target is no path that a request can have",
            false => "a path begins with a slash, and a URL with http:// or https://",
        };
        Rejection::new(Code::BadTarget, detail)
    })?;
    decide(plan, listener, request)
}

fn refused(rejection: &Rejection) -> String {
    let (status, code) = (rejection.code.status().as_u16(), rejection.code.as_str());
    match (&rejection.allow, rejection.code) {
        (Some(allow), _) => format!("{status} {code}: allowed here are {allow}"),
        (None, Code::NoRoute) => format!("{status} {code}: no route claims it"),
        (None, _) => format!("{status} {code}: {}", rejection.detail),
    }
}

/// The route that a request takes, and what is sent upstream, line by line.
fn described(config: &Config, method: &Method, decision: &Decision) -> String {
    let Decision { route: found, outbound } = decision;
    let upstream = &config.proxy.upstreams[found.upstream];
    let (name, origin) = (&upstream.connection.name, &upstream.connection.origin);
    let mut text = String::new();
    if let Some(route) = upstream.routes.iter().find(|route| route.name == found.name) {
        let credential = route.credential.as_ref().unwrap_or(&upstream.credential);
        let scopes = if route.scopes.is_empty() { "(none)".into() } else { route.scopes.to_wire() };
        text += &format!("  route       {name}.{} ({})\n", route.name, route.path);
        text += &format!("  credential  {credential}\n  scopes      {scopes}\n");
        if let Some(clients) = clients(config, &route.clients) {
            text += &format!("  clients     {clients}\n");
        }
    }
    text + &format!("  forwarded   {method} {origin}{outbound}\n")
}

/// The route of a listener whose path is spelt most like the requested one.
fn nearest_to(config: &Config, listener: usize, requested: &str) -> Option<NearestRoute> {
    let routes = rules(&config.proxy, listener).into_iter().map(|(_, (upstream, route))| {
        let upstream = &config.proxy.upstreams[upstream];
        let route = &upstream.routes[route];
        KnownRoute {
            upstream: &upstream.connection.name,
            route: &route.name,
            methods: &route.methods,
            mount: &upstream.mount,
            path: route.path.under(&upstream.mount).to_string().into(),
        }
    });
    nearest_route(requested, routes)
}

/// The clients that may use a route; none where the configuration lists no clients.
fn clients(config: &Config, allowed: &AllowedClients) -> Option<String> {
    let all = || config.proxy.clients.iter().map(|client| &*client.name);
    match allowed {
        AllowedClients::Anyone if config.proxy.clients.is_empty() => None,
        AllowedClients::Anyone => Some("anyone".into()),
        AllowedClients::Known => Some(all().collect::<Vec<_>>().join(", ")),
        AllowedClients::These(names) => Some(names.join(", ")),
    }
}
