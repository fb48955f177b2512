//! The accept loop of a worker: connections in, up to the limit, until it is time to leave.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tower::Service;

use super::client_stream::ClientStream;
use super::connection::{CloseReason, ConnectionInfo, Inbound, RefusedHeads, serve};
use super::connection_limit::ConnectionLimit;
use super::drain::{AdmissionQueue, Drain, DrainHandle, ShutdownPhase, StopSignal};
use super::handshake::handshake;
use super::io::SharedIo;
use super::settings::ConnectionSettings;
use super::worker::{OnHeadError, WorkerCommand, WorkerListener};
use crate::body::Body;
use crate::listen::TlsCell;
use crate::listen::peer::{Peer, UnixPeer};
use crate::listen::sockets::Listener;
use crate::telemetry::throttle::Throttle;

/// The wait after an accept that failed for want of something (files, memory), so that whatever is
/// short can come back and the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener on this worker's runtime.
struct Source {
    id: usize,
    acceptor: Acceptor,
    tls: TlsCell,
    drain: Rc<Drain>,
}

enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection that was accepted.
enum Client {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Source {
    fn new(
        WorkerListener { id, listener, tls }: WorkerListener,
        crowd: &Rc<AdmissionQueue>,
    ) -> io::Result<Self> {
        let acceptor = match listener {
            Listener::Tcp(listener) => Acceptor::Tcp(TcpListener::from_std(listener)?),
            Listener::Unix(listener) => Acceptor::Unix(UnixListener::from_std(listener)?),
        };
        Ok(Self { id, acceptor, tls, drain: Drain::new(Rc::clone(crowd)) })
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Client>> {
        match &self.acceptor {
            Acceptor::Tcp(listener) => {
                listener.poll_accept(cx).map_ok(|(stream, peer)| Client::Tcp(stream, peer))
            }
            Acceptor::Unix(listener) => {
                listener.poll_accept(cx).map_ok(|(stream, _)| Client::Unix(stream))
            }
        }
    }

    /// The next connection of the kernel's queue, whether or not the runtime has heard of it yet.
    fn take_queued(&self) -> io::Result<Client> {
        let (socket, peer) = match &self.acceptor {
            Acceptor::Tcp(listener) => SockRef::from(listener).accept()?,
            Acceptor::Unix(listener) => SockRef::from(listener).accept()?,
        };
        socket.set_nonblocking(true)?;
        match peer.as_socket() {
            Some(peer) => Ok(Client::Tcp(TcpStream::from_std(socket.into())?, peer)),
            None => Ok(Client::Unix(UnixStream::from_std(socket.into())?)),
        }
    }
}

/// The accept loop of one worker, over all its listeners.
pub(super) struct Accept<S> {
    sources: Vec<Source>,
    /// Connections of listeners that are gone.
    leaving: Vec<Rc<Drain>>,
    crowd: Rc<AdmissionQueue>,
    /// The listener to look at first: the next one after each connection, so that none starves.
    turn: usize,
    setup: Rc<Setup>,
    slots: ConnectionLimit,
    service: S,
    failures: Throttle,
}

/// What connections are served with.
struct Setup {
    limits: ConnectionSettings,
    refused: Rc<RefusedHeads>,
}

impl Setup {
    async fn serve<S>(
        &self,
        io: SharedIo,
        info: Rc<ConnectionInfo>,
        service: S,
        member: DrainHandle,
    ) where
        S: Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone + 'static,
        S::Future: 'static,
    {
        let known = Rc::clone(&info);
        let ended = serve(io, info, service, &self.limits, &self.refused, member).await;
        log_end(ended, &known.peer);
    }
}

fn log_end(ended: CloseReason, peer: &Peer) {
    match ended {
        CloseReason::Closed | CloseReason::BadHead(..) => {}
        CloseReason::TimedOut(phase) => {
            tracing::debug!(%peer, ?phase, "client connection timed out")
        }
        CloseReason::ClientLeft => {
            tracing::debug!(%peer, "client disconnected before the response")
        }
        CloseReason::Flooded => tracing::warn!(%peer, "client cancelled too many HTTP/2 streams"),
        CloseReason::Failed(error) => tracing::debug!(%peer, %error, "client connection failed"),
    }
}
impl<S> Accept<S>
where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    S::Future: 'static,
{
    pub(super) fn new(
        listeners: Vec<WorkerListener>,
        limits: ConnectionSettings,
        slots: ConnectionLimit,
        service: S,
        on_head_error: OnHeadError,
    ) -> Self {
        let mut accept = Self {
            sources: Vec::new(),
            leaving: Vec::new(),
            crowd: Rc::default(),
            turn: 0,
            setup: Rc::new(Setup { limits, refused: RefusedHeads::new(on_head_error) }),
            slots,
            service,
            failures: Throttle::default(),
        };
        listeners.into_iter().for_each(|listener| accept.add(listener));
        accept
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<WorkerCommand>,
        stop: StopSignal,
    ) {
        let (mut commanded, mut retiring) = (true, false);
        while !stop.is_finishing() {
            tokio::select! {
                biased;
                () = stop.finishing() => break,
                () = stop.retiring(), if !retiring => {
                    retiring = true;
                    self.tell(ShutdownPhase::Retiring);
                }
                command = commands.recv(), if commanded => match command {
                    Some(WorkerCommand::Add(listener)) => self.add(listener),
                    Some(WorkerCommand::Limits(limits)) => {
                        let refused = Rc::clone(&self.setup.refused);
                        self.setup = Rc::new(Setup { limits, refused });
                    }
                    Some(WorkerCommand::Remove(id)) => self.remove(id),
                    None => commanded = false,
                },
                accepted = self.next() => self.welcome(accepted).await,
            }
        }
        self.leave(&stop).await;
    }

    fn add(&mut self, listener: WorkerListener) {
        match Source::new(listener, &self.crowd) {
            Ok(source) => self.sources.push(source),
            Err(error) => tracing::error!(%error, "a listener could not be taken over"),
        }
    }

    fn tell(&self, stage: ShutdownPhase) {
        self.sources.iter().for_each(|source| source.drain.tell(stage));
    }

    /// Closes a listener: what waits in its queue is accepted first, since closing would reset it,
    /// and all its connections finish.
    fn remove(&mut self, id: usize) {
        self.leaving.retain(|drain| drain.open() > 0);
        let (gone, kept) = self.sources.drain(..).partition(|source| source.id == id);
        self.sources = kept;
        for source in gone {
            source.drain.tell(ShutdownPhase::Finishing);
            self.empty_queue(&source);
            self.leaving.push(source.drain);
        }
    }

    fn empty_queue(&self, source: &Source) {
        loop {
            match source.take_queued() {
                Ok(client) => self.start(source, client),
                Err(error) if is_the_clients(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::error!(%error, "connections that waited at a listener are lost");
                    return;
                }
            }
        }
    }

    /// The last step: closes the listeners and waits for all connections, until told to drop them.
    async fn leave(mut self, stop: &StopSignal) {
        let ids: Vec<_> = self.sources.iter().map(|source| source.id).collect();
        ids.into_iter().for_each(|id| self.remove(id));
        let empty = async {
            for drain in &self.leaving {
                drain.empty().await;
            }
        };
        tokio::select! {
            () = empty => {}
            () = stop.aborted() => tracing::warn!(
                connections = self.leaving.iter().map(|drain| drain.open()).sum::<usize>(),
                "connections are dropped: they did not finish in time"
            ),
        }
    }

    /// The next connection, once nobody waits for a place: the others stay in the kernel's queue.
    async fn next(&mut self) -> (usize, io::Result<Client>) {
        self.crowd.over().await;
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<(usize, io::Result<Client>)> {
        for step in 0..self.sources.len() {
            let at = (self.turn + step) % self.sources.len();
            if let Poll::Ready(result) = self.sources[at].poll_accept(cx) {
                self.turn = at + 1;
                return Poll::Ready((at, result));
            }
        }
        Poll::Pending
    }

    async fn welcome(&mut self, (at, result): (usize, io::Result<Client>)) {
        match result {
            Ok(client) => self.start(&self.sources[at], client),
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                if let Some(suppressed) = self.failures.allow() {
                    tracing::error!(%error, suppressed, "accepting a connection failed; trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    /// Starts serving a connection.
    fn start(&self, source: &Source, client: Client) {
        match client {
            Client::Tcp(stream, peer) => {
                #[cfg(not(target_os = "linux"))]
                let _ = stream.set_nodelay(true); // not inherited from the listener there
                self.connect(source, stream, Peer::tcp(peer));
            }
            Client::Unix(stream) => match stream.peer_cred() {
                Ok(found) => {
                    let (uid, gid, pid) = (found.uid(), found.gid(), found.pid());
                    self.connect(source, stream, Peer::unix(UnixPeer { uid, gid, pid }));
                }
                Err(error) => {
                    tracing::debug!(%error, "peer credentials unavailable; connection dropped")
                }
            },
        }
    }

    fn connect<I: ClientStream>(&self, source: &Source, stream: I, peer: Peer) {
        let (held, member) = (source.drain.hold(), source.drain.join());
        let (listener, tls) = (source.id, source.tls.acceptor());
        let (place, slots) = (self.slots.try_take(), self.slots.clone());
        let (setup, service) = (Rc::clone(&self.setup), self.service.clone());
        let waiting = place.is_none().then(|| self.crowd.join());
        if waiting.is_some() {
            let all = self.sources.iter().map(|source| &source.drain).chain(&self.leaving);
            all.for_each(|drain| drain.wake());
        }
        let place = async move {
            let place = match place {
                Some(place) => place,
                None => slots.take().await,
            };
            drop(waiting);
            place
        };
        let client = move |peer| Rc::new(ConnectionInfo { listener, peer, _held: Some(held) });
        match tls {
            None => spawn_local(async move {
                let place = place.await;
                let io = SharedIo::new(stream, Some(place));
                setup.serve(io, client(peer), service, member).await;
            }),
            Some(acceptor) => spawn_local(async move {
                let place = place.await;
                let limit = setup.limits.head_timeout;
                match handshake(acceptor, stream, limit, &member).await {
                    Ok((stream, certificate)) => {
                        let info = client(Peer { certificate, ..peer });
                        let io = SharedIo::new(stream, Some(place));
                        setup.serve(io, info, service, member).await;
                    }
                    Err(error) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                }
            }),
        };
    }
}

/// The connection was gone before it was accepted: nothing is wrong with the listener.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::num::NonZeroUsize;
    use std::sync::Arc;

    use tokio::task::LocalSet;
    use tower::service_fn;

    use super::*;
    use crate::body::Body;
    use crate::listen::settings::{Listen, UnixSocket};
    use crate::listen::sockets::{BoundAddress, bind};

    trait Client: Read + Write {}
    impl<C: Read + Write> Client for C {}

    /// A client that connects, and sends, while the runtime looks elsewhere.
    fn connect(address: &BoundAddress) -> Box<dyn Client + Send> {
        match address {
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
            let service = service_fn(async |_: Inbound| Ok(Response::new(Body::full("served"))));
            let closed = async {
                let (limits, slots) = (ConnectionSettings::default(), ConnectionLimit::new(8));
                let mut accept =
                    Accept::new(vec![listener], limits, slots, service, Arc::new(drop));
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
