//! The worker threads: started, commanded, watched and awaited together.

use std::future::Future;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::proxy::code::Code;
use crate::proxy::policy::metrics::ProxyMetrics;
use crate::proxy::requests::Reply;
use crate::proxy::snapshot::{SharedState, WorkerState};
use crate::proxy::stack::stack;
use crate::server::settings::ConnectionSettings;
use crate::server::worker::{self, Heartbeat};
use crate::server::{
    ConnectionLimit, HeadError, OnHeadError, WorkerCommand, WorkerHandle, WorkerListener,
};
use crate::task;
use tokio::sync::mpsc::UnboundedReceiver;

/// Interval at which idle upstream connections are pruned.
const PRUNE_INTERVAL: Duration = Duration::from_secs(5);

/// All worker threads.
pub(super) struct WorkerThreads(Vec<WorkerHandle>);

impl WorkerThreads {
    /// Starts one worker for each list of sockets.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub(super) fn spawn(
        sockets: Vec<Vec<WorkerListener>>,
        settings: ConnectionSettings,
        connection_limit: &ConnectionLimit,
        shared: &SharedState,
    ) -> io::Result<Self> {
        let start = |(index, sockets)| {
            let shared = shared.clone();
            let on_head_error = on_head_error(shared.metrics.clone());
            let (limit, stop) = (connection_limit.clone(), shared.stop.clone());
            // Called on the worker's thread: the service and its connections are not `Send`.
            let make_service = move || {
                let asked = shared.inspector.register();
                let worker = Rc::new(WorkerState::new(shared));
                task::spawn_local(prune(Rc::downgrade(&worker)));
                task::spawn_local(report(asked, Rc::downgrade(&worker)));
                stack(&worker)
            };
            worker::spawn(index, sockets, settings, limit, make_service, on_head_error, stop)
        };
        sockets.into_iter().enumerate().map(start).collect::<io::Result<_>>().map(Self)
    }

    /// Sends the same command to all workers.
    pub(super) async fn broadcast(&self, command: impl Fn() -> WorkerCommand) {
        for worker in &self.0 {
            // A worker that has ended cannot take it; `any_ended` then ends the program.
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

    /// The heartbeats of all workers.
    pub(super) fn heartbeats(&self) -> Vec<Heartbeat> {
        self.0.iter().map(WorkerHandle::heartbeat).collect()
    }

    /// Completes when any worker has ended, which none does before a stop signal.
    pub(super) async fn any_ended(&mut self) {
        let mut ends: Vec<_> = self.0.iter_mut().map(|worker| Box::pin(worker.ended())).collect();
        std::future::poll_fn(|cx| {
            // `any` stops at the first that is ready. Before that each has been polled with this
            // waker, so whichever ends first wakes this task.
            match ends.iter_mut().any(|ended| ended.as_mut().poll(cx).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Waits until all workers have ended, after a stop signal.
    pub(super) async fn join(self) {
        // One after the other is enough: all of them must end, in whatever order.
        for worker in self.0 {
            let _ = worker.join().await;
        }
    }
}

/// Closes idle upstream connections of a worker at intervals, for as long as the worker exists.
async fn prune(worker: Weak<WorkerState>) {
    loop {
        tokio::time::sleep(PRUNE_INTERVAL).await;
        // Weak, because this task must not keep the worker's connections open.
        let Some(worker) = worker.upgrade() else { return };
        worker.prune();
    }
}

/// Reports what a worker holds whenever it is asked, for as long as the worker exists.
async fn report(mut asked: UnboundedReceiver<Reply>, worker: Weak<WorkerState>) {
    while let Some(reply) = asked.recv().await {
        let Some(worker) = worker.upgrade() else { return };
        // It fails if whoever asked waits no more.
        let _ = reply.send(worker.report());
    }
}

/// Counts a head that hyper could not parse like a rejection by the proxy itself.
fn on_head_error(metrics: ProxyMetrics) -> OnHeadError {
    Arc::new(move |error| {
        metrics.rejected(match error {
            HeadError::Malformed | HeadError::Tls => Code::BadRequest,
            HeadError::TooLarge => Code::HeadersTooLarge,
        });
    })
}
