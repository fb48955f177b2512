//! `ShareSettings`: the store through which replicas share tokens, and their behaviour without it.

use std::time::Duration;

use crate::secret::Reference;
use crate::share::settings::StoreSettings;

/// The section `[share]` of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ShareSettings {
    /// The store, and the login there.
    pub store: StoreSettings,
    /// The keys that seal and open values: the first one seals, all of them open.
    pub encryption: Vec<EncryptionKey>,
    /// The source of the key that makes the names of tokens. It stays while encryption keys are replaced:
    /// else replicas with the old key and replicas with the new one would hold two tokens.
    pub name_key: Reference,
    /// The renewal of tokens while the store is not reached.
    pub when_unreachable: WhenUnreachable,
    /// The time after the end of its token for which a replica leaves the renewal to the last leader while
    /// the store is not reached.
    pub takeover_after: Duration,
    /// The time between two looks at the store, for announcements that were lost.
    pub poll: Duration,
}

/// A key that seals and opens values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionKey {
    /// Its name, which stands beside each value that it sealed.
    pub id: String,
    /// The source of the key: 32 bytes in base64.
    pub key: Reference,
}

/// The renewal of tokens while the store is not reached. A held token serves to its end in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenUnreachable {
    /// The replica that published a token renews it alone; the others wait until it has ended, and then for
    /// `takeover_after` more.
    #[default]
    LastLeader,
    /// Each replica renews for itself: for token servers without limits.
    Own,
}
