//! HTTP/2 connections to one upstream, each shared by as many requests as its server allows.
//!
//! All requests that need a connection wait for the one that is being made. Requests that the server
//! promises not to have processed (RFC 9113 section 8.7) are told apart from those that it may have.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::Reason;
use http::header::{EXPECT, HOST};
use http::uri::{Authority, Scheme};
use http::{Request, Uri, Version};
use http_body::Body as _;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::error::{Forwarded, SendError, SendErrorKind};
use super::exchange::{SendFailure, UpstreamResponse};
use super::io::{IoHandle, OnWriteError, SocketGuard, UpstreamIo};
use super::response_check::check_http2;
use super::settings::Settings;
use crate::body::{Body, BodyError, BodyFilter, Filtered, PollFrame};
use crate::net::connect::{ConnectError, MaybeTlsStream};
use crate::task::spawn_local;

/// Requests that share one connection at most, even if its server allows more.
const MAX_STREAMS: usize = 64;
/// Bytes of one response that are received before the app takes any.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The windows of all streams together, so that a response that is not read never delays another.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS as u32;
/// Bytes of one request body that wait for the server's window.
const SEND_BUFFER: usize = 64 * 1024;

/// The HTTP/2 connections of one worker to one upstream.
#[derive(Default)]
pub(super) struct Http2Connections {
    open: RefCell<Vec<Http2Connection>>,
    /// True if the last connection that was made spoke HTTP/2, so that the next one will.
    expected: Cell<bool>,
    connecting: RefCell<Option<watch::Receiver<Option<ConnectError>>>>,
    /// Notified when a request on any of them has ended, which makes room for another.
    pub released: Rc<Notify>,
}

/// One connection; clones share it.
#[derive(Clone)]
pub(super) struct Http2Connection {
    sender: http2::SendRequest<Body>,
    state: Rc<ConnectionState>,
}

struct ConnectionState {
    /// `None` once it has ended: hyper closes its sender only when its connection is dropped.
    driven: RefCell<Option<Driven>>,
    io: IoHandle,
    /// Requests whose responses have not ended.
    streams: Cell<usize>,
    /// The time of the last frame from the server.
    last_frame: Cell<Instant>,
    /// No request is sent on it from then on.
    retire_at: Instant,
    released: Rc<Notify>,
}

/// hyper's side of a connection, driven by a task of its own.
type Driven = http2::Connection<TokioIo<UpstreamIo>, Body, LocalExecutor>;

/// The single flight of a connection attempt: its holder connects, and all others wait until it is
/// dropped.
pub(super) struct ConnectLeader<'a> {
    connections: &'a Http2Connections,
    outcome: watch::Sender<Option<ConnectError>>,
}

impl ConnectLeader<'_> {
    /// Gives the error to all that wait.
    pub fn failed(&self, error: &ConnectError) {
        self.outcome.send_replace(Some(error.clone()));
    }
}

impl Drop for ConnectLeader<'_> {
    fn drop(&mut self) {
        // Runs before `outcome` is dropped, which wakes those that wait: they find the way free.
        self.connections.connecting.borrow_mut().take();
    }
}

/// A turn in making connections.
pub(super) enum ConnectSlot<'a> {
    /// The caller connects.
    Leader(ConnectLeader<'a>),
    /// Another request has connected meanwhile, or was dropped.
    Done,
    /// Another request could not connect.
    Failed(ConnectError),
}

impl Http2Connections {
    /// No connection yet.
    pub fn new(released: Rc<Notify>) -> Self {
        Self { released, ..Self::default() }
    }

    /// The newest connection with room for one more request and a frame within `max_idle`.
    pub fn with_room(&self, now: Instant, max_idle: Duration) -> Option<Http2Connection> {
        let mut open = self.open.borrow_mut();
        // A connection that has received GOAWAY is closed for new requests, but not for those on it.
        open.retain(Http2Connection::is_open);
        let fits = |connection: &&Http2Connection| {
            let state = &connection.state;
            state.retire_at > now && state.has_room() && state.silence(now) <= max_idle
        };
        open.iter().rev().find(fits).cloned()
    }

    /// Closes the oldest connection that carries no request, and returns false if there is none.
    pub fn close_one_idle(&self) -> bool {
        let mut open = self.open.borrow_mut();
        let idle = open.iter().position(|connection| connection.state.streams.get() == 0);
        idle.map(|index| open.remove(index)).is_some()
    }

    /// Waits for the connection that another request is making, or makes the caller the leader.
    /// Returns `None` at once while connections turn out to speak HTTP/1, which is not shared.
    pub async fn connect_slot(&self) -> Option<ConnectSlot<'_>> {
        if !self.expected.get() {
            return None;
        }
        let others = self.connecting.borrow().clone();
        let Some(mut others) = others else {
            let (outcome, waiting) = watch::channel(None);
            *self.connecting.borrow_mut() = Some(waiting);
            return Some(ConnectSlot::Leader(ConnectLeader { connections: self, outcome }));
        };
        // An error means that the leader is gone, with or without an outcome.
        while others.changed().await.is_ok() {}
        let failure = others.borrow().clone();
        Some(failure.map_or(ConnectSlot::Done, ConnectSlot::Failed))
    }

    /// Notes that the server speaks HTTP/1.
    pub fn unexpected(&self) {
        self.expected.set(false);
    }

    /// Starts HTTP/2 on a connection and shares it. `guard` is held while its socket is open.
    ///
    /// # Errors
    /// The server does not speak HTTP/2.
    pub async fn start(
        &self,
        stream: MaybeTlsStream,
        settings: &Settings,
        retire_at: Instant,
        guard: SocketGuard,
    ) -> Result<Http2Connection, SendError> {
        let (socket, io) = UpstreamIo::new(stream, OnWriteError::Report, guard);
        let header_list = u32::try_from(settings.max_response_header_bytes).unwrap_or(u32::MAX);
        let (sender, driven) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .max_header_list_size(header_list)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            // A ping after this silence while a response is due, and as long for its acknowledgement.
            .keep_alive_interval(settings.ping)
            .keep_alive_timeout(settings.ping)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|error| SendError::unsent(SendErrorKind::Exchange(error)))?;
        let state = Rc::new(ConnectionState {
            driven: RefCell::new(Some(driven)),
            streams: Cell::new(0),
            last_frame: Cell::new(Instant::now()),
            retire_at,
            io,
            released: Rc::clone(&self.released),
        });
        let driving = Rc::clone(&state);
        spawn_local(async move {
            // The borrow lasts for one poll: `has_room` looks at the connection between polls, and hyper
            // calls nothing of ours that does during one.
            poll_fn(|cx| match &mut *driving.driven.borrow_mut() {
                Some(connection) => Pin::new(connection).poll(cx).map(drop),
                None => Poll::Ready(()),
            })
            .await;
            // After GOAWAY or the end, dropping it closes the sender, so that no request goes there.
            driving.driven.take();
        });
        let connection = Http2Connection { sender, state };
        // Before the leader is dropped: those that it wakes find the connection.
        self.expected.set(true);
        self.open.borrow_mut().push(connection.clone());
        Ok(connection)
    }

    /// Forgets connections that were silent for `keep`, have grown too old or are closed. Requests on
    /// them go on.
    pub fn prune(&self, now: Instant, keep: Duration) {
        self.open.borrow_mut().retain(|connection| {
            let state = &connection.state;
            let in_use = state.streams.get() > 0 || state.silence(now) < keep;
            connection.is_open() && state.retire_at > now && in_use
        });
    }

    /// True if no connection is open.
    pub fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }

    /// The number of connections that carry no request.
    pub fn idle(&self) -> usize {
        let open = self.open.borrow();
        open.iter().filter(|it| it.is_open() && it.state.streams.get() == 0).count()
    }

    /// Forgets all connections. Requests on them go on.
    pub fn clear(&self) {
        self.open.borrow_mut().clear();
    }
}

impl ConnectionState {
    fn has_room(&self) -> bool {
        let driven = self.driven.borrow();
        let allowed = driven.as_ref().map_or(0, http2::Connection::current_max_send_streams);
        self.streams.get() < allowed.min(MAX_STREAMS)
    }

    /// The time since the last frame from the server.
    fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_frame.get())
    }
}

impl Http2Connection {
    /// The address that it leads to.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.state.io.peer()
    }

    fn is_open(&self) -> bool {
        !self.sender.is_closed() && self.state.driven.borrow().is_some()
    }

    /// Sends a request and waits for the head of its response; `reused` says that the connection had
    /// carried requests before.
    pub async fn send(
        mut self,
        request: Request<Body>,
        authority: &Authority,
        settings: &Settings,
        reused: bool,
    ) -> Result<UpstreamResponse, SendFailure> {
        let request_ended = Rc::new(Cell::new(request.body().is_end_stream()));
        let request = absolute(request, authority, settings.origin.is_https(), &request_ended);
        // Counted before the first wait, so that concurrent requests do not exceed the limit.
        let stream = OpenStream::new(&self.state);
        let response = self.sender.try_send_request(request).await.map_err(|mut failed| {
            let unsent = failed.take_message();
            let error = failure(failed.into_error(), unsent.is_some(), reused);
            let error = match self.state.io.alert() {
                Some(alert) => SendError {
                    kind: SendErrorKind::TlsAlert(alert.description),
                    forwarded: match alert.refused_handshake {
                        true => Forwarded::No,
                        false => error.forwarded,
                    },
                    ..error
                },
                None => error,
            };
            SendFailure::new(unsent, error)
        })?;
        self.state.last_frame.set(Instant::now());
        check_http2(&response, settings.max_response_headers).map_err(|kind| {
            SendFailure::Failed(SendError { kind, forwarded: Forwarded::Unknown, reused })
        })?;
        let is_error = response.status().is_client_error() || response.status().is_server_error();
        let response = response.map(|incoming| match incoming.is_end_stream() {
            true => Body::empty(),
            false => {
                let filter = ResponseEnd { is_error, request_ended, stream };
                Body::boxed(Filtered::new(Body::incoming(incoming), filter))
            }
        });
        Ok(UpstreamResponse { response, body_unread: false })
    }
}

/// Makes a request absolute (RFC 9113 section 8.3.1): scheme and authority become fields of their own,
/// and Host goes. So does Expect, because hyper hides interim responses here, and a server says with its
/// window how much of a body it wants.
fn absolute(
    mut request: Request<Body>,
    authority: &Authority,
    is_https: bool,
    request_ended: &Rc<Cell<bool>>,
) -> Request<Body> {
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(HOST);
    request.headers_mut().remove(EXPECT);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if is_https { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority.clone());
    // With a scheme and an authority every path makes a URI.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    if request_ended.get() {
        return request;
    }
    let ended = Rc::clone(request_ended);
    request.map(|body| body.on_end(move || ended.set(true)))
}

/// Fails a response body that a reset has cut, and holds its stream.
struct ResponseEnd {
    /// True for a response with a status of 400 or above.
    is_error: bool,
    /// True when hyper has taken all of the request body.
    request_ended: Rc<Cell<bool>>,
    stream: OpenStream,
}

impl ResponseEnd {
    /// Decides whether a body that hyper says has ended is complete. A server may reset a stream with
    /// NO_ERROR after a complete response, to say that it does not want the rest of the request (RFC 9113
    /// section 8.1), and hyper takes that for the end of any response. It is believed if the announced
    /// length was reached, and of an error that came while the request was still being sent.
    fn is_complete(&self, body: &Body) -> bool {
        let left = body.size_hint().exact();
        body.is_end_stream()
            || left == Some(0)
            || (left.is_none() && self.is_error && !self.request_ended.get())
    }
}

impl BodyFilter for ResponseEnd {
    fn poll_frame(&mut self, body: &mut Body, cx: &mut Context<'_>) -> PollFrame {
        let frame = Pin::new(&mut *body).poll_frame(cx);
        match &frame {
            Poll::Ready(None) if !self.is_complete(body) => {
                let why = "the stream was reset before its end";
                return Poll::Ready(Some(Err(BodyError::new(why))));
            }
            // An error is no sign of life: it may be our own time-out.
            Poll::Ready(Some(Ok(_)) | None) => self.stream.0.last_frame.set(Instant::now()),
            _ => {}
        }
        frame
    }
}

/// Counts a request on its connection until its response has ended.
struct OpenStream(Rc<ConnectionState>);

impl OpenStream {
    fn new(state: &Rc<ConnectionState>) -> Self {
        state.streams.set(state.streams.get() + 1);
        Self(Rc::clone(state))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        // After the count, so that the request that is woken finds the room.
        self.0.released.notify_one();
    }
}

/// Classifies a failure; `unsent` says that hyper gave the request back.
fn failure(error: hyper::Error, unsent: bool, reused: bool) -> SendError {
    let kind = if is_refused(&error) {
        SendErrorKind::Refused
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        SendErrorKind::Closed
    } else {
        SendErrorKind::Exchange(error)
    };
    // hyper gives back only what it has not handed to h2.
    let untouched = unsent || matches!(kind, SendErrorKind::Refused);
    let forwarded = if untouched { Forwarded::No } else { Forwarded::Unknown };
    SendError { kind, forwarded, reused }
}

/// Returns true if the server promised not to have processed the request: it refused the stream, or its
/// GOAWAY names an earlier stream as the last one that it processed.
fn is_refused(error: &hyper::Error) -> bool {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let mut errors = causes.filter_map(|cause| cause.downcast_ref::<h2::Error>());
    errors.next().is_some_and(|error| {
        let refused = error.reason() == Some(Reason::REFUSED_STREAM);
        error.is_remote() && (error.is_go_away() || (error.is_reset() && refused))
    })
}

/// Runs hyper's HTTP/2 tasks on this worker's thread.
#[derive(Clone, Copy)]
pub(super) struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        spawn_local(async move { drop(task.await) });
    }
}

#[cfg(test)]
mod tests;
