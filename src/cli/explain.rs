//! `explain`: which route a request takes, with which scopes, and what is sent upstream.

use std::path::Path;

use http::Method;

use super::args::Explain;
use super::exit::Exit;
use super::output::{errln, out, outln};
use super::setup::load;
use crate::config::Config;
use crate::proxy::headers::rewrite::Rewrite;
use crate::proxy::policy::plan::rules;
use crate::proxy::policy::settings::AllowedClients;
use crate::route::target::Target;
use crate::route::{Authority, Lookup, Table};

/// Explains one request.
pub fn explain(path: Option<&Path>, flags: &Explain) -> anyhow::Result<Exit> {
    let config = match load(path) {
        Ok(config) => config,
        Err(exit) => return Ok(exit),
    };
    let Ok(method) = flags.method.to_ascii_uppercase().parse::<Method>() else {
        errln!("error: `{}` is no method", flags.method);
        return Ok(Exit::Usage);
    };
    let (host, target) = split(&flags.url);
    match Target::read(target) {
        Ok(_) => {}
        Err(error) => {
            outln!("refused with 400 bad_target: {error}")?;
            return Ok(Exit::Done);
        }
    }
    for listener in 0..config.proxy.listeners.len() {
        out!("{}", on_listener(&config, listener, &host, &method, target))?;
    }
    Ok(Exit::Done)
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

fn on_listener(
    config: &Config,
    listener: usize,
    host: &str,
    method: &Method,
    target: &str,
) -> String {
    let Some(settings) = config.proxy.listeners.get(listener) else { return String::new() };
    let mut text = format!("listener {}\n", settings.listen);
    let Ok(table) = Table::build(rules(&config.proxy, listener)) else { return text };
    let path = target.split('?').next().unwrap_or(target);
    let (upstream, route) = match table.find(host, method, path) {
        Lookup::Found(&(upstream, route)) => (upstream, route),
        Lookup::MethodNotAllowed(allow) => {
            return text + &format!("  refused with 405 method: allowed here are {allow}\n");
        }
        Lookup::NotFound => return text + "  refused with 404 no_route: no route claims it\n",
    };
    let found = (upstream, route);
    let Some(upstream) = config.proxy.upstreams.get(upstream) else { return text };
    if upstream.case_insensitive && table.find_in_any_case(host, method, path) != Some(&found) {
        return text + "  refused with 400 bad_target: another route claims it in another case\n";
    }
    let Some(route) = upstream.routes.get(route) else { return text };
    let credential = route.credential.as_ref().unwrap_or(&upstream.credential);
    text +=
        &format!("  route       {}.{} ({})\n", upstream.connection.name, route.name, route.path);
    text += &format!("  credential  {credential}\n");
    let scopes = if route.scopes.is_empty() { "(none)".into() } else { route.scopes.to_wire() };
    text += &format!("  scopes      {scopes}\n");
    if let Some(clients) = clients(config, &route.clients) {
        text += &format!("  clients     {clients}\n");
    }
    let rewrite = Rewrite::new(&upstream.mount, upstream.strip_mount, &upstream.base_path);
    if let Ok(inbound) = target.parse()
        && let Ok(outbound) = rewrite.apply(&inbound)
    {
        text += &format!("  forwarded   {method} {}{outbound}\n", upstream.connection.origin);
    }
    text
}

/// Who may use a route, where clients are told apart.
fn clients(config: &Config, allowed: &AllowedClients) -> Option<String> {
    let all = || config.proxy.clients.iter().map(|client| &*client.name);
    match allowed {
        AllowedClients::Anyone if config.proxy.clients.is_empty() => None,
        AllowedClients::Anyone => Some("anyone".into()),
        AllowedClients::Known => Some(all().collect::<Vec<_>>().join(", ")),
        AllowedClients::These(names) => Some(names.join(", ")),
    }
}
