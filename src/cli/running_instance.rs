//! The tokens of a running instance of the same configuration: it is asked before a token server is,
//! whose calls may be counted, or end the token that is in use.

use std::io;

use serde_json::Value;

use super::operate::{self, Page};
use crate::admin::settings::AdminSettings;
use crate::config::Config;
use crate::listen::settings::Listen;
use crate::oauth::ScopeSet;
use crate::token::Credential;

/// A running instance: where it answered, and its `/status`.
pub(super) struct RunningInstance {
    /// Its admin address.
    pub(super) address: String,
    pub(super) status: Value,
}

/// The reason why no running instance was asked.
pub(super) struct NotAsked {
    /// The address that was tried; empty if the configuration names none.
    pub(super) address: String,
    /// The reason, in words.
    pub(super) why: String,
    /// True if something listens there: an instance may run, and its tokens may be live.
    pub(super) may_run: bool,
}

impl RunningInstance {
    /// The instance that answers at the configuration's admin address.
    pub(super) fn of(config: &Config) -> Result<Self, NotAsked> {
        let not_asked = |address: &str, why: String, may_run| NotAsked {
            address: address.to_owned(),
            why,
            may_run,
        };
        let Some(address) = control_address(&config.admin) else {
            let why = "the configuration has no control listener with a known address";
            return Err(not_asked("", why.into(), false));
        };
        let (code, body) = match operate::ask(&address, "/status") {
            Ok(answer) => answer,
            Err(error) if is_nobody(&error) => {
                return Err(not_asked(&address, format!("nothing listens at {address}"), false));
            }
            Err(error) => {
                let why = format!("what listens at {address} does not answer: {error:#}");
                return Err(not_asked(&address, why, true));
            }
        };
        match serde_json::from_str(&body) {
            Ok(status) if code == 200 => Ok(Self { address, status }),
            _ => {
                let why = format!(
                    "what listens at {address} answers /status with {code}, and not as bearer-proxy does"
                );
                Err(not_asked(&address, why, true))
            }
        }
    }

    /// Its usable token of a credential with exactly these scopes.
    pub(super) fn usable_token(
        &self,
        credential: &Credential,
        scopes: &ScopeSet,
    ) -> Option<&Value> {
        self.token(credential, scopes).filter(|token| token["usable"] == true)
    }

    /// Its token of a credential with exactly these scopes, usable or not. A credential of the same name
    /// with another token endpoint is another credential.
    pub(super) fn token(&self, credential: &Credential, scopes: &ScopeSet) -> Option<&Value> {
        let source = credential.source.to_string();
        let of = if credential.issuer().is_some() { "issuer" } else { "token_url" };
        let mut wanted: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
        wanted.sort_unstable();
        let has_scopes = |token: &Value| {
            let scopes = token["scopes"].as_array().into_iter().flatten();
            let mut held: Vec<_> = scopes.filter_map(Value::as_str).collect();
            held.sort_unstable();
            held == wanted
        };
        self.status["tokens"].as_array()?.iter().find(|token| {
            token["credential"] == *credential.name && token[of] == *source && has_scopes(token)
        })
    }

    /// Its state of an upstream of this name and origin.
    pub(super) fn upstream(&self, name: &str, origin: &str) -> Option<&Value> {
        let upstreams = self.status["upstreams"].as_array()?;
        upstreams.iter().find(|upstream| upstream["name"] == *name && upstream["url"] == *origin)
    }
}

/// The address of the control pages. systemd alone knows that of a socket which it passes, and an address
/// beyond this machine shows no control pages.
fn control_address(admin: &AdminSettings) -> Option<String> {
    let mut control = admin.listeners().filter(|(_, is_control)| *is_control);
    let is_known = |listen: &Listen| listen.is_loopback() && !matches!(listen, Listen::Systemd(_));
    control
        .any(|(listen, _)| is_known(listen))
        .then(|| operate::address_of(admin, Page::Control))?
}

/// True if the error means that no program listens there, on this machine or at this path.
fn is_nobody(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(
        kind,
        Some(
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::NotFound
                | io::ErrorKind::AddrNotAvailable
        )
    )
}
