//! `App` -> finished: spawn, wait for a signal, leave in order.
//!
//! The order of leaving: not ready at once, keep accepting for the lame duck (SIGTERM only), stop
//! accepting, finish what is under way within the drain time, stop the keepers. A second signal
//! ends the program at once.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::admin_listeners::OpenWindow;
use super::build::App;
use super::child_process::{Companion, Environment};
use super::reload::{Changed, Fixed, Reloader, changed};
use super::signal::{Signal, Signals};
use super::systemd;
use super::workers::Workers;
use crate::admin::service::Admin;
use crate::listen::BoundAddress;
use crate::server::StopSignal;
use crate::server::settings::ShutdownSettings;
use crate::telemetry::log::LogGuard;

/// Time for requests under way where a command has used up what there was.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// How running ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
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
    pub async fn run(self, log: &LogGuard) -> Ended {
        self.run_beside(log, &[]).await
    }

    /// Serves until told to stop, or until this command ends; without words there is none.
    pub async fn run_beside(self, log: &LogGuard, command: &[OsString]) -> Ended {
        let Self { config, registry, keeper, headers, shared, .. } = self;
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "signals cannot be listened to");
                return Ended::Failed;
            }
        };
        let stop = StopSignal::new();
        let (limits, connection_limit) = (config.connections, self.connection_limit);
        let workers = match Workers::spawn(self.sockets, limits, &connection_limit, &shared, &stop)
        {
            Ok(workers) => workers,
            Err(error) => {
                tracing::error!(%error, "a worker thread cannot be started");
                return Ended::Failed;
            }
        };
        let mut window = OpenWindow::new(Admin::new(Arc::clone(&self.health) as _, registry));
        window.apply(&config.admin, self.window);
        announce(self.listeners.addresses().flat_map(|(_, all)| all), window.addresses());
        let admin = window.addresses().next();
        let environment = Environment::new(&config, self.listeners.addresses(), admin);
        let heartbeats = workers.heartbeats();
        self.health.start(heartbeats.clone());
        let mut reloader = Reloader {
            text: std::fs::read(&config.path).ok(),
            fixed: Fixed::of(&config),
            config,
            keeper,
            headers,
            shared,
            connection_limit,
            listeners: self.listeners,
            workers,
            window,
            metrics: self.reload,
        };
        let watchdog = tokio::spawn(systemd::watchdog(heartbeats));
        systemd::ready();
        let mut companion = Companion::none();
        let why = match Companion::start(command, environment) {
            Ok(started) => {
                companion = started;
                reloader.serve(&mut signals, &mut companion, log).await
            }
            Err(error) => {
                tracing::error!(%error, "the command cannot be started");
                Why::Failed
            }
        };
        self.health.drain();
        systemd::stopping();
        let settings = reloader.shutdown();
        let Reloader { workers, keeper, window, listeners, .. } = reloader;
        let ended = match why {
            Why::Failed => Ended::Failed,
            why => tokio::select! {
                ended = leave(why, settings, &stop, workers, companion) => ended,
                () = told_again(&mut signals) => Ended::Interrupted,
            },
        };
        drop(listeners);
        keeper.shutdown(matches!(ended, Ended::Drained | Ended::Command(_))).await;
        window.close().await;
        watchdog.abort();
        tracing::info!(outcome = ?ended, "stopped");
        ended
    }
}

impl Reloader {
    /// Reloads whenever there is a reason to, until there is one to leave.
    async fn serve(
        &mut self,
        signals: &mut Signals,
        companion: &mut Companion,
        log: &LogGuard,
    ) -> Why {
        loop {
            let (text, headers) = (self.text.as_deref(), &mut self.headers);
            let files = changed(&self.config, text, headers, &mut self.listeners);
            let changed = tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Reload => Changed::Config,
                    leave => return Why::Told(leave),
                },
                () = self.workers.one_ended() => {
                    tracing::error!("a worker thread ended unexpectedly");
                    return Why::Failed;
                }
                code = companion.ended() => return Why::Ended(code),
                changed = files => changed,
            };
            match changed {
                Changed::Config => self.reload(log).await,
                Changed::Headers => self.refresh_headers(),
            }
        }
    }
}

/// Why we leave.
enum Why {
    Told(Signal),
    /// The command has ended, with this code.
    Ended(u8),
    /// The log says what happened.
    Failed,
}

/// Lets the command end first, since it may need us for that; then stops accepting, after the lame
/// duck where there is no command, and waits for what is under way.
async fn leave(
    why: Why,
    settings: ShutdownSettings,
    stop: &StopSignal,
    workers: Workers,
    mut companion: Companion,
) -> Ended {
    let deadline = Instant::now() + settings.drain_timeout;
    let code = match why {
        Why::Told(signal) => companion.leave(signal, settings.drain_timeout).await,
        Why::Ended(code) => Some(code),
        Why::Failed => None,
    };
    if matches!(why, Why::Told(Signal::Terminate)) && code.is_none() {
        tracing::info!(lame_duck = ?settings.lame_duck, "leaving: not ready, still accepting");
        stop.retire();
        tokio::time::sleep(settings.lame_duck).await;
    }
    let patience = match code {
        None => settings.drain_timeout,
        Some(_) => deadline.saturating_duration_since(Instant::now()).max(LAST_REQUESTS),
    };
    tracing::info!(drain_timeout = ?patience, "leaving: finishing requests under way");
    stop.finish();
    let mut joined = std::pin::pin!(workers.join());
    if tokio::time::timeout(patience, &mut joined).await.is_err() {
        tracing::warn!("shutdown.drain_timeout has passed: requests under way are cut");
        stop.abort();
        let _ = joined.await;
    }
    code.map_or(Ended::Drained, Ended::Command)
}

/// Ends at a further signal to leave; reloads are over.
async fn told_again(signals: &mut Signals) {
    while signals.next().await == Signal::Reload {}
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
