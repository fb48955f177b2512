//! What only the whole file can tell: names that lead nowhere, routes that claim the same requests,
//! routes that would let apps reach a token endpoint.

use crate::net::Origin;
use crate::oauth::TokenEndpoint;
use crate::proxy::policy::settings::{AllowedClients, RouteSettings, UpstreamSettings};
use crate::route::{Methods, PathPattern, Rule, Table};

use super::clients::ParsedClient;
use super::credentials::ParsedCredential;
use super::routes::Route;
use super::upstreams::ParsedUpstream;
use crate::diagnostics::{Diagnostic, Item, Severity, nearest};

pub(super) fn all(
    upstreams: &[ParsedUpstream<'_>],
    credentials: &[ParsedCredential<'_>],
    clients: &[ParsedClient<'_>],
) {
    let names: Vec<&str> = credentials.iter().map(|found| found.name.as_str()).collect();
    let used: Vec<&(String, Item<'_>)> = upstreams
        .iter()
        .flat_map(|upstream| {
            upstream
                .credential
                .iter()
                .chain(upstream.routes.iter().filter_map(|route| route.credential.as_ref()))
        })
        .collect();
    for (name, item) in &used {
        if !names.contains(&name.as_str()) {
            unknown_credential(name, item, &names);
        }
    }
    for found in
        credentials.iter().filter(|found| !used.iter().any(|(name, _)| *name == found.name))
    {
        let diagnostic =
            Diagnostic::new("no upstream uses this credential").severity(Severity::Warning);
        found.item.fail(
            diagnostic
                .label("no token is fetched for it")
                .hint("name it as credential of an upstream or a route, or remove it"),
        );
    }
    named_clients(upstreams, clients);
    conflicts(upstreams);
    token_endpoints(upstreams, credentials);
}

fn unknown_credential(name: &str, item: &Item<'_>, names: &[&str]) {
    let diagnostic = Diagnostic::new("this credential is not in the file");
    let diagnostic = match nearest(name, names) {
        Some(near) => diagnostic.label(format!("did you mean \"{near}\"?")),
        None => diagnostic.label("no [credentials.NAME] has this name"),
    };
    item.fail(match names {
        [] => diagnostic.hint("add a [credentials.NAME] table"),
        _ => diagnostic.expected(names.join(", ")),
    });
}

/// Clients that routes name but nobody knows, and clients that no route lets in.
fn named_clients(upstreams: &[ParsedUpstream<'_>], clients: &[ParsedClient<'_>]) {
    let names: Vec<&str> = clients.iter().map(|found| found.name.as_str()).collect();
    let named: Vec<_> = upstreams
        .iter()
        .flat_map(|upstream| upstream.routes.iter().flat_map(|route| &route.clients))
        .collect();
    for (name, item) in named.iter().filter(|(name, _)| !names.contains(&name.as_str())) {
        let diagnostic = Diagnostic::new("this client is not in the file");
        let diagnostic = match nearest(name, &names) {
            Some(near) => diagnostic.label(format!("did you mean \"{near}\"?")),
            None => diagnostic.label("no [clients.NAME] has this name"),
        };
        item.fail(if names.is_empty() {
            diagnostic
        } else {
            diagnostic.expected(names.join(", "))
        });
    }
    let any_known = usable(upstreams).any(|(_, route, _)| route.clients == AllowedClients::Known);
    let useless = |name: &str| !any_known && !named.iter().any(|(known, _)| known == name);
    for found in clients.iter().filter(|found| useless(&found.name)) {
        let diagnostic = Diagnostic::new("no route tells this client from others");
        let diagnostic = diagnostic.severity(Severity::Warning).label("it may do what anyone may");
        found.item.fail(diagnostic.hint("name it in clients of a route, or remove it"));
    }
}

/// Usable settings beside where they were written.
fn usable<'a, 'c>(
    upstreams: &'a [ParsedUpstream<'c>],
) -> impl Iterator<Item = (&'a UpstreamSettings, &'a RouteSettings, &'a Route<'c>)> {
    upstreams.iter().filter_map(|found| Some((found.settings.as_ref()?, &found.routes))).flat_map(
        |(upstream, routes)| {
            routes.iter().filter_map(move |route| Some((upstream, route.settings.as_ref()?, route)))
        },
    )
}

fn conflicts(upstreams: &[ParsedUpstream<'_>]) {
    let all: Vec<_> = usable(upstreams).collect();
    let listeners =
        all.iter().map(|(upstream, ..)| upstream.listeners.start).max().map_or(0, |last| last + 1);
    // Upstreams have all their listeners in common, or none: the first stands for them.
    for listener in 0..listeners {
        let here: Vec<_> =
            all.iter().filter(|(upstream, ..)| upstream.listeners.start == listener).collect();
        let rules = here.iter().map(|(upstream, route, _)| (rule(upstream, route), ())).collect();
        for conflict in Table::build(rules).err().unwrap_or_default() {
            let (Some((_, _, first)), Some((_, _, second))) =
                (here.get(conflict.first), here.get(conflict.second))
            else {
                continue;
            };
            let diagnostic = Diagnostic::new("two routes claim the same requests");
            let label = format!("so does {}", first.at);
            let hint = "let them differ in path, methods or host, or mount their upstreams apart";
            second.path.fail(diagnostic.label(label).hint(hint));
        }
    }
}

fn rule(upstream: &UpstreamSettings, route: &RouteSettings) -> Rule {
    Rule {
        host: route.host.clone(),
        path: route.path.under(&upstream.mount),
        methods: Methods::new(route.methods.iter().cloned()),
    }
}

/// A token endpoint behind a route would answer apps with tokens of their own. The exact path is
/// never forwarded; a route that asks for just that is a mistake.
fn token_endpoints(upstreams: &[ParsedUpstream<'_>], credentials: &[ParsedCredential<'_>]) {
    for (upstream, route, written) in usable(upstreams) {
        let pattern = forwarded(upstream, route);
        for credential in credentials {
            let Some(endpoint) =
                credential.credential.as_ref().map(|credential| &credential.endpoint)
            else {
                continue;
            };
            if same_origin(endpoint, upstream) && pattern.covers(endpoint.path()) {
                reaches(&pattern, &credential.name, &written.path);
            }
        }
    }
}

fn same_origin(endpoint: &TokenEndpoint, upstream: &UpstreamSettings) -> bool {
    Origin::of(endpoint.uri()).is_ok_and(|origin| origin == upstream.connection.origin)
}

/// The route's path as the upstream sees it.
fn forwarded(upstream: &UpstreamSettings, route: &RouteSettings) -> PathPattern {
    let mounted =
        if upstream.strip_mount { route.path.clone() } else { route.path.under(&upstream.mount) };
    mounted.under(&upstream.base_path)
}

fn reaches(pattern: &PathPattern, credential: &str, place: &Item<'_>) {
    if pattern.is_literal() {
        let diagnostic = Diagnostic::new("this route is a token endpoint");
        let label = format!("credential `{credential}` asks for its tokens there");
        place.fail(
            diagnostic
                .label(label)
                .hint("remove the route: bearer-proxy fetches tokens, apps never see them"),
        );
        return;
    }
    let diagnostic = Diagnostic::new("this route covers a token endpoint").severity(Severity::Note);
    let label = format!("that of credential `{credential}` is left out");
    place.fail(
        diagnostic
            .label(label)
            .hint("requests to that exact path are answered 404, code token_endpoint"),
    );
}
