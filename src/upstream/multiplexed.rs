//! HTTP/2 connections to one upstream, each shared by as many requests as its server allows.
//!
//! A connection that is being made is waited for by all who need one. What a server promises not to
//! have processed (RFC 9113 section 8.7) is told apart from what it may have done.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body as _, Frame};
use hyper::client::conn::{TrySendError, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::body::{Body, BodyError, Observed, Observer};
use crate::message;
use crate::net::connect::{ConnectError, Stream};

/// Requests that share one connection at most, whatever its server allows.
const MAX_STREAMS: usize = 64;
/// Bytes of one answer that are taken before the app has room for them.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Room for the windows of all streams: answers that nobody takes never hold up the others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS as u32;
/// Bytes of one request body that wait for the server's window.
const SEND_BUFFER: usize = 64 * 1024;

/// The connections of one worker to one upstream.
#[derive(Default)]
pub(super) struct Connections {
    open: RefCell<Vec<Connection>>,
    /// Whether the last connection that was made spoke HTTP/2, so that the next one will.
    expected: Cell<bool>,
    connecting: RefCell<Option<watch::Receiver<Option<ConnectError>>>>,
}

/// One connection.
#[derive(Clone)]
pub(super) struct Connection {
    sender: http2::SendRequest<Body>,
    driven: Rc<RefCell<Driven>>,
    load: Arc<Load>,
    retire_at: Instant,
}

/// What a task of its own drives.
type Driven = http2::Connection<TokioIo<Stream>, Body, LocalExecutor>;

/// How much a connection carries.
struct Load {
    streams: AtomicUsize,
    made: Instant,
    /// Milliseconds from `made` to the last sign of life.
    heard_ms: AtomicU64,
}

/// The promise to make a connection, or to tell those who wait why there is none.
pub(super) struct Leading<'a> {
    connections: &'a Connections,
    tell: watch::Sender<Option<ConnectError>>,
}

impl Leading<'_> {
    /// There is none, for this reason.
    pub(super) fn failed(&self, error: &ConnectError) {
        self.tell.send_replace(Some(error.clone()));
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.connections.connecting.borrow_mut().take();
    }
}

/// Who makes the next connection.
pub(super) enum Turn<'a> {
    /// The caller.
    Ours(Leading<'a>),
    /// Somebody made one meanwhile, or gave up.
    Over,
    /// Somebody tried in vain.
    Failed(ConnectError),
}

impl Connections {
    /// The newest connection with room for one more request that was heard of within `max_idle`.
    pub(super) fn with_room(&self, now: Instant, max_idle: Duration) -> Option<Connection> {
        let mut open = self.open.borrow_mut();
        open.retain(Connection::is_open);
        let fit = |one: &&Connection| {
            one.retire_at > now && one.has_room() && one.load.quiet(now) <= max_idle
        };
        open.iter().rev().find(fit).cloned()
    }

    /// Waits for the connection that somebody is making; if nobody is, it is the caller's turn.
    /// Where connections may turn out HTTP/1 there are no turns.
    pub(super) async fn turn(&self) -> Option<Turn<'_>> {
        if !self.expected.get() {
            return None;
        }
        let others = self.connecting.borrow().clone();
        let Some(mut others) = others else {
            let (tell, told) = watch::channel(None);
            *self.connecting.borrow_mut() = Some(told);
            return Some(Turn::Ours(Leading { connections: self, tell }));
        };
        // An error means that whoever made it is done.
        while others.changed().await.is_ok() {}
        let failure = others.borrow().clone();
        Some(failure.map_or(Turn::Over, Turn::Failed))
    }

    /// Notes that connections speak HTTP/1.
    pub(super) fn unexpected(&self) {
        self.expected.set(false);
    }

    /// Begins HTTP/2 on a connection and shares it; `ping` is how long a server may be silent while
    /// it owes an answer, and then how long for saying that it is there.
    pub(super) async fn start(
        &self,
        stream: Stream,
        ping: Duration,
        max_header_bytes: u32,
        retire_at: Instant,
    ) -> Result<Connection, hyper::Error> {
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .max_header_list_size(max_header_bytes)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(ping)
            .keep_alive_timeout(ping)
            .handshake(TokioIo::new(stream))
            .await?;
        let load = Arc::new(Load {
            streams: AtomicUsize::new(0),
            made: Instant::now(),
            heard_ms: AtomicU64::new(0),
        });
        let driven = Rc::new(RefCell::new(connection));
        let driving = Rc::clone(&driven);
        tokio::task::spawn_local(async move {
            let _ended = poll_fn(|cx| Pin::new(&mut *driving.borrow_mut()).poll(cx)).await;
        });
        let connection = Connection { sender, driven, load, retire_at };
        self.expected.set(true);
        self.open.borrow_mut().push(connection.clone());
        Ok(connection)
    }

    /// Lets go of those that were idle for too long, have grown too old or are closed; requests on
    /// them go on.
    pub(super) fn prune(&self, now: Instant, keep: Duration) {
        self.open.borrow_mut().retain(|one| {
            let used = one.load.streams.load(Relaxed) > 0 || one.load.quiet(now) < keep;
            one.is_open() && one.retire_at > now && used
        });
    }

    /// Lets go of all.
    pub(super) fn clear(&self) {
        self.open.borrow_mut().clear();
    }
}

impl Connection {
    fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    fn has_room(&self) -> bool {
        let allowed = self.driven.borrow().current_max_send_streams();
        self.load.streams.load(Relaxed) < allowed.min(MAX_STREAMS)
    }

    /// Sends a request in absolute form and waits for the head of its answer.
    pub(super) async fn send(
        &mut self,
        request: message::Request,
    ) -> Result<message::Response, TrySendError<Request<Body>>> {
        let lease = Lease::new(&self.load);
        let response = self.sender.try_send_request(request.into()).await?;
        self.load.heard();
        let leased = |body| Body::boxed(Observed::new(body, lease));
        let response = response.map(|body| match Body::http2(body) {
            body if body.is_end_stream() => body,
            body => leased(body),
        });
        Ok(response.into())
    }
}

impl Load {
    fn heard(&self) {
        let elapsed = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(elapsed, Relaxed);
    }

    /// Time since the last sign of life.
    fn quiet(&self, now: Instant) -> Duration {
        let heard = self.made + Duration::from_millis(self.heard_ms.load(Relaxed));
        now.saturating_duration_since(heard)
    }
}

/// One request's place on a connection.
struct Lease(Arc<Load>);

impl Lease {
    fn new(load: &Arc<Load>) -> Self {
        load.streams.fetch_add(1, Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}

/// An answer's body has the request's place until it ends.
impl Observer for Lease {
    fn saw(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, BodyError>>>, _: &Body) {
        if matches!(frame, Poll::Ready(Some(Ok(_)) | None)) {
            self.0.heard();
        }
    }
}

/// Whether the server promised not to have processed the request: it refused the stream, or named in
/// GOAWAY a stream below it as the last that it looked at.
pub(super) fn is_refused(error: &hyper::Error) -> bool {
    let mut cause = error.source();
    while let Some(current) = cause {
        if let Some(error) = current.downcast_ref::<h2::Error>() {
            let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (error.is_go_away() || (error.is_reset() && refused));
        }
        cause = current.source();
    }
    false
}

/// Runs hyper's HTTP/2 tasks in this worker.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move { drop(task.await) });
    }
}

#[cfg(test)]
mod tests;
