//! `keyring set` and `keyring delete`: what `client_secret.keyring = "NAME"` reads.

use std::io::{self, IsTerminal};

use anyhow::bail;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
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
        let hidden = HiddenInput::begin();
        let mut line = Zeroizing::new(String::with_capacity(secret::MAX_BYTES));
        stdin.read_line(&mut line)?;
        drop(hidden);
        err!("\n");
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

/// While it lives, the terminal does not show what is typed.
struct HiddenInput(Option<Termios>);

impl HiddenInput {
    fn begin() -> Self {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut silent = before.clone();
            silent.local_modes.remove(LocalModes::ECHO);
            // A terminal that cannot be silenced shows the value to the one who types it.
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &silent);
        }
        Self(before)
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing better is at hand than the terminal as it is.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}
