//! `StoreSettings`: the kind of store that a configuration chooses.

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "kubernetes")]
use super::kubernetes_store::{self, KubernetesOptions, KubernetesStore};
use super::metrics::ShareMetrics;
use super::probe::ProbeStep;
#[cfg(feature = "redis")]
use super::redis_store::{self, RedisStore, StoreOptions};
use super::store::TokenStore;
use crate::secret::Reference;

/// A store of shared tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// Redis or Valkey.
    #[cfg(feature = "redis")]
    Redis(StoreOptions),
    /// A Kubernetes Secret.
    #[cfg(feature = "kubernetes")]
    Kubernetes(KubernetesOptions),
}

impl StoreSettings {
    /// Starts the store in the current tokio runtime. It connects in the background.
    pub fn start(&self, metrics: ShareMetrics) -> Arc<dyn TokenStore> {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(options) => Arc::new(RedisStore::start(options.clone(), metrics)),
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(options) => Arc::new(KubernetesStore::start(options.clone(), metrics)),
        }
    }

    /// The text that sealed values are bound to: a value of another store does not open.
    pub fn prefix(&self) -> &str {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(options) => &options.key_prefix,
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(options) => &options.secret,
        }
    }

    /// The value of `store`.
    pub fn kind(&self) -> &'static str {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(_) => "redis",
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(_) => "kubernetes",
        }
    }

    /// The addresses of the store, separated by spaces.
    pub fn address(&self) -> String {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(options) => options.servers.to_string(),
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(options) => options.to_string(),
        }
    }

    /// The name and the source of the secret with which this process logs in there; `None` without one.
    pub fn login(&self) -> Option<(&'static str, &Reference)> {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(options) => {
                options.login.password.as_ref().map(|found| ("password", found))
            }
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(options) => Some(("token", &options.token)),
        }
    }

    /// Limit for the connection to the store.
    pub fn connect_timeout(&self) -> Duration {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(options) => options.connect_timeout,
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(options) => options.connect_timeout,
        }
    }

    /// Goes through the steps of `check --live`, up to the first that the next ones need.
    pub async fn probe(&self) -> Vec<ProbeStep> {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(options) => redis_store::probe::probe(options).await,
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(options) => kubernetes_store::probe::probe(options).await,
        }
    }
}
