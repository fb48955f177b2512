//! `[server]`: where apps connect, who may, and the bounds on connections and requests.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;

use super::clients::ParsedClient;
use super::listen::{self, ParsedListener};
use crate::diagnostics::units::POSITIVE;
use crate::diagnostics::{Item, Section};
use crate::listen::settings::Listen;
use crate::proxy::headers::Pseudonym;
use crate::proxy::limits::web_origin::WebOrigin;
use crate::proxy::policy::settings::{
    AllowedClients, AllowedHosts, ListenerSettings, RequestLimits,
};
use crate::route::HostPattern;
use crate::server::settings::{ConnectionSettings, HalfClosed, WorkerCount};

/// The settings of `[server]`.
pub(super) struct ServerSection {
    pub(super) listeners: Vec<ListenerSettings>,
    /// Host names of all listeners.
    pub(super) allowed_hosts: AllowedHosts,
    /// Origins of all listeners.
    pub(super) allowed_origins: Vec<WebOrigin>,
    /// The clients of routes that name none.
    pub(super) clients: AllowedClients,
    /// Set if there may be listeners beyond loopback: the file says who may use them.
    pub(super) remote: bool,
    pub(super) workers: WorkerCount,
    pub(super) connections: ConnectionSettings,
    pub(super) limits: RequestLimits,
    pub(super) via: Pseudonym,
}

const HALF_CLOSED: [(&str, HalfClosed); 2] =
    [("gone", HalfClosed::Gone), ("serve", HalfClosed::Serve)];

/// Bounds on the largest head of a message: hyper has no smaller buffer than 8 KiB, and more than
/// 1 MiB would be a mistake.
pub(super) const HEAD_BYTES: RangeInclusive<u64> = 8 << 10..=1 << 20;

pub(super) fn read(root: &Section<'_>, clients: &[ParsedClient<'_>]) -> ServerSection {
    let section = root.section("server");
    let anyone = section.choice("clients", &[("anyone", true)], false);
    let remote = anyone || !clients.is_empty();
    let mut parsed = match section.item("listen") {
        Some(item) => listen::for_apps(&item, remote, &[]),
        None => Vec::new(),
    };
    if parsed.is_empty() {
        parsed.push(ParsedListener::plain(Listen::Localhost(6750)));
    }
    let mut server = ServerSection {
        listeners: Vec::new(),
        allowed_hosts: allowed_hosts(&section),
        allowed_origins: allowed_origins(&section),
        clients: match clients {
            [_, ..] if !anyone => AllowedClients::Known,
            _ => AllowedClients::Anyone,
        },
        remote,
        workers: section.item("workers").and_then(|item| workers(&item)).unwrap_or_default(),
        connections: connections(&section),
        limits: limits(&section),
        via: via(&section).unwrap_or_default(),
    };
    server.listeners = parsed.into_iter().map(|parsed| server.listener(parsed)).collect();
    server
}

impl ServerSection {
    /// The settings of one listener for apps.
    pub(super) fn listener(&self, parsed: ParsedListener) -> ListenerSettings {
        let ParsedListener { listen, peers, tls } = parsed;
        let (allowed_hosts, allowed_origins) =
            (self.allowed_hosts.clone(), self.allowed_origins.clone());
        ListenerSettings { listen, peers, tls, allowed_hosts, allowed_origins }
    }

    /// Returns whether a listener of `[server]` has this address.
    pub(super) fn listens_on(&self, listen: &Listen) -> bool {
        listen::is_taken(listen, self.listeners.iter().map(|listener| &listener.listen))
    }
}

fn allowed_hosts(section: &Section<'_>) -> AllowedHosts {
    let Some(item) = section.item("allowed_hosts") else { return AllowedHosts::Own };
    let fixed = "expected a host name without a port";
    let host = |item: &Item<'_>| item.parse_or(fixed, HostPattern::parse);
    AllowedHosts::These(item.list().unwrap_or_default().iter().filter_map(host).collect())
}

fn allowed_origins(section: &Section<'_>) -> Vec<WebOrigin> {
    let expected = "expected an origin, such as \"https://erp.local\": no path, no wildcard";
    let origin = |item: &Item<'_>| item.parse(|text| WebOrigin::parse(text).ok_or(expected));
    section.list("allowed_origins").iter().filter_map(origin).collect()
}

fn via(section: &Section<'_>) -> Option<Pseudonym> {
    let expected = "expected a name of at most 64 letters, digits and `-`, such as \"erp-proxy\"";
    section.parse("via", |text| Pseudonym::parse(text).ok_or(expected))
}

fn workers(item: &Item<'_>) -> Option<WorkerCount> {
    if item.is_text() {
        return item.choice(&[("auto", WorkerCount::Auto)]);
    }
    NonZeroUsize::new(item.integer(1..=64)?).map(WorkerCount::Count)
}

fn connections(section: &Section<'_>) -> ConnectionSettings {
    let default = ConnectionSettings::default();
    let (timeouts, http2) = (section.section("timeouts"), section.section("http2"));
    ConnectionSettings {
        max_connections: section.count("max_connections", 1..=1_000_000, default.max_connections),
        max_headers: section.count("max_headers", 10..=1000, default.max_headers),
        max_header_bytes: section.size("max_header_bytes", HEAD_BYTES, default.max_header_bytes),
        preserve_header_case: section.bool("preserve_header_case", default.preserve_header_case),
        half_closed: section.choice("half_closed", &HALF_CLOSED, default.half_closed),
        head_timeout: timeouts.duration("head", POSITIVE, default.head_timeout),
        idle_timeout: timeouts.duration("idle", POSITIVE, default.idle_timeout),
        send_timeout: timeouts.duration("send", POSITIVE, default.send_timeout),
        max_streams: http2.count("max_streams", 1..=100_000, default.max_streams),
        max_resets: http2.count("max_resets", 1..=100_000, default.max_resets),
    }
}

fn limits(section: &Section<'_>) -> RequestLimits {
    let default = RequestLimits::default();
    let replay = 0..=16 << 20;
    RequestLimits {
        max_uri_bytes: section.size("max_uri", 256..=65_534, default.max_uri_bytes),
        max_request_body: section.size("max_request_body", .., default.max_request_body),
        max_in_flight: section.count("max_in_flight", 1..=1_000_000, default.max_in_flight),
        replay_buffer_bytes: section.size("replay_buffer", replay, default.replay_buffer_bytes),
    }
}
