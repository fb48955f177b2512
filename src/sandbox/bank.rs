//! One vendor: its token server, and the API that trusts it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::auth_server::{AuthOptions, AuthServer};
use super::persona::Persona;
use super::upstream::{Upstream, UpstreamOptions};

/// One vendor: its token server and its API.
#[derive(Debug)]
pub struct Bank {
    /// The token server.
    pub auth: AuthServer,
    /// The API.
    pub api: Upstream,
}

impl Bank {
    /// Starts one bank on free ports.
    ///
    /// # Errors
    /// Loopback cannot be bound.
    pub async fn start(persona: Persona, lifetime: Duration) -> io::Result<Self> {
        let options = AuthOptions { lifetime, ..AuthOptions::for_persona(persona) };
        let auth = AuthServer::start(persona, options).await?;
        let ledgers = vec![Arc::clone(auth.ledger())];
        let api = Upstream::start(UpstreamOptions { persona, ledgers, port: 0 }).await?;
        Ok(Self { auth, api })
    }

    /// The vendor that it imitates.
    pub fn persona(&self) -> Persona {
        self.auth.persona()
    }

    /// Writes `NAME_client_id` and `NAME_client_secret` to `dir`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_secrets(&self, dir: &Path) -> io::Result<()> {
        let name = self.persona().name();
        write_private(&dir.join(format!("{name}_client_id")), self.auth.client_id())?;
        write_private(&dir.join(format!("{name}_client_secret")), self.auth.client_secret())
    }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())
}
