//! `[upstreams.NAME]`: what is mounted where.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Uri};

use crate::admin::settings::AdminSettings;
use crate::listen::settings::Listen;
use crate::net::Origin;
use crate::net::tls::TlsSettings;
use crate::proxy::policy::settings::{
    ForwardingHeaders, HeaderText, IncomingAuthorization, ListenerSettings, QueryAccessToken,
    UpstreamSettings,
};
use crate::route::PathPattern;
use crate::server::settings::ConnectionSettings;
use crate::upstream::settings::{Protocol, Settings};

use super::egress::{self, EgressSettings};
use super::listen::ParsedListener;
use super::name::check_name;
use super::routes::{self, Route};
use super::server::{self, ServerSection};
use super::{dialect, references, tls};
use crate::diagnostics::{Diagnostic, Item, Section};
use crate::secret::StoreHttpSettings;

/// An upstream that the file names, and its settings where they can be used.
pub(super) struct ParsedUpstream<'c> {
    pub(super) settings: Option<UpstreamSettings>,
    /// Its own listeners, where it has any.
    pub(super) listeners: Vec<ListenerSettings>,
    /// Where its credential is named.
    pub(super) credential: Option<(String, Item<'c>)>,
    /// Its routes, in the order of the settings.
    pub(super) routes: Vec<Route<'c>>,
}

const ADVICE: &[(&str, &str)] = &[
    ("base_url", "write url"),
    ("target", "write url"),
    ("upstream", "write url"),
    ("route", "write [[upstreams.NAME.routes]]"),
    ("path", "write mount for the prefix under which apps find it; paths belong to routes"),
    ("prefix", "write mount"),
    ("strip_prefix", "write strip_mount"),
    ("headers", "write set_headers"),
    ("x_forwarded", "write forwarding_headers"),
    ("scopes", "scopes belong to routes"),
    ("scope", "scopes belong to routes"),
    ("egress_proxy", "write  egress = { proxy = \"http://host:port\" }"),
    ("proxy", "write  egress = { proxy = \"http://host:port\" }"),
    ("timeout", "write  timeouts = { response = \"60s\" }"),
    ("retry", "retry belongs to routes"),
    ("clients", "clients belong to routes"),
    ("allow_remote_clients", "write  clients = \"anyone\"  in [server]"),
];

pub(super) fn read<'c>(
    root: &Section<'c>,
    tls: &TlsSettings,
    egress: &EgressSettings<'c>,
    server: &ServerSection,
    admin: &AdminSettings,
) -> Vec<ParsedUpstream<'c>> {
    let mut found: Vec<ParsedUpstream<'c>> = Vec::new();
    for (name, item) in root.section("upstreams", "[upstreams]").entries() {
        check_name(&name, &item, "an upstream");
        let Some(section) = item.section("an upstream") else { continue };
        let section = section.advise(ADVICE);
        let before: Vec<&Listen> = server
            .listeners
            .iter()
            .chain(found.iter().flat_map(|other| &other.listeners))
            .map(|listener| &listener.listen)
            .collect();
        let admin = admin.listeners().map(|(listen, _)| listen);
        let taken =
            Taken { listeners: before.len(), all: before.into_iter().chain(admin).collect() };
        let one = upstream(&name, &section, tls, egress, server, &taken);
        found.push(one);
    }
    if found.is_empty() {
        let hint = "write [upstreams.NAME] with url, credential and routes; `bearer-proxy init` writes an example";
        root.fail(
            Diagnostic::new("no upstream is configured").label("nothing to forward to").hint(hint),
        );
    }
    found
}

/// Addresses that an upstream's own listeners cannot have.
struct Taken<'a> {
    /// How many listeners for apps there are before its own.
    listeners: usize,
    /// The addresses of those, and of the admin listeners.
    all: Vec<&'a Listen>,
}

fn upstream<'c>(
    name: &str,
    section: &Section<'c>,
    tls: &TlsSettings,
    egress: &EgressSettings<'c>,
    server: &ServerSection,
    taken: &Taken<'_>,
) -> ParsedUpstream<'c> {
    let url = section.required("url", "write  url = \"https://host\"").and_then(|item| url(&item));
    let credential = credential(section);
    let own = section.item("listen");
    let listeners = own.map(|item| own_listeners(&item, server, &taken.all)).unwrap_or_default();
    let incoming =
        section.choice("incoming_authorization", &INCOMING, IncomingAuthorization::default());
    // What keeps the app's Authorization keeps its token in the query too.
    let query_access_token = match incoming {
        IncomingAuthorization::Keep => QueryAccessToken::Pass,
        _ => QueryAccessToken::default(),
    };
    let query_access_token =
        section.choice("query_access_token", &QUERY_TOKENS, query_access_token);
    let forwarding_headers =
        section.choice("forwarding_headers", &FORWARDING, ForwardingHeaders::default());
    let mount = section.item("mount").and_then(|item| mount(&item)).unwrap_or_default();
    let strip_mount = section.bool("strip_mount", true);
    let case_insensitive = section.bool("case_insensitive_upstream", false);
    let rewrite_cookies = section.bool("rewrite_cookies", false);
    let stores = egress.store_http(tls);
    let set_headers = set_headers(&section.section("set_headers", "set_headers"), &stores);
    let tls = tls::read(&section.section("tls", "tls of an upstream").advise(tls::ADVICE), tls);
    let way = section.section("egress", "egress of an upstream").advise(egress::ADVICE);
    let egress = egress::read(&way, egress, &stores);
    let (connection, response_timeout, body_idle_timeout) =
        connection(name, section, url.as_ref(), tls, &egress, &server.connections);
    let routes = routes::read(section, incoming, &server.clients);
    section.finish();
    let switches = |route: &Route<'_>| {
        route.settings.as_ref().is_some_and(|settings| settings.upgrade.websocket)
    };
    let upgrades = routes.iter().any(switches);
    let settings = connection.zip(url).map(|(connection, (_, base_path))| UpstreamSettings {
        connection: Settings { upgrades, ..connection },
        base_path,
        mount,
        strip_mount,
        case_insensitive,
        listeners: match listeners.len() {
            0 => 0..server.listeners.len(),
            own => taken.listeners..taken.listeners + own,
        },
        credential: credential
            .as_ref()
            .map(|(name, _)| Arc::from(name.as_str()))
            .unwrap_or_default(),
        set_headers,
        incoming_authorization: incoming,
        query_access_token,
        forwarding_headers,
        rewrite_cookies,
        response_timeout,
        body_idle_timeout,
        routes: routes.iter().filter_map(|route| route.settings.clone()).collect(),
    });
    ParsedUpstream { settings, listeners, credential, routes }
}

const INCOMING: [(&str, IncomingAuthorization); 3] = [
    ("replace", IncomingAuthorization::Replace),
    ("reject", IncomingAuthorization::Reject),
    ("keep", IncomingAuthorization::Keep),
];

const QUERY_TOKENS: [(&str, QueryAccessToken); 3] = [
    ("reject", QueryAccessToken::Reject),
    ("strip", QueryAccessToken::Strip),
    ("pass", QueryAccessToken::Pass),
];

const FORWARDING: [(&str, ForwardingHeaders); 3] = [
    ("drop", ForwardingHeaders::Drop),
    ("append", ForwardingHeaders::Append),
    ("pass", ForwardingHeaders::Pass),
];

fn credential<'c>(section: &Section<'c>) -> Option<(String, Item<'c>)> {
    let item =
        section.required("credential", "write  credential = \"NAME\"  of a [credentials.NAME]")?;
    let name = item.text()?.as_str().to_owned();
    Some((name, item))
}

/// Origin and base path. A URL is shown only once it is known to hold no password.
fn url(item: &Item<'_>) -> Option<(Origin, String)> {
    let text = item.hidden_text()?;
    let reject = |why: &str| {
        item.reject(why);
        None
    };
    if text.as_str().contains(['?', '#', '@']) {
        return reject(
            "a URL here has no user name, query or fragment; write https://host or https://host/path",
        );
    }
    text.show();
    let Ok(uri) = text.as_str().parse::<Uri>() else {
        return reject("this is no URL; write https://host or https://host/path");
    };
    let origin = match Origin::of(&uri) {
        Ok(origin) => origin,
        Err(error) => {
            text.reject(
                &error.message,
                "expected https:// (http:// on loopback only), a host, and no user name",
            );
            return None;
        }
    };
    let base = uri.path().trim_end_matches('/').to_owned();
    let literal = PathPattern::parse(&format!("{base}/")).is_ok_and(|pattern| pattern.is_literal());
    if !literal {
        return reject(
            "its path is ambiguous: no `//`, dot segments, `;`, `*`, braces or encoded slashes",
        );
    }
    Some((origin, base))
}

fn own_listeners(
    item: &Item<'_>,
    server: &ServerSection,
    taken: &[&Listen],
) -> Vec<ListenerSettings> {
    let listener = |ParsedListener { listen, peers, tls }| ListenerSettings {
        listen,
        peers,
        tls,
        allowed_hosts: server.allowed_hosts.clone(),
        allowed_origins: server.allowed_origins.clone(),
    };
    server::addresses(item, server.remote, taken).into_iter().map(listener).collect()
}

fn mount(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let path = text.as_str();
    if path.is_empty() || path == "/" {
        return Some(String::new());
    }
    let why = match PathPattern::parse(path) {
        _ if path.ends_with('/') => "a mount has no slash at its end",
        Ok(pattern) if !pattern.is_literal() => "a mount is a plain path: no {x}, no /**",
        Ok(_) => return Some(path.to_owned()),
        Err(error) => {
            text.reject(&error.message, "expected a path such as \"/qbank\"");
            return None;
        }
    };
    item.reject(why);
    None
}

fn set_headers(
    section: &Section<'_>,
    http: &StoreHttpSettings,
) -> Vec<(http::HeaderName, HeaderText)> {
    let mut headers = Vec::new();
    for (name, item) in section.entries() {
        if let Some((name, text)) = dialect::header_name(&name, &item).zip(header_text(&item, http))
        {
            headers.push((name, text));
        }
    }
    headers
}

/// A plain string is refused: whether a fixed header is secret must be said.
fn header_text(item: &Item<'_>, http: &StoreHttpSettings) -> Option<HeaderText> {
    if !item.is_table() {
        let diagnostic = Diagnostic::new("a header's text is written as a table");
        let hint = "write  { value = \"…\" }  if anybody may see it, else  { env = \"NAME\" }  or  { file = \"/path\" }";
        item.fail(diagnostic.label("may this be seen?").hint(hint));
        return None;
    }
    let entries = item.section("a header")?.entries();
    match entries.as_slice() {
        [(key, value)] if key == "value" => {
            match HeaderValue::from_str(value.hidden_text()?.as_str()) {
                Ok(text) => Some(HeaderText::Value(text)),
                Err(_) => {
                    value.reject("a header holds no control characters");
                    None
                }
            }
        }
        _ => references::read(item, "NAME", http).map(HeaderText::Secret),
    }
}

const POOL_ADVICE: &[(&str, &str)] =
    &[("max_connections", "write max_connections beside pool, not in it")];

const PROTOCOLS: [(&str, Protocol); 3] =
    [("auto", Protocol::Auto), ("1.1", Protocol::Http1), ("2", Protocol::Http2)];

fn connection(
    name: &str,
    section: &Section<'_>,
    url: Option<&(Origin, String)>,
    tls: TlsSettings,
    egress: &EgressSettings<'_>,
    apps: &ConnectionSettings,
) -> (Option<Settings>, Duration, Duration) {
    let protocol = section.choice("http", &PROTOCOLS, Protocol::default());
    let max_connections = section.count("max_connections", 1..1_000_001, Settings::MAX_CONNECTIONS);
    let max_response_headers =
        section.count("max_response_headers", 1..1001, Settings::MAX_RESPONSE_HEADERS);
    let max_response_header_bytes = section.size_within(
        "max_response_header_bytes",
        server::HEAD_BYTES,
        Settings::MAX_RESPONSE_HEADER_BYTES,
    );
    let timeouts = section.section("timeouts", "timeouts of an upstream");
    let pool = section.section("pool", "pool").advise(POOL_ADVICE);
    let minute = Duration::from_secs(60);
    let connect = server::positive(&timeouts, "connect", Duration::from_secs(5));
    let response = server::positive(&timeouts, "response", minute);
    let idle = server::positive(&timeouts, "idle", minute);
    let settings = url.map(|(origin, _)| {
        let default = Settings::new(name, origin.clone());
        Settings {
            tls,
            egress: egress.towards(origin),
            protocol,
            preserve_header_case: apps.preserve_header_case,
            max_connections,
            max_response_headers,
            max_response_header_bytes,
            connect_timeout: connect,
            idle_timeout: server::positive(&pool, "idle_timeout", default.idle_timeout),
            max_age: server::positive(&pool, "max_age", default.max_age),
            max_idle: pool.count("max_idle", 0..10_001, default.max_idle),
            ping: server::positive(&pool, "ping", default.ping),
            ..default
        }
    });
    timeouts.finish();
    if settings.is_some() {
        pool.finish();
    }
    (settings, response, idle)
}
