//! `Config`: the sum of the settings that the parts of the program use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::settings::AdminSettings;
use crate::proxy::policy::settings::ProxySettings;
use crate::server::settings::{ConnectionSettings, ShutdownSettings, WorkerCount};
use crate::telemetry::log::LogSettings;
use crate::token::Credential;
use crate::token::credential::TokenSource;

/// A configuration that has been read, checked and resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// SHA-256 of the text of that file, in hexadecimal digits, as `sha256sum` prints it.
    pub sha256: Arc<str>,
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
    /// The store through which replicas share tokens.
    #[cfg(feature = "share")]
    pub share: Option<crate::token::sharing::settings::ShareSettings>,
}

impl Config {
    /// Shares what was found of an issuer with the configuration before this one, where both name the same:
    /// refreshers that stay and the new plan then see the same token endpoint.
    pub fn adopt_issuers(&mut self, before: &Self) {
        for credential in &mut self.credentials {
            // Nothing else holds a credential of a configuration that is not in use yet.
            let Some(credential) = Arc::get_mut(credential) else { continue };
            let TokenSource::Issuer(issuer) = &mut credential.source else { continue };
            for old in before.credentials.iter().filter_map(|old| old.issuer()) {
                issuer.adopt(old);
            }
        }
    }
}
