//! `[upstreams.NAME]`: the APIs that requests are forwarded to, and where apps find them.

use std::time::Duration;

use http::{HeaderName, Uri};

use super::egress::{self, EgressSettings};
use super::name::check_name;
use super::routes::{self, Route, RouteContext};
use super::server::{HEAD_BYTES, ServerSection};
use super::url::{cleartext, no_cleartext, warn_in_clear, warn_of_doubled_path};
use super::{dialect, listen, tls};
use crate::admin::settings::AdminSettings;
use crate::cleartext::Cleartext;
use crate::diagnostics::units::POSITIVE;
use crate::diagnostics::{Diagnostic, Item, Section};
use crate::listen::settings::Listen;
use crate::net::Origin;
use crate::net::tls::TlsSettings;
use crate::proxy::headers::challenge::RenewOn;
use crate::proxy::policy::settings::{
    ForwardingHeaders, HeaderText, IncomingAuthorization, ListenerSettings, QueryAccessToken,
    UpstreamSettings,
};
use crate::route::PathPattern;
use crate::secret::StoreHttpSettings;
use crate::server::settings::ConnectionSettings;
use crate::upstream::settings::{Protocol, Settings};

/// An upstream that the file names, and its settings if they can be used.
pub(super) struct ParsedUpstream<'c> {
    pub(super) settings: Option<UpstreamSettings>,
    /// Its own listeners, if it has any.
    pub(super) listeners: Vec<ListenerSettings>,
    /// The name of its credential, and the place of the name.
    pub(super) credential: Option<(String, Item<'c>)>,
    /// The place of its own client certificate, if it has one.
    pub(super) certificate: Option<Item<'c>>,
    /// The place of its URL.
    pub(super) url: Option<Item<'c>>,
    /// Its routes, in the order of the settings.
    pub(super) routes: Vec<Route<'c>>,
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

const PROTOCOLS: [(&str, Protocol); 3] =
    [("auto", Protocol::Auto), ("1.1", Protocol::Http1), ("2", Protocol::Http2)];

pub(super) fn read<'c>(
    root: &Section<'c>,
    tls: &TlsSettings,
    egress: &EgressSettings<'c>,
    stores: &StoreHttpSettings,
    server: &ServerSection,
    admin: &AdminSettings,
) -> Vec<ParsedUpstream<'c>> {
    let mut found: Vec<ParsedUpstream<'c>> = Vec::new();
    for (name, item) in root.section("upstreams").entries() {
        check_name(&name, &item, "an upstream");
        let Some(section) = item.section() else { continue };
        let before = found.iter().flat_map(|other| &other.listeners);
        let before: Vec<_> =
            server.listeners.iter().chain(before).map(|listener| &listener.listen).collect();
        let admin = admin.listeners().map(|(listen, _)| listen);
        let taken =
            Taken { listeners: before.len(), all: before.into_iter().chain(admin).collect() };
        let parsed = upstream(&name, &section, tls, egress, stores, server, &taken);
        found.push(parsed);
    }
    if found.is_empty() && !root.is_misspelt("upstreams") {
        root.fail(
            Diagnostic::error("no upstream is configured")
                .label("nothing to forward to")
                .hint("write [upstreams.NAME] with url, credential and routes; `bearer-proxy init` writes an example"),
        );
    }
    found
}

/// Addresses that an upstream's own listeners cannot have.
struct Taken<'a> {
    /// The number of listeners for apps before its own.
    listeners: usize,
    /// The addresses of those, and of the admin listeners.
    all: Vec<&'a Listen>,
}

fn upstream<'c>(
    name: &str,
    section: &Section<'c>,
    tls: &TlsSettings,
    egress: &EgressSettings<'c>,
    stores: &StoreHttpSettings,
    server: &ServerSection,
    taken: &Taken<'_>,
) -> ParsedUpstream<'c> {
    let url_item = section.required("url", "write  url = \"https://host\"");
    let cleartext = cleartext(section);
    let url = url_item.as_ref().and_then(|item| url(item, cleartext));
    let hint = "write  credential = \"NAME\"  of a [credentials.NAME]";
    let credential = section.required("credential", hint);
    let credential = credential.and_then(|item| Some((item.text()?, item)));
    let own = section.item("listen");
    let own = own.map(|item| listen::for_apps(&item, server.remote, &taken.all));
    let listeners: Vec<_> =
        own.into_iter().flatten().map(|parsed| server.listener(parsed)).collect();
    let incoming =
        section.choice("incoming_authorization", &INCOMING, IncomingAuthorization::default());
    // An upstream that keeps the app's Authorization keeps its token in the query too.
    let query_access_token = match incoming {
        IncomingAuthorization::Keep => QueryAccessToken::Pass,
        _ => QueryAccessToken::default(),
    };
    let mount = section.item("mount").and_then(|item| mount(&item)).unwrap_or_default();
    let strip_mount = section.bool("strip_mount", true);
    let set_headers = set_headers(&section.section("set_headers"), stores);
    let request_id_header = section.item("request_id_header");
    let request_id_header =
        request_id_header.and_then(|item| request_id_header_name(&item, &set_headers));
    let renew_on = routes::renew_on(section, RenewOn::default());
    let context = RouteContext { incoming, clients: &server.clients, mount: &mount, renew_on };
    let routes = routes::read(section, &context);
    let egress = egress::read(&section.section("egress"), egress, stores);
    let own_tls = section.section("tls");
    let certificate = own_tls.item("client_certificate_file");
    let certificate = certificate.or_else(|| own_tls.item("client_pkcs12_file"));
    let tls = tls::read(&own_tls, tls);
    let websocket = |route: &Route<'_>| Some(route.settings.as_ref()?.upgrade.websocket);
    let upgrades = routes.iter().filter_map(websocket).any(|allowed| allowed);
    let (origin, base_path) = url.unzip();
    let connection = connection(name, section, origin.as_ref(), tls, &egress, &server.connections);
    let timeouts = section.section("timeouts");
    let minute = Duration::from_secs(60);
    let settings = connection.map(|connection| UpstreamSettings {
        connection: Settings { upgrades, ..connection },
        base_path: base_path.unwrap_or_default(),
        strip_mount,
        case_insensitive: section.bool("case_insensitive_upstream", false),
        listeners: match listeners.len() {
            0 => 0..server.listeners.len(),
            own => taken.listeners..taken.listeners + own,
        },
        credential: credential.as_ref().map(|(name, _)| name.as_str()).unwrap_or_default().into(),
        set_headers,
        request_id_header,
        incoming_authorization: incoming,
        query_access_token: section.choice("query_access_token", &QUERY_TOKENS, query_access_token),
        forwarding_headers: section.choice(
            "forwarding_headers",
            &FORWARDING,
            ForwardingHeaders::default(),
        ),
        rewrite_cookies: section.bool("rewrite_cookies", false),
        response_timeout: timeouts.duration("response", POSITIVE, minute),
        body_idle_timeout: timeouts.duration("idle", POSITIVE, minute),
        routes: routes.iter().filter_map(|route| route.settings.clone()).collect(),
        mount,
    });
    let settings = settings.filter(|_| origin.is_some());
    if let (Some(item), Some(settings)) = (&url_item, &settings) {
        warn_of_doubled_paths(item, settings);
    }
    ParsedUpstream { settings, listeners, credential, certificate, url: url_item, routes }
}

/// Warns if the path of the URL and the path of a route together make one that no server has.
fn warn_of_doubled_paths(url: &Item<'_>, settings: &UpstreamSettings) {
    for route in &settings.routes {
        let mounted = route.path.under(&settings.mount);
        let path = if settings.strip_mount { &route.path } else { &mounted };
        warn_of_doubled_path(url, &settings.base_path, path.as_str());
    }
}

/// Origin and base path. A URL is shown only once it is known to hold no password.
fn url(item: &Item<'_>, cleartext: Cleartext) -> Option<(Origin, String)> {
    let text = item.hidden_text()?;
    if text.contains(['?', '#', '@']) {
        item.reject(
            "a URL here has no user name, query or fragment; write https://host or https://host/path",
        );
        return None;
    }
    let fixed = "expected https:// (http:// on loopback only), a host, and no user name";
    let uri = item.parse(|text| {
        let wrong = "this is not a URL; write https://host or https://host/path";
        text.parse::<Uri>().map_err(|_| wrong)
    })?;
    let encrypted = text.replacen("http://", "https://", 1).parse().map(|uri| Origin::of(&uri));
    let origin = item.parse_or(fixed, |_| match Origin::with_cleartext(&uri, cleartext) {
        // Only the scheme is wrong.
        Err(_) if text.starts_with("http://") && matches!(encrypted, Ok(Ok(_))) => {
            let in_cluster = Origin::with_cleartext(&uri, Cleartext::InCluster).is_ok();
            Err(no_cleartext(cleartext, in_cluster).to_owned())
        }
        origin => origin.map_err(|error| error.to_string()),
    })?;
    if origin.is_cleartext() {
        warn_in_clear(item);
    }
    let base = uri.path().trim_end_matches('/').to_owned();
    let literal = PathPattern::parse(&format!("{base}/")).is_ok_and(|pattern| pattern.is_literal());
    if !literal {
        item.reject(
            "its path is ambiguous: no `//`, dot segments, `;`, `*`, braces or encoded slashes",
        );
        return None;
    }
    Some((origin, base))
}

fn mount(item: &Item<'_>) -> Option<String> {
    let fixed = "expected a path such as \"/qbank\"";
    item.parse_or(fixed, |path| match path {
        "" | "/" => Ok(String::new()),
        _ if path.ends_with('/') => Err("a mount has no slash at its end".to_owned()),
        _ => match PathPattern::parse(path) {
            Ok(pattern) if pattern.is_literal() => Ok(path.to_owned()),
            Ok(_) => Err("a mount is a plain path: no {x}, no /**".to_owned()),
            Err(error) => Err(error.to_string()),
        },
    })
}

/// A header that `set_headers` sets too would be sent with its fixed text alone.
fn request_id_header_name(
    item: &Item<'_>,
    set_headers: &[(HeaderName, HeaderText)],
) -> Option<HeaderName> {
    item.parse(|text| match HeaderName::from_bytes(text.as_bytes()) {
        Err(_) => Err("a name has letters, digits and `-`"),
        Ok(name) if dialect::is_ours(&name) => Err("bearer-proxy writes this header itself"),
        Ok(name) if set_headers.iter().any(|(set, _)| *set == name) => {
            Err("set_headers sets it too; write it in one of the two places")
        }
        Ok(name) => Ok(name),
    })
}

fn set_headers(section: &Section<'_>, http: &StoreHttpSettings) -> Vec<(HeaderName, HeaderText)> {
    let header = |(name, item): (String, Item<'_>)| {
        let (name, text) = (dialect::header_name(&name, &item), header_text(&item, http));
        name.zip(text)
    };
    section.entries().into_iter().filter_map(header).collect()
}

/// A plain string is refused: the file must say whether a fixed header is secret.
fn header_text(item: &Item<'_>, http: &StoreHttpSettings) -> Option<HeaderText> {
    if !item.is_table() {
        let problem = Diagnostic::error("a header's text is written as a table");
        let hint = "write  { value = \"…\" }  if anybody may see it, else  { env = \"NAME\" }  or  { file = \"/path\" }";
        item.fail(problem.label("may this be seen?").hint(hint));
        return None;
    }
    dialect::header_text(item, http)
}

/// The settings of connections. Without a usable URL they are read for a host that cannot exist
/// (RFC 2606), only to find their mistakes.
fn connection(
    name: &str,
    section: &Section<'_>,
    origin: Option<&Origin>,
    tls: TlsSettings,
    egress: &EgressSettings<'_>,
    apps: &ConnectionSettings,
) -> Option<Settings> {
    let nowhere = || Origin::of(&Uri::from_static("https://upstream.invalid")).ok();
    let origin = origin.cloned().or_else(nowhere)?;
    let (timeouts, pool) = (section.section("timeouts"), section.section("pool"));
    let egress = egress.towards(&origin);
    let default = Settings::new(name, origin);
    let header_bytes = default.max_response_header_bytes;
    Some(Settings {
        tls,
        egress,
        protocol: section.choice("http", &PROTOCOLS, default.protocol),
        preserve_header_case: apps.preserve_header_case,
        max_connections: section.count("max_connections", 1..=1_000_000, default.max_connections),
        max_response_headers: section.count(
            "max_response_headers",
            1..=1000,
            default.max_response_headers,
        ),
        max_response_header_bytes: section.size(
            "max_response_header_bytes",
            HEAD_BYTES,
            header_bytes,
        ),
        connect_timeout: timeouts.duration("connect", POSITIVE, default.connect_timeout),
        idle_timeout: pool.duration("idle_timeout", POSITIVE, default.idle_timeout),
        max_age: pool.duration("max_age", POSITIVE, default.max_age),
        max_idle: pool.count("max_idle", ..=10_000, default.max_idle),
        ping: pool.duration("ping", POSITIVE, default.ping),
        ..default
    })
}
