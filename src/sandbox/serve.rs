//! The accept loop that all fakes share: plain HTTP/1.1 on loopback, one task per connection.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::either::Either;

/// The type of stream that the admin listener has too: hyper's connection is compiled once for both.
#[cfg(unix)]
type Stream = Either<TcpStream, tokio::net::UnixStream>;
#[cfg(not(unix))]
type Stream = Either<TcpStream, TcpStream>;

/// Pause of the accept loop after an error of accept(2).
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// A whole answer, or an error to close the connection without one.
pub(super) type Answer = io::Result<Response<Full<Bytes>>>;

/// Closes the connection, as a script demands.
pub(super) fn hang_up() -> Answer {
    Err(io::ErrorKind::ConnectionAborted.into())
}

/// The behaviour of a fake.
pub(super) trait Service: Send + Sync + 'static {
    /// Bytes of a request's body that are read; a longer one closes the connection.
    const MAX_BODY_BYTES: usize;

    /// True if new connections are closed at once.
    fn is_down(&self) -> bool;

    /// Answers one request; `connection` counts the connections of this fake from 0.
    fn call(
        self: Arc<Self>,
        connection: usize,
        head: Parts,
        body: Bytes,
    ) -> impl Future<Output = Answer> + Send;
}

/// A [`Service`] behind a pointer: hyper's server is compiled once for all fakes.
trait DynService: Send + Sync {
    fn is_down(&self) -> bool;

    fn answer(
        self: Arc<Self>,
        connection: usize,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send>>;
}

impl<S: Service> DynService for S {
    fn is_down(&self) -> bool {
        Service::is_down(self)
    }

    fn answer(
        self: Arc<Self>,
        connection: usize,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        Box::pin(answer(self, connection, request))
    }
}

/// A fake that listens; dropping it closes the socket and every connection.
#[derive(Debug)]
pub(super) struct FakeServer {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl FakeServer {
    /// Binds 127.0.0.1 at `port` (0: any free one) and serves from now on.
    pub(super) async fn start(port: u16, service: Arc<impl Service>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let addr = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, service));
        Ok(Self { addr, task })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns once the socket and all connections are closed.
    pub(super) async fn shutdown(&mut self) {
        self.task.abort();
        let _cancelled = (&mut self.task).await;
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Owns the connections' tasks, so that they end with it.
async fn accept(listener: TcpListener, service: Arc<dyn DynService>) {
    let mut connections = JoinSet::new();
    let mut count = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(_) if service.is_down() => {}
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, count, Arc::clone(&service)));
                    count += 1;
                }
                // Too many open files: other connections need a moment to end and make room.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(stream: TcpStream, connection: usize, service: Arc<dyn DynService>) {
    // A fake that cannot switch Nagle's algorithm off is slower, not wrong.
    let _slower = stream.set_nodelay(true);
    let answer = service_fn(|request| Arc::clone(&service).answer(connection, request));
    // A peer that leaves early is what half of the tests are about.
    let _ended: Result<(), hyper::Error> =
        http1::Builder::new().serve_connection(TokioIo::new(Stream::Left(stream)), answer).await;
}

async fn answer<S: Service>(
    service: Arc<S>,
    connection: usize,
    request: Request<Incoming>,
) -> Answer {
    // A connection of before stays open until its next request.
    if service.is_down() {
        return hang_up();
    }
    let (head, body) = request.into_parts();
    let body = Limited::new(body, S::MAX_BODY_BYTES).collect().await.map_err(io::Error::other)?;
    service.call(connection, head, body.to_bytes()).await
}

/// A whole JSON answer.
pub(super) fn json(status: u16, value: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(value.to_string()));
    *answer.status_mut() = status_code(status);
    let json = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, json);
    answer
}

/// A whole answer of another media type.
pub(super) fn plain(status: u16, kind: &'static str, body: &'static str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status_code(status);
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    answer
}

/// A script's status; one that HTTP does not know becomes 500.
pub(super) fn status_code(status: u16) -> http::StatusCode {
    http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR)
}
