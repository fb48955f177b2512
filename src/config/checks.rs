//! The checks that need the whole file: names that lead nowhere, routes that claim the same requests,
//! routes that would let apps reach a token endpoint.

use std::sync::Arc;

use super::clients::ParsedClient;
use super::credentials::ParsedCredential;
use super::routes::Route;
use super::upstreams::ParsedUpstream;
use crate::diagnostics::{Diagnostic, Item, Section, nearest};
use crate::net::Origin;
use crate::net::tls::TlsSettings;
use crate::oauth::TokenEndpoint;
use crate::proxy::policy::settings::{
    AllowedClients, ClientCredential, RouteSettings, UpstreamSettings,
};
use crate::route::{Methods, PathPattern, Rule, Table};
use crate::token::Credential;
use crate::token::credential::{Binding, Grouping};

/// Reports every problem that only the whole file shows. If a section is misspelt, the problems that
/// follow from its absence are left out.
pub(super) fn all(
    root: &Section<'_>,
    upstreams: &[ParsedUpstream<'_>],
    credentials: &[ParsedCredential<'_>],
    clients: &[ParsedClient<'_>],
) {
    let routes = || upstreams.iter().flat_map(|upstream| &upstream.routes);
    let used: Vec<_> = upstreams
        .iter()
        .filter_map(|upstream| upstream.credential.as_ref())
        .chain(routes().filter_map(|route| route.credential.as_ref()))
        .chain(credentials.iter().filter_map(|found| Some(&found.via.as_ref()?.name)))
        .collect();
    let names: Vec<_> = credentials.iter().map(|found| found.name.as_str()).collect();
    if !root.is_misspelt("credentials") {
        report_unknown("credential", &used, &names);
    }
    let unused = |name: &str| !used.iter().any(|(known, _)| known == name);
    for found in credentials.iter().filter(|found| unused(&found.name) && !upstreams.is_empty()) {
        let hint = "name it as credential of an upstream or a route, or remove it";
        found.item.warn("no upstream uses this credential", "no token is fetched for it", hint);
    }
    let named: Vec<_> = routes().flat_map(|route| &route.clients).collect();
    let names: Vec<_> = clients.iter().map(|found| found.name.as_str()).collect();
    if !root.is_misspelt("clients") {
        report_unknown("client", &named, &names);
    }
    let any_known = usable(upstreams).any(|(_, route, _)| route.clients == AllowedClients::Known);
    let useless = |name: &str| !any_known && !named.iter().any(|(known, _)| known == name);
    for found in clients.iter().filter(|found| useless(&found.name) && !upstreams.is_empty()) {
        let hint = "name it in clients of a route, or remove it";
        found.item.warn(
            "no route tells this client from others",
            "it may do all that others may",
            hint,
        );
    }
    conflicts(upstreams);
    token_endpoints(upstreams, credentials);
    token_headers(upstreams, credentials, clients);
    bound_tokens(upstreams, credentials);
    one_live_tokens(upstreams, credentials);
}

/// A certificate-bound token is of use only on connections with its certificate: with TLS, and without a
/// certificate of the upstream's own. One that `[tls]` gives to all gives way.
fn bound_tokens(upstreams: &[ParsedUpstream<'_>], credentials: &[ParsedCredential<'_>]) {
    for parsed in upstreams {
        let Some(upstream) = &parsed.settings else { continue };
        let names = upstream
            .routes
            .iter()
            .map(|route| route.credential.as_ref().unwrap_or(&upstream.credential));
        let of = |name: &Arc<str>| {
            let mut known = credentials.iter().filter_map(|found| found.credential.as_ref());
            known.find(|credential| credential.name == *name)
        };
        let bound = |credential: &&Credential| credential.binding == Binding::Certificate;
        let Some(credential) = names.filter_map(of).find(bound) else { continue };
        let name = &credential.name;
        let TlsSettings { client_certificate, .. } = &upstream.connection.tls;
        if let Some(item) = &parsed.certificate
            && (credential.client_certificate.is_some()
                || *client_certificate != credential.tls.client_certificate)
        {
            let problem = Diagnostic::error("two client certificates for the same connections")
                .label(format!("the tokens of credential `{name}` are bound to its own"))
                .hint("remove this one: connections present the certificate of the token that they carry");
            item.fail(problem);
        }
        if let Some(item) = &parsed.url
            && !upstream.connection.origin.is_https()
        {
            let problem = Diagnostic::error("a certificate-bound token needs https://")
                .label("no certificate is shown here")
                .hint(format!("see bound of credential `{name}`"));
            item.fail(problem);
        }
    }
}

/// A credential whose server keeps one live token can have one token only, and no second credential of
/// the same client may obtain another.
fn one_live_tokens(upstreams: &[ParsedUpstream<'_>], credentials: &[ParsedCredential<'_>]) {
    for found in credentials {
        let Some(credential) = found.credential.as_ref().filter(|one| one.policy.one_live_token)
        else {
            continue;
        };
        let section = found.item.section().map(Section::without_text);
        let Some(item) = section.and_then(|section| section.item("one_live_token")) else {
            continue;
        };
        let sets = scope_sets(upstreams, credential);
        if credential.grouping == Grouping::PerScopeSet && credential.dialect.send_scope && sets > 1
        {
            let problem =
                Diagnostic::error("each token of this credential would revoke the others");
            let label =
                format!("its routes have {sets} sets of scopes, and each has a token of its own");
            item.fail(problem.label(label).hint("write  tokens = \"union\"  beside it"));
        }
        let same = |other: &&ParsedCredential<'_>| {
            let settings = other.credential.as_ref();
            other.name != found.name && settings.is_some_and(|other| other.is_client_of(credential))
        };
        if let Some(other) = credentials.iter().find(same) {
            let problem = Diagnostic::notice("two credentials are the same client");
            let label =
                format!("each token of credential `{}` revokes that of this one", other.name);
            item.fail(problem.label(label).hint("use one credential for both"));
        }
    }
}

/// The number of different sets of scopes that the routes of a credential have.
fn scope_sets(upstreams: &[ParsedUpstream<'_>], credential: &Credential) -> usize {
    let mut sets = Vec::new();
    for (upstream, route, _) in usable(upstreams) {
        let name = route.credential.as_ref().unwrap_or(&upstream.credential);
        if **name == *credential.name && !sets.contains(&&route.scopes) {
            sets.push(&route.scopes);
        }
    }
    sets.len()
}

/// A header that carries the token may have no second source, and no trailer may have its name.
fn token_headers(
    upstreams: &[ParsedUpstream<'_>],
    credentials: &[ParsedCredential<'_>],
    clients: &[ParsedClient<'_>],
) {
    for (upstream, route, written) in usable(upstreams) {
        let name = route.credential.as_ref().unwrap_or(&upstream.credential);
        let credential = credentials.iter().filter_map(|found| found.credential.as_ref());
        let Some(credential) = { credential }.find(|credential| credential.name == *name) else {
            continue;
        };
        let header = &credential.attach.name;
        let is_local_key = clients.iter().filter_map(|found| found.settings.as_ref()).any(|client| {
            matches!(&client.credential, ClientCredential::LocalKey { header: key, .. } if key == header)
        });
        let other = match () {
            () if upstream.set_headers.iter().any(|(set, _)| set == header) => "set_headers",
            () if upstream.request_id_header.as_ref() == Some(header) => "request_id_header",
            () if is_local_key => "local_key of a client",
            () if route.trailers.allows(header) => "trailers",
            () => continue,
        };
        let problem = Diagnostic::error("a header is written twice");
        let label = format!("{other} names `{header}` too, which carries the token of this route");
        written.path.fail(problem.label(label).hint("see attach of the credential"));
    }
}

/// Reports names that the file does not define.
fn report_unknown(what: &str, used: &[&(String, Item<'_>)], known: &[&str]) {
    for (name, item) in used.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
        let label = match nearest(name, known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("no [{what}s.NAME] has this name"),
        };
        let problem = Diagnostic::error(format!("this {what} is not in the file")).label(label);
        item.fail(match known {
            [] => problem.hint(format!("add a [{what}s.NAME] table")),
            known => problem.expected(known.join(", ")),
        });
    }
}

/// Usable settings of routes, each with its upstream and the place where it is written.
fn usable<'a, 'c>(
    upstreams: &'a [ParsedUpstream<'c>],
) -> impl Iterator<Item = (&'a UpstreamSettings, &'a RouteSettings, &'a Route<'c>)> {
    let upstreams = upstreams.iter().filter_map(|found| Some((found.settings.as_ref()?, found)));
    upstreams.flat_map(|(upstream, found)| {
        let routes = found.routes.iter();
        routes.filter_map(move |route| Some((upstream, route.settings.as_ref()?, route)))
    })
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
            let hint = "let them differ in path, methods or host, or mount their upstreams apart";
            let problem = Diagnostic::error("two routes claim the same requests");
            second.path.fail(problem.label(format!("so does {}", first.at)).hint(hint));
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

/// A token endpoint behind a route would give apps tokens of their own. The exact path is never
/// forwarded; a route that claims just that path is a mistake.
fn token_endpoints(upstreams: &[ParsedUpstream<'_>], credentials: &[ParsedCredential<'_>]) {
    for (upstream, route, written) in usable(upstreams) {
        let mounted = match upstream.strip_mount {
            true => route.path.clone(),
            false => route.path.under(&upstream.mount),
        };
        let forwarded = mounted.under(&upstream.base_path);
        for found in credentials {
            let Some(credential) = &found.credential else { continue };
            let Some(endpoint) = credential.endpoint() else { continue };
            if same_origin(endpoint, upstream) && forwarded.covers(endpoint.path()) {
                written.path.fail(reached(&forwarded, &found.name));
            }
        }
    }
}

fn same_origin(endpoint: &TokenEndpoint, upstream: &UpstreamSettings) -> bool {
    Origin::with_cleartext(endpoint.uri(), endpoint.cleartext())
        .is_ok_and(|origin| origin == upstream.connection.origin)
}

fn reached(pattern: &PathPattern, credential: &str) -> Diagnostic {
    match pattern.is_literal() {
        true => Diagnostic::error("this route is a token endpoint")
            .label(format!("credential `{credential}` asks for its tokens there"))
            .hint("remove the route: bearer-proxy fetches tokens, apps never see them"),
        false => Diagnostic::notice("this route covers a token endpoint")
            .label(format!("that of credential `{credential}` is left out"))
            .hint("requests to that exact path are answered 404, code token_endpoint"),
    }
}
