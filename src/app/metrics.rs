//! Metrics of reloads, named as Prometheus names its own.

use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use super::report::{LastReload, ReloadRecord};

use prometheus::{Gauge, IntGauge};

use crate::clock::unix_seconds;
use crate::telemetry::Registry;
use crate::telemetry::family::Gauges;

/// Configuration keys that a running program cannot apply.
pub(super) const RESTART_KEYS: &[&str] = &[
    "server.workers",
    "log.format",
    #[cfg(feature = "share")]
    "share",
];

/// The result of the last reload.
pub struct ReloadMetrics {
    successful: IntGauge,
    success_time: Gauge,
    restart_needed: Gauges,
    last: LastReload,
}

impl ReloadMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let successful = registry.gauge(
            "bearer_proxy_config_last_reload_successful",
            "1 if the last load of the configuration succeeded.",
        )?;
        let success_time = Gauge::new(
            "bearer_proxy_config_last_reload_success_timestamp_seconds",
            "Time of the last successful load of the configuration.",
        )?;
        registry.add(success_time.clone())?;
        let restart_needed = registry.gauge_vec(
            "bearer_proxy_config_restart_needed",
            "1 if the new value of this key takes effect only after a restart.",
            &["key"],
        )?;
        let metrics =
            Self { successful, success_time, restart_needed, last: LastReload::default() };
        metrics.succeeded(&[]);
        // The start is no reload.
        *metrics.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(metrics)
    }

    /// A configuration was applied, except for these keys.
    pub(super) fn succeeded(&self, restart_needed: &[&'static str]) {
        self.successful.set(1);
        self.note(None, restart_needed);
        self.success_time.set(unix_seconds(SystemTime::now()).unwrap_or_default());
        for key in RESTART_KEYS {
            let needed = restart_needed.contains(key);
            self.restart_needed.with_label_values(&[*key]).set(u8::from(needed));
        }
    }

    /// A configuration was refused for this reason.
    pub(super) fn failed(&self, error: String) {
        self.successful.set(0);
        self.note(Some(error), &[]);
    }

    /// The last reload, kept up to date.
    pub(super) fn last(&self) -> LastReload {
        Arc::clone(&self.last)
    }

    fn note(&self, error: Option<String>, restart_needed: &[&'static str]) {
        let (at, restart_needed) = (SystemTime::now(), restart_needed.to_vec());
        let record = ReloadRecord { at, error, restart_needed };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
    }
}
