//! `StoreOptions`: what the store of shared tokens is made from.

use std::fmt;
use std::time::Duration;

use super::address::ServerAddress;
use crate::net::tls::TlsSettings;
use crate::secret::Reference;

/// The settings of a store in Redis or Valkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// The servers.
    pub servers: Servers,
    /// The number of the database; 0 in a cluster.
    pub database: u32,
    /// The login, read again for each connection.
    pub login: Login,
    /// The beginning of all keys and channels: letters, digits, `-`, `_` and `.` only.
    pub key_prefix: String,
    /// TLS of `rediss` addresses. Its files are read again for each connection.
    pub tls: TlsSettings,
    /// Limit for DNS, TCP, TLS and the login of one connection together.
    pub connect_timeout: Duration,
    /// Limit for one operation.
    pub operation_timeout: Duration,
}

impl StoreOptions {
    /// Options with the defaults: no login, the prefix `bearer-proxy`, 1 s to connect, 500 ms for an
    /// operation.
    pub fn new(servers: Servers) -> Self {
        Self {
            servers,
            database: 0,
            login: Login::default(),
            key_prefix: "bearer-proxy".to_owned(),
            tls: TlsSettings::default(),
            connect_timeout: Duration::from_secs(1),
            operation_timeout: Duration::from_millis(500),
        }
    }
}

/// The servers of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// One server.
    Standalone(ServerAddress),
    /// The master that Sentinels name. They are asked again for each connection.
    Sentinel(Sentinels),
    /// A cluster, by some of its nodes.
    Cluster(Vec<ServerAddress>),
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = match self {
            Self::Standalone(address) => std::slice::from_ref(address),
            Self::Sentinel(sentinels) => &sentinels.addresses,
            Self::Cluster(addresses) => addresses,
        };
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        f.write_str(&addresses.join(" "))
    }
}

/// Sentinels, which know the master of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentinels {
    /// Their addresses. The default port is that of Redis; Sentinels mostly listen on 26379.
    pub addresses: Vec<ServerAddress>,
    /// The name of the service.
    pub service: String,
    /// The login at the Sentinels themselves.
    pub login: Login,
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Login {
    /// The ACL user; `None` for the user `default`.
    pub username: Option<String>,
    /// The source of the password; `None` for a server without one.
    pub password: Option<Reference>,
}

impl Login {
    /// The name of the user for messages.
    pub(super) fn user(&self) -> &str {
        self.username.as_deref().unwrap_or("default")
    }
}
