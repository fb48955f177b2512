//! The whole file: reads each section in the order in which they need one another, and puts the
//! settings together.

use std::path::Path;
use std::sync::Arc;

#[cfg(not(feature = "vault"))]
use super::missing_feature;
use super::model::Config;
#[cfg(feature = "vault")]
use super::vault;
use super::{
    admin, checks, clients, credentials, egress, log, reload, server, share, shutdown, tls,
    token_via, upstreams,
};
use crate::admin::settings::AdminSettings;
use crate::diagnostics::{Context, Section};
use crate::proxy::policy::settings::ProxySettings;
use crate::secret::StoreHttpSettings;

/// Resolves a file. Problems are in the context; the settings beside errors are of no use.
pub(super) fn config<'c>(ctx: &'c Context<'c>, path: &Path) -> Option<Config> {
    let root = Section::root(ctx);
    version(&root);
    let tls = tls::root(&root.section("tls"));
    // The login of the egress proxy itself cannot be fetched through it.
    let egress = egress::root(
        &root,
        &StoreHttpSettings { tls: tls.clone(), ..StoreHttpSettings::default() },
    );
    let stores = egress.store_http(&tls);
    #[cfg(feature = "vault")]
    let stores = StoreHttpSettings { vault: vault::read(&root, &stores), ..stores };
    let clients = clients::read(&root, &stores);
    let server = server::read(&root, &clients);
    let admin = admin::read(&root, &server);
    let mut credentials = credentials::read(&root, &tls, &egress, &stores);
    token_via::resolve(&mut credentials);
    let upstreams = upstreams::read(&root, &tls, &egress, &stores, &server, &admin);
    let (shutdown, log, watch) = (shutdown::read(&root), log::read(&root), reload::read(&root));
    checks::all(&root, &upstreams, &credentials, &clients);
    share::check(&root, &credentials);
    #[cfg(feature = "share")]
    let share = share::supported(&root).and_then(|item| {
        let settings = share::read(&item, &tls, &egress.store_http(&tls));
        share::check_shared(&item, settings.as_ref(), &credentials);
        settings
    });
    #[cfg(not(feature = "share"))]
    let _ = share::supported(&root);
    #[cfg(not(feature = "vault"))]
    refuse_section(&root, "vault", "this build reads no secrets of Vault", "vault");

    let mut listeners = server.listeners;
    listeners.extend(upstreams.iter().flat_map(|upstream| upstream.listeners.iter().cloned()));
    clients::in_the_clear(&clients, &listeners);
    let upstreams = upstreams.into_iter().map(|upstream| upstream.settings);
    let mut credentials: Vec<_> =
        credentials.into_iter().filter_map(|found| found.credential).map(Arc::new).collect();
    credentials.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Some(Config {
        path: path.to_owned(),
        sha256: std::sync::Arc::default(),
        workers: server.workers,
        connections: server.connections,
        proxy: ProxySettings {
            listeners,
            clients: clients.into_iter().filter_map(|found| found.settings).collect(),
            upstreams: upstreams.collect::<Option<_>>()?,
            limits: server.limits,
            via: server.via,
        },
        credentials,
        admin,
        shutdown,
        log,
        watch,
        #[cfg(feature = "share")]
        share,
    })
}

/// Refuses a section that this build cannot use.
#[cfg(not(feature = "vault"))]
fn refuse_section(root: &Section<'_>, section: &str, title: &str, feature: &str) {
    let Some(item) = root.item(section).filter(share::is_filled) else { return };
    missing_feature::refuse(&item, title, feature);
}

/// Resolves `[admin]` alone. Problems are in the context.
pub(super) fn admin<'c>(ctx: &'c Context<'c>) -> AdminSettings {
    let root = Section::root(ctx);
    let tls = tls::root(&root.section("tls"));
    let store_http = StoreHttpSettings { tls, ..StoreHttpSettings::default() };
    let clients = clients::read(&root, &store_http);
    admin::read(&root, &server::read(&root, &clients))
}

/// `version` lets a later program change the meaning of keys.
fn version(root: &Section<'_>) {
    let item = root.required("version", "begin the file with  version = 1");
    if let Some(item) = item.filter(|item| item.integer::<u64>(..).is_some_and(|found| found != 1))
    {
        item.reject("this program knows version 1");
    }
}
