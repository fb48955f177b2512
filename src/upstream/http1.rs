//! HTTP/1 connections to one upstream: hyper speaks on each in a task of its own, and an exchange owns
//! its connection until both bodies have ended.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::error::{Forwarded, SendError, SendErrorKind};
use super::exchange::{SendFailure, UpstreamResponse};
use super::expect_continue::Interim;
use super::io::{IoHandle, OnWriteError, SocketGuard, UpstreamIo};
use super::response_check::check_http1;
use super::settings::Settings;
use crate::body::{Body, BodyFilter, Filtered, PollFrame, is_last};
use crate::net::connect::MaybeTlsStream;
use crate::task::spawn_local;

/// Bytes that hyper may read ahead of a response body, and keep of a request that the upstream does not
/// read, beside the limit on heads. hyper's default is 408 KiB.
const MAX_BUFFER: usize = 64 * 1024;

/// How long a request body may make no progress once its response has ended.
const STALLED_REQUEST: Duration = Duration::from_secs(60);

/// The idle HTTP/1 connections of one worker to one upstream.
#[derive(Default)]
pub(super) struct Http1Connections {
    /// In the order in which they became idle.
    idle: RefCell<Vec<Http1Connection>>,
    max_idle: usize,
    /// Notified when a connection has become idle.
    pub released: Rc<Notify>,
}

/// A connection between two exchanges.
pub(super) struct Http1Connection {
    sender: SendRequest<Body>,
    io: IoHandle,
    task: AbortHandle,
    /// True if it has carried a request.
    used: bool,
    /// No request is sent on it from then on.
    retire_at: Instant,
    idle_since: Instant,
}

impl Http1Connections {
    /// No connection yet, and at most `max_idle` that are kept.
    pub fn new(max_idle: usize, released: Rc<Notify>) -> Self {
        Self { max_idle, released, ..Self::default() }
    }

    /// Takes the newest idle connection that can carry a request, so that the others age out.
    pub fn checkout(&self, now: Instant, max_idle: Duration) -> Option<Http1Connection> {
        let mut idle = self.idle.borrow_mut();
        for at in (0..idle.len()).rev() {
            let candidate = idle.get(at)?;
            if now.saturating_duration_since(candidate.idle_since) > max_idle {
                return None; // those before it have been idle for longer
            }
            let usable = candidate.retire_at > now && !candidate.sender.is_closed();
            // hyper may have something left to do after the last exchange; such a connection stays.
            if usable && !candidate.sender.is_ready() {
                continue;
            }
            let candidate = idle.remove(at);
            if usable {
                return Some(candidate);
            }
        }
        None
    }

    /// Takes back a connection after its exchange, unless it is too old.
    pub fn checkin(&self, connection: Http1Connection) {
        if connection.retire_at <= connection.idle_since || self.max_idle == 0 {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.max_idle {
            idle.remove(0); // idle for longest
        }
        idle.push(connection);
        drop(idle);
        self.released.notify_one();
    }

    /// Closes connections that were idle for `keep` or have grown too old.
    pub fn prune(&self, now: Instant, keep: Duration) {
        self.idle.borrow_mut().retain(|idle| {
            idle.retire_at > now
                && now.saturating_duration_since(idle.idle_since) < keep
                && !idle.sender.is_closed()
        });
    }

    /// Closes the connection that has been idle for longest, and returns false if there is none.
    pub fn close_one_idle(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        !idle.is_empty() && {
            idle.remove(0);
            true
        }
    }

    /// Closes all idle connections.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    /// The number of idle connections.
    pub fn idle(&self) -> usize {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| !idle.sender.is_closed());
        idle.len()
    }
}

impl Http1Connection {
    /// Starts HTTP/1.1 on a connection on which nothing was sent yet. `guard` is held while its socket
    /// is open.
    ///
    /// # Errors
    /// hyper's, which has none so far.
    pub async fn start(
        stream: MaybeTlsStream,
        settings: &Settings,
        retire_at: Instant,
        guard: SocketGuard,
    ) -> Result<Self, SendError> {
        let (socket, io) = UpstreamIo::new(stream, OnWriteError::StayPending, guard);
        let mut builder = Builder::new();
        builder
            .preserve_header_case(settings.preserve_header_case)
            .max_headers(settings.max_response_headers)
            .max_header_size(settings.max_response_header_bytes)
            .max_buf_size(settings.max_response_header_bytes.max(MAX_BUFFER))
            // Some old servers write these; the message that is passed on is written without them.
            .allow_spaces_after_header_name_in_responses(true)
            .allow_obsolete_multiline_headers_in_responses(true);
        let (sender, connection) = builder
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|error| SendError::unsent(SendErrorKind::Exchange(error)))?;
        let (upgrades, handle) = (settings.upgrades, io.clone());
        let task = spawn_local(async move {
            match upgrades {
                true => drive(pin!(connection.with_upgrades()), &handle).await,
                false => drive(pin!(connection), &handle).await,
            }
        });
        let task = task.abort_handle();
        Ok(Self { sender, io, task, used: false, retire_at, idle_since: Instant::now() })
    }

    /// The address that it leads to.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.io.peer()
    }

    /// Sends a request in origin form and waits for the head of its response. Dropping the future closes
    /// the connection; otherwise `pool` gets it back when both bodies have ended.
    ///
    /// Work that needs no waiting is done before the future is made, which keeps the future small.
    pub fn send(
        mut self,
        mut request: Request<Body>,
        pool: &Rc<Http1Connections>,
    ) -> impl Future<Output = Result<UpstreamResponse, SendFailure>> + use<> {
        frame(&mut request);
        let interim = Interim::listen(&mut request);
        let requested_upgrade = request.headers().get(UPGRADE).cloned();
        let reused = std::mem::replace(&mut self.used, true);
        // Not on a new connection: TLS may bring bytes of its own there, such as session tickets.
        if reused {
            self.io.expect_first_byte();
            self.io.on_write_error(OnWriteError::StayPending);
        }
        let (written, read) = (self.io.written(), self.io.read());
        let exchange = Rc::new(Exchange {
            pool: Rc::clone(pool),
            io: self.io.clone(),
            task: self.task.clone(),
            connection: RefCell::new(None),
            request_ended: Cell::new(request.body().is_end_stream()),
            response_ended: Cell::new(false),
        });
        if !request.body().is_end_stream() {
            let sending = Rc::clone(&exchange);
            let body = std::mem::take(request.body_mut());
            *request.body_mut() = body.on_end(move || sending.request_ended.set(true));
        }
        let sending = self.sender.try_send_request(request);
        let unanswered = AbortOnDrop(Some(self.task.clone()));
        async move {
            let mut unanswered = unanswered;
            let mut sending = pin!(sending);
            // hyper is polled before the count is read, and the count decides even if the final response
            // is there: otherwise the way the upstream's bytes are cut into reads would decide.
            let sent = poll_fn(|cx| {
                let sent = sending.as_mut().poll(cx).map(Some);
                match interim.poll_too_many(cx) {
                    Poll::Ready(()) => Poll::Ready(None),
                    Poll::Pending => sent,
                }
            })
            .await;
            let error = |kind| {
                let untouched = exchange.io.written() == written;
                let forwarded = if untouched { Forwarded::No } else { Forwarded::Unknown };
                SendError { kind, forwarded, reused }
            };
            let mut response = match sent {
                Some(Ok(response)) => response,
                Some(Err(mut failed)) => {
                    let unsent = failed.take_message();
                    let silent = exchange.io.read() == read;
                    let failed = failed.into_error();
                    let found = match exchange.io.alert() {
                        Some(alert) => {
                            let found = error(SendErrorKind::TlsAlert(alert.description));
                            match alert.refused_handshake {
                                true => SendError { forwarded: Forwarded::No, ..found },
                                false => found,
                            }
                        }
                        None if exchange.io.answered_in_tls() => {
                            error(SendErrorKind::AnsweredInTls)
                        }
                        None => error(kind(failed, silent)),
                    };
                    return Err(SendFailure::new(unsent, found));
                }
                None => return Err(SendFailure::Failed(error(SendErrorKind::TooManyInterim))),
            };
            check_http1(&mut response, requested_upgrade.as_ref())
                .map_err(|kind| SendFailure::Failed(error(kind)))?;
            unanswered.0 = None;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                exchange.io.on_write_error(OnWriteError::Report);
            }
            // After a response in HTTP/1.0 hyper speaks 1.0 on the connection, and would not send chunks.
            if response.version() == Version::HTTP_11 {
                exchange.connection.replace(Some(self));
            }
            Ok(respond(response, exchange, &interim))
        }
    }
}

/// Runs hyper until the connection ends. An error is not returned: hyper also gives it to the request.
async fn drive<C: Future>(mut connection: Pin<&mut C>, io: &IoHandle) {
    poll_fn(|cx| {
        // Before hyper is polled, since polling it would write the request. Dropping the connection makes
        // hyper hand back a request that it has not taken yet.
        if io.is_stale() {
            return Poll::Ready(());
        }
        connection.as_mut().poll(cx).map(drop)
    })
    .await;
}

/// Lets the body of a response own the exchange.
fn respond(
    response: Response<Incoming>,
    exchange: Rc<Exchange>,
    interim: &Interim,
) -> UpstreamResponse {
    let mut response = response.map(Body::incoming);
    let body = response.body_mut();
    exchange.response_ended.set(body.is_end_stream());
    if !body.is_end_stream() {
        let incoming = std::mem::take(body);
        *body = Body::boxed(Filtered::new(incoming, ResponseEnd(exchange)));
    } else if !exchange.request_ended.get() {
        close_if_stalled(&exchange);
    }
    let body_unread = interim.responded(response.body_mut());
    UpstreamResponse { response, body_unread }
}

/// Sets the fields that frame a request body. hyper decides by the head: it sends a body of unknown
/// length as none with HTTP/1.0, and with GET unless the coding is named.
fn frame(request: &mut Request<Body>) {
    *request.version_mut() = Version::HTTP_11;
    let (is_empty, length) = (request.body().is_end_stream(), request.body().size_hint().exact());
    let expects_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    let headers = request.headers_mut();
    if headers.contains_key(TE) {
        // RFC 9110 section 10.1.4: TE is a field of this connection.
        headers.append(CONNECTION, HeaderValue::from_static("te"));
    }
    match length {
        // RFC 9110 section 8.6: a method that gives a body a meaning says that there is none.
        _ if is_empty && expects_body => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        _ if is_empty => {}
        Some(length) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        None => {
            headers.remove(CONTENT_LENGTH);
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

/// Classifies a failure; `silent` says that no byte of a response was read.
fn kind(error: hyper::Error, silent: bool) -> SendErrorKind {
    let ended = error.is_incomplete_message() || error.is_canceled() || error.is_closed();
    let cut = !error.is_parse() && !error.is_user();
    if silent && (ended || cut) { SendErrorKind::Closed } else { SendErrorKind::Exchange(error) }
}

/// A request and its response on a connection. Both bodies hold it, and the last one to go gives the
/// connection back.
struct Exchange {
    pool: Rc<Http1Connections>,
    io: IoHandle,
    /// Drives the connection.
    task: AbortHandle,
    /// `None` until the head of the response has come, and if the connection cannot be reused.
    connection: RefCell<Option<Http1Connection>>,
    request_ended: Cell<bool>,
    response_ended: Cell<bool>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // hyper has taken all of the request, and waits for a write that will never be ready.
        if self.io.write_failed() {
            return self.task.abort();
        }
        // A body that was dropped before its end leaves bytes on the connection: such a connection is
        // dropped here, which closes it.
        if let Some(mut connection) = self.connection.take()
            && self.request_ended.get()
            && self.response_ended.get()
        {
            connection.idle_since = Instant::now();
            self.pool.checkin(connection);
        }
    }
}

/// Ends hyper's task when a request gets no valid answer, or nobody waits for it any more. To drop hyper's
/// sender is not enough: a task whose write has failed unseen ([`OnWriteError::StayPending`]) is never woken
/// again, and would keep the socket and its permit.
struct AbortOnDrop(Option<AbortHandle>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Notes the end of a response body.
struct ResponseEnd(Rc<Exchange>);

impl BodyFilter for ResponseEnd {
    fn poll_frame(&mut self, body: &mut Body, cx: &mut Context<'_>) -> PollFrame {
        let frame = Pin::new(&mut *body).poll_frame(cx);
        if is_last(&frame, body) {
            self.0.response_ended.set(true);
        }
        frame
    }
}

impl Drop for ResponseEnd {
    fn drop(&mut self) {
        // At the end of the response and not before: only then is a request that makes no progress of
        // no use to anyone.
        match (self.0.response_ended.get(), self.0.request_ended.get()) {
            (true, false) => close_if_stalled(&self.0),
            // Nobody reads the rest. The request's body, which hyper's task holds, holds this exchange: it
            // would never end by itself if that task waits for a write that has failed unseen.
            (false, _) => self.0.task.abort(),
            (true, true) => {}
        }
    }
}

/// Closes a connection whose upstream has responded and reads no more of the request: hyper would wait
/// without a limit. An app that sends no more is found by the time-out of its body.
fn close_if_stalled(exchange: &Rc<Exchange>) {
    // The response has been read, so a write that fails from now on may end hyper's task.
    if exchange.io.on_write_error(OnWriteError::Report) {
        return exchange.task.abort();
    }
    // Weak, so that the exchange ends with its bodies, and not with this task.
    let exchange = Rc::downgrade(exchange);
    spawn_local(async move {
        let mut written = None;
        loop {
            let Some(found) = exchange.upgrade() else { return };
            let progress = Some(found.io.written());
            if progress == written {
                found.task.abort();
                return;
            }
            written = progress;
            drop(found);
            sleep(STALLED_REQUEST).await;
        }
    });
}
