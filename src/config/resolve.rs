//! A file's tables -> `Config`: every field is parsed before anything gives up, so that all problems
//! come together.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::model::Config;
use super::problem::{Problem, Problems};
use super::reader::{Reader, Section};
use super::{Loaded, credentials, upstreams};
use crate::admin::settings::AdminSettings;
use crate::proxy::settings::{AllowedHosts, ListenerSettings, RequestLimits};
use crate::route::HostPattern;
use crate::server::settings::{ConnectionLimits, Listen, ShutdownSettings, Workers};
use crate::telemetry::log::{AccessLog, LogFormat, LogSettings};

pub(super) fn resolve(
    text: &str,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Problems> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut keys = Vec::new();
    if !errors.is_empty() {
        // What the parser took for a key may be part of a broken value: nothing is shown.
        let all = errors.iter().map(syntax_error).collect();
        return Err(Problems::new(path, text, keys, all));
    }
    collect_keys(root.get_ref(), &mut keys);
    let reader = Reader::new(env);
    let config = read(&reader, &root, path);
    let all = reader.problems.into_inner();
    match config {
        Some(config) if all.iter().all(|problem| problem.note) => {
            Ok(Loaded { config, notes: Problems::new(path, text, keys, all) })
        }
        _ => Err(Problems::new(path, text, keys, all)),
    }
}

fn syntax_error(error: &toml::de::Error) -> Problem {
    Problem {
        note: false,
        title: "this is not valid TOML".into(),
        at: String::new(),
        span: error.span().unwrap_or(0..0),
        label: error.message().lines().next().unwrap_or_default().to_owned(),
        help: None,
        visible: false,
    }
}

fn collect_keys(table: &DeTable<'_>, keys: &mut Vec<Range<usize>>) {
    for (name, value) in table {
        keys.push(name.span());
        collect_in(value, keys);
    }
}

fn collect_in(value: &Spanned<DeValue<'_>>, keys: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => collect_keys(table, keys),
        DeValue::Array(items) => items.iter().for_each(|item| collect_in(item, keys)),
        _ => {}
    }
}

fn read(reader: &Reader<'_>, root: &Spanned<DeTable<'_>>, path: &Path) -> Option<Config> {
    let top = Section::new(reader, String::new(), root.get_ref(), 0..0);
    match top.count("version") {
        Some(1) => {}
        Some(_) => {
            let span = top.key_span("version");
            top.wrong(
                "version",
                span,
                "this version of the format is not known",
                "expected 1",
                true,
            );
        }
        None if !top.has("version") => top.missing("version", "begin the file with `version = 1`"),
        None => {}
    }
    let server = top.section("server");
    let (main, workers, connections, limits) = read_server(server);
    let admin = read_admin(top.section("admin"));
    let shutdown = read_shutdown(top.section("shutdown"));
    let log = read_log(top.section("log"));
    let tls = credentials::tls_defaults(top.section("tls"));
    let watch = read_reload(top.section("reload"));
    let credentials = credentials::read(&top, &tls);
    let proxy = upstreams::read(&top, &tls, &credentials, main, limits);
    if let Some(listen) = &admin.listen
        && proxy.listeners.iter().any(|listener| same_address(&listener.listen, listen))
    {
        let span = top.key_span("admin");
        top.wrong(
            "admin.listen",
            span,
            "the admin listener and the proxy share an address",
            "give one of them another port",
            true,
        );
    }
    upstreams::check_credentials_used(&top, &proxy, &credentials);
    top.finish();
    Some(Config {
        path: path.to_owned(),
        workers,
        connections,
        proxy,
        credentials,
        admin,
        shutdown,
        log,
        watch,
    })
}

fn same_address(one: &Listen, other: &Listen) -> bool {
    let port = |listen: &Listen| match listen {
        Listen::Localhost(port) => *port,
        Listen::Tcp(address) => address.port(),
    };
    port(one) != 0
        && port(one) == port(other)
        && match (one, other) {
            (Listen::Tcp(a), Listen::Tcp(b)) => {
                a == b || a.ip().is_unspecified() || b.ip().is_unspecified()
            }
            (Listen::Localhost(_), Listen::Localhost(_)) => true,
            (Listen::Localhost(_), Listen::Tcp(address))
            | (Listen::Tcp(address), Listen::Localhost(_)) => {
                address.ip().is_loopback() || address.ip().is_unspecified()
            }
        }
}

/// Reads `localhost:6750`, `127.0.0.1:6750` or `[::1]:6750`.
pub(super) fn listen(text: &str) -> Result<Listen, &'static str> {
    let wrong = "expected an address with its port, such as \"localhost:6750\" or \"0.0.0.0:6750\"";
    match text.strip_prefix("localhost:") {
        Some(port) => port.parse().map(Listen::Localhost).map_err(|_| wrong),
        None => text.parse().map(Listen::Tcp).map_err(|_| wrong),
    }
}

type Server = (ListenerSettings, Workers, ConnectionLimits, RequestLimits);

fn read_server(section: Option<Section<'_, '_, '_>>) -> Server {
    let mut main = ListenerSettings {
        listen: Listen::Localhost(6750),
        allowed_hosts: AllowedHosts::Own,
        allowed_origins: Vec::new(),
    };
    let (mut workers, mut connections, mut limits) =
        (Workers::default(), ConnectionLimits::default(), RequestLimits::default());
    let Some(server) = section else { return (main, workers, connections, limits) };
    let anyone = server.choice("clients", &[("anyone", ())]).is_some();
    if let Some(read) = server.parsed("listen", true, listen) {
        if !read.value.is_loopback() && !anyone {
            server.wrong(
                &read.at,
                read.span,
                "this address is open to other machines, and whoever reaches it uses the tokens",
                "write `clients = \"anyone\"` beside it if that is meant, or listen on localhost",
                true,
            );
        }
        main.listen = read.value;
    }
    if let Some(hosts) = server.list("allowed_hosts", HostPattern::parse) {
        main.allowed_hosts = AllowedHosts::These(hosts);
    }
    if let Some(origins) = server.texts("allowed_origins") {
        main.allowed_origins = origins.into_iter().map(|origin| origin.value).collect();
    }
    if let Some(found) = server.count("max_connections") {
        connections.max_connections = found;
    }
    if let Some(found) = server.count("max_headers") {
        connections.max_headers = found;
    }
    if let Some(found) = server.size("max_header_bytes") {
        connections.max_header_bytes = (found as usize).max(8192);
    }
    if let Some(found) = server.count("max_in_flight") {
        limits.max_in_flight = found;
    }
    if let Some(found) = server.size("max_request_body") {
        limits.max_request_body = found;
    }
    if let Some(found) = server.size("max_uri") {
        limits.max_uri_bytes = found as usize;
    }
    if let Some(timeouts) = server.section("timeouts") {
        connections.head_timeout = timeouts.duration("head").unwrap_or(connections.head_timeout);
        connections.idle_timeout = timeouts.duration("idle").unwrap_or(connections.idle_timeout);
        timeouts.finish();
    }
    workers = server
        .count("workers")
        .and_then(std::num::NonZeroUsize::new)
        .map_or(workers, Workers::Count);
    server.finish();
    (main, workers, connections, limits)
}

fn read_admin(section: Option<Section<'_, '_, '_>>) -> AdminSettings {
    let mut settings = AdminSettings::default();
    let Some(admin) = section else { return settings };
    settings.allow_remote = admin.boolean("allow_remote").unwrap_or(false);
    let read = |text: &str| if text == "off" { Ok(None) } else { listen(text).map(Some) };
    if let Some(found) = admin.parsed("listen", true, read) {
        if found.value.as_ref().is_some_and(|listen| !listen.is_loopback())
            && !settings.allow_remote
        {
            admin.wrong(
                &found.at,
                found.span,
                "this address is open to other machines",
                "write `allow_remote = true` beside it if that is meant; it then serves probes and /metrics only",
                true,
            );
        }
        settings.listen = found.value;
    }
    admin.finish();
    settings
}

fn read_shutdown(section: Option<Section<'_, '_, '_>>) -> ShutdownSettings {
    let mut settings = ShutdownSettings::default();
    let Some(shutdown) = section else { return settings };
    settings.lame_duck = shutdown.duration("lame_duck").unwrap_or(settings.lame_duck);
    settings.drain_timeout = shutdown.duration("drain_timeout").unwrap_or(settings.drain_timeout);
    shutdown.finish();
    settings
}

fn read_log(section: Option<Section<'_, '_, '_>>) -> LogSettings {
    let mut settings = LogSettings::default();
    let Some(log) = section else { return settings };
    let formats =
        [("auto", LogFormat::Auto), ("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
    settings.format = log.choice("format", &formats).unwrap_or(settings.format);
    let level =
        log.parsed("level", true, |text| LogSettings::check_level(text).map(|()| text.to_owned()));
    settings.level = level.map_or(settings.level, |level| level.value);
    let access = [
        ("off", AccessLog::Off),
        ("errors", AccessLog::Errors),
        ("errors+unsafe", AccessLog::ErrorsAndUnsafe),
        ("all", AccessLog::All),
    ];
    settings.access = log.choice("access", &access).unwrap_or(settings.access);
    log.finish();
    settings
}

fn read_reload(section: Option<Section<'_, '_, '_>>) -> Option<std::time::Duration> {
    let default = Some(std::time::Duration::from_secs(5));
    let Some(reload) = section else { return default };
    let read = |text: &str| match text {
        "off" => Ok(None),
        text => super::units::duration(text).map(Some),
    };
    let watch = reload.parsed("watch", true, read).map_or(default, |watch| watch.value);
    reload.finish();
    watch
}
