//! `App` -> finished: spawn, wait for a signal, leave in order.
//!
//! The order of leaving: not ready at once, keep accepting for the lame duck (SIGTERM only), stop
//! accepting, finish what is under way within the drain time, stop the keepers. A second signal
//! ends the program at once.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::admin_listeners::AdminListeners;
use super::build::App;
use super::child_process::{ChildProcess, Environment};
use super::reload::{ReloadTrigger, Reloader, StartupOnly, changed};
use super::signal::{Signal, Signals};
use super::systemd;
use super::workers::WorkerThreads;
use crate::admin::service::Admin;
use crate::listen::BoundAddress;
use crate::listen::settings::Listen;
use crate::server::StopSignal;
use crate::server::settings::ShutdownSettings;
use crate::telemetry::log::LogGuard;

/// Time for requests under way where a command has used up what there was.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// Time for the log lines of requests that a second signal cuts.
const CUT: Duration = Duration::from_millis(500);

/// How a run of the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunOutcome {
    /// In order.
    Drained,
    /// In order, after the command of `run -- CMD…` had ended with this code.
    Command(u8),
    /// By a second signal.
    Interrupted,
    /// Without having been told to: the log says why.
    Failed,
}

impl App {
    /// Serves until told to stop.
    pub async fn run(self, log: &LogGuard) -> RunOutcome {
        self.run_beside(log, &[]).await
    }

    /// Serves until told to stop, or until this command ends; without words there is none.
    pub async fn run_beside(self, log: &LogGuard, command: &[OsString]) -> RunOutcome {
        let Self { config, registry, manager, headers, shared, .. } = self;
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "signals cannot be listened to");
                return RunOutcome::Failed;
            }
        };
        let stop = shared.stop.clone();
        let (limits, connection_limit) = (config.connections, self.connection_limit);
        let workers =
            match WorkerThreads::spawn(self.sockets, limits, &connection_limit, &shared, &stop) {
                Ok(workers) => workers,
                Err(error) => {
                    tracing::error!(%error, "a worker thread cannot be started");
                    return RunOutcome::Failed;
                }
            };
        let mut admin_listeners =
            AdminListeners::new(Admin::new(Arc::clone(&self.health) as _, registry));
        admin_listeners.apply(&config.admin, self.admin_listeners);
        announce(self.listeners.addresses().flat_map(|(_, all)| all), admin_listeners.addresses());
        let listeners = config.proxy.listeners.iter().map(|listener| &listener.listen);
        if is_cut_off(std::process::id(), listeners) {
            tracing::info!(
                "only this container or its pod reaches the listeners, which are on loopback; \
                 `docker run -p` needs listen = \"*:6750\" in [server]"
            );
        }
        let admin = admin_listeners.addresses().next();
        let environment = Environment::new(&config, self.listeners.addresses(), admin);
        let heartbeats = workers.heartbeats();
        self.health.start(heartbeats.clone());
        let mut reloader = Reloader {
            text: std::fs::read(&config.path).ok(),
            startup_only: StartupOnly::of(&config),
            config,
            manager,
            headers,
            shared,
            connection_limit,
            listeners: self.listeners,
            workers,
            admin_listeners,
            metrics: self.reload,
        };
        let watchdog = tokio::spawn(systemd::watchdog(heartbeats));
        systemd::ready();
        let mut child = ChildProcess::none();
        let reason = match ChildProcess::start(command, environment) {
            Ok(started) => {
                child = started;
                reloader.serve(&mut signals, &mut child, log).await
            }
            Err(error) => {
                tracing::error!(%error, "the command cannot be started");
                ShutdownReason::Failed
            }
        };
        self.health.drain();
        systemd::stopping();
        let settings = reloader.shutdown();
        let Reloader { workers, manager, admin_listeners, listeners, .. } = reloader;
        let outcome = match reason {
            ShutdownReason::Failed => RunOutcome::Failed,
            reason => {
                let mut leaving = std::pin::pin!(leave(reason, settings, &stop, workers, child));
                tokio::select! {
                    outcome = &mut leaving => outcome,
                    () = second_signal(&mut signals) => {
                        // What is under way is dropped, and leaves its line in the log.
                        stop.abort();
                        let _ = tokio::time::timeout(CUT, leaving).await;
                        RunOutcome::Interrupted
                    }
                }
            }
        };
        drop(listeners);
        manager.shutdown(matches!(outcome, RunOutcome::Drained | RunOutcome::Command(_))).await;
        admin_listeners.close().await;
        watchdog.abort();
        tracing::info!(outcome = ?outcome, "stopped");
        outcome
    }
}

impl Reloader {
    /// Reloads whenever there is a reason to, until there is one to leave.
    async fn serve(
        &mut self,
        signals: &mut Signals,
        child: &mut ChildProcess,
        log: &LogGuard,
    ) -> ShutdownReason {
        loop {
            let (text, headers) = (self.text.as_deref(), &mut self.headers);
            let files = changed(&self.config, text, headers, &mut self.listeners);
            let changed = tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Reload => ReloadTrigger::Config,
                    leave => return ShutdownReason::Signal(leave),
                },
                () = self.workers.any_ended() => {
                    tracing::error!("a worker thread ended unexpectedly");
                    return ShutdownReason::Failed;
                }
                code = child.ended() => return ShutdownReason::Ended(code),
                changed = files => changed,
            };
            match changed {
                ReloadTrigger::Config => self.reload(log).await,
                ReloadTrigger::Headers => self.refresh_headers(),
            }
        }
    }
}

/// Why the program leaves.
enum ShutdownReason {
    Signal(Signal),
    /// The command has ended, with this code.
    Ended(u8),
    /// The log says what happened.
    Failed,
}

/// Lets the command end first, since it may need us for that; then stops accepting, after the lame
/// duck where there is no command, and waits for what is under way.
async fn leave(
    reason: ShutdownReason,
    settings: ShutdownSettings,
    stop: &StopSignal,
    workers: WorkerThreads,
    mut child: ChildProcess,
) -> RunOutcome {
    let deadline = Instant::now() + settings.drain_timeout;
    let code = match reason {
        ShutdownReason::Signal(signal) => tokio::select! {
            code = child.leave(signal, settings.drain_timeout) => code,
            () = stop.aborted() => None,
        },
        ShutdownReason::Ended(code) => Some(code),
        ShutdownReason::Failed => None,
    };
    if matches!(reason, ShutdownReason::Signal(Signal::Terminate)) && code.is_none() {
        tracing::info!(lame_duck = ?settings.lame_duck, "leaving: not ready, still accepting");
        stop.retire();
        let _ = tokio::time::timeout(settings.lame_duck, stop.aborted()).await;
    }
    let patience = match code {
        None => settings.drain_timeout,
        Some(_) => deadline.saturating_duration_since(Instant::now()).max(LAST_REQUESTS),
    };
    tracing::info!(drain_timeout = ?patience, "leaving: finishing requests under way");
    stop.finish();
    let mut joined = std::pin::pin!(workers.join());
    if tokio::time::timeout(patience, &mut joined).await.is_err() {
        tracing::warn!("drain timeout reached; aborting in-flight requests");
        stop.abort();
        let _ = joined.await;
    }
    code.map_or(RunOutcome::Drained, RunOutcome::Command)
}

/// Ends at a further signal to leave; reloads are over.
async fn second_signal(signals: &mut Signals) {
    while signals.next().await == Signal::Reload {}
}

/// Whether this is the first process of a container and listens on the container's loopback alone.
///
/// That is right for a sidecar, which shares its loopback with the app. Ports that `docker run -p`
/// publishes lead to another address of the container, where nothing listens.
fn is_cut_off<'a>(process: u32, listeners: impl IntoIterator<Item = &'a Listen>) -> bool {
    let local = |listen: &Listen| listen.is_loopback() && !matches!(listen, Listen::Unix(_));
    process == 1 && listeners.into_iter().all(local)
}

/// Says where we listen; scripts and stories wait for these lines.
pub(super) fn announce<'a>(
    proxy: impl IntoIterator<Item = &'a BoundAddress>,
    admin: impl IntoIterator<Item = &'a BoundAddress>,
) {
    for addr in proxy {
        tracing::info!(listener = "proxy", %addr, "listening");
    }
    for addr in admin {
        tracing::info!(listener = "admin", %addr, "listening");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::settings::UnixSocket;

    #[test]
    fn a_container_is_cut_off_where_it_listens_on_loopback_alone() {
        let check = |process, listeners: &[Listen], expected| {
            assert_eq!(is_cut_off(process, listeners), expected, "{process} {listeners:?}");
        };
        let local = Listen::Localhost(6750);
        let ip = Listen::Tcp("[::1]:6750".parse().unwrap());
        // A socket in a volume is reached by whoever mounts it.
        let unix = Listen::Unix(UnixSocket::at("/run/bearer-proxy/proxy.sock".into()));
        check(1, &[local.clone(), ip.clone()], true);
        check(2, &[local.clone(), ip], false);
        check(1, &[local.clone(), Listen::All(6751)], false);
        check(1, &[local, unix], false);
    }
}
