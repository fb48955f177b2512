//! New file -> new `Config` -> new `Plan`, swapped in whole. A bad file changes nothing but a
//! metric and a log line; tokens still wanted survive.
//!
//! Everything that can fail comes first: reading, binding. Then all is put in force, in an order in
//! which no request meets half of it: listeners that go stop first, the plan is swapped, listeners
//! that come start last.
//!
//! Files are polled, not watched: Kubernetes swaps a symbolic link two levels up, which a watch
//! misses and a read does not.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, IntGauge};

use super::admin_listeners::{AdminListeners, BoundAdminListeners};
use super::build::{StartError, plan};
use super::headers::HeaderValues;
use super::listeners::{ListenerChange, Listeners};
use super::systemd;
use super::workers::WorkerThreads;
use crate::config::{self, Config};
use crate::proxy::policy::plan::wanted;
use crate::proxy::snapshot::SharedState;
use crate::server::settings::{ShutdownSettings, WorkerCount};
use crate::server::{ConnectionLimit, WorkerCommand};
use crate::telemetry::Registry;
use crate::telemetry::family::Gauges;
use crate::telemetry::log::{LogFormat, LogGuard};
use crate::token::TokenManager;

/// Two equal reads this far apart, before a change is believed: files may be half written.
const SETTLE: Duration = Duration::from_millis(200);

/// What reloads leave in the metrics, in the words of Prometheus itself.
pub struct ReloadMetrics {
    successful: IntGauge,
    success_time: Gauge,
    restart_needed: Gauges,
}

impl ReloadMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let successful = registry.gauge(
            "bearer_proxy_config_last_reload_successful",
            "Whether the last reading of the configuration succeeded.",
        )?;
        let success_time = Gauge::new(
            "bearer_proxy_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was read.",
        )?;
        registry.add(success_time.clone())?;
        let restart_needed = registry.gauge_vec(
            "bearer_proxy_config_restart_needed",
            "Keys whose new value a restart would put in force.",
            &["key"],
        )?;
        RESTART_KEYS.iter().for_each(|key| restart_needed.with_label_values(&[*key]).set(0));
        let metrics = Self { successful, success_time, restart_needed };
        metrics.succeeded();
        Ok(metrics)
    }

    fn succeeded(&self) {
        self.successful.set(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.success_time.set(now.as_secs_f64());
    }

    fn refused(&self, why: &dyn std::fmt::Display) {
        self.successful.set(0);
        tracing::error!(%why, "the new configuration is refused, the old one stays in force");
    }
}

/// What a reload changes, and what it needs for that.
pub(super) struct Reloader {
    /// In force, except for keys that need a restart.
    pub(super) config: Config,
    /// The file as it was last read.
    pub(super) text: Option<Vec<u8>>,
    pub(super) manager: TokenManager,
    pub(super) headers: HeaderValues,
    pub(super) shared: SharedState,
    pub(super) connection_limit: ConnectionLimit,
    pub(super) listeners: Listeners,
    pub(super) workers: WorkerThreads,
    pub(super) admin_listeners: AdminListeners,
    pub(super) metrics: ReloadMetrics,
    /// Keys that only a start reads, as they were then.
    pub(super) startup_only: StartupOnly,
}

/// What a look at the files found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReloadTrigger {
    /// The configuration is another.
    Config,
    /// The secret of a header is another.
    Headers,
}

/// All that a new configuration needs and that could fail, done.
struct Prepared {
    listeners: ListenerChange,
    admin_listeners: BoundAdminListeners,
    headers: HeaderValues,
}

/// Waits until a file differs from what was last read, and has settled. Certificates of listeners,
/// which nothing else depends on, are replaced on the way.
pub(super) async fn changed(
    config: &Config,
    text: Option<&[u8]>,
    headers: &mut HeaderValues,
    listeners: &mut Listeners,
) -> ReloadTrigger {
    let Some(every) = config.watch else { return std::future::pending().await };
    loop {
        tokio::time::sleep(every).await;
        if is_another(&config.path, text).await {
            return ReloadTrigger::Config;
        }
        listeners.reread();
        if headers.reread().await {
            return ReloadTrigger::Headers;
        }
    }
}

async fn is_another(path: &Path, text: Option<&[u8]>) -> bool {
    let Ok(first) = std::fs::read(path) else { return false };
    if Some(&*first) == text {
        return false;
    }
    tokio::time::sleep(SETTLE).await;
    std::fs::read(path).is_ok_and(|second| second == first)
}

impl Reloader {
    /// Reads the file and, where it is good, puts it in force.
    pub(super) async fn reload(&mut self, log: &LogGuard) {
        systemd::reloading();
        self.text = std::fs::read(&self.config.path).ok();
        match config::load(&self.config.path) {
            Ok(loaded) => match self.prepare(&loaded.config).await {
                Ok(prepared) => self.apply(loaded.config, prepared, log).await,
                Err(error) => self.metrics.refused(&error),
            },
            Err(problems) => self.metrics.refused(&problems.render(false)),
        }
        systemd::ready();
    }

    async fn prepare(&self, new: &Config) -> Result<Prepared, StartError> {
        Ok(Prepared {
            listeners: self.listeners.change(&new.proxy.listeners)?,
            admin_listeners: self.admin_listeners.change(&new.admin).map_err(StartError::Bind)?,
            headers: HeaderValues::read(&new.proxy).await,
        })
    }

    async fn apply(&mut self, new: Config, prepared: Prepared, log: &LogGuard) {
        let Prepared { mut listeners, admin_listeners, mut headers } = prepared;
        let bound = self.listeners.bound(&listeners);
        let plan = match plan(&new, &mut self.manager, &self.shared.metrics, &mut headers, bound) {
            Ok(plan) => plan,
            Err(error) => {
                self.manager.apply(wanted(&self.config.proxy, &self.config.credentials));
                self.manager.commit();
                return self.metrics.refused(&error);
            }
        };
        let added = std::mem::take(&mut listeners.sockets);
        let removed = self.listeners.apply(listeners);
        for id in removed.ids() {
            self.workers.broadcast(|| WorkerCommand::Remove(id)).await;
        }
        drop(removed);
        if new.connections != self.config.connections {
            self.connection_limit.resize(new.connections.max_connections);
            self.workers.broadcast(|| WorkerCommand::Limits(new.connections)).await;
        }
        self.shared.plan.store(Arc::new(plan));
        self.manager.commit();
        self.workers.add(added).await;
        self.admin_listeners.apply(&new.admin, admin_listeners);
        if let Err(error) = log.set_level(&new.log.level) {
            tracing::error!(%error, "the level of the log stays");
        }
        self.headers = headers;
        self.config = new;
        self.settled();
    }

    fn settled(&self) {
        self.metrics.succeeded();
        let waiting = self.startup_only.differing(&self.config);
        for key in RESTART_KEYS {
            let needed = self.metrics.restart_needed.with_label_values(&[key]);
            needed.set(u8::from(waiting.contains(&key)));
        }
        let path = self.config.path.display();
        if waiting.is_empty() {
            tracing::info!(%path, "configuration reloaded");
        } else {
            let keys = waiting.join(", ");
            tracing::warn!(%path, keys, "configuration reloaded, but for keys that need a restart");
        }
        let proxy = self.listeners.addresses().flat_map(|(_, all)| all);
        super::run::announce(proxy, self.admin_listeners.addresses());
    }

    /// Puts the present configuration in force anew, with secrets of headers that have been read again.
    pub(super) fn refresh_headers(&mut self) {
        let none = self.listeners.unchanged();
        let (config, metrics) = (&self.config, &self.shared.metrics);
        match plan(config, &mut self.manager, metrics, &mut self.headers, none) {
            Ok(plan) => {
                self.shared.plan.store(Arc::new(plan));
                tracing::info!("the secret of a header has changed; the new one is in force");
            }
            Err(error) => tracing::error!(%error, "the secrets of headers stay as they were"),
        }
    }

    /// How the program leaves, as configured now.
    pub(super) fn shutdown(&self) -> ShutdownSettings {
        self.config.shutdown
    }
}

/// Keys whose change a running program cannot follow.
const RESTART_KEYS: [&str; 2] = ["server.workers", "log.format"];

/// The values of [`RESTART_KEYS`] that the program was started with.
pub(super) struct StartupOnly {
    workers: WorkerCount,
    format: LogFormat,
}

impl StartupOnly {
    pub(super) fn of(config: &Config) -> Self {
        Self { workers: config.workers, format: config.log.format }
    }

    fn differing(&self, config: &Config) -> Vec<&'static str> {
        let same = [self.workers == config.workers, self.format == config.log.format];
        RESTART_KEYS.into_iter().zip(same).filter(|(_, same)| !same).map(|(key, _)| key).collect()
    }
}
