//! The whole file: reads each section in the order in which they need one another, and puts the
//! settings together.

use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

use super::model::Config;
use super::{checks, clients, credentials, egress, server, tls, upstreams};
use crate::diagnostics::{Context, Section};
use crate::proxy::policy::settings::ProxySettings;
use crate::secret::StoreHttpSettings;

/// Resolves a file. Problems are in the context; what is returned beside errors is of no use.
pub(super) fn config<'c>(
    ctx: &'c Context<'c>,
    table: &'c DeTable<'c>,
    path: &Path,
) -> Option<Config> {
    let root = Section::root(ctx, table).advise(&[
        ("routes", "routes belong to an upstream: [[upstreams.NAME.routes]]"),
        ("upstream", "write [upstreams.NAME]"),
        ("credential", "write [credentials.NAME]"),
        ("listen", "it belongs to [server]"),
        ("egress_proxy", "write  [egress] proxy = \"http://host:port\""),
        ("client", "write [clients.NAME]"),
    ]);
    version(&root);
    let tls = tls::root(&root.section("tls", "[tls]").advise(tls::ADVICE));
    // The login of the egress proxy itself cannot be had through it.
    let egress = egress::root(
        &root,
        &StoreHttpSettings { tls: tls.clone(), ..StoreHttpSettings::default() },
    );
    let clients = clients::read(&root, &egress.store_http(&tls));
    let server = server::read(&root, &clients);
    let (shutdown, log, watch) =
        (server::shutdown(&root), server::log(&root), server::watch(&root));
    let admin = server::admin(&root, &server);
    let credentials = credentials::read(&root, &tls, &egress);
    let upstreams = upstreams::read(&root, &tls, &egress, &server, &admin);
    root.finish();
    checks::all(&upstreams, &credentials, &clients);

    let mut listeners = server.listeners;
    listeners.extend(upstreams.iter().flat_map(|upstream| upstream.listeners.iter().cloned()));
    clients::in_the_clear(&clients, &listeners);
    let mut resolved = Vec::new();
    for upstream in upstreams {
        resolved.push(upstream.settings?);
    }
    let mut credentials: Vec<_> =
        credentials.into_iter().filter_map(|found| found.credential).map(Arc::new).collect();
    credentials.sort_by(|a, b| a.name.cmp(&b.name));
    Some(Config {
        path: path.to_owned(),
        workers: server.workers,
        connections: server.connections,
        proxy: ProxySettings {
            listeners,
            clients: clients.into_iter().filter_map(|found| found.settings).collect(),
            upstreams: resolved,
            limits: server.limits,
            via: server.via,
        },
        credentials,
        admin,
        shutdown,
        log,
        watch,
    })
}

/// `version` lets a later program change what keys mean.
fn version(root: &Section<'_>) {
    let item = root.required("version", "begin the file with  version = 1");
    if let Some(item) =
        item.filter(|item| item.integer(0..u64::MAX).is_some_and(|found| found != 1))
    {
        item.reject("this program knows version 1");
    }
}
