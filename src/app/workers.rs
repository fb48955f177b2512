//! The worker threads as one: started, told, watched and waited for together.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Response;
use tokio::task::JoinSet;

use crate::body::Body;
use crate::proxy;
use crate::proxy::code::Code;
use crate::proxy::policy::metrics::ProxyMetrics;
use crate::proxy::snapshot::SharedState;
use crate::proxy::stack::stack;
use crate::server::settings::ConnectionSettings;
use crate::server::worker::{self, Heartbeat, WorkerGone};
use crate::server::{
    ConnectionLimit, HeadError, Inbound, OnHeadError, StopSignal, WorkerCommand, WorkerHandle,
    WorkerListener,
};

/// How often idle upstream connections are looked at.
const PRUNE_EVERY: Duration = Duration::from_secs(5);

/// All workers.
pub(super) struct WorkerThreads(Vec<WorkerHandle>);

impl WorkerThreads {
    /// Starts one for each list of sockets.
    pub(super) fn spawn(
        sockets: Vec<Vec<WorkerListener>>,
        limits: ConnectionSettings,
        connection_limit: &ConnectionLimit,
        shared: &SharedState,
        stop: &StopSignal,
    ) -> io::Result<Self> {
        let start = |(index, sockets)| {
            let shared = shared.clone();
            let on_head_error = on_head_error(shared.metrics.clone());
            let (connection_limit, stop) = (connection_limit.clone(), stop.clone());
            let make = move || service(shared);
            worker::spawn(index, sockets, limits, connection_limit, make, on_head_error, stop)
        };
        sockets.into_iter().enumerate().map(start).collect::<io::Result<_>>().map(Self)
    }

    /// Gives all workers the same command. One that has ended ends the program elsewhere.
    pub(super) async fn broadcast(&self, command: impl Fn() -> WorkerCommand) {
        for worker in &self.0 {
            let _ = worker.command(command()).await;
        }
    }

    /// Gives each worker its new sockets.
    pub(super) async fn add(&self, sockets: Vec<Vec<WorkerListener>>) {
        for (worker, sockets) in self.0.iter().zip(sockets) {
            for socket in sockets {
                let _ = worker.command(WorkerCommand::Add(socket)).await;
            }
        }
    }

    /// Signs that they move.
    pub(super) fn heartbeats(&self) -> Vec<Heartbeat> {
        self.0.iter().map(WorkerHandle::heartbeat).collect()
    }

    /// Ends when one of them does.
    pub(super) async fn any_ended(&mut self) {
        let mut all: Vec<_> = self.0.iter_mut().map(|worker| Box::pin(worker.ended())).collect();
        std::future::poll_fn(|cx| {
            match all.iter_mut().any(|worker| worker.as_mut().poll(cx).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Waits until all have ended, after a stop signal.
    pub(super) async fn join(self) -> Result<(), WorkerGone> {
        let mut all: JoinSet<_> = self.0.into_iter().map(WorkerHandle::join).collect();
        let mut outcome = Ok(());
        while let Some(joined) = all.join_next().await {
            outcome = outcome.and(joined.unwrap_or(Err(WorkerGone)));
        }
        outcome
    }
}

/// A worker's service; made on its thread.
fn service(
    shared: SharedState,
) -> impl tower::Service<
    Inbound,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>> + use<>,
> + Clone
+ use<> {
    let worker = Rc::new(proxy::snapshot::WorkerState::new(shared));
    let pruned = Rc::downgrade(&worker);
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(PRUNE_EVERY).await;
            match pruned.upgrade() {
                Some(worker) => worker.prune(),
                None => return,
            }
        }
    });
    stack(&worker)
}

/// Counts a head that hyper could not read like any refusal of ours.
fn on_head_error(metrics: ProxyMetrics) -> OnHeadError {
    Arc::new(move |error| {
        metrics.refused(match error {
            HeadError::Malformed | HeadError::Tls => Code::BadRequest,
            HeadError::TooLarge => Code::HeadersTooLarge,
        });
    })
}
