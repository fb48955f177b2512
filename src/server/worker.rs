//! A worker: one thread with a runtime of its own, its listeners, and all their connections.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::accept::Accept;
use super::command::{WorkerCommand, WorkerListener};
use super::connection_limit::ConnectionLimit;
use super::head_error::OnHeadError;
use super::inbound::RequestService;
use super::settings::ConnectionSettings;
use super::shutdown::StopSignal;
use crate::task::spawn_local;

/// Threads for blocking work, which here is DNS alone.
const BLOCKING_THREADS: usize = 4;

/// Commands that may wait for a worker.
const COMMANDS: usize = 16;

/// Starts a worker on a thread `worker-INDEX`.
///
/// `make_service` runs on that thread, inside its runtime, and may build what cannot leave a thread;
/// clones of its service serve the connections.
///
/// # Errors
/// The system has no thread or no descriptors left.
pub fn spawn<S: RequestService>(
    index: usize,
    listeners: Vec<WorkerListener>,
    settings: ConnectionSettings,
    limit: ConnectionLimit,
    make_service: impl FnOnce() -> S + Send + 'static,
    on_head_error: OnHeadError,
    stop: StopSignal,
) -> io::Result<WorkerHandle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    let heartbeat = Heartbeat::new();
    let beating = heartbeat.clone();
    let (commands, receiver) = mpsc::channel(COMMANDS);
    let (ended, finished) = oneshot::channel();
    let run = move || {
        let local = LocalSet::new();
        local.block_on(&runtime, async move {
            spawn_local(beating.beat());
            let service = make_service();
            let accept = Accept::new(listeners, settings, limit, service, on_head_error);
            // In a task, because the local set polls the future that it blocks on in each turn, even if
            // nothing woke it.
            let accepting = spawn_local(accept.run(receiver, stop));
            if let Err(error) = accepting.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        });
        // Connections that did not finish in time end here, with everything they hold. What they hold
        // may need the runtime when it is dropped.
        let inside = runtime.enter();
        drop(local);
        drop(inside);
        // Not dropped in place, because that would wait for a DNS look-up that blocks.
        runtime.shutdown_background();
        let _ = ended.send(());
    };
    let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(run)?;
    Ok(WorkerHandle { thread, commands, finished, heartbeat })
}

/// A running worker.
#[derive(Debug)]
pub struct WorkerHandle {
    thread: JoinHandle<()>,
    commands: mpsc::Sender<WorkerCommand>,
    finished: oneshot::Receiver<()>,
    heartbeat: Heartbeat,
}

/// The proof that a worker is responsive; clones show the same.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    start: Instant,
    /// Milliseconds from `start` to the last beat.
    last: Arc<AtomicU64>,
}

impl Heartbeat {
    /// The time between two beats.
    pub const INTERVAL: Duration = Duration::from_secs(5);

    fn new() -> Self {
        Self { start: Instant::now(), last: Arc::default() }
    }

    async fn beat(self) {
        loop {
            let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.last.store(now, Ordering::Relaxed);
            tokio::time::sleep(Self::INTERVAL).await;
        }
    }

    /// The time since the last beat; a worker hangs if it is much more than the interval.
    pub fn since_last(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }
}

impl WorkerHandle {
    /// Sends a command.
    ///
    /// # Errors
    /// The worker has ended.
    pub async fn command(&self, command: WorkerCommand) -> Result<(), WorkerGone> {
        self.commands.send(command).await.map_err(|_| WorkerGone)
    }

    /// The worker's heartbeat.
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// Waits until the worker has ended, beside other events; [`join`](Self::join) then says how.
    pub async fn ended(&mut self) {
        if !self.finished.is_terminated() {
            let _ = (&mut self.finished).await;
        }
    }

    /// Waits for the end of the thread: after a stop signal, that of its last connection or the abort.
    ///
    /// # Errors
    /// The worker panicked.
    pub async fn join(mut self) -> Result<(), WorkerGone> {
        self.ended().await;
        // The thread has nothing left to do, so this does not block.
        self.thread.join().map_err(|_| WorkerGone)
    }
}

/// A worker that panicked, or ended without a stop signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a worker thread ended unexpectedly; the log has its last words")]
pub struct WorkerGone;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::SocketAddr;
    use std::num::NonZeroUsize;

    use http::Response;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::{Notify, Semaphore};
    use tower::service_fn;

    use super::*;
    use crate::body::Body;
    use crate::listen::TlsCell;
    use crate::listen::settings::{Listen, UnixSocket};
    use crate::listen::sockets::bind;
    use crate::server::Inbound;
    use crate::server::shutdown::ShutdownPhase::{Aborting, Finishing};

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    const POST: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";

    fn listen(id: usize) -> (SocketAddr, WorkerListener) {
        let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
        let mut bound = bind(&listen, NonZeroUsize::MIN).unwrap();
        let listener = bound.sockets.remove(0).remove(0);
        (
            bound.addresses[0].tcp().unwrap(),
            WorkerListener { id, listener, tls: TlsCell::default() },
        )
    }

    fn on_head_error() -> OnHeadError {
        Arc::new(drop)
    }

    struct Rig {
        worker: WorkerHandle,
        address: SocketAddr,
        stop: StopSignal,
        limit: ConnectionLimit,
        /// Notified when the service has a request.
        arrived: Arc<Notify>,
        /// As many answers as it has permits go out.
        go: Arc<Semaphore>,
        /// Notified when a request was dropped before its answer.
        dropped: Arc<Notify>,
    }

    struct NotifyOnDrop(Option<Arc<Notify>>);

    impl NotifyOnDrop {
        fn disarm(mut self) {
            self.0 = None;
        }
    }

    impl Drop for NotifyOnDrop {
        fn drop(&mut self) {
            if let Some(notify) = &self.0 {
                notify.notify_one();
            }
        }
    }

    impl Rig {
        fn new(max_connections: usize) -> Self {
            let (address, listener) = listen(7);
            let (stop, limit) = (StopSignal::new(), ConnectionLimit::new(max_connections));
            let [arrived, dropped] = std::array::from_fn(|_| Arc::new(Notify::new()));
            let go = Arc::new(Semaphore::new(0));
            let (a, g, d) = (Arc::clone(&arrived), Arc::clone(&go), Arc::clone(&dropped));
            let make = move || {
                service_fn(move |inbound: Inbound| {
                    let (a, g, guard) = (a.clone(), g.clone(), NotifyOnDrop(Some(d.clone())));
                    async move {
                        a.notify_one();
                        g.acquire().await.unwrap().forget();
                        guard.disarm();
                        let text = format!("listener {}", inbound.connection.listener);
                        Ok::<_, Infallible>(Response::new(Body::full(text)))
                    }
                })
            };
            let limits = ConnectionSettings::default();
            let listeners = vec![listener];
            let worker =
                spawn(0, listeners, limits, limit.clone(), make, on_head_error(), stop.clone())
                    .unwrap();
            Self { worker, address, stop, limit, arrived, go, dropped }
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
        rig.stop.advance(Finishing);
        assert_eq!(rest(idle).await, "", "an idle connection is closed at once");
        rig.go.add_permits(1);
        let answer = rest(busy).await.to_lowercase();
        assert!(answer.contains("connection: close") && answer.ends_with("listener 7"), "{answer}");
        rig.worker.join().await.unwrap();
        assert_eq!(rig.limit.open(), 0);
    }

    #[tokio::test]
    async fn aborting_drops_what_is_left() {
        let rig = Rig::new(8);
        let busy = rig.send(POST).await;
        rig.arrived.notified().await;
        rig.stop.advance(Aborting);
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
        assert_eq!(rig.limit.open(), 1);
        rig.go.add_permits(1);
        drop(first);
        rig.go.add_permits(1);
        rig.arrived.notified().await;
        rig.go.add_permits(1);
        rig.stop.advance(Finishing);
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
            rig.go.add_permits(1);
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
        let (address, more) = listen(9);
        rig.worker.command(WorkerCommand::Add(more)).await.unwrap();
        rig.worker.command(WorkerCommand::Remove(7)).await.unwrap();
        let old = std::mem::replace(&mut rig.address, address);
        let client = rig.send(POST).await;
        rig.arrived.notified().await;
        rig.go.add_permits(1);
        rig.stop.advance(Finishing);
        assert!(rest(client).await.ends_with("listener 9"));
        TcpStream::connect(old).await.unwrap_err();
    }

    #[tokio::test]
    async fn connections_of_a_removed_listener_finish() {
        let rig = Rig::new(8);
        let busy = rig.send(POST).await;
        rig.arrived.notified().await;
        let waiting = rig.send(POST).await;
        rig.worker.command(WorkerCommand::Remove(7)).await.unwrap();
        rig.arrived.notified().await;
        while TcpStream::connect(rig.address).await.is_ok() {}
        rig.go.add_permits(2);
        for connection in [busy, waiting] {
            let answer = rest(connection).await.to_lowercase();
            assert!(answer.contains("200 ok") && answer.contains("connection: close"), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_unix_socket_tells_who_its_clients_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.sock");
        let socket = UnixSocket::at(path.clone());
        let mut bound = bind(&Listen::Unix(socket), NonZeroUsize::MIN).unwrap();
        let listener = WorkerListener {
            id: 1,
            listener: bound.sockets.remove(0).remove(0),
            tls: TlsCell::default(),
        };
        let make = || {
            service_fn(async |inbound: Inbound| {
                let text = inbound.connection.peer.to_string();
                Ok::<_, Infallible>(Response::new(Body::full(text)))
            })
        };
        let stop = StopSignal::new();
        let limits = ConnectionSettings::default();
        let worker = spawn(
            0,
            vec![listener],
            limits,
            ConnectionLimit::new(2),
            make,
            on_head_error(),
            stop.clone(),
        )
        .unwrap();
        let mut client = tokio::net::UnixStream::connect(&path).await.unwrap();
        client.write_all(GET).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert!(answer.contains(&format!("uid {uid}, gid ")), "{answer}");
        stop.advance(Finishing);
        worker.join().await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_in_a_worker_is_told() {
        let make = || {
            assert!(std::hint::black_box(false), "on purpose");
            service_fn(async |_: Inbound| Ok::<_, Infallible>(Response::new(Body::empty())))
        };
        let stop = StopSignal::new();
        let worker = spawn(
            0,
            vec![],
            ConnectionSettings::default(),
            ConnectionLimit::new(1),
            make,
            on_head_error(),
            stop,
        );
        assert_eq!(worker.unwrap().join().await, Err(WorkerGone));
    }
}
