//! New file -> new `Config` -> new `Plan`, swapped in whole. A bad file changes nothing but a
//! metric and a log line; tokens still wanted survive.
//!
//! Files are polled, not watched: Kubernetes swaps a symbolic link two levels up, which a watch
//! misses and a read does not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, IntGauge};

use super::build::plan;
use crate::config::{self, Config};
use crate::proxy::forward::Shared;
use crate::telemetry::Registry;
use crate::token::Keeper;

/// Two equal reads this far apart, before a change is believed: files may be half written.
const SETTLE: Duration = Duration::from_millis(200);

/// What reloads leave in the metrics, in the words of Prometheus itself.
pub struct ReloadMetrics {
    successful: IntGauge,
    success_time: Gauge,
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
        let metrics = Self { successful, success_time };
        metrics.succeeded();
        Ok(metrics)
    }

    fn succeeded(&self) {
        self.successful.set(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.success_time.set(now.as_secs_f64());
    }
}

/// Replaces the plan when the file changes.
pub(super) struct Reloader {
    config: Config,
    text: Option<Vec<u8>>,
    keeper: Keeper,
    shared: Shared,
    bound: Vec<Vec<SocketAddr>>,
    metrics: ReloadMetrics,
}

impl Reloader {
    pub(super) fn new(
        config: Config,
        keeper: Keeper,
        shared: Shared,
        bound: Vec<Vec<SocketAddr>>,
        metrics: ReloadMetrics,
    ) -> Self {
        let text = std::fs::read(&config.path).ok();
        Self { config, text, keeper, shared, bound, metrics }
    }

    /// Waits until the file differs from what was last read, and has settled.
    pub(super) async fn changed(&mut self) {
        let Some(every) = self.config.watch else { return std::future::pending().await };
        loop {
            tokio::time::sleep(every).await;
            let Ok(first) = std::fs::read(&self.config.path) else { continue };
            if Some(&first) == self.text.as_ref() {
                continue;
            }
            tokio::time::sleep(SETTLE).await;
            if std::fs::read(&self.config.path).is_ok_and(|second| second == first) {
                return;
            }
        }
    }

    /// Reads the file and, where it is good, puts it in force.
    pub(super) async fn reload(&mut self) {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Reloading]);
        self.text = std::fs::read(&self.config.path).ok();
        match config::load(&self.config.path) {
            Ok(loaded) => self.apply(loaded.config).await,
            Err(problems) => {
                self.metrics.successful.set(0);
                tracing::error!(
                    problems = %problems.render(false),
                    "the new configuration is refused, the old one stays in force"
                );
            }
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }

    async fn apply(&mut self, new: Config) {
        let restart = needs_restart(&self.config, &new);
        if !restart.is_empty() {
            self.metrics.successful.set(0);
            tracing::error!(
                keys = restart.join(", "),
                "the new configuration changes keys that need a restart; the old one stays in force"
            );
            return;
        }
        match plan(&new, &mut self.keeper, &self.shared.metrics, &self.bound).await {
            Ok(plan) => {
                self.shared.plan.store(Arc::new(plan));
                self.config = new;
                self.metrics.succeeded();
                tracing::info!(path = %self.config.path.display(), "configuration reloaded");
            }
            Err(error) => {
                self.metrics.successful.set(0);
                tracing::error!(%error, "the new configuration is refused, the old one stays in force");
            }
        }
    }

    pub(super) fn into_keeper(self) -> Keeper {
        self.keeper
    }
}

/// Keys whose change a running program cannot follow.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let addresses = |config: &Config| -> Vec<_> {
        config.proxy.listeners.iter().map(|listener| listener.listen.clone()).collect()
    };
    let mut keys = Vec::new();
    if addresses(old) != addresses(new) {
        keys.push("server.listen and upstreams.*.listen");
    }
    if old.admin != new.admin {
        keys.push("admin");
    }
    if old.workers != new.workers {
        keys.push("server.workers");
    }
    if old.connections != new.connections {
        keys.push("server limits of connections");
    }
    if old.log != new.log {
        keys.push("log");
    }
    keys
}
