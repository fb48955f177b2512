//! The accept loop of a worker: connections in, up to the limit, until it is time to leave.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use hyper::server::conn::http1::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::spawn_local;
use tower::Service;

use super::drain::{Drain, StopSignal};
use super::peer::Peer;
use super::serve::{ConnectionInfo, Ended, Inbound, builder, serve};
use super::settings::ConnectionLimits;
use super::watch::Watch;
use super::worker::WorkerCommand;
use crate::body::Body;
use crate::telemetry::throttle::Throttle;

/// The wait after an accept that failed for want of something (files, memory), so that whatever is
/// short can come back and the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The limit on open client connections, shared by all workers.
#[derive(Debug, Clone)]
pub struct Slots {
    free: Arc<Semaphore>,
    max: usize,
}

impl Slots {
    /// At most `max` connections at a time.
    pub fn new(max: usize) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(max)), max }
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.max - self.free.available_permits()
    }

    /// Waits until a place is free, and leaves it so: a connection that nobody can serve yet stays
    /// in the kernel's queue.
    async fn wait_free(&self) {
        // The semaphore is never closed.
        drop(self.free.acquire().await);
    }

    /// Takes a place; another worker may have been quicker, so this can wait.
    async fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).acquire_owned().await.ok()
    }
}

struct Source {
    id: usize,
    listener: TcpListener,
}

impl Source {
    fn new(id: usize, listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { id, listener: TcpListener::from_std(listener)? })
    }
}

/// What one listener accepted.
struct Accepted {
    id: usize,
    result: io::Result<(TcpStream, SocketAddr)>,
}

/// The accept loop of one worker, over all its listeners.
pub(super) struct Accept<S> {
    sources: Vec<Source>,
    /// The listener to look at first: the next one after each connection, so that none starves.
    turn: usize,
    context: Rc<Shared>,
    slots: Slots,
    service: S,
    failures: Throttle,
}

/// What all connections of a worker share.
struct Shared {
    limits: ConnectionLimits,
    builder: Builder,
    drain: Rc<Drain>,
}

impl<S> Accept<S>
where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    S::Future: 'static,
{
    pub(super) fn new(
        listeners: Vec<(usize, std::net::TcpListener)>,
        limits: ConnectionLimits,
        slots: Slots,
        service: S,
    ) -> Self {
        let context = Rc::new(Shared { limits, builder: builder(&limits), drain: Drain::new() });
        let failures = Throttle::default();
        let mut accept = Self { sources: Vec::new(), turn: 0, context, slots, service, failures };
        listeners.into_iter().for_each(|(id, listener)| accept.add(id, listener));
        accept
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<WorkerCommand>,
        stop: StopSignal,
    ) {
        let mut commanded = true;
        while !stop.is_finishing() {
            tokio::select! {
                biased;
                () = stop.finishing() => break,
                command = commands.recv(), if commanded => match command {
                    Some(WorkerCommand::AddListener(id, listener)) => self.add(id, listener),
                    Some(WorkerCommand::RemoveListener(id)) => tokio::select! {
                        biased;
                        () = self.remove(id) => {}
                        () = stop.finishing() => break,
                    },
                    None => commanded = false,
                },
                accepted = self.next() => tokio::select! {
                    biased;
                    () = self.welcome(accepted) => {}
                    () = stop.finishing() => break,
                },
            }
        }
        self.sources.clear();
        let drain = Rc::clone(&self.context.drain);
        drain.finish();
        tokio::select! {
            () = drain.empty() => {}
            () = stop.aborted() => tracing::warn!(
                connections = drain.open(),
                "connections are dropped: they did not finish in time"
            ),
        }
    }

    fn add(&mut self, id: usize, listener: std::net::TcpListener) {
        match Source::new(id, listener) {
            Ok(source) => self.sources.push(source),
            Err(error) => tracing::error!(%error, "a listener could not be taken over"),
        }
    }

    async fn remove(&mut self, id: usize) {
        let (gone, kept) = self.sources.drain(..).partition(|source| source.id == id);
        self.sources = kept;
        for Source { id, listener } in gone {
            let Ok(listener) = listener.into_std() else { continue };
            while let Ok((stream, peer)) = listener.accept() {
                let stream =
                    stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                if let Ok(stream) = stream {
                    self.start(id, stream, peer).await;
                }
            }
        }
    }

    /// The next connection, once there is a place for it.
    async fn next(&mut self) -> Accepted {
        self.slots.wait_free().await;
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Accepted> {
        for step in 0..self.sources.len() {
            let at = (self.turn + step) % self.sources.len();
            let source = &self.sources[at];
            if let Poll::Ready(result) = source.listener.poll_accept(cx) {
                self.turn = at + 1;
                return Poll::Ready(Accepted { id: source.id, result });
            }
        }
        Poll::Pending
    }

    async fn welcome(&mut self, Accepted { id, result }: Accepted) {
        match result {
            Ok((stream, peer)) => self.start(id, stream, peer).await,
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                if let Some(suppressed) = self.failures.allow() {
                    tracing::error!(%error, suppressed, "accepting a connection failed; trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    async fn start(&mut self, id: usize, stream: TcpStream, peer: SocketAddr) {
        #[cfg(not(target_os = "linux"))]
        let _ = stream.set_nodelay(true); // not inherited from the listener there
        let info = Rc::new(ConnectionInfo { listener: id, peer: Peer::tcp(peer) });
        let watch = Watch::new(stream, self.slots.take().await);
        let member = self.context.drain.join();
        let (context, service) = (Rc::clone(&self.context), self.service.clone());
        spawn_local(async move {
            let Shared { limits, builder, .. } = &*context;
            match serve(builder, watch, info, service, limits, member).await {
                Ended::Closed => {}
                Ended::TimedOut(phase) => tracing::debug!(%peer, ?phase, "a client took too long"),
                Ended::ClientLeft => tracing::debug!(%peer, "a client left before its answer"),
                Ended::Flooded => tracing::warn!(%peer, "a client cancelled too many requests"),
                Ended::Failed(error) => tracing::debug!(%peer, %error, "a connection failed"),
            }
        });
    }
}

/// The connection was gone before it was accepted: nothing is wrong with the listener.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
