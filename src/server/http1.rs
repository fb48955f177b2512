//! The life of one HTTP/1 client connection: hyper reads and writes, this drives it.
//!
//! hyper has one timer, which runs while it waits for a head, and with `half_close` it reads nothing
//! while a request is under way. So idle, head and send time-outs are kept here, clients that left
//! are looked for here, and the connection is closed here so that its last answer arrives.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, UpgradeableConnection};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::Service;
use tower::util::Oneshot;

use super::client_stream::{PeerState, PeerWatch};
use super::connection::{
    ClientProbe, CloseReason, ConnectionInfo, HeadError, Inbound, should_close_for_drain,
};
use super::drain::{Drain, DrainHandle, ShutdownPhase};
use super::io::SharedIo;
use super::linger::linger;
use super::phase::{ConnectionPhase, Deadline};
use super::settings::{ConnectionSettings, HalfClosed};
use crate::body::{Body, BodyError, Delivery, DeliveryObserver, Observed, Observer, is_last};

/// The smallest buffer that hyper accepts, in bytes.
const MIN_BUFFER: usize = 8 * 1024;
/// Bytes that hyper may read ahead of a request's body, and of an answer that the client does not
/// take. By default it is 408 KiB.
const MAX_BUFFER: usize = 64 * 1024;
/// Header lines for which hyper keeps its table on the stack.
const DEFAULT_MAX_HEADERS: usize = 100;

/// How long a safe request goes on when its client has closed its side of the connection.
///
/// The same FIN says "I sent all I had" and "I am gone". An answer that is nearly there reaches a
/// client of the first kind; work for one of the second kind does not go on for long.
const HALF_CLOSED_GRACE: Duration = Duration::from_secs(2);

/// When to look again for a client that has left behind bytes which nobody reads yet.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// hyper, set up for our limits.
fn builder(limits: &ConnectionSettings) -> Builder {
    let mut builder = Builder::new();
    builder.half_close(true).header_read_timeout(None);
    builder.preserve_header_case(limits.preserve_header_case);
    builder.max_header_size(limits.max_header_bytes);
    builder.max_buf_size(limits.max_header_bytes.max(MAX_BUFFER).max(MIN_BUFFER));
    if limits.max_headers != DEFAULT_MAX_HEADERS {
        builder.max_headers(limits.max_headers);
    }
    builder
}

/// Serves HTTP/1 to the connection's end.
pub(super) async fn serve<S>(
    io: SharedIo,
    info: Rc<ConnectionInfo>,
    service: S,
    limits: &ConnectionSettings,
    member: DrainHandle,
) -> CloseReason
where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    S::Future: 'static,
{
    let asked = io.downgrade();
    let exchange = Rc::new(Exchange::new(io.clone()));
    let bridge = Bridge {
        service,
        info,
        client: ClientProbe::new(limits.half_closed, move || asked.peer_state()),
        exchange: Rc::clone(&exchange),
        drain: member.drain(),
    };
    let ended = {
        let served = builder(limits).serve_connection(TokioIo::new(io.clone()), bridge);
        let connection = pin!(served.with_upgrades());
        drive(connection, &exchange, limits, &member).await
    };
    exchange.abandon_deliveries();
    close(&ended, io, &exchange).await;
    ended
}

/// Drives a connection until it ends by itself, lasts too long, or is to end.
async fn drive<S>(
    mut connection: Pin<&mut UpgradeableConnection<TokioIo<SharedIo>, Bridge<S>>>,
    exchange: &Exchange,
    limits: &ConnectionSettings,
    member: &DrainHandle,
) -> CloseReason
where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    S::Future: 'static,
{
    let Exchange { io, is_last, .. } = exchange;
    // Dropped before the connection is, and with it the socket: a cut answer must not look whole.
    let _reset = ResetOnDrop(io);
    let mut timer = pin!(Timer::new(limits));
    let mut told = false;
    let mut grace = None;
    poll_fn(|cx| {
        let stage = if told { ShutdownPhase::Open } else { member.stage(cx) };
        if is_last.take() {
            // hyper finishes what is under way, with `Connection: close`.
            connection.as_mut().graceful_shutdown();
        }
        // Polled before it is told: a head that has begun to arrive is still read and answered.
        let mut progress = connection.as_mut().poll(cx);
        if progress.is_pending() && !told && should_close_for_drain(stage, io, &mut grace, cx) {
            told = true;
            // hyper writes what it still holds before it closes.
            connection.as_mut().graceful_shutdown();
            progress = connection.as_mut().poll(cx);
            if progress.is_pending() && !io.was_used() {
                // Only empty lines have come, which hyper takes for the beginning of a head.
                return Poll::Ready(CloseReason::Closed);
            }
        }
        // hyper flushes after each piece that it has encoded.
        exchange.settle_deliveries();
        match progress {
            Poll::Ready(Ok(())) => Poll::Ready(CloseReason::Closed),
            Poll::Ready(Err(error)) => Poll::Ready(ended(error)),
            Poll::Pending => {
                io.wake_when_idle(cx);
                timer.as_mut().poll_overdue(io, member.is_crowded(), cx)
            }
        }
    })
    .await
}

fn ended(error: hyper::Error) -> CloseReason {
    if error.is_parse_too_large() {
        CloseReason::BadHead(HeadError::TooLarge, error.into())
    } else if error.is_parse() {
        CloseReason::BadHead(HeadError::Malformed, error.into())
    } else {
        CloseReason::Failed(error.into())
    }
}

/// Closes a connection so that its last answer arrives: a socket that closes with unread bytes is
/// reset by the kernel, and the reset takes with it what the client has not read yet.
async fn close(ended: &CloseReason, io: SharedIo, exchange: &Exchange) {
    if exchange.switched.get() || io.is_at_end() {
        return;
    }
    match ended {
        CloseReason::Closed if exchange.is_receiving.get() => Box::pin(linger(io)).await,
        // hyper leaves the end to whoever takes an upgrade, also where nobody did.
        CloseReason::Closed if exchange.offered.get() => io.close().await,
        CloseReason::TimedOut(ConnectionPhase::Idle) => io.close().await,
        _ => {}
    }
}

/// Resets a connection that is dropped while an answer is being sent which ends with it.
struct ResetOnDrop<'a>(&'a SharedIo);

impl Drop for ResetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.reset_if_close_delimited();
    }
}

pin_project! {
    /// One timer for all that a connection may wait for too long.
    struct Timer {
        deadline: Deadline,
        half_closed: HalfClosed,
        // When the client of the safe request that is under way was seen to have closed its side.
        left: Option<Instant>,
        // When to look again for a client that may have left unseen.
        look_at: Option<Instant>,
        // What `sleep` is set to, or was before its time was found to be later.
        armed: Instant,
        #[pin]
        sleep: Sleep,
    }
}

/// What a connection waits for.
enum Wait {
    /// Nothing that has a time.
    Untimed,
    /// It is to be closed then.
    Close(Instant),
    /// Its client is to be looked for again then.
    Look(Instant),
    /// Its client is gone: it is to be closed now.
    Over,
}

impl Timer {
    fn new(limits: &ConnectionSettings) -> Self {
        let armed = Instant::now() + limits.idle_timeout;
        Self {
            deadline: Deadline::new(limits),
            half_closed: limits.half_closed,
            left: None,
            look_at: None,
            armed,
            sleep: sleep_until(armed),
        }
    }

    /// Ready when the connection has waited for too long, or for nobody.
    fn poll_overdue(
        mut self: Pin<&mut Self>,
        io: &SharedIo,
        crowded: bool,
        cx: &mut Context<'_>,
    ) -> Poll<CloseReason> {
        loop {
            let phase = io.phase();
            match self.as_mut().wait(phase, io, crowded, cx) {
                Wait::Untimed => return Poll::Pending,
                Wait::Over => return Poll::Ready(CloseReason::ClientLeft),
                Wait::Close(due) => {
                    ready!(self.as_mut().poll_until(due, cx));
                    let left = self.left.is_some();
                    let ended =
                        if left { CloseReason::ClientLeft } else { CloseReason::TimedOut(phase) };
                    return Poll::Ready(ended);
                }
                Wait::Look(due) => {
                    ready!(self.as_mut().poll_until(due, cx));
                    *self.as_mut().project().look_at = None;
                }
            }
        }
    }

    /// Ready at a time. The timer is moved to an earlier time at once, to a later one only when it
    /// fires: requests that arrive whole, one after the other, leave it alone.
    fn poll_until(self: Pin<&mut Self>, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if due < *this.armed {
            *this.armed = due;
            this.sleep.as_mut().reset(due);
        }
        loop {
            ready!(this.sleep.as_mut().poll(cx));
            if *this.armed >= due {
                return Poll::Ready(());
            }
            *this.armed = due;
            this.sleep.as_mut().reset(due);
        }
    }

    fn wait(
        self: Pin<&mut Self>,
        phase: ConnectionPhase,
        io: &SharedIo,
        crowded: bool,
        cx: &mut Context<'_>,
    ) -> Wait {
        let this = self.project();
        let moved = io.take_moved();
        let due = this.deadline.due(phase, moved, crowded);
        if phase != ConnectionPhase::BusySafe || moved {
            *this.left = None; // or another request by now
        }
        let closing = due.map_or(Wait::Untimed, Wait::Close);
        if !phase.is_busy() {
            *this.look_at = None;
            return closing; // hyper reads, and sees the end
        }
        match io.poll_departure(cx) {
            PeerWatch::Awaited => *this.look_at = None,
            PeerWatch::Left(PeerState::Disconnected) => return Wait::Over,
            PeerWatch::Left(_) => {
                // Once the answer is being sent, writing tells whether anybody is there.
                if phase == ConnectionPhase::BusySafe && *this.half_closed == HalfClosed::Gone {
                    let left = this.left.get_or_insert_with(Instant::now);
                    return Wait::Close(*left + HALF_CLOSED_GRACE);
                }
            }
            PeerWatch::Unseen => {
                let look_at = *this.look_at.get_or_insert_with(|| Instant::now() + LOOK_AGAIN);
                return match closing {
                    Wait::Close(due) if due < look_at => closing,
                    _ => Wait::Look(look_at),
                };
            }
        }
        closing
    }
}

/// What is known of the exchange that is under way on a connection.
struct Exchange {
    io: SharedIo,
    /// Whether some of a request's body is still to come.
    is_receiving: Cell<bool>,
    /// Whether the client has offered to speak another protocol.
    offered: Cell<bool>,
    /// Whether another protocol is spoken from now on.
    switched: Cell<bool>,
    /// Whether no other request is to be read, since it is not certain where this one ends.
    is_last: Cell<bool>,
    /// Answers that hyper has to their end, and that the kernel may not have yet.
    unflushed: RefCell<Vec<PendingDelivery>>,
}

/// An answer whose client may not have all of it.
struct PendingDelivery {
    observer: Rc<dyn DeliveryObserver>,
    /// Bytes that the socket had taken when the answer began.
    written_before: u64,
}

impl PendingDelivery {
    /// The connection has ended, or the answer was cut.
    fn abandon(self, io: &SharedIo) {
        if io.written() > self.written_before {
            self.observer.delivered(Delivery::Partial);
        }
    }
}

impl Exchange {
    fn new(io: SharedIo) -> Self {
        Self {
            io,
            is_receiving: Cell::new(false),
            offered: Cell::new(false),
            switched: Cell::new(false),
            is_last: Cell::new(false),
            unflushed: RefCell::default(),
        }
    }

    /// Tells the observers of answers whose last byte the kernel has taken meanwhile.
    fn settle_deliveries(&self) {
        if !self.unflushed.borrow().is_empty() && self.io.is_flushed() {
            for pending in self.unflushed.take() {
                pending.observer.delivered(Delivery::Complete);
            }
        }
    }

    /// The connection has ended: what was not flushed until now never is.
    fn abandon_deliveries(&self) {
        self.unflushed.take().into_iter().for_each(|pending| pending.abandon(&self.io));
    }
}

/// Our service as hyper calls it.
struct Bridge<S> {
    service: S,
    info: Rc<ConnectionInfo>,
    client: ClientProbe,
    exchange: Rc<Exchange>,
    drain: Rc<Drain>,
}

impl<S> hyper::service::Service<Request<Incoming>> for Bridge<S>
where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone,
{
    type Response = Response<Observed<Answer>>;
    type Error = Infallible;
    type Future = Answering<S>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        self.exchange.io.enter(if safe {
            ConnectionPhase::BusySafe
        } else {
            ConnectionPhase::Busy
        });
        let old = request.version() == Version::HTTP_10;
        let head_request = request.method() == Method::HEAD;
        // Taken out, so that it travels where its type is seen. Where nobody wants it, it is dropped,
        // and hyper goes on with HTTP/1.
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        self.exchange.offered.set(self.exchange.offered.get() || upgrade.is_some());
        let inbound = Inbound {
            request: request.map(|body| received(body, &self.exchange)),
            connection: Rc::clone(&self.info),
            client: self.client.clone(),
            upgrade,
        };
        Answering {
            head_request,
            answer: Oneshot::new(self.service.clone(), inbound),
            busy: Some(Busy(Rc::clone(&self.exchange))),
            drain: Rc::clone(&self.drain),
            old,
        }
    }
}

/// A request's body, which tells when it has come to its end.
fn received(body: Incoming, exchange: &Rc<Exchange>) -> Body {
    let body = Body::incoming(body);
    exchange.is_receiving.set(!body.is_end_stream());
    if body.is_end_stream() {
        return body;
    }
    Body::boxed(Observed::new(body, Receiving(Rc::clone(exchange))))
}

/// Goes with a request's body: notes its end.
struct Receiving(Rc<Exchange>);

impl Observer for Receiving {
    fn saw(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, BodyError>>>, body: &Body) {
        let over = is_last(frame, body);
        let came = matches!(frame, Poll::Ready(None | Some(Ok(_))));
        let Exchange { io, is_receiving, is_last, .. } = &*self.0;
        // hyper reads trailers up to an empty line that ends with CR LF, and forgives bare LF within
        // them: what stands behind an empty line with LF alone, the next request, is taken for more of
        // them. So trailers are the end of a connection.
        if let Poll::Ready(Some(Ok(frame))) = frame {
            is_last.set(is_last.get() || frame.is_trailers());
        }
        if over {
            is_receiving.set(false);
        }
        // Its answer has ended: what still comes has the time of a head anew, and after its end the
        // connection is idle.
        if came && io.phase() == ConnectionPhase::Head {
            match over {
                true => io.enter_idle(),
                false => io.enter(ConnectionPhase::Head),
            }
        }
    }
}

pin_project! {
    /// The wait for an answer's head.
    struct Answering<S: Service<Inbound>> {
        #[pin]
        answer: Oneshot<S, Inbound>,
        busy: Option<Busy>,
        drain: Rc<Drain>,
        // Whether the client speaks HTTP/1.0.
        old: bool,
        head_request: bool,
    }
}

impl<S> Future for Answering<S>
where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible>,
{
    type Output = Result<Response<Observed<Answer>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match ready!(this.answer.poll(cx)) {
            Ok(response) => response,
            Err(never) => match never {},
        };
        *response.version_mut() = Version::HTTP_11;
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if this.drain.is_leaving() && !switches {
            // The client is to know that its connection is used no more; hyper then closes it.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let close_delimited = *this.old && is_close_delimited(&response);
        if close_delimited {
            // hyper would add `keep-alive` to a newer one.
            *response.version_mut() = Version::HTTP_10;
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let busy = this.busy.take();
        let observer = response.body_mut().take_observer();
        // hyper drops the body of such an answer and asks for none of it.
        let bodiless = *this.head_request
            || response.body().is_end_stream()
            || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let mut delivery = None;
        if let Some(Busy(exchange)) = &busy {
            let written_before = exchange.io.written();
            delivery = observer.map(|observer| PendingDelivery { observer, written_before });
            exchange.switched.set(switches);
            // From here on, writing tells whether the client is there.
            exchange.io.enter(ConnectionPhase::Busy);
        }
        let answer = Answer { close_delimited, ended: bodiless, delivery, busy };
        Poll::Ready(Ok(response.map(|body| Observed::new(body, answer))))
    }
}

/// Whether the body of an answer to HTTP/1.0, which knows no chunks, ends with the connection.
fn is_close_delimited(response: &Response<Body>) -> bool {
    let body = response.body();
    !body.is_end_stream()
        && body.size_hint().exact().is_none()
        && !response.headers().contains_key(CONTENT_LENGTH)
}

/// While it lives, a request is with the service or its answer is being sent.
struct Busy(Rc<Exchange>);

impl Drop for Busy {
    fn drop(&mut self) {
        // A request that is still being sent when its answer has ended has the time of a head to go on.
        let receiving = self.0.is_receiving.get();
        self.0.io.enter(if receiving { ConnectionPhase::Head } else { ConnectionPhase::Idle });
    }
}

/// Goes with an answer's body; its end is the beginning of the wait for the next request.
struct Answer {
    /// Whether the body ends with the connection.
    close_delimited: bool,
    /// Whether hyper has all of the body.
    ended: bool,
    delivery: Option<PendingDelivery>,
    busy: Option<Busy>,
}

impl Drop for Answer {
    // hyper drops a body when it has encoded its last byte, and when the connection fails.
    fn drop(&mut self) {
        let (Some(pending), Some(Busy(exchange))) = (self.delivery.take(), &self.busy) else {
            return;
        };
        if self.ended {
            exchange.io.await_flush();
            exchange.unflushed.borrow_mut().push(pending);
        } else {
            pending.abandon(&exchange.io);
        }
    }
}

impl Observer for Answer {
    fn saw(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, BodyError>>>, body: &Body) {
        self.ended |= is_last(frame, body);
        if let (true, Some(Busy(exchange))) = (self.close_delimited, &self.busy) {
            let ended = match frame {
                Poll::Ready(None) => true,
                Poll::Ready(Some(Ok(_))) => body.is_end_stream(),
                Poll::Ready(Some(Err(_))) | Poll::Pending => false,
            };
            exchange.io.set_close_delimited(!ended);
        }
    }
}

#[cfg(test)]
mod tests;
