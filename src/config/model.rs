//! `Config`: the sum of the settings that the parts of the program use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::settings::AdminSettings;
use crate::proxy::policy::settings::ProxySettings;
use crate::server::settings::{ConnectionSettings, ShutdownSettings, WorkerCount};
use crate::telemetry::log::LogSettings;
use crate::token::Credential;

/// A configuration that has been read, checked and resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// Worker threads.
    pub workers: WorkerCount,
    /// Bounds on client connections.
    pub connections: ConnectionSettings,
    /// Listeners, upstreams and routes.
    pub proxy: ProxySettings,
    /// Client registrations, in the order of their names.
    pub credentials: Vec<Arc<Credential>>,
    /// The operator's window.
    pub admin: AdminSettings,
    /// The steps of stopping.
    pub shutdown: ShutdownSettings,
    /// The log.
    pub log: LogSettings,
    /// The time between two checks of files for changes; `None`: files are read again on SIGHUP only.
    pub watch: Option<Duration>,
}
