//! `[admin]`: where operators see probes, metrics and the status.

use super::listen::{self, ParsedListener};
use super::server::ServerSection;
use crate::admin::settings::{AdminSettings, ReadinessRule};
use crate::diagnostics::{Diagnostic, Item, Section};
use crate::listen::settings::{AllowedPeers, Listen};

const READY: [(&str, ReadinessRule); 3] =
    [("all", ReadinessRule::All), ("any", ReadinessRule::Any), ("started", ReadinessRule::Started)];

pub(super) fn read(root: &Section<'_>, server: &ServerSection) -> AdminSettings {
    let section = root.section("admin");
    let default = AdminSettings::default();
    let allow_remote = section.bool("allow_remote", default.allow_remote);
    let listen = match section.item("listen") {
        None => {
            if default.listen.iter().any(|listen| server.listens_on(listen)) {
                section.fail(same_as_server());
            }
            default.listen
        }
        Some(item) if item.is_word("off") => Vec::new(),
        Some(item) => metrics_addresses(&item, allow_remote, server),
    };
    let control = section.item("control");
    let control = control.map(|item| control_addresses(&item, server, &listen));
    let ready = section.choice("ready", &READY, default.ready);
    AdminSettings { listen, control: control.unwrap_or_default(), allow_remote, ready }
}

fn metrics_addresses(item: &Item<'_>, allow_remote: bool, server: &ServerSection) -> Vec<Listen> {
    let all = addresses(item);
    for (listen, item) in &all {
        if matches!(listen, Listen::Systemd(_)) {
            item.reject(
                "sockets of systemd are for apps: status, wait and healthcheck look for an address",
            );
        } else if !listen.is_loopback() && !allow_remote {
            item.fail(
                Diagnostic::error(
                    "probes and metrics would be open to whoever reaches this address",
                )
                .label("beyond loopback")
                .hint("to allow that, write  allow_remote = true  in [admin]"),
            );
        }
        if server.listens_on(listen) {
            item.fail(same_as_server());
        }
    }
    all.into_iter().map(|(listen, _)| listen).collect()
}

fn same_as_server() -> Diagnostic {
    Diagnostic::error("[admin] and [server] listen on the same address")
        .label("taken by server.listen")
        .hint("give one of them another port")
}

/// The addresses where more than probes and metrics is shown: to this machine only.
fn control_addresses(item: &Item<'_>, server: &ServerSection, admin: &[Listen]) -> Vec<Listen> {
    let all = addresses(item);
    for (listen, item) in &all {
        if !listen.is_loopback() {
            item.fail(
                Diagnostic::error("whoever reaches this address could control the program")
                    .label("beyond loopback")
                    .hint("write \"localhost:PORT\" or \"unix:/PATH\""),
            );
        }
        if server.listens_on(listen) || listen::is_taken(listen, admin) {
            let problem = Diagnostic::error("another listener has this address").label("taken");
            item.fail(problem.hint("leave control out to have it all on admin.listen"));
        }
    }
    all.into_iter().map(|(listen, _)| listen).collect()
}

/// Listeners for operators are kept apart by the permissions of a socket's file alone.
fn addresses<'c>(item: &Item<'c>) -> Vec<(Listen, Item<'c>)> {
    let listener = |(parsed, item): (ParsedListener, Item<'c>)| {
        if parsed.tls.is_some() || parsed.peers != AllowedPeers::default() {
            item.reject("listeners of [admin] have neither tls nor peer_uids; use mode and group");
        }
        (parsed.listen, item)
    };
    listen::read(item).into_iter().map(listener).collect()
}
