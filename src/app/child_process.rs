//! The command of `run -- CMD…`: started once requests are served, told the signals that we are
//! told, and its end is ours.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use http::HeaderName;
use rustix::process::{Pid, Signal as Number, kill_process};
use tokio::process::{Child, Command};

use super::signal::{Signal, at_terminal};
use crate::config::Config;
use crate::listen::BoundAddress;
use crate::proxy::policy::settings::HeaderText;
use crate::secret::{EgressLogin, EgressProxy, Reference};

/// What a service manager tells the program that it has started, and nobody else.
const MANAGERS: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// A program beside the proxy, or none.
pub(super) struct ChildProcess(Option<Child>);

impl ChildProcess {
    /// No command was given.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Starts a command; without one this is [`none`](Self::none).
    ///
    /// # Errors
    /// Where the program cannot be started.
    pub(super) fn start(command: &[OsString], environment: Environment) -> io::Result<Self> {
        let Some((program, arguments)) = command.split_first() else { return Ok(Self::none()) };
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.set).kill_on_drop(true);
        for name in &environment.unset {
            command.env_remove(name);
        }
        let child = command.spawn()?;
        tracing::info!(program = %program.display(), pid = child.id(), "command started");
        Ok(Self(Some(child)))
    }

    /// Ends with the command, and tells the exit code that stands for its end; never without one.
    pub(super) async fn ended(&mut self) -> u8 {
        let Some(child) = &mut self.0 else { return std::future::pending().await };
        let code = child.wait().await.map_or(1, code);
        tracing::info!(code, "command ended");
        self.0 = None;
        code
    }

    /// Tells it to leave, and waits: it may need us to finish. After the time it is killed.
    pub(super) async fn leave(&mut self, signal: Signal, patience: Duration) -> Option<u8> {
        let child = self.0.as_mut()?;
        send_signal(child, signal);
        if let Ok(code) = tokio::time::timeout(patience, self.ended()).await {
            return Some(code);
        }
        tracing::warn!("the command did not end within shutdown.drain_timeout: it is killed");
        let child = self.0.as_mut()?;
        if let Err(error) = child.start_kill() {
            tracing::warn!(%error, "the command could not be killed");
        }
        Some(self.ended().await)
    }
}

/// What was typed at a terminal has reached the command already.
fn send_signal(child: &Child, signal: Signal) {
    let number = match signal {
        Signal::Terminate => Number::TERM,
        Signal::Interrupt if !at_terminal() => Number::INT,
        Signal::Interrupt | Signal::Reload => return,
    };
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, number)) {
        tracing::debug!(%error, "the command cannot be told");
    }
}

/// As a shell tells it: 128 and the number of the signal that ended it.
fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let signalled = status.signal().map(|number| number.saturating_add(128));
    status.code().or(signalled).and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// How the environment of the command differs from ours.
pub(super) struct Environment {
    set: Vec<(String, String)>,
    unset: BTreeSet<String>,
}

impl Environment {
    /// Where we listen, as `BEARER_PROXY_URL`, for each upstream as `BEARER_PROXY_URL_NAME`, and for
    /// operators as `BEARER_PROXY_ADMIN_URL`. Secrets of the configuration are taken out. Each
    /// listener comes with its index in the configuration.
    pub(super) fn new<'a>(
        config: &Config,
        proxy: impl Iterator<Item = (usize, &'a [BoundAddress])>,
        admin: Option<&BoundAddress>,
    ) -> Self {
        let one = |(index, all): (usize, &[BoundAddress])| {
            let tls = config.proxy.listeners.get(index)?.tls.is_some();
            Some((index, url(all.first()?, tls)))
        };
        let urls: BTreeMap<usize, String> = proxy.filter_map(one).collect();
        let of = |listener: usize| urls.get(&listener).cloned();
        let mut set: Vec<(String, String)> = Vec::new();
        set.extend(of(0).map(|url| ("BEARER_PROXY_URL".to_owned(), url)));
        set.extend(admin.map(|local| ("BEARER_PROXY_ADMIN_URL".to_owned(), url(local, false))));
        for upstream in &config.proxy.upstreams {
            let name = upstream.connection.name.to_ascii_uppercase().replace('-', "_");
            let url = of(upstream.listeners.start).map(|url| url + &upstream.mount);
            set.extend(url.map(|url| (format!("BEARER_PROXY_URL_{name}"), url)));
        }
        Self { set, unset: secrets(config) }
    }
}

fn url(local: &BoundAddress, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    match local {
        BoundAddress::Tcp(address) if address.ip().is_unspecified() => {
            format!("{scheme}://localhost:{}", address.port())
        }
        BoundAddress::Tcp(address) => format!("{scheme}://{address}"),
        BoundAddress::Unix(_) => local.to_string(),
    }
}

/// Variables that hold what only we may know. A client's local key is its own.
fn secrets(config: &Config) -> BTreeSet<String> {
    let credentials = config.credentials.iter();
    let own = credentials.clone().filter_map(|credential| credential.client_secret.as_ref());
    let upstreams = config.proxy.upstreams.iter();
    let headers = upstreams.clone().flat_map(|upstream| &upstream.set_headers).filter_map(secret);
    let egress = credentials
        .filter_map(|credential| credential.egress.as_ref())
        .chain(upstreams.filter_map(|upstream| upstream.connection.egress.as_ref()));
    let passwords = egress.filter_map(password);
    let variable = |reference: &Reference| match reference {
        Reference::Env(name) => Some(name.clone()),
        _ => None,
    };
    let named = own.chain(headers).chain(passwords).filter_map(variable);
    named.chain(MANAGERS.map(str::to_owned)).collect()
}

fn secret((_, text): &(HeaderName, HeaderText)) -> Option<&Reference> {
    match text {
        HeaderText::Secret(reference) => Some(reference),
        HeaderText::Value(_) => None,
    }
}

fn password(proxy: &EgressProxy) -> Option<&Reference> {
    match proxy.login.as_ref()? {
        EgressLogin::Referenced { password, .. } => Some(password),
        EgressLogin::Stated(_) => None,
    }
}
