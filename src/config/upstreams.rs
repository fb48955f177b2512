//! `[upstreams.NAME]` and their routes.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::credentials::{TlsDefaults, tls};
use super::problem::Problem;
use super::reader::{Section, closest};
use super::resolve::listen;
use crate::net::Origin;
use crate::oauth::{Scope, ScopeSet};
use crate::proxy::plan::rules;
use crate::proxy::rewrite::Rewrite;
use crate::proxy::settings::{
    HeaderText, IncomingAuthorization, ListenerSettings, ProxySettings, RequestLimits, RetryUnsafe,
    RouteSettings, UpstreamSettings,
};
use crate::route::{HostPattern, PathPattern, Table};
use crate::token::Credential;
use crate::upstream::settings::{Protocol, Settings};

pub(super) fn read(
    top: &Section<'_, '_, '_>,
    defaults: &TlsDefaults,
    credentials: &[Arc<Credential>],
    main: ListenerSettings,
    limits: RequestLimits,
) -> ProxySettings {
    if !top.has("upstreams") {
        top.missing("upstreams", "expected a table such as [upstreams.qbank]");
    }
    let mut proxy = ProxySettings { listeners: vec![main], upstreams: Vec::new(), limits };
    let mut places = Vec::new();
    for (name, section) in top.named("upstreams") {
        if let Some((upstream, routes)) =
            upstream(&name, section, defaults, credentials, &mut proxy)
        {
            proxy.upstreams.push(upstream);
            places.push(routes);
        }
    }
    conflicts(top, &proxy, &places);
    proxy
}

type Place = (String, std::ops::Range<usize>);

fn upstream(
    name: &str,
    section: Section<'_, '_, '_>,
    defaults: &TlsDefaults,
    credentials: &[Arc<Credential>],
    proxy: &mut ProxySettings,
) -> Option<(UpstreamSettings, Vec<Place>)> {
    let url = section.parsed("url", false, read_url);
    if !section.has("url") {
        section.missing("url", "write `url = \"https://api.bank.example\"`");
    }
    let credential = credential(&section, "credential", credentials);
    if !section.has("credential") {
        section
            .missing("credential", "write `credential = \"NAME\"`, a name of [credentials.NAME]");
    }
    let mount =
        section.parsed("mount", true, read_mount).map(|mount| mount.value).unwrap_or_default();
    let strip_mount = section.boolean("strip_mount").unwrap_or(true);
    let set_headers = set_headers(&section);
    let choices = [
        ("replace", IncomingAuthorization::Replace),
        ("reject", IncomingAuthorization::Reject),
        ("keep", IncomingAuthorization::Keep),
    ];
    let incoming_authorization =
        section.choice("incoming_authorization", &choices).unwrap_or_default();
    let listener = own_listener(&section, proxy);
    let connection = connection(name, &section, defaults, url.as_ref().map(|url| &url.value.0));
    let (mut response_timeout, mut body_idle_timeout) =
        (Duration::from_secs(60), Duration::from_secs(60));
    let mut connect_timeout = None;
    if let Some(timeouts) = section.section("timeouts") {
        connect_timeout = timeouts.duration("connect");
        response_timeout = timeouts.duration("response").unwrap_or(response_timeout);
        body_idle_timeout = timeouts.duration("idle").unwrap_or(body_idle_timeout);
        timeouts.finish();
    }
    let base_path = url.map(|url| url.value.1);
    let context = Context {
        credentials,
        rewrite: Rewrite::new(&mount, strip_mount, base_path.as_deref().unwrap_or_default()),
        origin: connection.as_ref().map(|connection| connection.origin.clone()),
        mount: &mount,
        incoming_authorization,
    };
    let (routes, places) = routes(&section, &context);
    section.finish();
    let mut connection = connection?;
    connection.connect_timeout = connect_timeout.unwrap_or(connection.connect_timeout);
    let upstream = UpstreamSettings {
        connection,
        base_path: base_path?,
        mount,
        strip_mount,
        listener,
        credential: credential?,
        set_headers,
        incoming_authorization,
        response_timeout,
        body_idle_timeout,
        routes,
    };
    Some((upstream, places))
}

/// An upstream's URL: its origin, and the path that is put before every forwarded one.
fn read_url(text: &str) -> Result<(Origin, String), String> {
    let uri: http::Uri =
        text.parse().map_err(|_| "this is no URL; expected https://host".to_owned())?;
    let origin = Origin::of(&uri).map_err(|error| error.to_string())?;
    if uri.query().is_some() {
        return Err("a query cannot stand in an upstream's URL".into());
    }
    let path = uri.path().trim_end_matches('/');
    if !path.is_empty() && !PathPattern::parse(path).is_ok_and(|path| path.is_literal()) {
        return Err("the URL's path must be written plainly, as it is forwarded".into());
    }
    Ok((origin, path.to_owned()))
}

fn read_mount(text: &str) -> Result<String, String> {
    if text == "/" {
        return Ok(String::new());
    }
    match PathPattern::parse(text) {
        Ok(path) if path.is_literal() && !text.ends_with('/') => Ok(text.to_owned()),
        Ok(_) => Err("expected a plain path without a slash at its end, such as \"/qbank\"".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn credential(
    section: &Section<'_, '_, '_>,
    key: &'static str,
    credentials: &[Arc<Credential>],
) -> Option<Arc<str>> {
    let found = section.text(key)?;
    if let Some(known) = credentials.iter().find(|known| *known.name == *found.value) {
        return Some(Arc::clone(&known.name));
    }
    // A credential that is there but has problems of its own is not reported a second time.
    let names: Vec<_> = credentials.iter().map(|known| &*known.name).collect();
    let label = match closest(&found.value, &names) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("no usable [credentials.{}]", "NAME"),
    };
    section.wrong(&found.at, found.span, "no usable credential has this name", label, true);
    None
}

fn set_headers(section: &Section<'_, '_, '_>) -> Vec<(HeaderName, HeaderText)> {
    let mut headers = Vec::new();
    for (name, source) in section.tables("set_headers") {
        let at = format!("set_headers.{name}");
        let Ok(name) = HeaderName::try_from(name) else {
            source.wrong(
                &at,
                source.span.clone(),
                "this is no header name",
                "expected a name such as X-Api-Key",
                false,
            );
            continue;
        };
        let reserved =
            ["authorization", "host", "content-length", "transfer-encoding", "connection"];
        if reserved.contains(&name.as_str()) {
            source.wrong(
                &at,
                source.span.clone(),
                "this header is bearer-proxy's own",
                "choose another header",
                false,
            );
        }
        let text = if source.has("value") {
            source
                .parsed("value", false, HeaderValue::from_str)
                .map(|value| HeaderText::Value(value.value))
        } else {
            source.source().map(HeaderText::Secret)
        };
        source.finish();
        headers.extend(text.map(|text| (name, text)));
    }
    headers
}

/// The index of the listener that an upstream is found on.
fn own_listener(section: &Section<'_, '_, '_>, proxy: &mut ProxySettings) -> usize {
    let Some(found) = section.parsed("listen", true, listen) else { return 0 };
    if !found.value.is_loopback() {
        section.wrong(
            &found.at,
            found.span,
            "an upstream's own listener is for this machine only",
            "expected localhost or 127.0.0.1",
            true,
        );
        return 0;
    }
    if let Some(known) = proxy.listeners.iter().position(|known| known.listen == found.value) {
        return known;
    }
    let like = proxy.listeners.first().cloned();
    proxy.listeners.extend(like.map(|like| ListenerSettings { listen: found.value, ..like }));
    proxy.listeners.len() - 1
}

fn connection(
    name: &str,
    section: &Section<'_, '_, '_>,
    defaults: &TlsDefaults,
    origin: Option<&Origin>,
) -> Option<Settings> {
    let versions = [("auto", Protocol::Auto), ("1.1", Protocol::Http1), ("2", Protocol::Http2)];
    let protocol = section.choice("http", &versions).unwrap_or_default();
    let tls = tls(section.section("tls"), defaults);
    let pool = section.section("pool").map(|pool| {
        let read =
            (pool.duration("idle_timeout"), pool.duration("max_age"), pool.count("max_idle"));
        pool.finish();
        read
    });
    let mut settings = Settings::new(name, origin?.clone());
    (settings.protocol, settings.tls) = (protocol, tls);
    if let Some((idle_timeout, max_age, max_idle)) = pool {
        settings.idle_timeout = idle_timeout.unwrap_or(settings.idle_timeout);
        settings.max_age = max_age.unwrap_or(settings.max_age);
        settings.max_idle = max_idle.unwrap_or(settings.max_idle);
    }
    Some(settings)
}

struct Context<'a> {
    credentials: &'a [Arc<Credential>],
    rewrite: Rewrite,
    origin: Option<Origin>,
    mount: &'a str,
    incoming_authorization: IncomingAuthorization,
}

fn routes(
    section: &Section<'_, '_, '_>,
    context: &Context<'_>,
) -> (Vec<RouteSettings>, Vec<Place>) {
    let (mut routes, mut places): (Vec<RouteSettings>, Vec<Place>) = (Vec::new(), Vec::new());
    if !section.has("routes") {
        section.missing(
            "routes",
            "expected [[upstreams.NAME.routes]]; what no route claims is refused",
        );
    }
    for one in section.array("routes").unwrap_or_default() {
        let place = (String::new(), one.key_span("path"));
        let name_span = one.key_span("name");
        let Some(route) = route(one, context) else { continue };
        if routes.iter().any(|known| known.name == route.name) {
            section.wrong(
                "routes.name",
                name_span,
                "two routes of this upstream share a name",
                "give each its own",
                true,
            );
        }
        routes.push(route);
        places.push(place);
    }
    (routes, places)
}

fn route(section: Section<'_, '_, '_>, context: &Context<'_>) -> Option<RouteSettings> {
    let name = section.text("name");
    if !section.has("name") {
        section.missing("name", "write `name = \"…\"`: the label of metrics and log");
    }
    let host = section.parsed("host", true, HostPattern::parse).map(|host| host.value);
    let path = section.parsed("path", true, PathPattern::parse);
    if !section.has("path") {
        section.missing("path", "write `path = \"/v1/…\"`");
    }
    let methods = section.list("methods", read_method).unwrap_or_default();
    if methods.is_empty() && !(section.has("methods")) {
        section.missing("methods", "write `methods = [\"GET\"]`");
    } else if methods.is_empty() {
        section.wrong(
            "methods",
            section.key_span("methods"),
            "`methods` names none",
            "expected at least one, such as \"GET\"",
            true,
        );
    }
    let scopes = section.list("scopes", Scope::parse).map(ScopeSet::new).unwrap_or_default();
    if context.incoming_authorization == IncomingAuthorization::Keep && !scopes.is_empty() {
        let label =
            "a route that keeps the app's own Authorization gets no token, and so no scopes";
        section.wrong("scopes", section.key_span("scopes"), "scopes without a token", label, true);
    }
    let credential = credential(&section, "credential", context.credentials);
    let choices = [
        ("never", RetryUnsafe::Never),
        ("idempotency_key", RetryUnsafe::IdempotencyKey),
        ("always", RetryUnsafe::Always),
    ];
    let retry_unsafe = section.section("retry").and_then(|retry| {
        let chosen = retry.choice("unsafe", &choices);
        retry.finish();
        chosen
    });
    let allow_semicolon = section.boolean("allow_semicolon").unwrap_or(false);
    let allow_encoded_slash = section.boolean("allow_encoded_slash").unwrap_or(false);
    if let Some(path) = &path {
        token_endpoints(&section, context, &path.value);
    }
    section.finish();
    Some(RouteSettings {
        name: name?.value.into(),
        host,
        path: path?.value,
        methods,
        scopes,
        credential,
        retry_unsafe: retry_unsafe.unwrap_or_default(),
        allow_semicolon,
        allow_encoded_slash,
    })
}

fn read_method(text: &str) -> Result<Method, &'static str> {
    match text.parse::<Method>() {
        Ok(Method::CONNECT | Method::TRACE) => Err("CONNECT and TRACE are never forwarded"),
        Ok(method) if text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') => {
            Ok(method)
        }
        _ => Err("expected a method in capitals, such as \"GET\""),
    }
}

/// A route that names a token endpoint is refused; one that covers it is noted, since that exact
/// path is never forwarded.
fn token_endpoints(section: &Section<'_, '_, '_>, context: &Context<'_>, path: &PathPattern) {
    let inbound = path.under(context.mount);
    for credential in context.credentials {
        let same = Origin::of(credential.endpoint.uri()).ok();
        if same.is_none() || same != context.origin {
            continue;
        }
        let Some(reached) = context.rewrite.reaches(&inbound, credential.endpoint.path()) else {
            continue;
        };
        let span = section.key_span("path");
        if path.is_literal() {
            section.wrong(
                "path",
                span,
                "this route names a token endpoint",
                "tokens are obtained by bearer-proxy itself",
                true,
            );
        } else {
            section.note(Problem {
                note: true,
                title: format!("this route covers the token endpoint of `{}`", credential.name),
                at: "path".into(),
                span,
                label: format!("{reached} is never forwarded: it gets 404 token_endpoint"),
                help: None,
                visible: true,
            });
        }
    }
}

fn conflicts(top: &Section<'_, '_, '_>, proxy: &ProxySettings, places: &[Vec<Place>]) {
    for listener in 0..proxy.listeners.len() {
        let rules = rules(proxy, listener);
        let origins: Vec<_> = rules.iter().map(|(_, origin)| *origin).collect();
        let Err(found) = Table::build(rules) else { continue };
        for conflict in found {
            let name = |index: usize| {
                let (upstream, route) = *origins.get(index)?;
                let upstream = proxy.upstreams.get(upstream)?;
                Some(format!("{}.{}", upstream.connection.name, upstream.routes.get(route)?.name))
            };
            let place = origins
                .get(conflict.second)
                .and_then(|(upstream, route)| places.get(*upstream)?.get(*route));
            let span = place.map_or(0..0, |(_, span)| span.clone());
            let (first, second) = (name(conflict.first), name(conflict.second));
            let title = format!(
                "routes `{}` and `{}` claim the same requests",
                first.unwrap_or_default(),
                second.unwrap_or_default()
            );
            top.wrong(
                "routes",
                span,
                title,
                "neither is more specific: change the path, the methods or the host",
                true,
            );
        }
    }
}

pub(super) fn check_credentials_used(
    top: &Section<'_, '_, '_>,
    proxy: &ProxySettings,
    credentials: &[Arc<Credential>],
) {
    let used = |name: &Arc<str>| {
        proxy.upstreams.iter().any(|upstream| {
            upstream.credential == *name
                || upstream.routes.iter().any(|route| route.credential.as_ref() == Some(name))
        })
    };
    for credential in credentials.iter().filter(|credential| !used(&credential.name)) {
        top.note(Problem {
            note: true,
            title: format!("no upstream uses the credential `{}`", credential.name),
            at: format!("credentials.{}", credential.name),
            span: top.key_span("credentials"),
            label: "no token is fetched for it".into(),
            help: None,
            visible: true,
        });
    }
}
