//! Fakes for `demo` and the tests: token servers and upstreams on loopback.
//!
//! They parse for themselves, so that they cannot share the program's mistakes: of the crate they
//! use [`body`](crate::body) only. Start with `auth_server.rs`; what the vendors' documents say
//! is in `persona.rs`.

mod auth_server;
mod bank;
mod dpop;
mod fault;
mod ledger;
mod persona;
mod quirk;
mod serve;
mod settings;
mod upstream;
mod wire;

pub use auth_server::{AuthOptions, AuthServer};
pub use bank::Bank;
pub use dpop::{DpopPolicy, ProofFault};
pub use fault::Fault;
pub use ledger::{CallOutcome, Issued, Ledger, TokenCall, TokenValidity};
pub use persona::Persona;
pub use quirk::Quirk;
pub use upstream::{RecordedRequest, ScriptedResponse, Upstream, UpstreamOptions};

use std::io;
use std::path::Path;
use std::time::Duration;

/// All four banks: for each a token server and the API that trusts it.
#[derive(Debug)]
pub struct Sandbox {
    banks: Vec<Bank>,
}

impl Sandbox {
    /// Starts all of them on free ports; tokens live for `lifetime`.
    ///
    /// # Errors
    /// Loopback cannot be bound.
    pub async fn start(lifetime: Duration) -> io::Result<Self> {
        let mut banks = Vec::new();
        for persona in Persona::ALL {
            banks.push(Bank::start(persona, lifetime).await?);
        }
        Ok(Self { banks })
    }

    /// The banks, in the order of [`Persona::ALL`].
    pub fn banks(&self) -> &[Bank] {
        &self.banks
    }

    /// One of the banks.
    pub fn bank(&self, persona: Persona) -> &Bank {
        &self.banks[persona as usize]
    }

    /// Writes each bank's client id and secret to files in `dir` that only their owner can read.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_secrets(&self, dir: &Path) -> io::Result<()> {
        self.banks.iter().try_for_each(|bank| bank.write_secrets(dir))
    }

    /// A configuration of the program for all four banks; `dir` is where
    /// [`write_secrets`](Self::write_secrets) wrote.
    pub fn config_toml(&self, proxy_listen: &str, admin_listen: &str, dir: &Path) -> String {
        let mut text = settings::head(proxy_listen, admin_listen);
        for bank in &self.banks {
            text.push_str(&settings::bank(bank, dir));
        }
        text
    }

    /// Closes all sockets and connections.
    pub async fn shutdown(self) {
        for bank in self.banks {
            bank.api.shutdown().await;
            bank.auth.shutdown().await;
        }
    }
}
