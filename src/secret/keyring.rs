//! Secrets from the keyring of the operating system: Secret Service on Linux, Keychain on macOS,
//! Credential Manager on Windows. A workstation's sources: an unlocked session of a person is needed.

use super::SecretFault;
use crate::sensitive::Sensitive;

/// The service that entries of this program have where none is written.
pub const SERVICE: &str = "bearer-proxy";

/// One entry of the keyring.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyringSecret {
    /// Whose entry it is, mostly a program.
    pub service: String,
    /// Its name among those of the service.
    pub account: String,
}

/// Reads an entry.
pub(super) async fn read(entry: &KeyringSecret) -> Result<Sensitive, SecretFault> {
    platform::on_a_thread(entry, |entry| entry.read()).await
}

impl KeyringSecret {
    /// Writes a value into the keyring, in place of an older one.
    ///
    /// # Errors
    /// Where there is no keyring, or it is locked.
    pub async fn set(&self, value: Sensitive) -> Result<(), SecretFault> {
        platform::on_a_thread(self, move |entry| entry.write(&value)).await
    }

    /// Removes the entry.
    ///
    /// # Errors
    /// Where there is none, or no keyring.
    pub async fn delete(&self) -> Result<(), SecretFault> {
        platform::on_a_thread(self, |entry| entry.delete()).await
    }
}

#[cfg(feature = "keyring")]
mod platform {
    use std::sync::Arc;
    use std::time::Duration;

    use keyring_core::api::CredentialStoreApi;
    use keyring_core::{Entry as Stored, Error};
    use zeroize::Zeroizing;

    use super::{KeyringSecret, SecretFault};
    use crate::sensitive::Sensitive;

    /// A locked keyring asks its user, who may be away.
    const LIMIT: Duration = Duration::from_secs(30);

    /// Keyrings answer when they like, and block; the limit is for the one who waits here.
    pub(super) async fn on_a_thread<T: Send + 'static>(
        entry: &KeyringSecret,
        work: impl FnOnce(Opened) -> Result<T, SecretFault> + Send + 'static,
    ) -> Result<T, SecretFault> {
        let entry = entry.clone();
        let task = tokio::task::spawn_blocking(move || work(Opened::new(&entry)?));
        match tokio::time::timeout(LIMIT, task).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(SecretFault::Unreachable("the keyring's client failed".into())),
            Err(_) => Err(SecretFault::TimedOut(LIMIT)),
        }
    }

    /// An entry of a keyring that was reached.
    pub(super) struct Opened(Stored);

    impl Opened {
        fn new(entry: &KeyringSecret) -> Result<Self, SecretFault> {
            let store = store().map_err(fault)?;
            store.build(&entry.service, &entry.account, None).map(Self).map_err(fault)
        }

        pub(super) fn read(&self) -> Result<Sensitive, SecretFault> {
            let bytes = Zeroizing::new(self.0.get_secret().map_err(fault)?);
            std::str::from_utf8(&bytes).map(Sensitive::new).map_err(|_| SecretFault::NotUtf8)
        }

        pub(super) fn write(&self, value: &Sensitive) -> Result<(), SecretFault> {
            self.0.set_secret(value.expose().as_bytes()).map_err(fault)
        }

        pub(super) fn delete(&self) -> Result<(), SecretFault> {
            self.0.delete_credential().map_err(fault)
        }
    }

    #[cfg(target_os = "linux")]
    fn store() -> keyring_core::Result<Arc<impl CredentialStoreApi>> {
        zbus_secret_service_keyring_store::Store::new()
    }

    #[cfg(target_os = "macos")]
    fn store() -> keyring_core::Result<Arc<impl CredentialStoreApi>> {
        apple_native_keyring_store::keychain::Store::new()
    }

    #[cfg(windows)]
    fn store() -> keyring_core::Result<Arc<impl CredentialStoreApi>> {
        windows_native_keyring_store::Store::new()
    }

    /// Some errors hold the value itself, so that each is told in words of our own.
    fn fault(error: Error) -> SecretFault {
        let unreachable = |words: &str| SecretFault::Unreachable(words.to_owned());
        match error {
            Error::NoEntry => SecretFault::Missing,
            Error::BadEncoding(bytes) | Error::BadDataFormat(bytes, _) => {
                drop(Zeroizing::new(bytes));
                SecretFault::NotUtf8
            }
            Error::NoStorageAccess(_) => unreachable("it is locked; unlock it in your session"),
            Error::Ambiguous(_) => unreachable("it holds several such entries; delete all but one"),
            Error::TooLong(..) => SecretFault::TooLong,
            _ => unreachable("no keyring answers; it needs a session bus and a keyring's daemon"),
        }
    }
}

#[cfg(not(feature = "keyring"))]
mod platform {
    use super::{KeyringSecret, SecretFault};
    use crate::sensitive::Sensitive;

    /// No keyring was ever opened.
    pub(super) enum Opened {}

    impl Opened {
        pub(super) fn read(&self) -> Result<Sensitive, SecretFault> {
            match *self {}
        }

        pub(super) fn write(&self, _: &Sensitive) -> Result<(), SecretFault> {
            match *self {}
        }

        pub(super) fn delete(&self) -> Result<(), SecretFault> {
            match *self {}
        }
    }

    pub(super) async fn on_a_thread<T>(
        _: &KeyringSecret,
        _: impl FnOnce(Opened) -> Result<T, SecretFault>,
    ) -> Result<T, SecretFault> {
        Err(SecretFault::NotBuilt("keyring"))
    }
}
