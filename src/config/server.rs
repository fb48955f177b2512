//! `[server]`, `[admin]`, `[shutdown]`, `[log]` and `[reload]`.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::admin::settings::AdminSettings;
use crate::listen::settings::{AllowedPeers, Listen};
use crate::proxy::headers::Pseudonym;
use crate::proxy::limits::web_origin::WebOrigin;
use crate::proxy::policy::settings::{
    AllowedClients, AllowedHosts, ListenerSettings, RequestLimits,
};
use crate::route::HostPattern;
use crate::server::settings::{ConnectionSettings, HalfClosed, ShutdownSettings, WorkerCount};
use crate::telemetry::log::{AccessLog, LogFormat, LogSettings};

use super::clients::ParsedClient;
use super::listen::{self, ParsedListener};
use crate::diagnostics::{Diagnostic, Item, Section};

const SECOND: Duration = Duration::from_secs(1);

/// What `[server]` says.
pub(super) struct ServerSection {
    pub(super) listeners: Vec<ListenerSettings>,
    /// Host names of all listeners.
    pub(super) allowed_hosts: AllowedHosts,
    /// Origins of all listeners.
    pub(super) allowed_origins: Vec<WebOrigin>,
    /// Who may use routes that do not say.
    pub(super) clients: AllowedClients,
    /// Whether listeners beyond loopback are wanted: it is said who may use them.
    pub(super) remote: bool,
    pub(super) workers: WorkerCount,
    pub(super) connections: ConnectionSettings,
    pub(super) limits: RequestLimits,
    pub(super) via: Pseudonym,
}

pub(super) fn read(root: &Section<'_>, clients: &[ParsedClient<'_>]) -> ServerSection {
    let section = root.section("server", "[server]").advise(&[
        ("allow_remote_clients", "write  clients = \"anyone\""),
        ("allow_remote", "write  clients = \"anyone\""),
        ("port", "it is part of listen, such as \"localhost:6750\""),
        ("address", "write listen, such as \"localhost:6750\""),
        ("bind", "write listen, such as \"localhost:6750\""),
        ("unix_socket", "write  listen = \"unix:/path\""),
        ("tls", "write  listen = { address = \"IP:PORT\", tls = { … } }"),
        ("threads", "write workers"),
        ("max_body", "write max_request_body"),
        ("max_body_size", "write max_request_body"),
    ]);
    let listen = section.item("listen");
    let anyone = section.choice("clients", &[("anyone", true)], false);
    let remote = anyone || !clients.is_empty();
    let mut written = match &listen {
        Some(item) => addresses(item, remote, &[]),
        None => Vec::new(),
    };
    if written.is_empty() {
        written.push(ParsedListener::plain(Listen::Localhost(6750)));
    }
    let (allowed_hosts, allowed_origins) = (allowed_hosts(&section), allowed_origins(&section));
    let listener = |ParsedListener { listen, peers, tls }| ListenerSettings {
        listen,
        peers,
        tls,
        allowed_hosts: allowed_hosts.clone(),
        allowed_origins: allowed_origins.clone(),
    };
    let workers = section.item("workers").and_then(|item| workers(&item)).unwrap_or_default();
    let server = ServerSection {
        listeners: written.into_iter().map(listener).collect(),
        allowed_hosts,
        allowed_origins,
        clients: match clients {
            [_, ..] if !anyone => AllowedClients::Known,
            _ => AllowedClients::Anyone,
        },
        remote,
        workers,
        connections: connections(&section),
        limits: limits(&section),
        via: via(&section),
    };
    section.finish();
    server
}

/// Addresses that apps talk to, of which none may be taken by another listener. Whoever reaches one
/// acts with our tokens, so that an address beyond loopback must be asked for twice.
pub(super) fn addresses(item: &Item<'_>, remote: bool, taken: &[&Listen]) -> Vec<ParsedListener> {
    let all = listen::read(item);
    for (written, item) in &all {
        if !written.listen.is_loopback() && !remote {
            let diagnostic = Diagnostic::new("whoever reaches this address could use the tokens");
            let hint = "say who may in [clients.NAME], or write  clients = \"anyone\"  in [server] and let a firewall or network policy choose who reaches it";
            item.fail(diagnostic.label("beyond loopback").hint(hint));
        }
        if listen::is_taken(&written.listen, taken.iter().copied()) {
            let diagnostic = Diagnostic::new("another listener has this address").label("taken");
            let hint =
                "give it a port of its own, or leave listen out and write mount = \"/prefix\"";
            item.fail(diagnostic.hint(hint));
        }
    }
    all.into_iter().map(|(written, _)| written).collect()
}

fn allowed_hosts(section: &Section<'_>) -> AllowedHosts {
    let Some(item) = section.item("allowed_hosts") else { return AllowedHosts::Own };
    let mut hosts = Vec::new();
    for text in item.texts() {
        match HostPattern::parse(text.as_str()) {
            Ok(host) => hosts.push(host),
            Err(error) => text.reject(&error.message, "expected a host name without a port"),
        }
    }
    AllowedHosts::These(hosts)
}

fn allowed_origins(section: &Section<'_>) -> Vec<WebOrigin> {
    let texts = section.item("allowed_origins").map(|item| item.texts()).unwrap_or_default();
    let mut origins = Vec::new();
    for text in texts {
        match WebOrigin::parse(text.as_str()) {
            Some(origin) => origins.push(origin),
            None => text
                .item
                .reject("expected an origin, such as \"https://erp.local\": no path, no wildcard"),
        }
    }
    origins
}

fn via(section: &Section<'_>) -> Pseudonym {
    let Some(item) = section.item("via") else { return Pseudonym::default() };
    let read = item.text().map(|text| Pseudonym::parse(text.as_str()));
    if read == Some(None) {
        item.reject("expected a name of at most 64 letters, digits and `-`, such as \"erp-proxy\"");
    }
    read.flatten().unwrap_or_default()
}

fn workers(item: &Item<'_>) -> Option<WorkerCount> {
    if item.is_text() {
        return item.choice(&[("auto", WorkerCount::Auto)]);
    }
    let count = usize::try_from(item.integer(1..65)?).ok()?;
    NonZeroUsize::new(count).map(WorkerCount::Count)
}

/// Bytes that a message's head may be allowed to have: hyper has no smaller buffer than 8 KiB, and
/// what needs more than 1 MiB is no head.
pub(super) const HEAD_BYTES: RangeInclusive<u64> = 8 << 10..=1 << 20;

const HALF_CLOSED: [(&str, HalfClosed); 2] =
    [("gone", HalfClosed::Gone), ("serve", HalfClosed::Serve)];

fn connections(section: &Section<'_>) -> ConnectionSettings {
    let default = ConnectionSettings::default();
    let timeouts = section.section("timeouts", "timeouts of [server]");
    let http2 = section.section("http2", "http2 of [server]");
    let count = |key, default: u32| {
        let range = 1..100_001;
        u32::try_from(http2.count(key, range, default as usize)).unwrap_or(default)
    };
    let limits = ConnectionSettings {
        max_connections: section.count("max_connections", 1..1_000_001, default.max_connections),
        max_headers: section.count("max_headers", 10..1001, default.max_headers),
        max_header_bytes: section.size_within(
            "max_header_bytes",
            HEAD_BYTES,
            default.max_header_bytes,
        ),
        preserve_header_case: section.bool("preserve_header_case", default.preserve_header_case),
        half_closed: section.choice("half_closed", &HALF_CLOSED, default.half_closed),
        head_timeout: positive(&timeouts, "head", default.head_timeout),
        idle_timeout: positive(&timeouts, "idle", default.idle_timeout),
        send_timeout: positive(&timeouts, "send", default.send_timeout),
        max_streams: count("max_streams", default.max_streams),
        max_resets: count("max_resets", default.max_resets),
    };
    timeouts.finish();
    http2.finish();
    limits
}

fn limits(section: &Section<'_>) -> RequestLimits {
    let default = RequestLimits::default();
    RequestLimits {
        max_uri_bytes: section.size_within("max_uri", 256..=65_534, default.max_uri_bytes),
        max_request_body: section.size("max_request_body", default.max_request_body),
        max_in_flight: section.count("max_in_flight", 1..1_000_001, default.max_in_flight),
        replay_buffer_bytes: section.size_within(
            "replay_buffer",
            0..=16 << 20,
            default.replay_buffer_bytes,
        ),
    }
}

/// A time of which zero would mean that nothing ever succeeds.
pub(super) fn positive(section: &Section<'_>, key: &'static str, default: Duration) -> Duration {
    let Some(item) = section.item(key) else { return default };
    let Some(time) = item.duration() else { return default };
    if time.is_zero() {
        item.reject("a time of zero lets nothing succeed; there is no \"unlimited\"");
    }
    time
}

pub(super) fn admin(root: &Section<'_>, server: &ServerSection) -> AdminSettings {
    let section = root.section("admin", "[admin]").advise(&[
        ("clients", "write  allow_remote = true"),
        ("port", "it is part of listen, such as \"localhost:6751\""),
    ]);
    let default = AdminSettings::default();
    let allow_remote = section.bool("allow_remote", default.allow_remote);
    let item = section.item("listen");
    let listen = match &item {
        None => default.listen,
        Some(item) => admin_listen(item, allow_remote, server),
    };
    let control = section.item("control");
    let control = control.map(|item| control_listen(&item, server, &listen)).unwrap_or_default();
    section.finish();
    if item.is_none() && listen.iter().any(|listen| server.listens_on(listen)) {
        section.fail(same_as_server());
    }
    AdminSettings { listen, control, allow_remote }
}

impl ServerSection {
    fn listens_on(&self, listen: &Listen) -> bool {
        listen::is_taken(listen, self.listeners.iter().map(|listener| &listener.listen))
    }
}

fn same_as_server() -> Diagnostic {
    let diagnostic = Diagnostic::new("[admin] and [server] listen on the same address");
    diagnostic.label("taken by server.listen").hint("give one of them another port")
}

/// The addresses where more than probes and metrics is shown: to this machine only.
fn control_listen(item: &Item<'_>, server: &ServerSection, admin: &[Listen]) -> Vec<Listen> {
    let all = admin_addresses(item);
    for (listen, item) in &all {
        if !listen.is_loopback() {
            let diagnostic =
                Diagnostic::new("whoever reaches this address could control the program");
            let hint = "write \"localhost:PORT\" or \"unix:/PATH\"";
            item.fail(diagnostic.label("beyond loopback").hint(hint));
        }
        if server.listens_on(listen) || listen::is_taken(listen, admin) {
            let diagnostic = Diagnostic::new("another listener has this address").label("taken");
            item.fail(diagnostic.hint("leave control out to have it all on admin.listen"));
        }
    }
    all.into_iter().map(|(listen, _)| listen).collect()
}

/// Operators' listeners are kept apart by the rights of a socket's file alone.
fn admin_addresses<'c>(item: &Item<'c>) -> Vec<(Listen, Item<'c>)> {
    let listener = |(ParsedListener { listen, peers, tls }, item): (ParsedListener, Item<'c>)| {
        if tls.is_some() || peers != AllowedPeers::default() {
            item.reject("listeners of [admin] have neither tls nor peer_uids; use mode and group");
        }
        (listen, item)
    };
    listen::read(item).into_iter().map(listener).collect()
}

fn admin_listen(item: &Item<'_>, allow_remote: bool, server: &ServerSection) -> Vec<Listen> {
    if item.is_word("off") {
        // Read as text too: what is read is shown in messages.
        item.text();
        return Vec::new();
    }
    let all = admin_addresses(item);
    for (listen, item) in &all {
        if !listen.is_loopback() && !allow_remote {
            let diagnostic =
                Diagnostic::new("probes and metrics would be open to whoever reaches this address");
            let hint = "to allow that, write  allow_remote = true  in [admin]";
            item.fail(diagnostic.label("beyond loopback").hint(hint));
        }
        if server.listens_on(listen) {
            item.fail(same_as_server());
        }
    }
    all.into_iter().map(|(listen, _)| listen).collect()
}

pub(super) fn shutdown(root: &Section<'_>) -> ShutdownSettings {
    let section =
        root.section("shutdown", "[shutdown]").advise(&[("timeout", "write drain_timeout")]);
    let default = ShutdownSettings::default();
    let settings = ShutdownSettings {
        lame_duck: section.duration("lame_duck", default.lame_duck),
        drain_timeout: section.duration("drain_timeout", default.drain_timeout),
    };
    section.finish();
    settings
}

pub(super) fn log(root: &Section<'_>) -> LogSettings {
    let section = root.section("log", "[log]");
    let default = LogSettings::default();
    let formats =
        [("auto", LogFormat::Auto), ("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
    let accesses = [
        ("off", AccessLog::Off),
        ("errors", AccessLog::Errors),
        ("errors+unsafe", AccessLog::ErrorsAndUnsafe),
        ("all", AccessLog::All),
    ];
    let settings = LogSettings {
        format: section.choice("format", &formats, default.format),
        level: section.item("level").and_then(|item| level(&item)).unwrap_or(default.level),
        access: section.choice("access", &accesses, default.access),
    };
    section.finish();
    settings
}

fn level(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    match LogSettings::check_level(text.as_str()) {
        Ok(()) => Some(text.as_str().to_owned()),
        Err(error) => {
            text.reject(&error.to_string(), "expected off, error, warn, info, debug or trace");
            None
        }
    }
}

pub(super) fn watch(root: &Section<'_>) -> Option<Duration> {
    let section = root.section("reload", "[reload]");
    let item = section.item("watch");
    section.finish();
    let every = 5 * SECOND;
    let Some(item) = item else { return Some(every) };
    if item.is_word("off") {
        return None;
    }
    let time = item.duration().unwrap_or(every);
    if time < SECOND {
        item.reject("files are looked at every second at most; write \"1s\" or more, or \"off\"");
    }
    Some(time)
}
