//! `keyring set` and `keyring delete`: what `client_secret.keyring = "NAME"` reads.

use std::io::{self, IsTerminal};

use anyhow::bail;
use zeroize::Zeroizing;

use super::args::{self, Keyring};
use super::exit::Exit;
use super::output::{err, outln};
use super::setup::runtime;
use crate::secret::{self, KeyringSecret, Reference, SecretFault};
use crate::sensitive::Sensitive;

/// Writes or deletes one entry.
pub fn keyring(verb: Keyring) -> anyhow::Result<Exit> {
    if let Some(feature) = secret::missing_feature("keyring") {
        bail!(
            "this build has no keyring: it lacks the feature `{feature}`; take the released \
             package, or build with  cargo build --features {feature}"
        );
    }
    let (entry, value) = match verb {
        Keyring::Set(named) => (entry(named), Some(ask()?)),
        Keyring::Delete(named) => (entry(named), None),
    };
    let reference = Reference::Keyring(entry.clone());
    let (done, word) = match value {
        Some(value) => (runtime()?.block_on(entry.set(value)), "wrote"),
        None => (runtime()?.block_on(entry.delete()), "deleted"),
    };
    done.map_err(|fault| reference.error(fault))?;
    outln!("{word} {}", reference.describe())?;
    Ok(Exit::Done)
}

fn entry(named: args::KeyringEntry) -> KeyringSecret {
    KeyringSecret { service: named.service, account: named.name }
}

/// Reads the value from stdin: one line of a terminal, unseen, or all that a pipe holds.
fn ask() -> anyhow::Result<Sensitive> {
    let stdin = io::stdin();
    let value = if stdin.is_terminal() {
        err!("value (not shown): ");
        let line = Zeroizing::new(rpassword::read_password()?);
        secret::read_from(line.as_bytes())
    } else {
        secret::read_from(stdin.lock())
    };
    match value {
        Ok(value) => Ok(value),
        Err(SecretFault::Empty) => bail!("stdin held no value; nothing was written"),
        Err(SecretFault::TooLong) => bail!("stdin held more than 64 KiB; nothing was written"),
        Err(_) => bail!("stdin held no text (UTF-8); nothing was written"),
    }
}
