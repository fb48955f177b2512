//! Secrets from systemd: `LoadCredential=` and `LoadCredentialEncrypted=` of a unit put them into
//! `$CREDENTIALS_DIRECTORY`, where only the service may read them.
//!
//! systemd copies them when it starts the service: rotation needs a restart.

use std::path::{Path, PathBuf};

use super::error::SecretFault;
use super::file::{self, FileAccess};
use super::name;
use crate::sensitive::Sensitive;

/// Reads the credential of this name.
pub(super) async fn read(
    name: &str,
    decode: fn(&[u8]) -> Result<Sensitive, SecretFault>,
) -> Result<Sensitive, SecretFault> {
    read_in(folder().as_deref(), name, decode).await
}

async fn read_in(
    folder: Option<&Path>,
    name: &str,
    decode: fn(&[u8]) -> Result<Sensitive, SecretFault>,
) -> Result<Sensitive, SecretFault> {
    let folder = folder.ok_or(SecretFault::NoCredentials)?;
    // Any mode passes, because systemd sets the permissions of this folder.
    file::read(&folder.join(name), FileAccess::Any, decode).await
}

/// The credential as messages name it. The name of a missing one may be the secret itself, written in
/// its place.
pub(super) fn describe(name: &str) -> String {
    let exists = folder().is_some_and(|folder| folder.join(name).exists());
    match exists || name::may_be_shown(name) {
        true => format!("systemd credential {name}"),
        false => "systemd credential (not named here: it may be the secret itself)".into(),
    }
}

/// Tells whether systemd accepts a text as the name of a credential.
pub fn is_credential_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    !name.is_empty() && name.len() <= 255 && ![".", ".."].contains(&name) && name.bytes().all(plain)
}

fn folder() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").filter(|path| !path.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn credentials_are_files_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bank_secret"), "s").unwrap();
        let check = async |folder: Option<&Path>, name: &str, expected: Result<&str, _>| {
            assert_eq!(
                read_in(folder, name, crate::secret::text::decode).await,
                expected.map(Sensitive::new),
                "{name}"
            );
        };
        check(Some(folder.path()), "bank_secret", Ok("s")).await;
        check(Some(folder.path()), "other", Err(SecretFault::Missing)).await;
        check(None, "bank_secret", Err(SecretFault::NoCredentials)).await;
    }

    #[test]
    fn names() {
        for (name, good) in [
            ("qbank_client_secret", true),
            ("a.b-c", true),
            ("", false),
            ("..", false),
            ("a/b", false),
            ("a b", false),
            ("a:b", false),
        ] {
            assert_eq!(is_credential_name(name), good, "{name}");
        }
    }
}
