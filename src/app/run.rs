//! `App` -> finished: spawn, wait for a signal, leave in order.
//!
//! The order of leaving: not ready at once, keep accepting for the lame duck (SIGTERM only), stop
//! accepting, finish what is under way within the drain time, stop the keepers. A second signal
//! ends the program at once.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use std::convert::Infallible;
use std::pin::Pin;

use super::build::App;
use super::reload::Reloader;
use super::signal::{Signal, Signals};
use crate::admin::service::Admin;
use crate::body::Body;
use crate::proxy::forward::{Forwarder, Shared};
use crate::server::settings::{ShutdownSettings, Workers};
use crate::server::{Bound, Inbound, Slots, StopSignal, Worker, WorkerHandle};

/// How running ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// In order.
    Drained,
    /// By a second signal.
    Interrupted,
}

/// How often idle upstream connections are looked at.
const PRUNE_EVERY: Duration = Duration::from_secs(5);

impl App {
    /// Serves until told to stop.
    pub async fn run(self) -> Ended {
        let Self {
            config,
            registry,
            keeper,
            shared,
            listeners,
            admin: admin_sockets,
            health,
            reload,
        } = self;
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "signals cannot be listened to");
                return Ended::Interrupted;
            }
        };
        let stop = StopSignal::new();
        let bound: Vec<Vec<_>> =
            listeners.iter().map(|all| all.iter().map(|one| one.local).collect()).collect();
        announce(&bound, &admin_sockets.iter().map(|one| one.local).collect::<Vec<_>>());
        let admin_stop = StopSignal::new();
        let admin_sockets = admin_sockets.into_iter().map(|one| one.listener).collect();
        let admin = Admin::new(Arc::clone(&health) as _, registry);
        let admin_task = tokio::spawn(admin.serve(admin_sockets, admin_stop.clone()));
        let worker = match spawn_worker(&config, listeners, &shared, &stop) {
            Ok(worker) => worker,
            Err(error) => {
                tracing::error!(%error, "the worker thread cannot be started");
                return Ended::Interrupted;
            }
        };
        health.start();
        let shutdown = config.shutdown;
        let mut reloader = Reloader::new(config, keeper, shared, bound, reload);
        notify_ready();
        let signal = loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Reload => reloader.reload().await,
                    leave => break leave,
                },
                () = reloader.changed() => reloader.reload().await,
            }
        };
        health.drain();
        let ended = tokio::select! {
            () = leave(signal, shutdown, &stop, worker) => Ended::Drained,
            _ = leaving_signal(&mut signals) => Ended::Interrupted,
        };
        reloader.into_keeper().shutdown().await;
        admin_stop.finish();
        admin_stop.abort();
        let _ = admin_task.await;
        tracing::info!(outcome = ?ended, "stopped");
        ended
    }
}

/// Stops accepting after the lame duck and waits for what is under way.
async fn leave(
    signal: Signal,
    settings: ShutdownSettings,
    stop: &StopSignal,
    worker: WorkerHandle,
) {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    if signal == Signal::Terminate {
        tracing::info!(lame_duck = ?settings.lame_duck, "leaving: not ready, still accepting");
        tokio::time::sleep(settings.lame_duck).await;
    }
    tracing::info!(drain_timeout = ?settings.drain_timeout, "leaving: finishing requests under way");
    stop.finish();
    let mut joined = std::pin::pin!(worker.join());
    if tokio::time::timeout(settings.drain_timeout, &mut joined).await.is_err() {
        tracing::warn!("shutdown.drain_timeout has passed: requests under way are cut");
        stop.abort();
        let _ = joined.await;
    }
}

async fn leaving_signal(signals: &mut Signals) -> Signal {
    loop {
        match signals.next().await {
            Signal::Reload => {}
            leave => return leave,
        }
    }
}

fn announce(listeners: &[Vec<std::net::SocketAddr>], admin: &[std::net::SocketAddr]) {
    for addr in listeners.iter().flatten() {
        tracing::info!(listener = "proxy", %addr, "listening");
    }
    for addr in admin {
        tracing::info!(listener = "admin", %addr, "listening");
    }
}

fn notify_ready() {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

fn spawn_worker(
    config: &crate::config::Config,
    listeners: Vec<Vec<Bound>>,
    shared: &Shared,
    stop: &StopSignal,
) -> std::io::Result<WorkerHandle> {
    if config.workers != Workers::default() {
        tracing::warn!("server.workers beyond 1 is not offered yet; one worker serves");
    }
    let sockets = listeners
        .into_iter()
        .enumerate()
        .flat_map(|(index, all)| all.into_iter().map(move |bound| (index, bound.listener)))
        .collect();
    let shared = shared.clone();
    let slots = Slots::new(config.connections.max_connections);
    let make = move || Service::new(shared);
    Worker::spawn(0, sockets, config.connections, slots, make, stop.clone())
}

/// A worker's tower service: [`Forwarder`] behind an `Rc`.
#[derive(Clone)]
struct Service(Rc<Forwarder>);

impl Service {
    fn new(shared: Shared) -> Self {
        let forwarder = Rc::new(Forwarder::new(shared));
        let pruned = Rc::downgrade(&forwarder);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(PRUNE_EVERY).await;
                match pruned.upgrade() {
                    Some(forwarder) => forwarder.prune(),
                    None => return,
                }
            }
        });
        Self(forwarder)
    }
}

impl tower::Service<Inbound> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let forwarder = Rc::clone(&self.0);
        let Inbound { request, connection } = inbound;
        let version = request.version();
        let request = Box::new(request.map(|body| Body::incoming(version, body)));
        Box::pin(async move { Ok(forwarder.handle(&connection, request).await) })
    }
}
