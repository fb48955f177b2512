//! The accept loop of a worker: it accepts connections up to the limit, until shutdown.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::client_stream::ClientStream;
use super::command::{WorkerCommand, WorkerListener};
use super::connection::serve;
use super::connection_limit::ConnectionLimit;
use super::drain::{Drain, empty_tracker};
use super::handshake::handshake;
use super::head_error::{OnHeadError, RefusedHeads};
use super::inbound::{ConnectionInfo, RequestService};
use super::io::SharedIo;
use super::phase::CloseReason;
use super::settings::ConnectionSettings;
use super::shutdown::{ShutdownPhase, StopSignal};
use crate::listen::Listener;
use crate::listen::TlsCell;
use crate::listen::descriptors::{self, RESERVED_DESCRIPTORS};
use crate::listen::peer::Peer;
use crate::net::unix::{UnixListener, UnixStream};
use crate::shortage::lacks_descriptor;
use crate::task::spawn_local;
use crate::telemetry::throttle::Throttle;
use crate::x509::diagnosis;

/// The wait after an accept that failed for lack of a resource (files, memory), so that the resource can
/// come back and the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener on this worker's runtime.
struct OpenListener {
    id: usize,
    acceptor: Acceptor,
    tls: TlsCell,
    drain: Rc<Drain>,
}

enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An accepted socket.
enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl OpenListener {
    fn new(
        WorkerListener { id, listener, tls }: WorkerListener,
        admission: &TaskTracker,
    ) -> io::Result<Self> {
        let acceptor = match listener {
            Listener::Tcp(listener) => Acceptor::Tcp(TcpListener::from_std(listener)?),
            Listener::Unix(listener) => Acceptor::Unix(UnixListener::from_std(listener)?),
        };
        Ok(Self { id, acceptor, tls, drain: Drain::new(admission.clone()) })
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match &self.acceptor {
            Acceptor::Tcp(listener) => {
                listener.poll_accept(cx).map_ok(|(stream, peer)| Accepted::Tcp(stream, peer))
            }
            Acceptor::Unix(listener) => {
                listener.poll_accept(cx).map_ok(|(stream, _)| Accepted::Unix(stream))
            }
        }
    }

    /// Accepts from the kernel's queue directly, because the runtime may not know yet of a connection
    /// that waits there.
    fn accept_now(&self) -> io::Result<Accepted> {
        let (socket, peer) = match &self.acceptor {
            Acceptor::Tcp(listener) => SockRef::from(listener).accept()?,
            Acceptor::Unix(listener) => SockRef::from(listener).accept()?,
        };
        socket.set_nonblocking(true)?;
        match peer.as_socket() {
            Some(peer) => Ok(Accepted::Tcp(TcpStream::from_std(socket.into())?, peer)),
            None => Ok(Accepted::Unix(UnixStream::from_std(socket.into())?)),
        }
    }
}

/// The accept loop of one worker, over all its listeners.
pub(super) struct Accept<S> {
    listeners: Vec<OpenListener>,
    /// The connections of listeners that were closed.
    closed: Vec<Rc<Drain>>,
    /// Accepted connections that wait for a permit.
    admission: TaskTracker,
    /// The listener to poll first: the one after that of the last connection, so that none starves.
    turn: usize,
    settings: Rc<ConnectionSettings>,
    refused: Rc<RefusedHeads>,
    limit: ConnectionLimit,
    service: S,
    failures: Throttle,
    /// Set after an accept that found no descriptor.
    is_short: bool,
}

impl<S: RequestService> Accept<S> {
    pub(super) fn new(
        listeners: Vec<WorkerListener>,
        settings: ConnectionSettings,
        limit: ConnectionLimit,
        service: S,
        on_head_error: OnHeadError,
    ) -> Self {
        let mut accept = Self {
            listeners: Vec::new(),
            closed: Vec::new(),
            admission: empty_tracker(),
            turn: 0,
            settings: Rc::new(settings),
            refused: RefusedHeads::new(on_head_error),
            limit,
            service,
            failures: Throttle::default(),
            is_short: false,
        };
        listeners.into_iter().for_each(|listener| accept.add(listener));
        accept
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<WorkerCommand>,
        stop: StopSignal,
    ) {
        let mut retiring = false;
        loop {
            // In this order: shutdown comes before new connections, however many wait.
            tokio::select! {
                biased;
                () = stop.reached(ShutdownPhase::Finishing) => break,
                () = stop.reached(ShutdownPhase::Retiring), if !retiring => {
                    retiring = true;
                    self.listeners.iter().for_each(|open| open.drain.advance(ShutdownPhase::Retiring));
                }
                // `None`, which disables this branch, means that no more commands come.
                Some(command) = commands.recv() => match command {
                    WorkerCommand::Add(listener) => self.add(listener),
                    WorkerCommand::Remove(id) => self.remove(id),
                    WorkerCommand::Limits(settings) => self.settings = Rc::new(settings),
                },
                (at, accepted) = self.accept() => self.welcome(at, accepted).await,
            }
        }
        self.finish(&stop).await;
    }

    fn add(&mut self, listener: WorkerListener) {
        match OpenListener::new(listener, &self.admission) {
            Ok(listener) => self.listeners.push(listener),
            Err(error) => tracing::error!(%error, "a listener could not be taken over"),
        }
    }

    /// Closes the listeners with an id, and makes all their connections finish.
    fn remove(&mut self, id: usize) {
        self.closed.retain(|drain| drain.open() > 0);
        for listener in
            self.listeners.extract_if(.., |listener| listener.id == id).collect::<Vec<_>>()
        {
            listener.drain.advance(ShutdownPhase::Finishing);
            // The kernel resets what waits in the queue of a listener that closes.
            self.empty_queue(&listener);
            self.closed.push(listener.drain);
        }
    }

    fn empty_queue(&self, listener: &OpenListener) {
        loop {
            match listener.accept_now() {
                Ok(accepted) => self.start(listener, accepted),
                Err(error) if is_peer_error(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::error!(%error, "connections that waited at a listener are lost");
                    return;
                }
            }
        }
    }

    /// Closes the listeners and waits for all connections, until they are to be dropped.
    async fn finish(mut self, stop: &StopSignal) {
        // All listeners close before the first wait, so that no connection comes in any more.
        let ids: Vec<_> = self.listeners.iter().map(|listener| listener.id).collect();
        ids.into_iter().for_each(|id| self.remove(id));
        let drained = async {
            for drain in &self.closed {
                drain.drained().await;
            }
        };
        tokio::select! {
            () = drained => {}
            () = stop.reached(ShutdownPhase::Aborting) => tracing::warn!(
                connections = self.closed.iter().map(|drain| drain.open()).sum::<usize>(),
                "connections are dropped before they finished: drain_timeout is over, or a second signal came"
            ),
        }
    }

    /// Accepts a connection of any listener, given by its index. While an accepted connection waits for a
    /// permit, further ones stay in the kernel's queue.
    async fn accept(&mut self) -> (usize, io::Result<Accepted>) {
        self.admission.wait().await;
        // Descriptors that come free are held back for operators first: this loop would take each of them.
        while self.is_short && !RESERVED_DESCRIPTORS.refill() {
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        std::future::poll_fn(|cx| {
            // All are polled until one is ready, so that each has registered the task's waker.
            for step in 0..self.listeners.len() {
                let at = (self.turn + step) % self.listeners.len();
                if let Poll::Ready(accepted) = self.listeners[at].poll_accept(cx) {
                    self.turn = at + 1;
                    return Poll::Ready((at, accepted));
                }
            }
            Poll::Pending
        })
        .await
    }

    async fn welcome(&mut self, at: usize, accepted: io::Result<Accepted>) {
        match accepted {
            Ok(accepted) => {
                self.is_short = false;
                self.start(&self.listeners[at], accepted);
            }
            Err(error) if is_peer_error(&error) => {}
            Err(error) => {
                self.is_short = lacks_descriptor(&error);
                if let Some(suppressed) = self.failures.allow() {
                    log_failure(&error, suppressed);
                }
                // The connection stays in the kernel's queue, and would be ready again at once.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    fn start(&self, listener: &OpenListener, accepted: Accepted) {
        match accepted {
            Accepted::Tcp(stream, peer) => {
                #[cfg(not(target_os = "linux"))]
                let _ = stream.set_nodelay(true); // not inherited from the listener there
                self.spawn(listener, stream, Peer::tcp(peer));
            }
            #[cfg(windows)]
            Accepted::Unix(stream) => drop(stream), // none is accepted there
            #[cfg(unix)]
            Accepted::Unix(stream) => match stream.peer_cred() {
                Ok(found) => {
                    let (uid, gid, pid) = (found.uid(), found.gid(), found.pid());
                    self.spawn(
                        listener,
                        stream,
                        Peer::unix(crate::listen::UnixPeer { uid, gid, pid }),
                    );
                }
                Err(error) => {
                    tracing::debug!(%error, "peer credentials unavailable; connection dropped")
                }
            },
        }
    }

    /// Serves a connection in a task of its own.
    fn spawn<I: ClientStream>(&self, open: &OpenListener, stream: I, mut peer: Peer) {
        let (listener, acceptor) = (open.id, open.tls.acceptor());
        let (token, handle) = (open.drain.open_token(), open.drain.join());
        let (settings, refused) = (Rc::clone(&self.settings), Rc::clone(&self.refused));
        let (service, limit) = (self.service.clone(), self.limit.clone());
        // Here, and not in the task, so that the next accept knows at once that the limit is reached.
        let permit = limit.try_acquire();
        let queued = permit.is_none().then(|| self.admission.token());
        if queued.is_some() {
            // Idle connections close sooner now, which they notice only when they are polled.
            let open = self.listeners.iter().map(|listener| &listener.drain);
            open.chain(&self.closed).for_each(|drain| drain.wake());
        }
        spawn_local(async move {
            let permit = match permit {
                Some(permit) => permit,
                None => limit.acquire().await,
            };
            // Lets the worker accept again.
            drop(queued);
            let io = match acceptor {
                None => SharedIo::new(stream, Some(permit)),
                // Boxed, so that a connection needs no room for a handshake that is over.
                Some(acceptor) => {
                    match Box::pin(handshake(acceptor, stream, settings.head_timeout, &handle))
                        .await
                    {
                        Ok((stream, certificate)) => {
                            peer.certificate = certificate;
                            SharedIo::new(stream, Some(permit))
                        }
                        Err(error) => {
                            let error = diagnosis::io_words(&error);
                            tracing::debug!(%peer, %error, "a TLS handshake failed");
                            return;
                        }
                    }
                }
            };
            let info = Rc::new(ConnectionInfo { listener, peer, _open: Some(token) });
            let connection = Rc::clone(&info);
            let reason = serve(io, info, service, &settings, &refused, handle).await;
            log_close(reason, &connection.peer);
        });
    }
}

fn log_failure(error: &io::Error, suppressed: u64) {
    if lacks_descriptor(error) {
        tracing::error!(
            %error,
            limit = descriptors::limit(),
            suppressed,
            "accepting a connection failed: too many open files; trying again"
        );
    } else {
        tracing::error!(%error, suppressed, "accepting a connection failed; trying again");
    }
}

fn log_close(reason: CloseReason, peer: &Peer) {
    match reason {
        CloseReason::Closed => {}
        CloseReason::BadHead(..) => {} // logged with its head
        CloseReason::TimedOut(phase) => {
            tracing::debug!(%peer, phase = phase.as_str(), "client connection timed out")
        }
        CloseReason::ClientLeft => {
            tracing::debug!(%peer, "client disconnected before the response")
        }
        CloseReason::Flooded => tracing::warn!(%peer, "client cancelled too many HTTP/2 streams"),
        CloseReason::Failed(error) => tracing::debug!(%peer, %error, "client connection failed"),
    }
}

/// True if the connection was gone before it was accepted, which is no fault of the listener.
fn is_peer_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::{Read, Write};
    use std::num::NonZeroUsize;
    use std::sync::Arc;

    use http::Response;
    use tokio::task::LocalSet;
    use tower::service_fn;

    use super::*;
    use crate::body::Body;
    use crate::listen::settings::{Listen, UnixSocket};
    use crate::listen::{BoundAddress, bind};
    use crate::server::Inbound;

    trait Client: Read + Write {}
    impl<C: Read + Write> Client for C {}

    /// A client that connects, and sends, while the runtime looks elsewhere.
    fn connect(address: &BoundAddress) -> Box<dyn Client + Send> {
        match address {
            BoundAddress::Systemd(name) => panic!("{name} is not bound here"),
            BoundAddress::Tcp(address) => Box::new(std::net::TcpStream::connect(address).unwrap()),
            BoundAddress::Unix(path) => {
                Box::new(std::os::unix::net::UnixStream::connect(path).unwrap())
            }
        }
    }

    #[tokio::test]
    async fn a_listener_that_closes_serves_whom_the_runtime_has_not_heard_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.sock");
        let unix = UnixSocket::at(path);
        for listen in [Listen::Tcp("127.0.0.1:0".parse().unwrap()), Listen::Unix(unix)] {
            let mut bound = bind(&listen, NonZeroUsize::MIN).unwrap();
            let listener = WorkerListener {
                id: 1,
                listener: bound.sockets.remove(0).remove(0),
                tls: TlsCell::default(),
            };
            let service = service_fn(async |_: Inbound| {
                Ok::<_, Infallible>(Response::new(Body::full("served")))
            });
            let closed = async {
                let (limits, limit) = (ConnectionSettings::default(), ConnectionLimit::new(8));
                let mut accept =
                    Accept::new(vec![listener], limits, limit, service, Arc::new(drop));
                let mut client = connect(&bound.addresses[0]);
                client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
                accept.remove(1);
                let read = tokio::task::spawn_blocking(move || {
                    let mut answer = String::new();
                    client.read_to_string(&mut answer).map(|_| answer)
                });
                read.await.unwrap().unwrap()
            };
            let answer = LocalSet::new().run_until(closed).await;
            assert!(answer.ends_with("served"), "{listen}: {answer}");
        }
    }
}
