//! `explain`: which route a request takes, with which scopes, and what is sent upstream.

use std::path::Path;

use http::Method;

use super::exit::Exit;
use super::output::{errln, out, outln};
use super::setup::load;
use crate::config::Config;
use crate::diagnostics::nearest;
use crate::proxy::headers::rewrite::Rewrite;
use crate::proxy::policy::plan::rules;
use crate::proxy::policy::settings::AllowedClients;
use crate::proxy::request::AMBIGUOUS;
use crate::route::target::{QuirkSet, Target};
use crate::route::{Authority, Lookup, Table};

/// Explains one request. The exit code is [`Exit::Refused`] where no listener would forward it.
pub(super) fn explain(path: Option<&Path>, method: &str, url: &str) -> anyhow::Result<Exit> {
    let config = load(path)?;
    let Ok(parsed) = method.to_ascii_uppercase().parse::<Method>() else {
        errln!("error: `{method}` is not a method");
        return Ok(Exit::Usage);
    };
    let (host, target) = split(url);
    let target = match Target::read(target) {
        Ok(target) => target,
        Err(error) => {
            outln!("refused with 400 bad_target: {error}")?;
            return Ok(Exit::Refused);
        }
    };
    let mut exit = Exit::Refused;
    for (index, listener) in config.proxy.listeners.iter().enumerate() {
        outln!("listener {}", listener.listen)?;
        match on_listener(&config, index, &host, &parsed, &target) {
            Ok(route) => {
                exit = Exit::Done;
                out!("{route}")?;
            }
            Err(refusal) => outln!("  refused with {refusal}")?,
        }
    }
    Ok(exit)
}

/// Splits a URL into host and target; a bare path is addressed to localhost.
fn split(url: &str) -> (String, &str) {
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
        return ("localhost".into(), url);
    };
    let (authority, target) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let host = Authority::parse(authority.as_bytes()).map(|found| found.host().to_owned());
    (host.unwrap_or_else(|_| "localhost".into()), target)
}

/// The route that a request takes on one listener, line by line; or the answer that refuses it.
fn on_listener(
    config: &Config,
    listener: usize,
    host: &str,
    method: &Method,
    target: &Target<'_>,
) -> Result<String, String> {
    let rules = rules(&config.proxy, listener);
    let table = Table::build(rules).map_err(|_| "no route: two of them conflict")?;
    let bad_target = |detail: &dyn std::fmt::Display| format!("400 bad_target: {detail}");
    let path = &*target.path;
    let found = match table.find(host, method, path) {
        Lookup::Found(found) => found,
        Lookup::Ambiguous(found) => {
            let allowed = config.proxy.upstreams[found.0].routes[found.1].allowed_quirks;
            let quirk = target.quirks.refused(allowed).map(|quirk| bad_target(quirk));
            return Err(quirk.unwrap_or_else(|| bad_target(&AMBIGUOUS)));
        }
        Lookup::MethodNotAllowed(allow) => {
            return Err(format!("405 method: allowed here are {allow}"));
        }
        Lookup::NotFound => {
            if let Some(quirk) = target.quirks.refused(QuirkSet::empty()) {
                return Err(bad_target(quirk));
            }
            let near = nearest_route(config, listener, path);
            let near = near.map(|near| format!("\n  nearest     {near}")).unwrap_or_default();
            return Err(format!("404 no_route: no route claims it{near}"));
        }
    };
    let upstream = &config.proxy.upstreams[found.0];
    if upstream.case_insensitive && table.find_in_any_case(host, method, path) != Some(found) {
        return Err(bad_target(&"another route claims it in another case"));
    }
    let route = &upstream.routes[found.1];
    if let Some(quirk) = target.quirks.refused(route.allowed_quirks) {
        return Err(bad_target(quirk));
    }
    let (name, origin) = (&upstream.connection.name, &upstream.connection.origin);
    let credential = route.credential.as_ref().unwrap_or(&upstream.credential);
    let scopes = if route.scopes.is_empty() { "(none)".into() } else { route.scopes.to_wire() };
    let mut text = format!("  route       {name}.{} ({})\n", route.name, route.path);
    text += &format!("  credential  {credential}\n  scopes      {scopes}\n");
    if let Some(clients) = clients(config, &route.clients) {
        text += &format!("  clients     {clients}\n");
    }
    let rewrite = Rewrite::new(&upstream.mount, upstream.strip_mount, &upstream.base_path);
    let query = target.query.map(|query| format!("?{query}")).unwrap_or_default();
    if let Ok(outbound) = format!("{path}{query}").parse().map(|inbound| rewrite.apply(&inbound))
        && let Ok(outbound) = outbound
    {
        text += &format!("  forwarded   {method} {origin}{outbound}\n");
    }
    Ok(text)
}

/// The route whose path is spelt most like the requested one: its name, methods and path.
fn nearest_route(config: &Config, listener: usize, requested: &str) -> Option<String> {
    let found = rules(&config.proxy, listener).into_iter().flat_map(|(_, (upstream, route))| {
        let upstream = &config.proxy.upstreams[upstream];
        let route = &upstream.routes[route];
        let methods: Vec<_> = route.methods.iter().map(Method::as_str).collect();
        let path = format!("{}{}", upstream.mount, route.path);
        let name = format!("{}.{}", upstream.connection.name, route.name);
        let shown = format!("{name} ({} {path})", methods.join(", "));
        // The path without its mount is compared too: the mount is what is forgotten most.
        let without_mount = fill(&route.path.to_string(), requested);
        [(fill(&path, requested), shown.clone()), (without_mount, shown)]
    });
    let (filled, shown): (Vec<_>, Vec<_>) = found.unzip();
    let known: Vec<_> = filled.iter().map(String::as_str).collect();
    let near = nearest(requested, &known)?;
    let index = known.iter().position(|known| *known == near)?;
    shown.into_iter().nth(index)
}

/// A pattern with the segments of a path in place of its parameters, so that the two can be compared.
fn fill(pattern: &str, path: &str) -> String {
    // Counted from the end: a forgotten mount shifts all segments.
    let segments: Vec<_> = path.trim_end_matches('/').rsplit('/').collect();
    let filled = pattern.rsplit('/').enumerate().map(|(index, segment)| match segment {
        segment if segment.starts_with('{') => segments.get(index).copied().unwrap_or(segment),
        segment => segment,
    });
    let filled: Vec<_> = filled.collect();
    filled.into_iter().rev().collect::<Vec<_>>().join("/")
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
