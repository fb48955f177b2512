//! HTTP/1 on one client connection: hyper reads and writes, and this drives it.
//!
//! hyper has one timer, which runs while it waits for a head, and with `half_close` it reads nothing
//! while a request is under way. So idle, head and send time-outs and the watch for clients that leave
//! are kept by a [`ConnectionTimer`], and the connection is closed here so that its last response arrives.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, UpgradeableConnection};
use hyper::service::{HttpService, service_fn};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::{Duration, Instant, sleep};
use tower::util::Oneshot;

use super::client_stream::PeerState;
use super::drain::{Drain, DrainHandle};
use super::head_error::HeadError;
use super::inbound::{ClientProbe, ConnectionInfo, Inbound, RequestService};
use super::io::SharedIo;
use super::linger::linger;
use super::phase::{CloseReason, ConnectionPhase};
use super::settings::ConnectionSettings;
use super::shutdown::ShutdownPhase;
use super::timer::{ConnectionTimer, should_close_for_drain};
use crate::body::{Body, BodyFilter, Delivery, DeliveryObserver, Filtered, PollFrame, is_last};

/// The smallest buffer that hyper accepts, in bytes.
const MIN_BUFFER: usize = 8 * 1024;
/// Bytes that hyper may read ahead of a request body, and keep of a response that the client does not
/// read. hyper's default is 408 KiB.
const MAX_BUFFER: usize = 64 * 1024;
/// The number of header lines up to which hyper keeps its table on the stack.
const DEFAULT_MAX_HEADERS: usize = 100;

/// Longest wait for the reset of a client that had closed its sending side before its response: a round
/// trip on the way to the app.
const RESET_TIME: Duration = Duration::from_millis(300);
/// Time between two looks for it.
const RESET_CHECK: Duration = Duration::from_millis(10);

fn builder(settings: &ConnectionSettings) -> Builder {
    let mut builder = Builder::new();
    builder.half_close(true).header_read_timeout(None);
    builder.preserve_header_case(settings.preserve_header_case);
    builder.max_header_size(settings.max_header_bytes);
    builder.max_buf_size(settings.max_header_bytes.max(MAX_BUFFER).max(MIN_BUFFER));
    if settings.max_headers != DEFAULT_MAX_HEADERS {
        builder.max_headers(settings.max_headers);
    }
    builder
}

/// Serves HTTP/1 to the connection's end, and closes the socket unless a head could not be read.
pub(super) async fn serve<S: RequestService>(
    io: SharedIo,
    info: Rc<ConnectionInfo>,
    service: S,
    settings: &ConnectionSettings,
    handle: &DrainHandle,
) -> CloseReason {
    let weak = io.downgrade();
    let client = ClientProbe::new(settings.half_closed, move || weak.peer_state());
    let current = Rc::new(Exchange::new(io.clone()));
    let reason = {
        let (exchange, drain) = (Rc::clone(&current), handle.drain());
        let serve_request = service_fn(move |request| {
            let (request, upgrade) = exchange.begin(request);
            let (connection, client) = (Rc::clone(&info), client.clone());
            let context = RequestContext {
                is_http10: request.version() == Version::HTTP_10,
                is_head: request.method() == Method::HEAD,
            };
            let inbound = Inbound { request, connection, client, upgrade };
            let (service, drain) = (service.clone(), Rc::clone(&drain));
            let busy = BusyGuard(Rc::clone(&exchange));
            async move {
                // Made in here, since a future keeps room for each value that it moves out of.
                match Oneshot::new(service, inbound).await {
                    Ok(response) => Ok::<_, Infallible>(respond(response, busy, &drain, context)),
                    Err(never) => match never {},
                }
            }
        });
        let served = builder(settings).serve_connection(TokioIo::new(io.clone()), serve_request);
        drive(pin!(served.with_upgrades()), &current, settings, handle).await
    };
    current.confirm().await;
    // No more of the responses is flushed from here on.
    current.unflushed.take().into_iter().for_each(|pending| pending.abandon(&current));
    close(&reason, io, &current).await;
    reason
}

/// Drives a connection until it ends by itself, lasts too long, or has to close for shutdown.
async fn drive<H>(
    mut connection: Pin<&mut UpgradeableConnection<TokioIo<SharedIo>, H>>,
    exchange: &Exchange,
    settings: &ConnectionSettings,
    handle: &DrainHandle,
) -> CloseReason
where
    H: HttpService<Incoming, ResBody = Filtered<ResponseEnd>, Error = Infallible>,
{
    let io = &exchange.io;
    // Dropped before the connection, and with it the socket: a cut response must not look complete.
    let _reset = ResetOnDrop(io);
    let mut timer = ConnectionTimer::new(settings);
    let mut sleep = pin!(sleep(settings.idle_timeout));
    let mut closing = false;
    let mut grace = None;
    poll_fn(|cx| {
        // Once it is closing, there is no later phase to wait for.
        let phase = if closing { ShutdownPhase::Open } else { handle.phase(cx) };
        if exchange.close_after_response.take() {
            // hyper finishes the exchange that is under way, with `Connection: close`.
            connection.as_mut().graceful_shutdown();
        }
        // hyper is polled before shutdown decides: a head that has begun to arrive is read and answered.
        let mut polled = connection.as_mut().poll(cx);
        if polled.is_pending() && should_close_for_drain(phase, io, &mut grace, cx) {
            closing = true;
            // Polled again, since hyper first writes what it still holds.
            connection.as_mut().graceful_shutdown();
            polled = connection.as_mut().poll(cx);
            if polled.is_pending() && !io.was_used() {
                // Only empty lines have come, which hyper takes for the beginning of a head.
                return Poll::Ready(CloseReason::Closed);
            }
        }
        // hyper flushes after each piece that it has encoded, so a poll that flushed says it all.
        exchange.report_flushed();
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(CloseReason::Closed),
            Poll::Ready(Err(error)) => Poll::Ready(failed(error)),
            Poll::Pending => {
                // After hyper, which may just have entered the phase that this is for.
                io.wake_when_idle(cx);
                let expired = timer.poll_expired(io, handle.is_crowded(), sleep.as_mut(), cx);
                if let Poll::Ready(CloseReason::TimedOut(ConnectionPhase::Stalled)) = expired {
                    exchange.stalled_for.set(Some(settings.send_timeout));
                }
                expired
            }
        }
    })
    .await
}

fn failed(error: hyper::Error) -> CloseReason {
    if error.is_parse_too_large() {
        CloseReason::BadHead(HeadError::TooLarge, error.into())
    } else if error.is_parse() {
        CloseReason::BadHead(HeadError::Malformed, error.into())
    } else {
        CloseReason::Failed(error.into())
    }
}

/// Closes a connection so that its last response arrives: the kernel resets a socket that closes with
/// unread bytes, and the client then loses what it has not read yet.
async fn close(reason: &CloseReason, io: SharedIo, exchange: &Exchange) {
    if exchange.switched.get() || io.is_at_end() {
        return;
    }
    match reason {
        CloseReason::Closed if exchange.is_receiving.get() => Box::pin(linger(io)).await,
        // hyper leaves the socket to the taker of an upgrade, even if nothing has taken it.
        CloseReason::Closed if exchange.upgrade_offered.get() => io.close().await,
        CloseReason::TimedOut(ConnectionPhase::Idle) => io.close().await,
        _ => {}
    }
}

/// Resets a connection that is dropped while a response is sent whose end is the connection's end.
struct ResetOnDrop<'a>(&'a SharedIo);

impl Drop for ResetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.reset_if_close_delimited();
    }
}

/// The state of the exchange that is under way on a connection.
struct Exchange {
    io: SharedIo,
    /// True while some of a request body is still to come.
    is_receiving: Cell<bool>,
    /// True once the client has offered to speak another protocol.
    upgrade_offered: Cell<bool>,
    /// True once another protocol is spoken.
    switched: Cell<bool>,
    /// True if no other request may be read, because the end of this one is not certain.
    close_after_response: Cell<bool>,
    /// Responses that hyper has taken to their end, but the kernel may not have yet.
    unflushed: RefCell<Vec<PendingDelivery>>,
    /// Responses that the kernel has, to a client that may be gone.
    unconfirmed: RefCell<Vec<PendingDelivery>>,
    /// The time for which the client had taken nothing of its response, if that has ended the connection.
    stalled_for: Cell<Option<Duration>>,
}

/// A response of which the client may not have all.
struct PendingDelivery {
    observer: Rc<dyn DeliveryObserver>,
    /// Bytes that the socket had taken when the response began.
    written_before: u64,
    /// True if the client had closed its sending side when the response began.
    half_closed: bool,
}

impl PendingDelivery {
    /// The connection has ended, or the response was cut.
    fn abandon(self, exchange: &Exchange) {
        if let Some(limit) = exchange.stalled_for.get() {
            self.observer.stalled(limit);
        }
        if exchange.io.written() > self.written_before {
            self.observer.delivered(Delivery::Partial);
        }
    }
}

impl Exchange {
    fn new(io: SharedIo) -> Self {
        let [is_receiving, upgrade_offered, switched, close_after_response] = Default::default();
        let (unflushed, unconfirmed) = Default::default();
        Self {
            io,
            is_receiving,
            upgrade_offered,
            switched,
            close_after_response,
            unflushed,
            unconfirmed,
            stalled_for: Cell::new(None),
        }
    }

    /// Reports the responses whose last byte the kernel has taken meanwhile.
    fn report_flushed(&self) {
        if !self.unflushed.borrow().is_empty() && self.io.is_flushed() {
            for pending in self.unflushed.take() {
                match pending.half_closed {
                    true => self.unconfirmed.borrow_mut().push(pending),
                    false => pending.observer.delivered(Delivery::Complete),
                }
            }
        }
    }

    /// Reports the responses to a client that had closed its sending side, once it is known whether it has
    /// closed the other side too: then its system answers our bytes with a reset.
    async fn confirm(&self) {
        let pending = self.unconfirmed.take();
        if pending.is_empty() {
            return;
        }
        let deadline = Instant::now() + RESET_TIME;
        while !self.io.was_reset() && Instant::now() < deadline {
            sleep(RESET_CHECK).await;
        }
        if !self.io.was_reset() {
            pending.iter().for_each(|pending| pending.observer.delivered(Delivery::Complete));
        }
    }

    /// Enters the phase of a request, and takes out its offer to speak another protocol, so that it
    /// travels as a value. An offer that is dropped makes hyper go on with HTTP/1.
    fn begin(
        self: &Rc<Self>,
        mut request: Request<Incoming>,
    ) -> (Request<Body>, Option<OnUpgrade>) {
        let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        self.io.enter(if is_safe { ConnectionPhase::BusySafe } else { ConnectionPhase::Busy });
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        self.upgrade_offered.set(self.upgrade_offered.get() || upgrade.is_some());
        self.is_receiving.set(!request.body().is_end_stream());
        let request = request.map(|incoming| match incoming.is_end_stream() {
            true => Body::incoming(incoming),
            false => {
                let filter = RequestEnd(Rc::clone(self));
                Body::boxed(Filtered::new(Body::incoming(incoming), filter))
            }
        });
        (request, upgrade)
    }
}

/// Notes the end of a request body.
struct RequestEnd(Rc<Exchange>);

impl BodyFilter for RequestEnd {
    fn poll_frame(&mut self, body: &mut Body, cx: &mut Context<'_>) -> PollFrame {
        let frame = Pin::new(&mut *body).poll_frame(cx);
        let Exchange { io, is_receiving, close_after_response, .. } = &*self.0;
        // hyper reads trailers up to an empty line that ends with CR LF, and forgives bare LF within
        // them: it takes what follows an empty line with LF alone, the next request, for more of them.
        // So trailers end a connection.
        if matches!(&frame, Poll::Ready(Some(Ok(frame))) if frame.is_trailers()) {
            close_after_response.set(true);
        }
        let ended = is_last(&frame, body);
        if ended {
            is_receiving.set(false);
        }
        // The response has ended: the rest of the request has the time of a head, starting again with
        // each frame, and after its end the connection is idle.
        if matches!(frame, Poll::Ready(None | Some(Ok(_)))) && io.phase() == ConnectionPhase::Head {
            match ended {
                true => io.enter_idle(),
                false => io.enter(ConnectionPhase::Head),
            }
        }
        frame
    }
}

/// The properties of a request that its response depends on.
struct RequestContext {
    is_http10: bool,
    is_head: bool,
}

/// Makes a response what hyper sends to this client.
fn respond(
    mut response: Response<Body>,
    busy: BusyGuard,
    drain: &Drain,
    request: RequestContext,
) -> Response<Filtered<ResponseEnd>> {
    *response.version_mut() = Version::HTTP_11;
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let close_delimited = request.is_http10 && is_close_delimited(&response);
    if close_delimited {
        // hyper would add `keep-alive` to a response in HTTP/1.1.
        *response.version_mut() = Version::HTTP_10;
    }
    // Tells the client that the connection cannot be used again, and makes hyper close it.
    if close_delimited || (drain.is_leaving() && !switches) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let written_before = busy.0.io.written();
    let observer = response.body_mut().take_observer();
    // The kernel is asked for unsafe requests alone: a payment that nobody hears of is worth a system call.
    let is_unsafe = busy.0.io.phase() == ConnectionPhase::Busy;
    let half_closed = is_unsafe && busy.0.io.peer_state() == PeerState::HalfClosed;
    let delivery =
        observer.map(|observer| PendingDelivery { observer, written_before, half_closed });
    // hyper drops the body of such a response without polling it.
    let ended = request.is_head
        || response.body().is_end_stream()
        || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    busy.0.switched.set(switches);
    // No longer `BusySafe`: from here on, writing finds out if the client is there.
    busy.0.io.enter(ConnectionPhase::Busy);
    let filter = ResponseEnd { close_delimited, ended, delivery, busy };
    response.map(|body| Filtered::new(body, filter))
}

/// Returns true if the end of the connection ends the response: HTTP/1.0 has no chunks.
fn is_close_delimited(response: &Response<Body>) -> bool {
    let body = response.body();
    !body.is_end_stream()
        && body.size_hint().exact().is_none()
        && !response.headers().contains_key(CONTENT_LENGTH)
}

/// Held while the service has a request or its response is being sent. Dropped by both hyper's future
/// and hyper's body, so that a response that is never sent ends the phase as well.
struct BusyGuard(Rc<Exchange>);

impl Drop for BusyGuard {
    fn drop(&mut self) {
        // A request that is still being received after its response has the time of a head to go on.
        let receiving = self.0.is_receiving.get();
        self.0.io.enter(if receiving { ConnectionPhase::Head } else { ConnectionPhase::Idle });
    }
}

/// Goes with a response body: its end is the beginning of the wait for the next request.
struct ResponseEnd {
    /// True if the end of the connection ends the body.
    close_delimited: bool,
    /// True once hyper has all of the body.
    ended: bool,
    delivery: Option<PendingDelivery>,
    busy: BusyGuard,
}

impl Drop for ResponseEnd {
    // hyper drops a body once it has encoded its last byte, and when the connection fails. A body that
    // has ended is delivered by the next flush, and not before.
    fn drop(&mut self) {
        let Some(pending) = self.delivery.take() else { return };
        let exchange = &self.busy.0;
        if self.ended {
            exchange.io.await_flush();
            exchange.unflushed.borrow_mut().push(pending);
        } else {
            pending.abandon(exchange);
        }
    }
}

impl BodyFilter for ResponseEnd {
    fn poll_frame(&mut self, body: &mut Body, cx: &mut Context<'_>) -> PollFrame {
        let frame = Pin::new(&mut *body).poll_frame(cx);
        self.ended |= is_last(&frame, body);
        if self.close_delimited {
            // Set before the first byte is written: hyper polls the body before it writes the head.
            let ended = match &frame {
                Poll::Ready(None) => true,
                Poll::Ready(Some(Ok(_))) => body.is_end_stream(),
                Poll::Ready(Some(Err(_))) | Poll::Pending => false,
            };
            self.busy.0.io.set_close_delimited(!ended);
        }
        frame
    }
}

#[cfg(test)]
mod tests;
