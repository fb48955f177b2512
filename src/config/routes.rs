//! `[[upstreams.NAME.routes]]`: the requests that are let through, and the scopes they need.

use std::collections::HashSet;
use std::sync::Arc;

use http::{HeaderName, Method};

use super::name::{NAME_FORM, is_name};
use crate::diagnostics::units::POSITIVE;
use crate::diagnostics::{Diagnostic, Item, Section, nearest};
use crate::oauth::{Scope, ScopeSet};
use crate::proxy::headers::AllowedTrailers;
use crate::proxy::headers::challenge::RenewOn;
use crate::proxy::policy::settings::{
    AllowedClients, AtTokenExpiry, IncomingAuthorization, RetryUnsafe, RouteSettings, UpgradePolicy,
};
use crate::route::target::QuirkSet;
use crate::route::{HostPattern, PathPattern};

/// A route as written, and its settings if they can be used.
pub(super) struct Route<'c> {
    pub(super) settings: Option<RouteSettings>,
    pub(super) at: String,
    /// The place of its path, or of the route itself.
    pub(super) path: Item<'c>,
    /// The credential of its own, and its place.
    pub(super) credential: Option<(String, Item<'c>)>,
    /// The clients that it names, and their places.
    pub(super) clients: Vec<(String, Item<'c>)>,
}

/// The parts of an upstream that its routes depend on.
pub(super) struct RouteContext<'a> {
    pub(super) incoming: IncomingAuthorization,
    /// The clients of routes that name none.
    pub(super) clients: &'a AllowedClients,
    pub(super) mount: &'a str,
    /// The statuses after which a newer token is tried, for routes that name none.
    pub(super) renew_on: RenewOn,
}

const COMMON: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

const EXPIRIES: [(&str, AtTokenExpiry); 2] =
    [("close", AtTokenExpiry::Close), ("keep", AtTokenExpiry::Keep)];

const RETRIES: [(&str, RetryUnsafe); 3] = [
    ("never", RetryUnsafe::Never),
    ("idempotency_key", RetryUnsafe::IdempotencyKey),
    ("always", RetryUnsafe::Always),
];

pub(super) fn read<'c>(upstream: &Section<'c>, context: &RouteContext<'_>) -> Vec<Route<'c>> {
    let hint = "deny is the default: write [[upstreams.NAME.routes]] with name, path and methods";
    let Some(list) = upstream.required("routes", hint) else { return Vec::new() };
    let Some(items) = list.list() else { return Vec::new() };
    if items.is_empty() {
        list.reject("no route lets anything through; add one with name, path and methods");
    }
    let mut names = HashSet::new();
    let read = |item: Item<'c>| Some(route(&item, &item.section()?, context, &mut names));
    items.into_iter().filter_map(read).collect()
}

fn route<'c>(
    item: &Item<'c>,
    section: &Section<'c>,
    context: &RouteContext<'_>,
    names: &mut HashSet<String>,
) -> Route<'c> {
    let name =
        section.required("name", "it is the label of metrics and logs, in place of raw paths");
    let name = name.and_then(|item| unique_name(&item, names));
    let host_item = section.item("host");
    let host = host_item
        .as_ref()
        .and_then(|item| item.parse_or("expected a host name without a port", HostPattern::parse));
    let path_item =
        section.required("path", "write  path = \"/v1/things/{id}\", or \"/**\" for all");
    let path = path_item.as_ref().and_then(|item| path(item, context.mount));
    let methods = section.required("methods", "write  methods = [\"GET\"]");
    let methods = methods.and_then(|item| methods_of(&item));
    let credential = section.item("credential").and_then(|item| Some((item.text()?, item)));
    let clients_item = section.item("clients");
    let clients = clients_item.as_ref().map(clients).unwrap_or_default();
    let scopes = scopes(section, context.incoming);
    let retry = section.section("retry");
    let retry_unsafe = retry.choice("unsafe", &RETRIES, RetryUnsafe::default());
    let retry_dpop_nonce = retry.bool("dpop_nonce", true);
    let renew_on = renew_on(section, context.renew_on);
    let upgrade = upgrade(&section.section("upgrade"));
    let allowed_quirks = allowed_quirks(section);
    let allow_override_headers = section.bool("allow_override_headers", false);
    let trailers = trailers(section);
    let required = name.zip(path).zip(methods).filter(|_| host.is_some() || host_item.is_none());
    let settings = required.map(|((name, path), methods)| RouteSettings {
        name: Arc::from(name),
        host,
        path,
        methods,
        scopes,
        credential: credential.as_ref().map(|(name, _)| Arc::from(name.as_str())),
        clients: match clients_item {
            None => context.clients.clone(),
            Some(item) if item.is_text() => AllowedClients::Anyone,
            Some(_) => AllowedClients::These(
                clients.iter().map(|(name, _)| Arc::from(name.as_str())).collect(),
            ),
        },
        retry_unsafe,
        retry_dpop_nonce,
        renew_on,
        upgrade,
        allowed_quirks,
        allow_override_headers,
        trailers,
    });
    let path = path_item.unwrap_or_else(|| item.clone());
    Route { settings, at: section.at().to_owned(), path, credential, clients }
}

/// The statuses after which a newer token is tried. Others say nothing about the token.
pub(super) fn renew_on(section: &Section<'_>, default: RenewOn) -> RenewOn {
    let Some(item) = section.item("renew_on") else { return default };
    let mut renew_on = RenewOn { unauthorized: false, forbidden: false };
    for item in item.list().unwrap_or_default() {
        match item.integer::<u16>(401..=403) {
            Some(401) => renew_on.unauthorized = true,
            Some(403) => renew_on.forbidden = true,
            Some(_) => item.reject("expected 401 or 403"),
            None => {}
        }
    }
    renew_on
}

fn allowed_quirks(section: &Section<'_>) -> QuirkSet {
    let keys = [
        ("allow_semicolon", QuirkSet::SEMICOLON),
        ("allow_encoded_slash", QuirkSet::ENCODED_SLASH),
        ("allow_encoded_percent", QuirkSet::ENCODED_PERCENT),
        ("allow_empty_segments", QuirkSet::EMPTY_SEGMENT),
    ];
    let allowed = keys.into_iter().filter(|(key, _)| section.bool(key, false));
    allowed.fold(QuirkSet::empty(), |all, (_, quirk)| all | quirk)
}

fn upgrade(section: &Section<'_>) -> UpgradePolicy {
    let default = UpgradePolicy::default();
    UpgradePolicy {
        websocket: section.bool("websocket", default.websocket),
        idle: section.duration("idle", POSITIVE, default.idle),
        at_token_expiry: section.choice("at_token_expiry", &EXPIRIES, default.at_token_expiry),
    }
}

fn unique_name(item: &Item<'_>, names: &mut HashSet<String>) -> Option<String> {
    let name = item.parse(|text| match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(NAME_FORM),
    })?;
    if !names.insert(name.clone()) {
        let problem = Diagnostic::error("two routes of this upstream have the same name");
        let hint = "names tell routes apart in metrics and logs";
        item.fail(problem.label("used before").hint(hint));
    }
    Some(name)
}

/// Names of trailers; those that steer a message are read from its head only.
fn trailers(section: &Section<'_>) -> AllowedTrailers {
    let name = |text: &str| match HeaderName::from_bytes(text.as_bytes()) {
        Ok(name) if AllowedTrailers::may_allow(&name) => Ok(name),
        Ok(_) => Err(
            "this field frames, routes, authenticates or steers a message (RFC 9110 section 6.5.1)",
        ),
        Err(_) => Err("expected the name of a field: letters, digits and `-`"),
    };
    let items = section.list("trailers");
    let names: Vec<_> = items.iter().filter_map(|item| item.parse(name)).collect();
    AllowedTrailers::new(names)
}

/// The clients that are named; none if anyone may use the route.
fn clients<'c>(item: &Item<'c>) -> Vec<(String, Item<'c>)> {
    if item.is_text() {
        item.choice(&[("anyone", ())]);
        return Vec::new();
    }
    let list = item.list().unwrap_or_default();
    if list.is_empty() {
        item.reject(
            "name clients, or write \"anyone\"; an empty list lets no client use the route",
        );
    }
    list.into_iter().filter_map(|item| Some((item.text()?, item))).collect()
}

fn path(item: &Item<'_>, mount: &str) -> Option<PathPattern> {
    let fixed = "expected a path such as \"/v1/things/{id}\", or \"/**\" at its end for all below";
    let pattern = item.parse_or(fixed, PathPattern::parse)?;
    let path = pattern.as_str();
    if let Some(below) =
        path.strip_prefix(mount).filter(|below| below.starts_with('/') && !mount.is_empty())
    {
        let label = format!("apps would call {mount}{path}");
        let hint = format!("paths of routes begin below the mount; write \"{below}\"");
        item.warn("the path repeats the mount of its upstream", label, &hint);
    }
    if let Some(name) = path.split('/').find_map(|segment| segment.strip_prefix(':')) {
        let hint = format!("write {{{name}}} for a segment that may be any text");
        item.warn("a colon does not make a parameter", "only this very text matches", &hint);
    }
    Some(pattern)
}

fn methods_of(item: &Item<'_>) -> Option<Vec<Method>> {
    let list = item.list()?;
    if list.is_empty() {
        item.reject("an empty list lets nothing through; write [\"GET\"]");
        return None;
    }
    let methods: Vec<_> = list.iter().filter_map(method).collect();
    (methods.len() == list.len()).then_some(methods)
}

/// Methods are case-sensitive (RFC 9110 section 9.1), so `get` would never match.
fn method(item: &Item<'_>) -> Option<Method> {
    let word = item.text()?;
    if ["CONNECT", "TRACE", "*"].contains(&word.as_str()) {
        item.reject("this method is never forwarded; name the methods that are needed");
        return None;
    }
    let capitals = word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    if !capitals || word.is_empty() {
        item.no_choice(&word, &COMMON);
        return None;
    }
    if let Some(near) = nearest(&word, &COMMON).filter(|near| *near != word) {
        let label = format!("did you mean \"{near}\"?");
        item.warn(
            "no client is likely to send this method",
            label,
            "methods are matched as written",
        );
    }
    word.parse().map_err(|_| item.reject("this is not a method")).ok()
}

fn scopes(section: &Section<'_>, incoming: IncomingAuthorization) -> ScopeSet {
    let scopes = scope_list(section);
    if incoming == IncomingAuthorization::Keep
        && !scopes.is_empty()
        && let Some(item) = section.item("scopes")
    {
        let problem = Diagnostic::error("scopes are of no use if the app's Authorization is kept");
        let hint = "remove them, or  incoming_authorization = \"keep\"  of the upstream";
        item.fail(problem.label("no token of ours is attached").hint(hint));
    }
    scopes
}

/// The scopes of a key `scopes`.
pub(super) fn scope_list(section: &Section<'_>) -> ScopeSet {
    let Some(item) = section.item("scopes") else { return ScopeSet::default() };
    if item.is_text() {
        item.reject("scopes are a list: write  scopes = [\"one\", \"two\"]");
        return ScopeSet::default();
    }
    let fixed = "a scope is printable ASCII without space, \" and \\";
    let mut scopes = Vec::new();
    for item in item.list().unwrap_or_default() {
        let Some(scope) = item.parse_or(fixed, Scope::parse) else { continue };
        if scope.as_str().contains(',') {
            let hint = "write each scope as an item of its own: [\"one\", \"two\"]";
            item.warn("a comma does not separate scopes", "this is one scope", hint);
        }
        scopes.push(scope);
    }
    ScopeSet::new(scopes)
}
