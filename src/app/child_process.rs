//! Child process of `run -- CMD…`: started once the proxy serves, receives the program's signals; the
//! program exits with its code.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use http::HeaderName;
use tokio::process::{Child, Command};

use super::signal::Signal;
use crate::config::Config;
use crate::listen::BoundAddress;
use crate::proxy::policy::settings::HeaderText;
use crate::secret::{EgressLogin, EgressProxy, Reference};

/// Variables of a service manager that are meant for the program itself and not for its children.
const SERVICE_MANAGER_VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The child process, if there is one.
pub(super) struct ChildProcess(Option<Child>);

impl ChildProcess {
    /// No child process.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Starts a command; [`none`](Self::none) if it is empty.
    ///
    /// # Errors
    /// The program cannot be started.
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

    /// Waits for the child to end and returns its exit code; never completes without a child.
    pub(super) async fn ended(&mut self) -> u8 {
        let Some(child) = &mut self.0 else { return std::future::pending().await };
        let code = child.wait().await.map_or(1, code);
        tracing::info!(code, "command ended");
        self.0 = None;
        code
    }

    /// Sends the signal and waits for the child to end, because it may need the proxy until then. Kills it
    /// after `patience`.
    pub(super) async fn stop(&mut self, signal: Signal, patience: Duration) -> Option<u8> {
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

/// Forwards a signal, where there are signals. An interrupt that was typed at a terminal has reached the
/// child already.
#[cfg(unix)]
fn send_signal(child: &Child, signal: Signal) {
    use rustix::process::{Pid, Signal as Number, kill_process};
    let number = match signal {
        Signal::Terminate => Number::TERM,
        Signal::Interrupt if !super::signal::at_terminal() => Number::INT,
        Signal::Interrupt | Signal::Reload => return,
    };
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, number)) {
        tracing::debug!(%error, "the command cannot be signalled");
    }
}

/// Windows has no signals: the child has `patience` to end by itself.
#[cfg(windows)]
fn send_signal(_: &Child, _: Signal) {}

/// The exit code as a shell reports it: 128 plus the number of a signal that ended the child.
fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    let signalled = std::os::unix::process::ExitStatusExt::signal(&status)
        .map(|number| number.saturating_add(128));
    #[cfg(windows)]
    let signalled = None;
    status.code().or(signalled).and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Changes to the environment for the child.
pub(super) struct Environment {
    set: Vec<(String, String)>,
    unset: BTreeSet<String>,
}

impl Environment {
    /// Sets `BEARER_PROXY_URL` to the first listener, `BEARER_PROXY_URL_NAME` to the mount of each upstream,
    /// and `BEARER_PROXY_ADMIN_URL` to the admin listener. Removes variables that hold secrets of the
    /// configuration. Each listener comes with its index in the configuration.
    pub(super) fn new<'a>(
        config: &Config,
        proxy: impl Iterator<Item = (usize, &'a [BoundAddress])>,
        admin: Option<&BoundAddress>,
    ) -> Self {
        let listener_url = |(index, addresses): (usize, &[BoundAddress])| {
            let tls = config.proxy.listeners.get(index)?.tls.is_some();
            Some((index, url(addresses.first()?, tls)))
        };
        let urls: BTreeMap<usize, String> = proxy.filter_map(listener_url).collect();
        let url_of = |listener: usize| urls.get(&listener).cloned();
        let mut set: Vec<(String, String)> = Vec::new();
        set.extend(url_of(0).map(|url| ("BEARER_PROXY_URL".to_owned(), url)));
        set.extend(admin.map(|local| ("BEARER_PROXY_ADMIN_URL".to_owned(), url(local, false))));
        for upstream in &config.proxy.upstreams {
            let name = upstream.connection.name.to_ascii_uppercase().replace('-', "_");
            let url = url_of(upstream.listeners.start).map(|url| url + &upstream.mount);
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
        BoundAddress::Unix(_) | BoundAddress::Systemd(_) => local.to_string(),
    }
}

/// Variables that only the proxy may see: secrets, except the local keys, which belong to clients.
fn secrets(config: &Config) -> BTreeSet<String> {
    let credentials = config.credentials.iter();
    let own = credentials
        .clone()
        .flat_map(|credential| credential.references())
        .filter(|(_, part)| !part.is_public())
        .map(|(reference, _)| reference);
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
    named.chain(SERVICE_MANAGER_VARIABLES.map(str::to_owned)).collect()
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
