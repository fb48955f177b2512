//! The life of one HTTP/2 client connection: many requests at a time, each in a task of its own.
//!
//! Bounds on streams, header lists, pings, settings and CONTINUATION frames are the h2 crate's, set
//! up here. What it leaves to us: heads that stop half-way, clients that cancel streams by the
//! hundred, readers that stand still, and connections that nobody uses.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tower::util::Oneshot;
use tower::{Service, ServiceExt};

use super::activity::{CROWDED_IDLE, Phase};
use super::drain::{Member, Stage};
use super::flaw::Flaw;
use super::frames::Frames;
use super::http1::Placed;
use super::serve::{ConnectionInfo, Ended, Inbound};
use super::settings::ConnectionLimits;
use super::stream::Stream;
use crate::body::{Body, BodyError, Observed, Observer};
use crate::message;

/// Bytes that a client may send of one request before we have taken any.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same, of all requests of a connection together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one answer that are kept for a client which does not take them.
const SEND_BUFFER: usize = 64 * 1024;
/// How often a silent client is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long a client may take for a last request after it was told that we leave.
const LEAVE_GRACE: Duration = Duration::from_secs(1);

/// Serves one connection to its end.
pub(super) async fn serve<I, S>(
    stream: Placed<I>,
    read: Bytes,
    info: Rc<ConnectionInfo>,
    service: S,
    limits: &ConnectionLimits,
    member: Member,
) -> Ended
where
    I: Stream,
    S: Service<Inbound, Response = message::Response, Error = Infallible> + Clone + 'static,
    S::Future: 'static,
{
    let frames = Rc::new(RefCell::new(Frames::new()));
    let streams = Rc::new(Streams::new(limits.send_timeout));
    let io = TokioIo::new(Watched { stream, first: read, frames: Rc::clone(&frames) });
    let max_headers = limits.max_headers;
    let seen = Rc::clone(&frames);
    let bridge = Bridge { service, info, streams: Rc::clone(&streams), max_headers, frames: seen };
    let mut connection = pin!(builder(limits, &streams).serve_connection(io, bridge));
    let mut sleep = pin!(sleep_until(Instant::now() + limits.head_timeout));
    let mut leaving = None;
    poll_fn(|cx| {
        if leaving.is_none() && member.stage(cx) > Stage::Open {
            leaving = Some(Instant::now());
            connection.as_mut().graceful_shutdown();
        }
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(match result {
                    Ok(()) => Ended::Closed,
                    Err(error) => Ended::Failed(error.into()),
                });
            }
            if frames.borrow().resets() > limits.max_resets {
                return Poll::Ready(Ended::Flooded);
            }
            let crowded = member.is_crowded() && leaving.is_none();
            let idle = limits.idle_timeout.min(if crowded { CROWDED_IDLE } else { Duration::MAX });
            let waits = (frames.borrow().head_since(), streams.quiet_since(cx));
            let (due, phase) = match (waits, leaving) {
                ((Some(since), _), _) => (since + limits.head_timeout, Phase::Head),
                ((None, Some(quiet)), Some(told)) => (quiet.max(told) + LEAVE_GRACE, Phase::Idle),
                ((None, Some(quiet)), None) => (quiet + idle, Phase::Idle),
                ((None, None), _) => return Poll::Pending,
            };
            if sleep.deadline() != due {
                sleep.as_mut().reset(due);
            }
            ready!(sleep.as_mut().poll(cx));
            if phase == Phase::Head || leaving.is_some() {
                return Poll::Ready(Ended::TimedOut(phase));
            }
            // A request may be on its way: GOAWAY tells the client whether it was served.
            leaving = Some(Instant::now());
            connection.as_mut().graceful_shutdown();
        }
    })
    .await
}

fn builder(limits: &ConnectionLimits, streams: &Rc<Streams>) -> Builder<Tasks> {
    let mut builder = Builder::new(Tasks(Rc::clone(streams)));
    let header_list = u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX);
    builder.max_concurrent_streams(limits.max_streams).max_header_list_size(header_list);
    builder.initial_stream_window_size(STREAM_WINDOW);
    builder.initial_connection_window_size(CONNECTION_WINDOW);
    builder.max_send_buf_size(SEND_BUFFER);
    builder.timer(TokioTimer::new()).keep_alive_interval(PING_EVERY);
    builder
}

/// The requests of one connection.
struct Streams {
    open: Cell<usize>,
    quiet_since: Cell<Instant>,
    /// Woken when no request is under way any more.
    driver: RefCell<Option<Waker>>,
    /// Of the request that hyper is about to start a task for.
    latest: RefCell<Option<Rc<Pace>>>,
    send_timeout: Duration,
}

impl Streams {
    fn new(send_timeout: Duration) -> Self {
        Self {
            open: Cell::new(0),
            quiet_since: Cell::new(Instant::now()),
            driver: RefCell::default(),
            latest: RefCell::default(),
            send_timeout,
        }
    }

    /// Since when no request is under way; if one is, the task is woken when none is any more.
    fn quiet_since(&self, cx: &Context<'_>) -> Option<Instant> {
        if self.open.get() == 0 {
            return Some(self.quiet_since.get());
        }
        let mut driver = self.driver.borrow_mut();
        if !driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *driver = Some(cx.waker().clone());
        }
        None
    }

    fn begin(self: &Rc<Self>) -> Under {
        self.open.set(self.open.get() + 1);
        Under(Rc::clone(self))
    }
}

/// While it lives, a request is under way.
struct Under(Rc<Streams>);

impl Drop for Under {
    fn drop(&mut self) {
        let streams = &self.0;
        streams.open.set(streams.open.get() - 1);
        if streams.open.get() == 0 {
            streams.quiet_since.set(Instant::now());
            if let Some(driver) = streams.driver.borrow_mut().take() {
                driver.wake();
            }
        }
    }
}

/// Since when an answer has waited for its client to take what it was offered.
#[derive(Default)]
struct Pace(Cell<Option<Instant>>);

/// Our service as hyper calls it.
struct Bridge<S> {
    service: S,
    info: Rc<ConnectionInfo>,
    streams: Rc<Streams>,
    max_headers: usize,
    frames: Rc<RefCell<Frames>>,
}

impl<S> hyper::service::Service<Request<Incoming>> for Bridge<S>
where
    S: Service<Inbound, Response = message::Response, Error = Infallible> + Clone,
{
    type Response = Response<Observed<Sending>>;
    type Error = Infallible;
    type Future = Answering<S>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if request.headers().len() > self.max_headers {
            request.extensions_mut().insert(Flaw::TooManyFields);
        } else if self.frames.borrow().fragment() {
            request.extensions_mut().insert(Flaw::Fragment);
        }
        let pace = Rc::default();
        *self.streams.latest.borrow_mut() = Some(Rc::clone(&pace));
        let request = Box::new(message::Request::from(request.map(Body::http2)));
        let inbound = Inbound { request, connection: Rc::clone(&self.info) };
        let under = Some((self.streams.begin(), pace));
        Answering { answer: self.service.clone().oneshot(inbound), under }
    }
}

/// The socket as hyper sees it: what passes is looked at on its way.
struct Watched<I> {
    stream: Placed<I>,
    /// What was read before it was known that HTTP/2 is spoken.
    first: Bytes,
    frames: Rc<RefCell<Frames>>,
}

impl<I: Stream> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        if self.first.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        } else {
            let taken = self.first.len().min(into.remaining());
            into.put_slice(&self.first.split_to(taken));
        }
        let came = into.filled().get(before..).unwrap_or_default();
        self.frames.borrow_mut().follow(came);
        Poll::Ready(Ok(()))
    }
}

impl<I: Stream> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

pin_project! {
    /// The wait for an answer's head.
    struct Answering<S: Service<Inbound>> {
        #[pin]
        answer: Oneshot<S, Inbound>,
        under: Option<(Under, Rc<Pace>)>,
    }
}

impl<S> Future for Answering<S>
where
    S: Service<Inbound, Response = message::Response, Error = Infallible>,
{
    type Output = Result<Response<Observed<Sending>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response: Response<Body> = match ready!(this.answer.poll(cx)) {
            Ok(response) => response.into(),
            Err(never) => match never {},
        };
        let under = this.under.take();
        if let Some((_, pace)) = &under {
            pace.0.set(Some(Instant::now()));
        }
        Poll::Ready(Ok(response.map(|body| Observed::new(body, Sending(under)))))
    }
}

/// Goes with an answer's body: a note of whether it waits for us or for the client.
struct Sending(Option<(Under, Rc<Pace>)>);

impl Observer for Sending {
    fn saw(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, BodyError>>>, _: &Body) {
        if let Some((_, pace)) = &self.0 {
            pace.0.set(frame.is_ready().then(Instant::now));
        }
    }
}

/// Runs each request in this worker.
#[derive(Clone)]
struct Tasks(Rc<Streams>);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, stream: F) {
        let pace = self.0.latest.borrow_mut().take();
        let limit = self.0.send_timeout;
        tokio::task::spawn_local(Paced { stream, pace, limit, sleep: None });
    }
}

pin_project! {
    /// A request's task, which ends, and with it the stream, when the client takes nothing of its
    /// answer for too long.
    struct Paced<F> {
        #[pin]
        stream: F,
        pace: Option<Rc<Pace>>,
        limit: Duration,
        sleep: Option<Pin<Box<Sleep>>>,
    }
}

impl<F: Future<Output = ()>> Future for Paced<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let offered = this.pace.as_ref().and_then(|pace| pace.0.get());
        let Some(due) = offered.map(|since| since + *this.limit) else { return Poll::Pending };
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() != due {
            sleep.as_mut().reset(due);
        }
        sleep.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests;
