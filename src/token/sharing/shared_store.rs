//! `SharedStore`: the store of this process, and the keys of its names and values.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::settings::{ShareSettings, WhenUnreachable};
use crate::secret::{CredentialPart, Freshness, SecretError, Store};
use crate::share::keys::KeyError;
use crate::share::names::NameKey;
use crate::share::sealing::SharingKeys;
use crate::share::store::TokenStore;
use crate::telemetry::Registry;
use crate::telemetry::family::Counters;

/// The store through which the tokens of this process are shared.
pub struct SharedStore {
    pub(super) store: Arc<dyn TokenStore>,
    pub(super) rules: SharingRules,
    keys: OnceCell<Keys>,
    name_key_check: Mutex<NameKeyCheck>,
    source: Option<(ShareSettings, Arc<Store>)>,
    pub(super) metrics: SharingCounters,
}

/// The result of the comparisons of the name key so far.
#[derive(Debug, Default)]
pub(super) struct NameKeyCheck {
    /// The time of the last comparison that found the same key.
    pub(super) same_at: Option<Instant>,
    /// Set once another replica had the same key.
    pub(super) confirmed: bool,
}

/// The behaviour of a replica.
#[derive(Debug, Clone)]
pub(super) struct SharingRules {
    pub(super) key_prefix: String,
    pub(super) when_unreachable: WhenUnreachable,
    pub(super) takeover_after: Duration,
    pub(super) poll: Duration,
}

/// The keys that all replicas have.
pub(super) struct Keys {
    pub(super) names: NameKey,
    pub(super) values: SharingKeys,
}

/// The reason why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysError {
    /// A source cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A value is no key.
    #[error("{key} of [share]: {error}")]
    Key { key: String, error: KeyError },
}

/// The counters of shared tokens.
#[derive(Clone)]
pub(super) struct SharingCounters {
    adopted: Counters,
    unreadable: Counters,
}

impl SharedStore {
    /// The store of a configuration, whose keys are read when they are first needed.
    ///
    /// # Errors
    /// A metric of the same name is registered already.
    pub fn register(
        store: Arc<dyn TokenStore>,
        settings: ShareSettings,
        secrets: Arc<Store>,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let rules = SharingRules {
            key_prefix: settings.store.prefix().to_owned(),
            when_unreachable: settings.when_unreachable,
            takeover_after: settings.takeover_after,
            poll: settings.poll,
        };
        let metrics = SharingCounters::register(registry)?;
        let source = Some((settings, secrets));
        Ok(Self {
            store,
            rules,
            keys: OnceCell::new(),
            name_key_check: Mutex::default(),
            source,
            metrics,
        })
    }

    /// A store whose keys are there.
    #[cfg(test)]
    pub(super) fn with_keys(
        store: Arc<dyn TokenStore>,
        rules: SharingRules,
        keys: Keys,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let metrics = SharingCounters::register(registry)?;
        Ok(Self {
            store,
            rules,
            keys: OnceCell::new_with(Some(keys)),
            name_key_check: Mutex::default(),
            source: None,
            metrics,
        })
    }

    /// The result of the comparisons of the name key.
    pub(super) fn name_key_check(&self) -> MutexGuard<'_, NameKeyCheck> {
        self.name_key_check.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys, if they have been read.
    pub(super) fn known_keys(&self) -> Option<&Keys> {
        self.keys.get()
    }

    /// Reads the login at the store, so that its source is listed with its state. The store reads it for each
    /// connection by itself.
    pub(super) async fn note_login(&self) {
        if let Some((settings, secrets)) = &self.source
            && let Some((_, reference)) = settings.store.login()
        {
            // An error is that of the source, and the store says it too.
            let _ = secrets.read(reference, CredentialPart::Secret, Freshness::Fresh).await;
        }
    }

    /// The keys, read once. After a failure they are read again at the next call.
    pub(super) async fn keys(&self) -> Result<&Keys, KeysError> {
        self.keys.get_or_try_init(|| self.read_keys()).await
    }

    async fn read_keys(&self) -> Result<Keys, KeysError> {
        let (settings, secrets) = match &self.source {
            Some((settings, secrets)) => (settings, secrets),
            None => return Err(KeysError::Key { key: "encryption".into(), error: KeyError::None }),
        };
        let read = async |reference| {
            secrets.read(reference, CredentialPart::Secret, Freshness::Cached).await
        };
        self.note_login().await;
        let names = NameKey::new(&read(&settings.name_key).await?)
            .map_err(|error| KeysError::Key { key: "name_key".into(), error })?;
        let mut values = Vec::with_capacity(settings.encryption.len());
        for key in &settings.encryption {
            values.push((key.id.as_str(), read(&key.key).await?));
        }
        let values = SharingKeys::new(values.iter().map(|(id, key)| (*id, key)))
            .map_err(|error| KeysError::Key { key: "encryption".into(), error })?;
        Ok(Keys { names, values })
    }
}

impl SharingCounters {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let unreadable = registry.counter_vec(
            "bearer_proxy_share_unreadable_total",
            "Shared tokens that could not be used, by reason: key (sealed with a key that this replica does not \
             have), tag (changed, or moved from another place), rollback, format (of another version), certificate \
             (bound to another client certificate).",
            &["reason"],
        )?;
        for reason in crate::share::sealing::Unreadable::LABELS {
            unreadable.with_label_values(&[reason]);
        }
        let adopted = registry.counter_vec(
            "bearer_proxy_share_adopted_total",
            "Tokens that another replica obtained and this one uses.",
            &["credential"],
        )?;
        Ok(Self { adopted, unreadable })
    }

    pub(super) fn adopted(&self, credential: &str) {
        self.adopted.with_label_values(&[credential]).inc();
    }

    /// Makes the counter of a credential appear, at 0.
    pub(super) fn show(&self, credential: &str) {
        self.adopted.with_label_values(&[credential]);
    }

    pub(super) fn unreadable(&self, reason: &str) {
        self.unreadable.with_label_values(&[reason]).inc();
    }
}
