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
        let thread =
            std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let local = LocalSet::new();
                local.block_on(&runtime, async move {
                    let service = make();
                    let accept = Accept::new(listeners, limits, slots, service);
                    accept.run(receiver, stop).await;
                });
                // Connections that were not done in time end here, with everything they hold.
                let inside = runtime.enter();
                drop(local);
                drop(inside);
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

/// What one listener accepted.
struct Accepted {
    id: usize,
    bound: SocketAddr,
    result: io::Result<(TcpStream, SocketAddr)>,
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
        for Source { id, local, listener } in gone {
            let Ok(listener) = listener.into_std() else { continue };
            while let Ok((stream, peer)) = listener.accept() {
                let stream =
                    stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                if let Ok(stream) = stream {
                    self.start(id, local, stream, peer).await;
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
                return Poll::Ready(Accepted { id: source.id, bound: source.local, result });
            }
        }
        Poll::Pending
    }

    async fn welcome(&mut self, Accepted { id, bound, result }: Accepted) {
        match result {
            Ok((stream, peer)) => self.start(id, bound, stream, peer).await,
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tower::service_fn;

    use super::*;
    use crate::server::listener::bind;
    use crate::server::settings::Listen;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    const POST: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";

    struct Rig {
        worker: WorkerHandle,
        address: SocketAddr,
        stop: StopSignal,
        slots: Slots,
        /// Told when the service has a request.
        arrived: Arc<Notify>,
        /// Answers go out when it is told.
        go: Arc<Notify>,
        /// Told when a request was dropped before its answer.
        dropped: Arc<Notify>,
    }

    struct Tell(Option<Arc<Notify>>);

    impl Tell {
        fn not(mut self) {
            self.0 = None;
        }
    }

    impl Drop for Tell {
        fn drop(&mut self) {
            if let Some(notify) = &self.0 {
                notify.notify_one();
            }
        }
    }

    impl Rig {
        fn new(max_connections: usize) -> Self {
            let bound =
                bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap()), false).unwrap().remove(0);
            let (stop, slots) = (StopSignal::new(), Slots::new(max_connections));
            let [arrived, go, dropped] = std::array::from_fn(|_| Arc::new(Notify::new()));
            let (a, g, d) = (Arc::clone(&arrived), Arc::clone(&go), Arc::clone(&dropped));
            let make = move || {
                service_fn(move |inbound: Inbound| {
                    let (a, g, tell) = (a.clone(), g.clone(), Tell(Some(d.clone())));
                    async move {
                        a.notify_one();
                        g.notified().await;
                        tell.not();
                        let text = format!("listener {}", inbound.connection.listener);
                        Ok::<_, Infallible>(Response::new(Body::full(text)))
                    }
                })
            };
            let limits = ConnectionLimits::default();
            let listeners = vec![(7, bound.listener)];
            let worker =
                Worker::spawn(0, listeners, limits, slots.clone(), make, stop.clone()).unwrap();
            Self { worker, address: bound.local, stop, slots, arrived, go, dropped }
        }

        async fn send(&self, bytes: &[u8]) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream
        }
    }

    async fn rest(mut stream: TcpStream) -> String {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    #[tokio::test]
    async fn finishing_ends_requests_under_way_and_closes_idle_connections() {
        let rig = Rig::new(8);
        let idle = rig.send(b"").await;
        let busy = rig.send(GET).await;
        rig.arrived.notified().await;
        rig.stop.finish();
        assert_eq!(rest(idle).await, "", "an idle connection is closed at once");
        rig.go.notify_one();
        let answer = rest(busy).await.to_lowercase();
        assert!(answer.contains("connection: close") && answer.ends_with("listener 7"), "{answer}");
        rig.worker.join().await.unwrap();
        assert_eq!(rig.slots.open(), 0);
    }

    #[tokio::test]
    async fn aborting_drops_what_is_left() {
        let rig = Rig::new(8);
        let busy = rig.send(POST).await;
        rig.arrived.notified().await;
        rig.stop.abort();
        rig.dropped.notified().await;
        rig.worker.join().await.unwrap();
        assert_eq!(rest(busy).await, "");
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_and_are_served() {
        let rig = Rig::new(1);
        let first = rig.send(GET).await;
        rig.arrived.notified().await;
        let second = rig.send(POST).await;
        assert_eq!(rig.slots.open(), 1);
        rig.go.notify_one();
        drop(first);
        rig.go.notify_one();
        rig.arrived.notified().await;
        rig.go.notify_one();
        rig.stop.finish();
        assert!(rest(second).await.contains("200 OK"));
        rig.worker.join().await.unwrap();
    }

    #[tokio::test]
    async fn a_half_closed_client_is_served() {
        for request in [GET, POST] {
            let rig = Rig::new(8);
            let mut client = rig.send(request).await;
            client.shutdown().await.unwrap();
            rig.arrived.notified().await;
            rig.go.notify_one();
            assert!(rest(client).await.contains("200 OK"));
        }
    }

    #[tokio::test]
    async fn the_work_of_a_safe_request_ends_when_its_client_left() {
        let rig = Rig::new(8);
        let client = rig.send(GET).await;
        rig.arrived.notified().await;
        drop(client);
        rig.dropped.notified().await;
    }

    #[tokio::test]
    async fn listeners_come_and_go() {
        let mut rig = Rig::new(8);
        let more = bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap()), false).unwrap().remove(0);
        rig.worker.command(WorkerCommand::AddListener(9, more.listener)).await.unwrap();
        rig.worker.command(WorkerCommand::RemoveListener(7)).await.unwrap();
        let old = rig.address;
        rig.address = more.local;
        let client = rig.send(POST).await;
        rig.arrived.notified().await;
        rig.go.notify_one();
        rig.stop.finish();
        assert!(rest(client).await.ends_with("listener 9"));
        TcpStream::connect(old).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_panic_in_a_worker_is_told() {
        let make = || {
            assert!(std::hint::black_box(false), "on purpose");
            service_fn(async |_: Inbound| Ok::<_, Infallible>(Response::new(Body::empty())))
        };
        let stop = StopSignal::new();
        let worker =
            Worker::spawn(0, vec![], ConnectionLimits::default(), Slots::new(1), make, stop);
        assert_eq!(worker.unwrap().join().await, Err(WorkerGone));
    }
}
