//! A worker: one thread with a runtime of its own, its listeners, and all their connections.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use http::Response;
use hyper::server::conn::http1::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};
use tower::Service;

use super::drain::{Drain, StopSignal};
use super::serve::{ConnectionInfo, Ended, Inbound, builder, serve};
use super::settings::ConnectionLimits;
use super::watch::Watch;
use crate::body::Body;
use crate::telemetry::throttle::Throttle;

/// The wait after an accept that failed for want of something (files, memory), so that whatever is
/// short can come back and the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Threads for what can only be done by blocking; DNS look-ups are the one such thing here.
const BLOCKING_THREADS: usize = 4;

/// Commands that may wait for a worker.
const COMMANDS: usize = 16;

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

/// A change to what a running worker listens on.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Accepts from this socket too, under this number.
    AddListener(usize, std::net::TcpListener),
    /// Takes the connections that wait on the listeners of this number, then closes them. Open
    /// connections go on.
    RemoveListener(usize),
}

/// Starts workers.
#[derive(Debug)]
pub struct Worker;

impl Worker {
    /// Starts the thread `worker-INDEX`.
    ///
    /// `make` runs on that thread, inside its runtime, and may build what cannot leave a thread;
    /// clones of its service serve the connections.
    pub fn spawn<S>(
        index: usize,
        listeners: Vec<(usize, std::net::TcpListener)>,
        limits: ConnectionLimits,
        slots: Slots,
        make: impl FnOnce() -> S + Send + 'static,
        stop: StopSignal,
    ) -> io::Result<WorkerHandle>
    where
        S: Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone + 'static,
        S::Future: 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (ended, finished) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                let service = make();
                let accept = Accept::new(listeners, limits, slots, service);
                accept.run(receiver, stop).await;
            });
            // Connections that were not done in time end here, with everything they hold.
            drop(local);
            // A look-up that blocks must not keep the program from leaving.
            runtime.shutdown_background();
            let _ = ended.send(());
        })?;
        Ok(WorkerHandle { thread, commands, finished })
    }
}

/// A worker that runs.
#[derive(Debug)]
pub struct WorkerHandle {
    thread: JoinHandle<()>,
    commands: mpsc::Sender<WorkerCommand>,
    finished: oneshot::Receiver<()>,
}

impl WorkerHandle {
    /// Hands a command over; an error means that the worker is gone.
    pub async fn command(&self, command: WorkerCommand) -> Result<(), WorkerGone> {
        self.commands.send(command).await.map_err(|_| WorkerGone)
    }

    /// Ends when the worker does, for use beside other events; [`join`](Self::join) then says how.
    pub async fn ended(&mut self) {
        if !self.finished.is_terminated() {
            let _ = (&mut self.finished).await;
        }
    }

    /// Waits for the thread's end: after a stop signal, its last connection's or the abort.
    pub async fn join(mut self) -> Result<(), WorkerGone> {
        self.ended().await;
        // The thread has nothing left to do, so this does not block.
        self.thread.join().map_err(|_| WorkerGone)
    }
}

/// A worker ended by a panic, or before it was told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerGone;

impl fmt::Display for WorkerGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a worker thread ended unexpectedly; the log has its last words")
    }
}

impl std::error::Error for WorkerGone {}

struct Source {
    id: usize,
    local: SocketAddr,
    listener: TcpListener,
}

impl Source {
    fn new(id: usize, listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        Ok(Self { id, local, listener: TcpListener::from_std(listener)? })
    }
}

/// The accept loop of one worker, over all its listeners.
struct Accept<S> {
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
    fn new(
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

    async fn run(mut self, mut commands: mpsc::Receiver<WorkerCommand>, stop: StopSignal) {
        let mut commanded = true;
        while !stop.is_finishing() {
            tokio::select! {
                biased;
                () = stop.finishing() => break,
                command = commands.recv(), if commanded => match command {
                    Some(WorkerCommand::AddListener(id, listener)) => self.add(id, listener),
                    Some(WorkerCommand::RemoveListener(id)) => self.remove(id).await,
                    None => commanded = false,
                },
                accepted = self.next() => self.welcome(accepted).await,
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
        for Source { id, local, listener } in gone {
            let Ok(listener) = listener.into_std() else { continue };
            while let Ok((stream, peer)) = listener.accept() {
                let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                if let Ok(stream) = stream {
                    self.start(id, local, stream, peer).await;
                }
            }
        }
    }

    /// The next connection, once there is a place for it.
    async fn next(&mut self) -> (usize, SocketAddr, io::Result<(TcpStream, SocketAddr)>) {
        self.slots.wait_free().await;
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<(usize, SocketAddr, io::Result<(TcpStream, SocketAddr)>)> {
        for step in 0..self.sources.len() {
            let at = (self.turn + step) % self.sources.len();
            let source = &self.sources[at];
            if let Poll::Ready(accepted) = source.listener.poll_accept(cx) {
                self.turn = at + 1;
                return Poll::Ready((source.id, source.local, accepted));
            }
        }
        Poll::Pending
    }

    async fn welcome(
        &mut self,
        (id, local, accepted): (usize, SocketAddr, io::Result<(TcpStream, SocketAddr)>),
    ) {
        match accepted {
            Ok((stream, peer)) => self.start(id, local, stream, peer).await,
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                if let Some(suppressed) = self.failures.allow() {
                    tracing::error!(%error, suppressed, "accepting a connection failed; trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    async fn start(&mut self, id: usize, bound: SocketAddr, stream: TcpStream, peer: SocketAddr) {
        #[cfg(not(target_os = "linux"))]
        let _ = stream.set_nodelay(true); // not inherited from the listener there
        // The listener's address is the connection's, unless it listens on all of them.
        let local = match bound.ip().is_unspecified() {
            true => stream.local_addr().unwrap_or(bound),
            false => bound,
        };
        let info = Rc::new(ConnectionInfo { listener: id, local, peer });
        let watch = Watch::new(stream, self.slots.take().await);
        let member = self.context.drain.join();
        let (context, service) = (Rc::clone(&self.context), self.service.clone());
        spawn_local(async move {
            let Shared { limits, builder, .. } = &*context;
            match serve(builder, watch, info, service, limits, member).await {
                Ended::Closed => {}
                ended => tracing::debug!(%peer, ?ended, "a client connection ended"),
            }
        });
    }
}

/// The connection was gone before it was accepted: nothing is wrong with the listener.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
