//! Secrets from the keyring of the operating system: Secret Service on Linux, Keychain on macOS,
//! Credential Manager on Windows. It serves workstations, because a person must have unlocked it.

use super::error::SecretFault;
use crate::sensitive::Sensitive;

/// The default service of keyring entries.
pub const SERVICE: &str = "bearer-proxy";

/// One entry of the keyring.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyringSecret {
    /// The program that owns the entry.
    pub service: String,
    /// The name of the entry among those of the service.
    pub account: String,
}

/// Reads an entry.
pub(super) async fn read(secret: &KeyringSecret) -> Result<Sensitive, SecretFault> {
    platform::read(secret).await
}

impl KeyringSecret {
    /// Writes a value into the keyring, in place of an older one.
    ///
    /// # Errors
    /// There is no keyring, or it is locked.
    pub async fn set(&self, value: Sensitive) -> Result<(), SecretFault> {
        platform::write(self, value).await
    }

    /// Removes the entry.
    ///
    /// # Errors
    /// There is no such entry, or no keyring.
    pub async fn delete(&self) -> Result<(), SecretFault> {
        platform::delete(self).await
    }
}

#[cfg(feature = "keyring")]
mod platform {
    use std::sync::Arc;
    use std::time::Duration;

    use keyring_core::api::CredentialStoreApi;
    use keyring_core::{Entry, Error};
    use zeroize::Zeroizing;

    use super::{KeyringSecret, SecretFault};
    use crate::sensitive::Sensitive;

    /// A locked keyring asks its user, who may be away.
    const LIMIT: Duration = Duration::from_secs(30);

    pub(super) async fn read(secret: &KeyringSecret) -> Result<Sensitive, SecretFault> {
        let bytes = Zeroizing::new(on_blocking_thread(secret, |entry| entry.get_secret()).await?);
        std::str::from_utf8(&bytes).map(Sensitive::new).map_err(|_| SecretFault::NotUtf8)
    }

    pub(super) async fn write(secret: &KeyringSecret, value: Sensitive) -> Result<(), SecretFault> {
        on_blocking_thread(secret, move |entry| entry.set_secret(value.expose().as_bytes())).await
    }

    pub(super) async fn delete(secret: &KeyringSecret) -> Result<(), SecretFault> {
        on_blocking_thread(secret, |entry| entry.delete_credential()).await
    }

    /// Runs a call that may block for as long as the keyring likes. Only the wait for it is bounded:
    /// the thread goes on until the keyring answers.
    async fn on_blocking_thread<T: Send + 'static>(
        secret: &KeyringSecret,
        work: impl FnOnce(&Entry) -> keyring_core::Result<T> + Send + 'static,
    ) -> Result<T, SecretFault> {
        let KeyringSecret { service, account } = secret.clone();
        let task =
            tokio::task::spawn_blocking(move || work(&store()?.build(&service, &account, None)?));
        match tokio::time::timeout(LIMIT, task).await {
            Ok(Ok(done)) => done.map_err(fault),
            Ok(Err(_)) => Err(SecretFault::Unreachable("the keyring's client failed".into())),
            Err(_) => Err(SecretFault::TimedOut(LIMIT)),
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

    /// The fault in words of this program, because some errors of the library hold the value.
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

    const NOT_BUILT: SecretFault = SecretFault::NotBuilt("keyring");

    pub(super) async fn read(_: &KeyringSecret) -> Result<Sensitive, SecretFault> {
        Err(NOT_BUILT)
    }

    pub(super) async fn write(_: &KeyringSecret, _: Sensitive) -> Result<(), SecretFault> {
        Err(NOT_BUILT)
    }

    pub(super) async fn delete(_: &KeyringSecret) -> Result<(), SecretFault> {
        Err(NOT_BUILT)
    }
}
