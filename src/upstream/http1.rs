//! One HTTP/1 connection to an upstream: hyper speaks on it in a task of its own, and an exchange holds
//! it until both bodies have ended.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body as HttpBody, Frame};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, sleep};

use super::error::{Forwarded, SendError, SendErrorKind};
use super::exchange::{SendFailure, UpstreamResponse};
use super::expect_continue::Interim;
use super::io::{IoHandle, UpstreamIo, WriteError};
use super::settings::Settings;
use crate::body::{Body, BodyError, Observed, Observer, is_last};
use crate::net::connect::MaybeTlsStream;

/// Bytes that hyper may read ahead of an answer's body, and hold of a request that the upstream does not
/// take, beside the bound on heads. By default it is 408 KiB.
const MAX_BUFFER: usize = 64 * 1024;

/// How long the rest of a request may stand still once its answer has ended.
const STALLED_REQUEST: Duration = Duration::from_secs(60);

/// A connection between two exchanges.
pub(super) struct Http1Connection {
    sender: SendRequest<Body>,
    io: IoHandle,
    task: AbortHandle,
    /// Whether it has carried a request.
    used: bool,
    /// From then on it is not used again.
    pub retire_at: Instant,
    /// When its last exchange ended.
    pub idle_since: Instant,
}

/// Where connections go when their exchange has ended.
pub(super) trait ReleaseTo {
    /// Takes a connection that may carry another request.
    fn release(&self, connection: Http1Connection);
}

impl Http1Connection {
    /// Begins HTTP/1.1 on a connection that nothing was sent on. `permit` is held while its socket is open.
    ///
    /// # Errors
    /// hyper's, which has none so far.
    pub async fn start(
        stream: MaybeTlsStream,
        settings: &Settings,
        retire_at: Instant,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, SendError> {
        let (socket, io) = UpstreamIo::new(stream, WriteError::Withheld, permit);
        let mut builder = Builder::new();
        builder
            .preserve_header_case(settings.preserve_header_case)
            .max_headers(settings.max_response_headers)
            .max_header_size(settings.max_response_header_bytes)
            .max_buf_size(settings.max_response_header_bytes.max(MAX_BUFFER))
            // What some old servers write, and what every message that goes on is written without.
            .allow_spaces_after_header_name_in_responses(true)
            .allow_obsolete_multiline_headers_in_responses(true);
        let handshake = builder.handshake(TokioIo::new(socket)).await;
        let (sender, connection) =
            handshake.map_err(|error| SendError::unsent(SendErrorKind::Exchange(error)))?;
        let (upgrades, watched) = (settings.upgrades, io.clone());
        let task = spawn_local(async move {
            match upgrades {
                true => drive(pin!(connection.with_upgrades()), &watched).await,
                false => drive(pin!(connection), &watched).await,
            }
        });
        let task = task.abort_handle();
        Ok(Self { sender, io, task, used: false, retire_at, idle_since: Instant::now() })
    }

    /// Whether hyper waits for a request on it.
    pub fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request in origin form and waits for the head of its answer. Dropping the future closes
    /// the connection; else it is released to the pool when both bodies have ended.
    ///
    /// What can be done at once is done here, so that the future holds only what it waits with.
    pub fn send<P: ReleaseTo + 'static>(
        mut self,
        mut request: Request<Body>,
        pool: &Rc<P>,
    ) -> impl Future<Output = Result<UpstreamResponse, SendFailure>> + use<P> {
        frame(&mut request);
        let interim = Interim::listen(&mut request);
        let asked = request.headers().get(UPGRADE).cloned();
        let reused = std::mem::replace(&mut self.used, true);
        // On a new connection TLS may have bytes of its own to bring, such as session tickets.
        if reused {
            self.io.begin();
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
            let body = std::mem::take(request.body_mut());
            let side = RequestSide(Rc::clone(&exchange));
            *request.body_mut() = Body::boxed(Observed::new(body, side));
        }
        let sending = self.sender.try_send_request(request);
        async move {
            let mut sending = pin!(sending);
            // Counted also where the final answer has come meanwhile: how the upstream's bytes were cut
            // into reads must not tell whether its answer is passed on.
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
            let response = match sent {
                Some(Ok(response)) => response,
                Some(Err(mut failed)) => {
                    let returned = failed.take_message();
                    let silent = exchange.io.read() == read;
                    let error = error(kind(failed.into_error(), silent));
                    return Err(match returned {
                        Some(request) => SendFailure::Returned(Box::new(request), error),
                        None => SendFailure::Failed(error),
                    });
                }
                None => return Err(SendFailure::Failed(error(SendErrorKind::TooManyInterim))),
            };
            let response = match sound(response, asked.as_ref()) {
                Ok(response) => response,
                Err(kind) => return Err(SendFailure::Failed(error(kind))),
            };
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                exchange.io.switched();
            }
            // hyper speaks 1.0 on a connection whose server has done so, and would send no chunks.
            if response.version() == Version::HTTP_11 {
                exchange.connection.replace(Some(self));
            }
            Ok(answered(response, exchange, &interim))
        }
    }
}

/// Runs hyper until the connection ends; its errors are told to whoever waits for an answer. A request
/// that hyper has not taken yet is handed back where the connection turns out spoilt.
async fn drive<C: Future>(mut connection: Pin<&mut C>, io: &IoHandle) {
    poll_fn(|cx| {
        if io.is_spoilt() {
            return Poll::Ready(());
        }
        connection.as_mut().poll(cx).map(drop)
    })
    .await;
}

/// Lets an answer hold the connection until its body has ended.
fn answered<P: ReleaseTo + 'static>(
    response: Response<hyper::body::Incoming>,
    exchange: Rc<Exchange<P>>,
    interim: &Interim,
) -> UpstreamResponse {
    let mut response = response.map(Body::incoming);
    let body = response.body_mut();
    exchange.response_ended.set(body.is_end_stream());
    if !body.is_end_stream() {
        let inner = std::mem::take(body);
        *body = Body::boxed(Observed::new(inner, ResponseSide(exchange)));
    } else if !exchange.request_ended.get() {
        watch_request(&exchange);
    }
    let body_unread = interim.answered(response.body_mut());
    UpstreamResponse { response, body_unread }
}

/// Says how the end of a request's body is told. hyper decides by the head: a body of unknown length
/// goes out as none with HTTP/1.0, and with GET unless the coding is named.
fn frame(request: &mut Request<Body>) {
    *request.version_mut() = Version::HTTP_11;
    let (ends, exact) = (request.body().is_end_stream(), request.body().size_hint().exact());
    let defines = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    let headers = request.headers_mut();
    if headers.contains_key(TE) {
        // RFC 9110 section 10.1.4: it is for this connection.
        headers.append(CONNECTION, HeaderValue::from_static("te"));
    }
    match exact {
        // RFC 9110 section 8.6: a method that gives a body a meaning says that there is none.
        _ if ends && defines => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        _ if ends => {}
        Some(length) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        None => {
            headers.remove(CONTENT_LENGTH);
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

/// What the lines of Content-Length say (RFC 9112 section 6.3).
enum ContentLength {
    /// There is none.
    Absent,
    /// One number.
    Plain,
    /// The same number more than once.
    Repeated(u64),
    /// Anything else.
    Senseless,
}

impl ContentLength {
    fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(CONTENT_LENGTH).iter();
        let Some(first) = lines.next() else { return Self::Absent };
        let mut rest = lines.peekable();
        if rest.peek().is_none() && decimal(first.as_bytes()).is_some() {
            return Self::Plain;
        }
        let lines = std::iter::once(first).chain(rest);
        let mut members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        let mut number = || members.next().map(|member| decimal(member.trim_ascii()));
        match number() {
            Some(Some(first)) => {
                let same = std::iter::from_fn(number).all(|other| other == Some(first));
                if same { Self::Repeated(first) } else { Self::Senseless }
            }
            _ => Self::Senseless,
        }
    }
}

/// A number that is written in digits alone.
fn decimal(digits: &[u8]) -> Option<u64> {
    let add = |number: u64, digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
}

/// Why an exchange failed; `silent` says that not one byte of an answer came.
fn kind(error: hyper::Error, silent: bool) -> SendErrorKind {
    let ended = error.is_incomplete_message() || error.is_canceled() || error.is_closed();
    let cut = !error.is_parse() && !error.is_user();
    if silent && (ended || cut) { SendErrorKind::Closed } else { SendErrorKind::Exchange(error) }
}

/// An answer that can be passed on: nobody speaks another protocol unasked, and its end can be read in
/// one way only. hyper looks at lengths only where a body follows, so that an answer to HEAD, which says
/// how long another would be, is looked at here.
fn sound<B>(
    mut response: Response<B>,
    asked: Option<&HeaderValue>,
) -> Result<Response<B>, SendErrorKind> {
    let headers = response.headers();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let mut named = headers.get_all(UPGRADE).iter();
        let switches = match (asked, named.next(), named.next()) {
            (Some(asked), Some(named), None) => {
                named.as_bytes().eq_ignore_ascii_case(asked.as_bytes())
            }
            _ => false,
        };
        return if switches { Ok(response) } else { Err(SendErrorKind::UnaskedUpgrade) };
    }
    let length = ContentLength::of(headers);
    let coded = headers.contains_key(TRANSFER_ENCODING);
    match length {
        ContentLength::Absent | ContentLength::Plain if !coded => {}
        ContentLength::Absent if is_chunked(&response) => {}
        // Equal lengths that are repeated go on as one.
        ContentLength::Repeated(length) if !coded => {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        _ => return Err(SendErrorKind::AmbiguousLength),
    }
    Ok(response)
}

/// Whether the one transfer coding is `chunked`, which HTTP/1.0 does not have.
fn is_chunked<B>(response: &Response<B>) -> bool {
    let mut codings = response.headers().get_all(TRANSFER_ENCODING).iter();
    let (first, second) = (codings.next(), codings.next());
    response.version() == Version::HTTP_11
        && second.is_none()
        && first.is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

/// A request and its answer on a connection, which is released when both bodies have ended.
struct Exchange<P: ReleaseTo> {
    pool: Rc<P>,
    io: IoHandle,
    /// What drives the connection.
    task: AbortHandle,
    /// `None` until the head of the answer has come, and if it is not to be used again.
    connection: RefCell<Option<Http1Connection>>,
    request_ended: Cell<bool>,
    response_ended: Cell<bool>,
}

impl<P: ReleaseTo> Drop for Exchange<P> {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && self.request_ended.get()
            && self.response_ended.get()
        {
            connection.idle_since = Instant::now();
            self.pool.release(connection);
        }
    }
}

/// Goes with a request's body.
struct RequestSide<P: ReleaseTo>(Rc<Exchange<P>>);

impl<P: ReleaseTo> Observer for RequestSide<P> {
    fn saw(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, BodyError>>>, body: &Body) {
        if is_last(frame, body) {
            self.0.request_ended.set(true);
        }
    }
}

/// Goes with an answer's body.
struct ResponseSide<P: ReleaseTo + 'static>(Rc<Exchange<P>>);

impl<P: ReleaseTo> Observer for ResponseSide<P> {
    fn saw(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, BodyError>>>, body: &Body) {
        if is_last(frame, body) {
            self.0.response_ended.set(true);
        }
    }
}

impl<P: ReleaseTo + 'static> Drop for ResponseSide<P> {
    fn drop(&mut self) {
        if self.0.response_ended.get() && !self.0.request_ended.get() {
            watch_request(&self.0);
        }
    }
}

/// Ends a connection whose upstream has answered and takes nothing more of the request: hyper would
/// wait for it for ever. An app that sends nothing more is seen by its body's own time-out.
fn watch_request<P: ReleaseTo + 'static>(exchange: &Rc<Exchange<P>>) {
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
