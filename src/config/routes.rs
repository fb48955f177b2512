//! `[[upstreams.NAME.routes]]`: which requests are let through, and the scopes they need.

use std::collections::HashSet;
use std::sync::Arc;

use http::{HeaderName, Method};

use crate::oauth::{Scope, ScopeSet};
use crate::proxy::headers::AllowedTrailers;
use crate::proxy::policy::settings::{
    AllowedClients, IncomingAuthorization, RetryUnsafe, RouteSettings,
};
use crate::proxy::policy::settings::{AtTokenExpiry, UpgradePolicy};
use crate::route::{HostPattern, PathPattern};

use super::server;
use crate::diagnostics::{Diagnostic, Item, Section, Text};

/// A route as written, and its settings where they can be used.
pub(super) struct Route<'c> {
    pub(super) settings: Option<RouteSettings>,
    pub(super) at: String,
    /// Where its path is, or the route itself.
    pub(super) path: Item<'c>,
    /// Where its own credential is named.
    pub(super) credential: Option<(String, Item<'c>)>,
    /// Where clients are named.
    pub(super) clients: Vec<(String, Item<'c>)>,
}

const ADVICE: &[(&str, &str)] = &[
    ("scope", "did you mean `scopes`?"),
    ("method", "did you mean `methods`?"),
    ("pattern", "did you mean `path`?"),
    ("paths", "one path for each route"),
    ("url", "a route has a path below the upstream's url"),
    ("allow_slash", "write allow_encoded_slash"),
    ("allow_method_override", "write allow_override_headers"),
    ("query_access_token", "it belongs to the upstream"),
    ("forwarding_headers", "it belongs to the upstream"),
    ("timeout", "time-outs belong to the upstream"),
    ("timeouts", "time-outs belong to the upstream"),
    ("client", "did you mean `clients`?"),
    ("allowed_clients", "did you mean `clients`?"),
];

const COMMON: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

pub(super) fn read<'c>(
    upstream: &Section<'c>,
    incoming: IncomingAuthorization,
    usual: &AllowedClients,
) -> Vec<Route<'c>> {
    let hint = "deny is the default: write [[upstreams.NAME.routes]] with name, path and methods";
    let Some(list) = upstream.required("routes", hint) else { return Vec::new() };
    let items = list.list().unwrap_or_default();
    if items.is_empty() && !list.is_table() && !list.is_text() {
        list.reject("no route lets anything through; add one with name, path and methods");
    }
    let mut names = HashSet::new();
    let mut routes = Vec::new();
    for item in items {
        let Some(section) = item.section("a route") else { continue };
        routes.push(route(&item, &section.advise(ADVICE), incoming, usual, &mut names));
    }
    routes
}

fn route<'c>(
    item: &Item<'c>,
    section: &Section<'c>,
    incoming: IncomingAuthorization,
    usual: &AllowedClients,
    names: &mut HashSet<String>,
) -> Route<'c> {
    let name =
        section.required("name", "it is the label of metrics and logs, in place of raw paths");
    let name = name.and_then(|item| unique_name(&item, names));
    let host_item = section.item("host");
    let host = host_item.as_ref().and_then(host);
    let path_item =
        section.required("path", "write  path = \"/v1/things/{id}\", or \"/**\" for all");
    let path = path_item.as_ref().and_then(path);
    let methods =
        section.required("methods", "write  methods = [\"GET\"]").and_then(|item| methods(&item));
    let scopes = scopes(section, incoming);
    let credential =
        section.item("credential").and_then(|item| Some((item.text()?.as_str().to_owned(), item)));
    let clients_item = section.item("clients");
    let clients = clients_item.as_ref().map(clients).unwrap_or_default();
    let retry = section
        .section("retry", "retry of a route")
        .advise(&[("methods", "GET, HEAD and OPTIONS always; see unsafe")]);
    let retry_unsafe = retry.choice("unsafe", &RETRIES, RetryUnsafe::default());
    retry.finish();
    let upgrade = upgrade(section);
    let allow_semicolon = section.bool("allow_semicolon", false);
    let allow_encoded_slash = section.bool("allow_encoded_slash", false);
    let allow_override_headers = section.bool("allow_override_headers", false);
    let trailers = section.item("trailers").map(|item| trailers(&item)).unwrap_or_default();
    section.finish();
    let whole = name.zip(path).zip(methods).filter(|_| host.is_some() || host_item.is_none());
    let settings = whole.map(|((name, path), methods)| RouteSettings {
        name: Arc::from(name),
        host,
        path,
        methods,
        scopes,
        credential: credential.as_ref().map(|(name, _)| Arc::from(name.as_str())),
        clients: match clients_item {
            None => usual.clone(),
            Some(item) if item.is_text() => AllowedClients::Anyone,
            Some(_) => AllowedClients::These(
                clients.iter().map(|(name, _)| Arc::from(name.as_str())).collect(),
            ),
        },
        retry_unsafe,
        upgrade,
        allow_semicolon,
        allow_encoded_slash,
        allow_override_headers,
        trailers,
    });
    Route {
        settings,
        at: section.at.clone(),
        path: path_item.unwrap_or_else(|| item.clone()),
        credential,
        clients,
    }
}

fn upgrade(route: &Section<'_>) -> UpgradePolicy {
    let section = route
        .section("upgrade", "upgrade of a route")
        .advise(&[("protocols", "write  websocket = true"), ("timeout", "write  idle = \"5m\"")]);
    let default = UpgradePolicy::default();
    let policy = UpgradePolicy {
        websocket: section.bool("websocket", default.websocket),
        idle: server::positive(&section, "idle", default.idle),
        at_token_expiry: section.choice("at_token_expiry", &EXPIRIES, default.at_token_expiry),
    };
    section.finish();
    policy
}

const EXPIRIES: [(&str, AtTokenExpiry); 2] =
    [("close", AtTokenExpiry::Close), ("keep", AtTokenExpiry::Keep)];

const RETRIES: [(&str, RetryUnsafe); 3] = [
    ("never", RetryUnsafe::Never),
    ("idempotency_key", RetryUnsafe::IdempotencyKey),
    ("always", RetryUnsafe::Always),
];

fn unique_name(item: &Item<'_>, names: &mut HashSet<String>) -> Option<String> {
    let text = item.text()?;
    let name = text.as_str().to_owned();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(good) {
        item.reject("a route's name is 1 to 64 letters, digits, `-` and `_`");
        return None;
    }
    if !names.insert(name.clone()) {
        let diagnostic = Diagnostic::new("two routes of this upstream have the same name");
        item.fail(
            diagnostic.label("used before").hint("names tell routes apart in metrics and logs"),
        );
    }
    Some(name)
}

/// Names of trailers; those that steer a message are read from its head only.
fn trailers(item: &Item<'_>) -> AllowedTrailers {
    let mut names = Vec::new();
    for text in item.texts() {
        match HeaderName::from_bytes(text.as_str().as_bytes()) {
            Ok(name) if AllowedTrailers::may_allow(&name) => names.push(name),
            Ok(_) => text.item.reject(
                "this field frames, routes, authenticates or steers a message (RFC 9110 section 6.5.1)",
            ),
            Err(_) => text.item.reject("expected the name of a field: letters, digits and `-`"),
        }
    }
    AllowedTrailers::new(names)
}

/// The clients that are named; none where anyone may use the route.
fn clients<'c>(item: &Item<'c>) -> Vec<(String, Item<'c>)> {
    if item.is_text() {
        item.choice(&[("anyone", ())]);
        return Vec::new();
    }
    let texts = item.texts();
    if texts.is_empty() {
        item.reject(
            "name clients, or write \"anyone\"; without clients nobody could use the route",
        );
    }
    texts.into_iter().map(|text| (text.as_str().to_owned(), text.item)).collect()
}

fn host(item: &Item<'_>) -> Option<HostPattern> {
    let text = item.text()?;
    let reject = |error: crate::route::PatternError| {
        text.reject(&error.message, "expected a host name without a port");
    };
    HostPattern::parse(text.as_str()).map_err(reject).ok()
}

fn path(item: &Item<'_>) -> Option<PathPattern> {
    let text = item.text()?;
    let fixed = "expected a path such as \"/v1/things/{id}\", or \"/**\" at its end for all below";
    PathPattern::parse(text.as_str()).map_err(|error| text.reject(&error.message, fixed)).ok()
}

fn methods(item: &Item<'_>) -> Option<Vec<Method>> {
    let list = item.list()?;
    if list.is_empty() {
        item.reject("no method lets nothing through; write [\"GET\"]");
        return None;
    }
    let methods: Vec<_> =
        list.iter().filter_map(Item::text).filter_map(|text| method(&text)).collect();
    (methods.len() == list.len()).then_some(methods)
}

/// Methods are case-sensitive (RFC 9110 section 9.1), so that `get` would never match.
fn method(text: &Text<'_>) -> Option<Method> {
    let word = text.as_str();
    if COMMON.contains(&word) {
        return word.parse().ok();
    }
    if ["CONNECT", "TRACE", "*"].contains(&word) {
        text.item.reject("this method is never forwarded; name the methods that are needed");
        return None;
    }
    let capitals = word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    if !capitals || word.is_empty() {
        text.no_choice(&COMMON, Some("methods are written in capitals"));
        return None;
    }
    word.parse().map_err(|_| text.item.reject("this is no method")).ok()
}

fn scopes(section: &Section<'_>, incoming: IncomingAuthorization) -> ScopeSet {
    let Some(item) = section.item("scopes") else { return ScopeSet::default() };
    if item.is_text() {
        item.reject("scopes are a list: write  scopes = [\"one\", \"two\"]");
        return ScopeSet::default();
    }
    let mut scopes = Vec::new();
    for text in item.texts() {
        match Scope::parse(text.as_str()) {
            Ok(scope) => scopes.push(scope),
            Err(error) => {
                text.reject(&error.message, "a scope is printable ASCII without space, \" and \\")
            }
        }
    }
    if incoming == IncomingAuthorization::Keep && !scopes.is_empty() {
        let diagnostic =
            Diagnostic::new("scopes are of no use where the app's own Authorization is kept");
        item.fail(
            diagnostic
                .label("no token of ours is attached")
                .hint("remove them, or  incoming_authorization = \"keep\"  of the upstream"),
        );
    }
    ScopeSet::new(scopes)
}
