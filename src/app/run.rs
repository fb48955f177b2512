//! `App` -> finished: spawn, wait for a signal, leave in order.
//!
//! The order of leaving: not ready at once, keep accepting for the lame duck (SIGTERM only), stop
//! accepting, finish what is under way within the drain time, stop the keepers. A second signal
//! ends the program at once.

use std::sync::Arc;

use super::build::App;
use super::reload::{Changed, Fixed, Reloader, changed};
use super::signal::{Signal, Signals};
use super::systemd;
use super::window::OpenWindow;
use super::workers::Workers;
use crate::admin::service::Admin;
use crate::server::settings::ShutdownSettings;
use crate::server::{Local, StopSignal};
use crate::telemetry::log::LogGuard;

/// How running ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// In order.
    Drained,
    /// By a second signal.
    Interrupted,
    /// Without having been told to: the log says why.
    Failed,
}

impl App {
    /// Serves until told to stop.
    pub async fn run(self, log: &LogGuard) -> Ended {
        let Self { config, registry, keeper, headers, shared, .. } = self;
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "signals cannot be listened to");
                return Ended::Failed;
            }
        };
        let stop = StopSignal::new();
        let (limits, slots) = (config.connections, self.slots);
        let workers = match Workers::spawn(self.sockets, limits, &slots, &shared, &stop) {
            Ok(workers) => workers,
            Err(error) => {
                tracing::error!(%error, "a worker thread cannot be started");
                return Ended::Failed;
            }
        };
        let mut window = OpenWindow::new(Admin::new(Arc::clone(&self.health) as _, registry));
        window.apply(&config.admin, self.window);
        announce(self.listeners.addresses().flatten(), window.addresses());
        let hearts = workers.hearts();
        self.health.start(hearts.clone());
        let mut reloader = Reloader {
            text: std::fs::read(&config.path).ok(),
            fixed: Fixed::of(&config),
            config,
            keeper,
            headers,
            shared,
            slots,
            listeners: self.listeners,
            workers,
            window,
            metrics: self.reload,
        };
        let watchdog = tokio::spawn(systemd::watchdog(hearts));
        systemd::ready();
        let signal = reloader.serve(&mut signals, log).await;
        self.health.drain();
        systemd::stopping();
        let settings = reloader.shutdown();
        let Reloader { workers, keeper, window, listeners, .. } = reloader;
        let ended = match signal {
            None => {
                tracing::error!("a worker thread ended unexpectedly");
                Ended::Failed
            }
            Some(signal) => tokio::select! {
                () = leave(signal, settings, &stop, workers) => Ended::Drained,
                () = told_again(&mut signals) => Ended::Interrupted,
            },
        };
        drop(listeners);
        keeper.shutdown(ended == Ended::Drained).await;
        window.close().await;
        watchdog.abort();
        tracing::info!(outcome = ?ended, "stopped");
        ended
    }
}

impl Reloader {
    /// Reloads whenever there is a reason to, until a signal says to leave; none does where a
    /// worker has ended.
    async fn serve(&mut self, signals: &mut Signals, log: &LogGuard) -> Option<Signal> {
        loop {
            let (text, headers) = (self.text.as_deref(), &mut self.headers);
            let files = changed(&self.config, text, headers, &mut self.listeners);
            let changed = tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Reload => Changed::Config,
                    leave => return Some(leave),
                },
                () = self.workers.one_ended() => return None,
                changed = files => changed,
            };
            match changed {
                Changed::Config => self.reload(log).await,
                Changed::Headers => self.refresh_headers(),
            }
        }
    }
}

/// Stops accepting after the lame duck and waits for what is under way.
async fn leave(signal: Signal, settings: ShutdownSettings, stop: &StopSignal, workers: Workers) {
    if signal == Signal::Terminate {
        tracing::info!(lame_duck = ?settings.lame_duck, "leaving: not ready, still accepting");
        stop.retire();
        tokio::time::sleep(settings.lame_duck).await;
    }
    tracing::info!(drain_timeout = ?settings.drain_timeout, "leaving: finishing requests under way");
    stop.finish();
    let mut joined = std::pin::pin!(workers.join());
    if tokio::time::timeout(settings.drain_timeout, &mut joined).await.is_err() {
        tracing::warn!("shutdown.drain_timeout has passed: requests under way are cut");
        stop.abort();
        let _ = joined.await;
    }
}

/// Ends at a further signal to leave; reloads are over.
async fn told_again(signals: &mut Signals) {
    while signals.next().await == Signal::Reload {}
}

/// Says where we listen; scripts and stories wait for these lines.
pub(super) fn announce<'a>(
    proxy: impl IntoIterator<Item = &'a Local>,
    admin: impl IntoIterator<Item = &'a Local>,
) {
    for addr in proxy {
        tracing::info!(listener = "proxy", %addr, "listening");
    }
    for addr in admin {
        tracing::info!(listener = "admin", %addr, "listening");
    }
}
