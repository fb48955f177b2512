//! HTTP/2 connections to one upstream, each shared by as many requests as its server allows.
//!
//! A connection that is being made is waited for by all who need one. What a server promises not to
//! have processed (RFC 9113 section 8.7) is told apart from what it may have done.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::error::{Forwarded, SendError, SendErrorKind};
use super::exchange::{SendFailure, UpstreamResponse};
use super::io::{UpstreamIo, WriteError};
use super::settings::Settings;
use crate::body::{Body, BodyError, Observed, Observer, is_last};
use crate::net::connect::{ConnectError, MaybeTlsStream};

/// Requests that share one connection at most, whatever its server allows.
const MAX_STREAMS: usize = 64;
/// Bytes of one answer that are taken before the app has room for them.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Room for the windows of all streams: answers that nobody takes never hold up the others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS as u32;
/// Bytes of one request body that wait for the server's window.
const SEND_BUFFER: usize = 64 * 1024;

/// The HTTP/2 connections of one worker to one upstream.
#[derive(Default)]
pub(super) struct Http2Connections {
    open: RefCell<Vec<Http2Connection>>,
    /// Whether the last connection that was made spoke HTTP/2, so that the next one will.
    expected: Cell<bool>,
    connecting: RefCell<Option<watch::Receiver<Option<ConnectError>>>>,
}

/// One connection; clones share it.
#[derive(Clone)]
pub(super) struct Http2Connection {
    sender: http2::SendRequest<Body>,
    /// `None` once it has ended: hyper's sender is closed only when its connection is dropped.
    driven: Rc<RefCell<Option<Driven>>>,
    load: Rc<Load>,
    retire_at: Instant,
}

/// What a task of its own drives.
type Driven = http2::Connection<TokioIo<UpstreamIo>, Body, LocalExecutor>;

/// How much a connection carries.
struct Load {
    streams: Cell<usize>,
    /// The last sign of life.
    heard: Cell<Instant>,
}

/// The promise to make a connection, or to tell those who wait why there is none.
pub(super) struct ConnectLeader<'a> {
    connections: &'a Http2Connections,
    outcome: watch::Sender<Option<ConnectError>>,
}

impl ConnectLeader<'_> {
    /// There is none, for this reason.
    pub fn failed(&self, error: &ConnectError) {
        self.outcome.send_replace(Some(error.clone()));
    }
}

impl Drop for ConnectLeader<'_> {
    fn drop(&mut self) {
        self.connections.connecting.borrow_mut().take();
    }
}

/// Who makes the next connection.
pub(super) enum ConnectSlot<'a> {
    /// The caller.
    Leader(ConnectLeader<'a>),
    /// Somebody made one meanwhile, or gave up.
    Done,
    /// Somebody tried in vain.
    Failed(ConnectError),
}

impl Http2Connections {
    /// The newest connection with room for one more request that was heard of within `max_idle`.
    pub fn with_room(&self, now: Instant, max_idle: Duration) -> Option<Http2Connection> {
        let mut open = self.open.borrow_mut();
        open.retain(Http2Connection::is_open);
        let fit = |one: &&Http2Connection| {
            one.retire_at > now && one.has_room() && one.load.quiet(now) <= max_idle
        };
        open.iter().rev().find(fit).cloned()
    }

    /// Lets go of the connection that has been without a request for longest, if there is one.
    pub fn close_one_idle(&self) -> bool {
        let mut open = self.open.borrow_mut();
        let idle = open.iter().position(|one| one.load.streams.get() == 0);
        idle.map(|index| open.remove(index)).is_some()
    }

    /// Waits for the connection that somebody is making; if nobody is, it is the caller's turn.
    /// Where connections may turn out HTTP/1 there are no turns.
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
        // An error means that whoever made it is done.
        while others.changed().await.is_ok() {}
        let failure = others.borrow().clone();
        Some(failure.map_or(ConnectSlot::Done, ConnectSlot::Failed))
    }

    /// Notes that connections speak HTTP/1.
    pub fn unexpected(&self) {
        self.expected.set(false);
    }

    /// Begins HTTP/2 on a connection and shares it. `permit` is held while its socket is open.
    ///
    /// # Errors
    /// Where the server does not speak HTTP/2.
    pub async fn start(
        &self,
        stream: MaybeTlsStream,
        settings: &Settings,
        retire_at: Instant,
        permit: OwnedSemaphorePermit,
    ) -> Result<Http2Connection, SendError> {
        let header_list = u32::try_from(settings.max_response_header_bytes).unwrap_or(u32::MAX);
        let started = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .max_header_list_size(header_list)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            // How long a server may be silent while it owes an answer, and then to answer a ping.
            .keep_alive_interval(settings.ping)
            .keep_alive_timeout(settings.ping)
            .handshake(TokioIo::new(UpstreamIo::new(stream, WriteError::Told, permit).0))
            .await;
        let (sender, connection) =
            started.map_err(|error| SendError::unsent(SendErrorKind::Exchange(error)))?;
        let load = Load { streams: Cell::new(0), heard: Cell::new(Instant::now()) };
        let driven = Rc::new(RefCell::new(Some(connection)));
        let driving = Rc::clone(&driven);
        tokio::task::spawn_local(async move {
            poll_fn(|cx| match &mut *driving.borrow_mut() {
                Some(connection) => Pin::new(connection).poll(cx).map(drop),
                None => Poll::Ready(()),
            })
            .await;
            // GOAWAY or the end: dropping it closes the sender, so that no request goes there.
            driving.take();
        });
        let connection = Http2Connection { sender, driven, load: Rc::new(load), retire_at };
        self.expected.set(true);
        self.open.borrow_mut().push(connection.clone());
        Ok(connection)
    }

    /// Lets go of those that were idle for too long, have grown too old or are closed; requests on
    /// them go on.
    pub fn prune(&self, now: Instant, keep: Duration) {
        self.open.borrow_mut().retain(|one| {
            let used = one.load.streams.get() > 0 || one.load.quiet(now) < keep;
            one.is_open() && one.retire_at > now && used
        });
    }

    /// Lets go of all.
    pub fn clear(&self) {
        self.open.borrow_mut().clear();
    }
}

impl Http2Connection {
    fn is_open(&self) -> bool {
        !self.sender.is_closed() && self.driven.borrow().is_some()
    }

    fn has_room(&self) -> bool {
        let driven = self.driven.borrow();
        let allowed = driven.as_ref().map_or(0, http2::Connection::current_max_send_streams);
        self.load.streams.get() < allowed.min(MAX_STREAMS)
    }

    /// Sends a request and waits for the head of its answer; `reused` says whether the connection had
    /// carried others.
    pub async fn send(
        mut self,
        request: Request<Body>,
        authority: &Authority,
        settings: &Settings,
        reused: bool,
    ) -> Result<UpstreamResponse, SendFailure> {
        let sent = Rc::new(Cell::new(request.body().is_end_stream()));
        let request = absolute(request, authority, settings.origin.is_https(), &sent);
        // Held by the answer's body, or until there is none.
        let lease = Lease::new(&self.load);
        match self.sender.try_send_request(request).await {
            Ok(response) => {
                self.load.heard.set(Instant::now());
                let error = |kind| SendError { kind, forwarded: Forwarded::Unknown, reused };
                match unusable(&response, settings.max_response_headers) {
                    Some(kind) => Err(SendFailure::Failed(error(kind))),
                    None => Ok(UpstreamResponse {
                        response: answered(response, lease, &sent),
                        body_unread: false,
                    }),
                }
            }
            Err(mut failed) => {
                let returned = failed.take_message();
                let error = error(failed.into_error(), returned.is_some(), reused);
                Err(match returned {
                    Some(request) => SendFailure::Returned(Box::new(request), error),
                    None => SendFailure::Failed(error),
                })
            }
        }
    }
}

/// RFC 9113 section 8.3.1: scheme and authority are fields of their own, and Host is not sent. Nor is
/// Expect: hyper does not tell what comes before an answer, and the server has its windows to say how
/// much of a body it wants.
fn absolute(
    mut request: Request<Body>,
    authority: &Authority,
    is_https: bool,
    sent: &Rc<Cell<bool>>,
) -> Request<Body> {
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(HOST);
    request.headers_mut().remove(EXPECT);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if is_https { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority.clone());
    // A path and the other two make a URI, whatever the path.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    if request.body().is_end_stream() {
        return request;
    }
    let sent = Rc::clone(sent);
    request.map(|body| Body::boxed(Observed::new(body, RequestSide(sent))))
}

/// Notes when all of a request has been handed over.
struct RequestSide(Rc<Cell<bool>>);

impl Observer for RequestSide {
    fn saw(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, BodyError>>>, body: &Body) {
        self.0.set(self.0.get() || is_last(frame, body));
    }
}

/// Why an answer is not passed on: nobody asked for another protocol, it has too many fields, or its
/// length can be read in two ways.
fn unusable<B>(response: &Response<B>, max_headers: usize) -> Option<SendErrorKind> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Some(SendErrorKind::UnaskedUpgrade);
    }
    let headers = response.headers();
    if headers.len() > max_headers {
        return Some(SendErrorKind::TooManyHeaders);
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let sound = match (lengths.next(), lengths.next()) {
        (None, _) => true,
        (Some(length), None) => {
            length.as_bytes().iter().all(u8::is_ascii_digit)
                && length.to_str().is_ok_and(|text| text.parse::<u64>().is_ok())
        }
        _ => false,
    };
    let sound = sound && !headers.contains_key(TRANSFER_ENCODING);
    (!sound).then_some(SendErrorKind::AmbiguousLength)
}

/// Lets an answer hold its place on the connection until its body has ended.
fn answered(response: Response<Incoming>, lease: Lease, sent: &Rc<Cell<bool>>) -> Response<Body> {
    let length = response.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let refuses = response.status().is_client_error() || response.status().is_server_error();
    response.map(|incoming| match incoming.is_end_stream() {
        true => Body::empty(),
        false => {
            let sent = Rc::clone(sent);
            let body = ResponseBody { incoming, left: length, refuses, sent };
            Body::boxed(Observed::new(Body::boxed(body), lease))
        }
    })
}

/// The body of an answer. hyper takes RST_STREAM with NO_ERROR for its end, whatever came before.
struct ResponseBody {
    incoming: Incoming,
    /// Bytes that are still to come, where the head said so.
    left: Option<u64>,
    /// Whether it refuses the request.
    refuses: bool,
    /// Whether all of the request has been handed over.
    sent: Rc<Cell<bool>>,
}

impl ResponseBody {
    /// Whether the answer is whole although no END_STREAM came. A server may reset the stream with
    /// NO_ERROR after a whole answer, to say that it does not want the rest of the request (RFC 9113
    /// section 8.1). That is believed of a length that has been reached, and of a refusal of a request
    /// that goes on; else the answer is cut.
    fn is_whole(&self) -> bool {
        self.incoming.is_end_stream()
            || self.left == Some(0)
            || (self.left.is_none() && self.refuses && !self.sent.get())
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                let came = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.left = self.left.map(|left| left.saturating_sub(came));
            }
            Poll::Ready(None) if !self.is_whole() => {
                let why = "the stream was reset before its end";
                return Poll::Ready(Some(Err(BodyError::new(why))));
            }
            _ => {}
        }
        frame.map_err(BodyError::new)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.incoming.size_hint()
    }
}

impl Load {
    /// Time since the last sign of life.
    fn quiet(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard.get())
    }
}

/// One request's place on a connection.
struct Lease(Rc<Load>);

impl Lease {
    fn new(load: &Rc<Load>) -> Self {
        load.streams.set(load.streams.get() + 1);
        Self(Rc::clone(load))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

/// An answer's body has the request's place until it ends.
impl Observer for Lease {
    fn saw(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, BodyError>>>, _: &Body) {
        if matches!(frame, Poll::Ready(Some(Ok(_)) | None)) {
            self.0.heard.set(Instant::now());
        }
    }
}

fn error(error: hyper::Error, returned: bool, reused: bool) -> SendError {
    let kind = if is_refused(&error) {
        SendErrorKind::Refused
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        SendErrorKind::Closed
    } else {
        SendErrorKind::Exchange(error)
    };
    let untouched = returned || matches!(kind, SendErrorKind::Refused);
    let forwarded = if untouched { Forwarded::No } else { Forwarded::Unknown };
    SendError { kind, forwarded, reused }
}

/// Whether the server promised not to have processed the request: it refused the stream, or named in
/// GOAWAY a stream below it as the last that it looked at.
fn is_refused(error: &hyper::Error) -> bool {
    let mut cause = error.source();
    while let Some(current) = cause {
        if let Some(error) = current.downcast_ref::<h2::Error>() {
            let refused = error.reason() == Some(Reason::REFUSED_STREAM);
            return error.is_remote() && (error.is_go_away() || (error.is_reset() && refused));
        }
        cause = current.source();
    }
    false
}

/// Runs hyper's HTTP/2 tasks in this worker.
#[derive(Clone, Copy)]
pub(super) struct LocalExecutor;

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
