//! `App` -> finished: spawn, wait for a signal, shut down in order.
//!
//! The order of a shutdown: not ready at once, keep accepting for the lame duck period (SIGTERM only),
//! stop accepting, finish requests in flight within the drain timeout, stop the refreshers. A second
//! signal ends the program at once.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::admin_listeners::AdminListeners;
use super::announcements;
use super::build::App;
use super::child_process::{ChildProcess, Environment};
use super::listeners::{is_container_only, log_addresses};
use super::reload::{ReloadTrigger, Reloader, StartupOnly, changed};
use super::service_manager;
use super::signal::{Signal, Signals};
use super::workers::WorkerThreads;
use crate::admin::Health as _;
use crate::admin::service::Admin;
use crate::clock::seconds;
use crate::proxy::snapshot::SharedState;
use crate::server::ShutdownPhase;
use crate::server::settings::ShutdownSettings;
use crate::task;
use crate::telemetry::log::LogGuard;

/// Time for requests in flight if the command has used up the drain timeout.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// Time for the log lines of requests that a second signal aborts.
const LAST_LOG_LINES: Duration = Duration::from_millis(500);

/// The end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunOutcome {
    /// In order.
    Drained,
    /// In order, after the command of `run -- CMD…` ended with this code.
    Command(u8),
    /// By a second signal.
    Interrupted,
    /// By a failure, which has been logged.
    Failed,
}

impl RunOutcome {
    /// The outcome as a word for the log.
    fn as_str(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Command(_) => "command ended",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
        }
    }
}

impl App {
    /// Serves until a signal stops the program.
    pub async fn run(self, log: &LogGuard) -> RunOutcome {
        self.run_beside(log, &[]).await
    }

    /// Serves until a signal stops the program or the command ends; an empty command is none.
    pub async fn run_beside(self, log: &LogGuard, command: &[OsString]) -> RunOutcome {
        let signals = Signals::listen()
            .inspect_err(|error| tracing::error!(%error, "signals cannot be listened to"));
        let Ok(mut signals) = signals else { return RunOutcome::Failed };
        // They fail only on a second run, and an app runs once.
        let _ = self.dropped_lines.set(log.dropped());
        let _ = self.recent_lines.set(log.recent());
        announcements::starting(&self.config, self.health.tokens().len());
        let shared = self.shared.clone();
        let settings = self.config.connections;
        let limit = &self.connection_limit;
        let workers = WorkerThreads::spawn(self.sockets, settings, limit, &shared)
            .inspect_err(|error| tracing::error!(%error, "a worker thread cannot be started"));
        let Ok(workers) = workers else { return RunOutcome::Failed };
        let pages = Admin::new(Arc::clone(&self.health) as _, self.registry);
        let mut admin_listeners = AdminListeners::new(Arc::clone(&pages));
        admin_listeners.apply(&self.config.admin, self.admin_listeners);
        log_addresses(&self.listeners, admin_listeners.addresses());
        let listeners = self.config.proxy.listeners.iter().map(|listener| &listener.listen);
        if is_container_only(std::process::id(), listeners) {
            tracing::info!(
                "only this container or its pod reaches the listeners, which are on loopback; \
                 `docker run -p` needs listen = \"*:6750\" in [server]"
            );
        }
        let admin = admin_listeners.addresses().next();
        let environment = Environment::new(&self.config, self.listeners.addresses(), admin);
        self.health.start(workers.heartbeats());
        let mut background = JoinSet::new();
        background.spawn(task::boxed(service_manager::watchdog(workers.heartbeats())));
        background.spawn(task::boxed(announcements::ready(pages)));
        background.spawn(task::boxed(announcements::dropped_lines(log.dropped())));
        self.open_files.check(&self.config);
        announcements::cleartext(&self.config);
        announcements::password_grants(&self.config);
        let mut client_certificates = self.client_certificates;
        client_certificates.read(&self.config).await;
        let mut reloader = Reloader {
            text: std::fs::read(&self.config.path).ok(),
            startup_only: StartupOnly::of(&self.config),
            config: self.config,
            manager: self.manager,
            headers: self.headers,
            client_certificates,
            sources: self.sources,
            open_files: self.open_files,
            shared: self.shared,
            connection_limit: self.connection_limit,
            listeners: self.listeners,
            workers,
            admin_listeners,
            metrics: self.reload,
        };
        service_manager::ready();
        let mut child = ChildProcess::none();
        let reason = match ChildProcess::start(command, environment) {
            Ok(started) => {
                child = started;
                reloader.serve(&mut signals, &mut child, log).await
            }
            Err(error) => {
                let program =
                    command.first().map(|program| tracing::field::display(program.display()));
                tracing::error!(program, %error, "the command cannot be started");
                ShutdownReason::Failed
            }
        };
        self.health.drain();
        let settings = reloader.shutdown();
        service_manager::stopping(settings.lame_duck.saturating_add(settings.drain_timeout));
        let Reloader { workers, manager, admin_listeners, listeners, .. } = reloader;
        let mut cut = 0;
        let outcome = match reason {
            ShutdownReason::Failed => RunOutcome::Failed,
            reason => {
                let mut drained = std::pin::pin!(drain(reason, settings, &shared, workers, child));
                tokio::select! {
                    (outcome, left) = &mut drained => {
                        cut = left;
                        outcome
                    }
                    () = second_signal(&mut signals) => {
                        tracing::warn!("second signal: ending at once");
                        cut = shared.metrics.requests_in_flight();
                        // Requests in flight are dropped, and each leaves its line in the log.
                        shared.stop.advance(ShutdownPhase::Aborting);
                        let _ = tokio::time::timeout(LAST_LOG_LINES, drained).await;
                        RunOutcome::Interrupted
                    }
                }
            }
        };
        drop(listeners);
        manager.shutdown(matches!(outcome, RunOutcome::Drained | RunOutcome::Command(_))).await;
        // Last, so that probes are answered until the end.
        admin_listeners.close().await;
        background.shutdown().await;
        // Their lines stand above, and perhaps far above.
        let request_ids = shared.metrics.history().cut().join(" ");
        match (outcome, cut) {
            (outcome, 0) => tracing::info!(outcome = outcome.as_str(), "stopped"),
            (RunOutcome::Interrupted, _) => {
                tracing::warn!(
                    outcome = outcome.as_str(),
                    requests_cut = cut,
                    request_ids,
                    "stopped"
                );
            }
            _ => tracing::warn!(outcome = "cut", requests_cut = cut, request_ids, "stopped"),
        }
        outcome
    }
}

impl Reloader {
    /// Reloads at each trigger, until there is a reason to shut down.
    async fn serve(
        &mut self,
        signals: &mut Signals,
        child: &mut ChildProcess,
        log: &LogGuard,
    ) -> ShutdownReason {
        loop {
            let tokens = self.manager.handle();
            let files = changed(
                &self.config,
                self.text.as_deref(),
                &mut self.headers,
                &mut self.listeners,
                (&mut self.client_certificates, &tokens),
            );
            // All four are cancel safe, so the branches that lose a round lose nothing.
            let trigger = tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Reload => ReloadTrigger::Config,
                    signal => return ShutdownReason::Signal(signal),
                },
                () = self.workers.any_ended() => {
                    tracing::error!("a worker thread ended unexpectedly");
                    return ShutdownReason::Failed;
                }
                code = child.ended() => return ShutdownReason::Command(code),
                trigger = files => trigger,
            };
            match trigger {
                ReloadTrigger::Config => self.reload(log).await,
                ReloadTrigger::Headers => self.refresh_headers(),
            }
        }
    }
}

/// The reason for a shutdown.
enum ShutdownReason {
    Signal(Signal),
    /// The command ended with this code.
    Command(u8),
    /// A failure, which has been logged.
    Failed,
}

/// Ends the command first, because it may need the proxy for that. Then stops accepting, after the lame
/// duck period if there is no command, and waits for requests in flight. Returns with the outcome the
/// number of requests that the drain timeout cut.
async fn drain(
    reason: ShutdownReason,
    settings: ShutdownSettings,
    SharedState { stop, metrics, .. }: &SharedState,
    workers: WorkerThreads,
    mut child: ChildProcess,
) -> (RunOutcome, u64) {
    let deadline = Instant::now() + settings.drain_timeout;
    let code = match reason {
        ShutdownReason::Signal(signal) => tokio::select! {
            code = child.stop(signal, settings.drain_timeout) => code,
            () = stop.reached(ShutdownPhase::Aborting) => None,
        },
        ShutdownReason::Command(code) => Some(code),
        ShutdownReason::Failed => None,
    };
    if matches!(reason, ShutdownReason::Signal(Signal::Terminate)) && code.is_none() {
        tracing::info!(
            lame_duck_s = seconds(settings.lame_duck),
            "leaving: not ready, still accepting"
        );
        stop.advance(ShutdownPhase::Retiring);
        let aborted = stop.reached(ShutdownPhase::Aborting);
        let _ = tokio::time::timeout(settings.lame_duck, aborted).await;
    }
    let drain_timeout = match code {
        None => settings.drain_timeout,
        Some(_) => deadline.saturating_duration_since(Instant::now()).max(LAST_REQUESTS),
    };
    // A second signal in the lame duck period has ended the patience.
    if stop.phase() < ShutdownPhase::Aborting {
        tracing::info!(
            drain_timeout_s = seconds(drain_timeout),
            "leaving: finishing requests in flight"
        );
    }
    stop.advance(ShutdownPhase::Finishing);
    let mut joined = std::pin::pin!(workers.join());
    let mut cut = 0;
    if tokio::time::timeout(drain_timeout, &mut joined).await.is_err() {
        cut = metrics.requests_in_flight();
        tracing::warn!("drain timeout reached; aborting in-flight requests");
        stop.advance(ShutdownPhase::Aborting);
        joined.await;
    }
    (code.map_or(RunOutcome::Drained, RunOutcome::Command), cut)
}

/// Completes at the next signal other than SIGHUP: reloads are over.
async fn second_signal(signals: &mut Signals) {
    while signals.next().await == Signal::Reload {}
}
