//! New file -> new `Config` -> new `Plan`, swapped as a whole. An invalid file changes nothing except a
//! metric and a log line; tokens that are still used survive.
//!
//! Everything that can fail comes first: reading and binding. Then the new configuration is applied in an
//! order in which no request sees half of it: removed listeners stop first, the plan is swapped, new
//! listeners start last.
//!
//! Files are polled, not watched: Kubernetes swaps a symbolic link two levels up, which a watch misses
//! and a read does not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::admin_listeners::{AdminListeners, BoundAdminListeners};
use super::announcements;
use super::client_certificates::ClientCertificateWatch;
use super::error::StartError;
use super::headers::HeaderValues;
use super::listeners::{ListenerChange, Listeners, log_addresses};
use super::metrics::{RESTART_KEYS, ReloadMetrics};
use super::open_files::OpenFilesNeed;
use super::plan::build_plan;
use super::service_manager;
use super::workers::WorkerThreads;
use crate::config::{self, Config};
use crate::proxy::policy::plan::token_specs;
use crate::proxy::snapshot::SharedState;
use crate::secret::SourceStates;
use crate::server::settings::{ShutdownSettings, WorkerCount};
use crate::server::{ConnectionLimit, WorkerCommand};
use crate::telemetry::log::{LogFormat, LogGuard};
use crate::token::{ManagerHandle, TokenManager};

/// Interval between two equal reads before a change counts: a file may be half written.
const SETTLE: Duration = Duration::from_millis(200);

/// The parts that a reload changes, and the parts that it needs for that.
pub(super) struct Reloader {
    /// The applied configuration, except for keys that need a restart.
    pub(super) config: Config,
    /// The file as it was last read.
    pub(super) text: Option<Vec<u8>>,
    pub(super) manager: TokenManager,
    pub(super) headers: HeaderValues,
    pub(super) client_certificates: ClientCertificateWatch,
    pub(super) sources: SourceStates,
    pub(super) open_files: OpenFilesNeed,
    pub(super) shared: SharedState,
    pub(super) connection_limit: ConnectionLimit,
    pub(super) listeners: Listeners,
    pub(super) workers: WorkerThreads,
    pub(super) admin_listeners: AdminListeners,
    pub(super) metrics: ReloadMetrics,
    /// Values at the start of the keys that only a start reads.
    pub(super) startup_only: StartupOnly,
}

/// The reason for a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReloadTrigger {
    /// The configuration file has changed, or SIGHUP came.
    Config,
    /// The secret of a header has changed.
    Headers,
}

/// A new configuration after all steps that can fail.
struct Prepared {
    listeners: ListenerChange,
    admin_listeners: BoundAdminListeners,
    headers: HeaderValues,
}

/// Waits until a file differs from its last read and has settled. On the way it replaces renewed
/// certificates of listeners, because nothing else depends on them, and requests new tokens for renewed
/// client certificates.
///
/// Cancel safe: a dropped call only delays the next look at the files.
pub(super) async fn changed(
    config: &Config,
    text: Option<&[u8]>,
    headers: &mut HeaderValues,
    listeners: &mut Listeners,
    (client_certificates, tokens): (&mut ClientCertificateWatch, &ManagerHandle),
) -> ReloadTrigger {
    let Some(every) = config.watch else { return std::future::pending().await };
    loop {
        tokio::time::sleep(every).await;
        if has_changed(&config.path, text).await {
            return ReloadTrigger::Config;
        }
        listeners.reread_certificates();
        client_certificates.reread(tokens).await;
        if headers.reread().await {
            return ReloadTrigger::Headers;
        }
    }
}

async fn has_changed(path: &Path, text: Option<&[u8]>) -> bool {
    let Ok(first) = std::fs::read(path) else { return false };
    if Some(&*first) == text {
        return false;
    }
    tokio::time::sleep(SETTLE).await;
    std::fs::read(path).is_ok_and(|second| second == first)
}

impl Reloader {
    /// Reads the file and applies it if it is valid.
    pub(super) async fn reload(&mut self, log: &LogGuard) {
        service_manager::reloading();
        self.text = std::fs::read(&self.config.path).ok();
        match config::load(&self.config.path) {
            Ok(mut loaded) => {
                loaded.config.adopt_issuers(&self.config);
                match self.prepare(&loaded.config).await {
                    Ok(prepared) => self.apply(loaded.config, prepared, log).await,
                    Err(error) => self.refuse(&error),
                }
            }
            Err(problems) => self.refuse(&problems.of_reload()),
        }
        service_manager::ready();
    }

    fn refuse(&self, why: &dyn std::fmt::Display) {
        self.metrics.failed(why.to_string());
        tracing::error!(%why, "the new configuration is refused, the old one stays in force");
    }

    async fn prepare(&self, new: &Config) -> Result<Prepared, StartError> {
        // Those that the new configuration still names are noted again when they are next read.
        self.sources.forget_failed();
        Ok(Prepared {
            listeners: self.listeners.prepare(&new.proxy.listeners)?,
            admin_listeners: self.admin_listeners.prepare(&new.admin).map_err(StartError::Bind)?,
            headers: HeaderValues::read(&new.proxy, &self.sources).await,
        })
    }

    async fn apply(&mut self, new: Config, prepared: Prepared, log: &LogGuard) {
        let Prepared { mut listeners, admin_listeners, mut headers } = prepared;
        let bound = self.listeners.bound(&listeners);
        let metrics = &self.shared.metrics;
        let plan = match build_plan(&new, &mut self.manager, metrics, &mut headers, bound) {
            Ok(plan) => plan,
            Err(error) => {
                // The manager has taken the new tokens up already: give it the old ones back.
                self.manager.apply(token_specs(&self.config.proxy, &self.config.credentials));
                self.manager.commit();
                return self.refuse(&error);
            }
        };
        let added = std::mem::take(&mut listeners.sockets);
        let removed = self.listeners.apply(listeners);
        for id in removed.ids() {
            self.workers.broadcast(|| WorkerCommand::Remove(id)).await;
        }
        // Unlocks the addresses, which is right only after the workers have closed the sockets.
        drop(removed);
        if new.connections != self.config.connections {
            self.connection_limit.resize(new.connections.max_connections);
            self.workers.broadcast(|| WorkerCommand::Limits(new.connections)).await;
        }
        self.shared.plan.store(Arc::new(plan));
        // After the swap: until then requests read the tokens that `commit` drops.
        self.manager.commit();
        self.workers.add(added).await;
        self.admin_listeners.apply(&new.admin, admin_listeners);
        if let Err(error) = log.set_level(&new.log.level) {
            tracing::error!(%error, "log level unchanged: invalid filter");
        }
        self.headers = headers;
        self.open_files.check(&new);
        announcements::cleartext(&new);
        announcements::password_grants(&new);
        self.client_certificates.read(&new).await;
        self.config = new;
        self.report();
    }

    fn report(&self) {
        let restart_needed = self.startup_only.differing(&self.config);
        self.metrics.succeeded(&restart_needed);
        let path = self.config.path.display();
        if restart_needed.is_empty() {
            tracing::info!(%path, "configuration reloaded");
        } else {
            let keys = restart_needed.join(", ");
            tracing::warn!(%path, keys, "configuration reloaded, except for keys that need a restart");
        }
        log_addresses(&self.listeners, self.admin_listeners.addresses());
    }

    /// Builds the plan again from the same configuration and re-read header secrets.
    pub(super) fn refresh_headers(&mut self) {
        let bound = self.listeners.unchanged();
        let (config, metrics) = (&self.config, &self.shared.metrics);
        match build_plan(config, &mut self.manager, metrics, &mut self.headers, bound) {
            Ok(plan) => {
                self.shared.plan.store(Arc::new(plan));
                tracing::info!("the secret of a header has changed; the new one is in force");
            }
            Err(error) => tracing::error!(%error, "set_headers secrets not updated"),
        }
    }

    /// The shutdown settings of the applied configuration.
    pub(super) fn shutdown(&self) -> ShutdownSettings {
        self.config.shutdown
    }
}

/// Values at the start of the keys in [`RESTART_KEYS`].
pub(super) struct StartupOnly {
    workers: WorkerCount,
    format: LogFormat,
    #[cfg(feature = "share")]
    share: Option<crate::token::sharing::settings::ShareSettings>,
}

impl StartupOnly {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            workers: config.workers,
            format: config.log.format,
            #[cfg(feature = "share")]
            share: config.share.clone(),
        }
    }

    fn differing(&self, config: &Config) -> Vec<&'static str> {
        let same = [
            self.workers == config.workers,
            self.format == config.log.format,
            #[cfg(feature = "share")]
            {
                self.share == config.share
            },
        ];
        let keys = RESTART_KEYS.iter().zip(same).filter(|(_, same)| !same);
        keys.map(|(key, _)| *key).collect()
    }
}
