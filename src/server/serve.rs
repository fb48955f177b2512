//! The life of one client connection on any byte stream, with its time-outs and its leave: HTTP/1
//! here, HTTP/2 in `http2` once its preface has come.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tower::util::Oneshot;
use tower::{Service, ServiceExt};

use super::drain::{Drain, Held, Member, Stage};
use super::http2;
use super::linger::linger;
use super::peer::Peer;
use super::settings::ConnectionLimits;
use super::watch::{Deadline, Phase, Stream, Watch, Watched};
use crate::body::{Body, BodyError, Observed, Observer};

/// The smallest read buffer that hyper accepts.
const MIN_BUFFER: usize = 8192;

/// How long a safe request goes on when its client has closed its side of the connection.
///
/// The same FIN says "I sent all I had" and "I am gone". An answer that is nearly there reaches a
/// client of the first kind; work for one of the second kind does not go on for long. An unsafe
/// request always goes on to its end.
const HANG_UP_GRACE: Duration = Duration::from_secs(2);

/// A request and the connection it came over.
#[derive(Debug)]
pub struct Inbound {
    /// As hyper read it; a [`Flaw`](super::head::Flaw) among its extensions says that it is not to
    /// be served.
    pub request: Request<Incoming>,
    /// Shared by all requests of the connection.
    pub connection: Rc<ConnectionInfo>,
}

/// How long a connection that has brought no request yet may still bring its first one when all are
/// told to finish: its client connected a moment ago, to send one.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(500);

/// Where a connection came in and who is on its other end. The worker does not end before the last
/// clone is gone: work that goes on without its client keeps one.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// The listener's number, as given to the worker.
    pub listener: usize,
    /// The client.
    pub peer: Peer,
    /// Counts it as open.
    pub(super) _held: Option<Held>,
}

impl ConnectionInfo {
    /// A connection that no worker waits for.
    pub fn new(listener: usize, peer: Peer) -> Self {
        Self { listener, peer, _held: None }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// In order, by either side.
    Closed,
    /// No request for too long, or a head that took too long.
    TimedOut(Phase),
    /// The client left before the answer to its safe request.
    ClientLeft,
    /// The client cancelled more HTTP/2 streams than it may.
    Flooded,
    /// Not HTTP, or the socket failed.
    Failed(hyper::Error),
}

/// hyper set up for our limits, once for each worker.
pub(super) fn builder(limits: &ConnectionLimits) -> Builder {
    let mut builder = Builder::new();
    // Half-closed clients are served. hyper then reads nothing while a request is under way, so the
    // driver below looks for clients that left. Time-outs are ours too, see `watch`.
    builder.half_close(true).header_read_timeout(None);
    // hyper adds `Date` where an answer has none (RFC 9110 section 6.6.1); an upstream's is kept.
    builder.auto_date_header(true).pipeline_flush(false);
    builder.max_buf_size(limits.max_header_bytes.max(MIN_BUFFER));
    builder.max_header_size(limits.max_header_bytes).max_headers(limits.max_headers);
    builder
}

/// Serves one connection to its end.
pub(super) async fn serve<I, S>(
    builder: &Builder,
    watch: Arc<Watch<I>>,
    info: Rc<ConnectionInfo>,
    service: S,
    limits: &ConnectionLimits,
    member: Member,
) -> Ended
where
    I: Stream,
    S: Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    S::Future: 'static,
{
    match http1(builder, &watch, &info, &service, limits, &member).await {
        Some(ended) => {
            let unread = match &ended {
                Ended::Closed => watch.within_message(),
                // What is no HTTP was answered, and nothing after it was read.
                Ended::Failed(error) => error.is_parse(),
                _ => false,
            };
            if unread {
                Box::pin(linger(&watch)).await;
            }
            ended
        }
        // In a box, so that the many connections without it do not keep room for it.
        None => Box::pin(http2::serve(watch, info, service, limits, member)).await,
    }
}

/// Serves HTTP/1; gives up, with nothing read, where the client speaks HTTP/2.
async fn http1<I, S>(
    builder: &Builder,
    watch: &Arc<Watch<I>>,
    info: &Rc<ConnectionInfo>,
    service: &S,
    limits: &ConnectionLimits,
    member: &Member,
) -> Option<Ended>
where
    I: Stream,
    S: Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    S::Future: 'static,
{
    let io = TokioIo::new(Watched(Arc::clone(watch)));
    let (service, info) = (service.clone(), Rc::clone(info));
    let bridge = Bridge { service, info, watch: Arc::clone(watch), drain: member.drain() };
    let _last = Last(watch);
    let mut connection = pin!(builder.serve_connection(io, bridge).with_upgrades());
    let mut timer = pin!(Timer::new(limits));
    let mut told = false;
    let mut grace = None;
    poll_fn(|cx| {
        let stage = if told { Stage::Open } else { member.stage(cx) };
        // Looked at before it is told: a head that has begun to arrive is still read and answered.
        let mut progress = connection.as_mut().poll(cx);
        let phase = watch.phase();
        if phase == Phase::Head && watch.is_http2() {
            return Poll::Ready(None);
        }
        if progress.is_pending() && !told && is_due(stage, watch, &mut grace, cx) {
            told = true;
            connection.as_mut().graceful_shutdown();
            progress = connection.as_mut().poll(cx);
        }
        match progress {
            Poll::Ready(result) => Poll::Ready(Some(ended(result))),
            Poll::Pending => timer.as_mut().poll_overdue(watch, member.is_crowded(), cx).map(Some),
        }
    })
    .await
}

/// Whether a connection is to close now: all are told to finish, and nothing can be read from it.
fn is_due<I>(
    stage: Stage,
    watch: &Watch<I>,
    grace: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> bool {
    if stage != Stage::Finishing || watch.phase() != Phase::Idle {
        return false;
    }
    watch.was_used() || {
        let grace = grace.get_or_insert_with(|| Box::pin(sleep(FIRST_REQUEST_GRACE)));
        grace.as_mut().poll(cx).is_ready()
    }
}

/// Looks at a connection at its end, however it came.
struct Last<'a, I: Stream>(&'a Watch<I>);

impl<I: Stream> Drop for Last<'_, I> {
    fn drop(&mut self) {
        self.0.cut_if_open_ended();
    }
}

fn ended(result: Result<(), hyper::Error>) -> Ended {
    match result {
        Ok(()) => Ended::Closed,
        Err(error) => Ended::Failed(error),
    }
}

pin_project! {
    /// One timer for all that a connection may wait for too long.
    struct Timer {
        deadline: Deadline,
        left: Option<Instant>,
        armed: Instant,
        #[pin]
        sleep: Sleep,
    }
}

impl Timer {
    fn new(limits: &ConnectionLimits) -> Self {
        let armed = Instant::now() + limits.idle_timeout;
        Self { deadline: Deadline::new(limits), left: None, armed, sleep: sleep_until(armed) }
    }

    /// Ready when the connection has waited for too long.
    ///
    /// The timer is moved to an earlier time at once, to a later one only when it fires: requests
    /// that arrive whole, one after the other, leave it alone.
    fn poll_overdue<I: Stream>(
        mut self: Pin<&mut Self>,
        watch: &Watch<I>,
        crowded: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Ended> {
        let phase = watch.phase();
        let Some(due) = self.as_mut().due(phase, watch, crowded, cx) else { return Poll::Pending };
        let mut this = self.project();
        if due < *this.armed {
            *this.armed = due;
            this.sleep.as_mut().reset(due);
        }
        while this.sleep.as_mut().poll(cx).is_ready() {
            if *this.armed >= due {
                let left = this.left.is_some();
                return Poll::Ready(if left { Ended::ClientLeft } else { Ended::TimedOut(phase) });
            }
            *this.armed = due;
            this.sleep.as_mut().reset(due);
        }
        Poll::Pending
    }

    fn due<I: Stream>(
        self: Pin<&mut Self>,
        phase: Phase,
        watch: &Watch<I>,
        crowded: bool,
        cx: &mut Context<'_>,
    ) -> Option<Instant> {
        let this = self.project();
        let moved = watch.take_moved();
        let due = this.deadline.due(phase, moved, crowded);
        if phase != Phase::BusySafe || moved {
            *this.left = None; // or another request by now
        }
        if phase != Phase::BusySafe {
            return due;
        }
        if this.left.is_none() && watch.is_gone(cx) {
            *this.left = Some(Instant::now());
        }
        this.left.map(|left| left + HANG_UP_GRACE)
    }
}

/// Our service as hyper calls it.
struct Bridge<S, I> {
    service: S,
    info: Rc<ConnectionInfo>,
    watch: Arc<Watch<I>>,
    drain: Rc<Drain>,
}

impl<S, I> hyper::service::Service<Request<Incoming>> for Bridge<S, I>
where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone,
{
    type Response = Response<Observed<Sending<I>>>;
    type Error = Infallible;
    type Future = Answering<S, I>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(flaw) = self.watch.count_request() {
            request.extensions_mut().insert(flaw);
        }
        let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        self.watch.enter(if safe { Phase::BusySafe } else { Phase::Busy });
        let old = request.version() == Version::HTTP_10;
        let inbound = Inbound { request, connection: Rc::clone(&self.info) };
        let busy = Some(Busy(Arc::clone(&self.watch)));
        let drain = Rc::clone(&self.drain);
        Answering { answer: self.service.clone().oneshot(inbound), busy, drain, old }
    }
}

pin_project! {
    /// The wait for an answer's head.
    struct Answering<S: Service<Inbound>, I> {
        #[pin]
        answer: Oneshot<S, Inbound>,
        busy: Option<Busy<I>>,
        drain: Rc<Drain>,
        // Whether the client speaks HTTP/1.0.
        old: bool,
    }
}

impl<S, I> Future for Answering<S, I>
where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible>,
{
    type Output = Result<Response<Observed<Sending<I>>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match ready!(this.answer.poll(cx)) {
            Ok(response) => response,
            Err(never) => match never {},
        };
        // The client is to know that its connection is used no more; hyper then closes it.
        if this.drain.is_leaving() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let busy = this.busy.take();
        if let Some(busy) = &busy {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                busy.0.switch();
            }
            // From here on, writing tells whether the client is there.
            busy.0.enter(Phase::Busy);
        }
        let open_ended = *this.old && is_open_ended(&response);
        if open_ended {
            // hyper would add `keep-alive` to a newer one.
            *response.version_mut() = Version::HTTP_10;
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response.map(|body| Observed::new(body, Sending { open_ended, busy }))))
    }
}

/// Whether the body of an answer to HTTP/1.0, which knows no chunks, ends with the connection.
fn is_open_ended(response: &Response<Body>) -> bool {
    let body = response.body();
    !body.is_end_stream()
        && body.size_hint().exact().is_none()
        && !response.headers().contains_key(CONTENT_LENGTH)
}

/// While it lives, a request is with the service or its answer is being sent.
struct Busy<I>(Arc<Watch<I>>);

impl<I> Drop for Busy<I> {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// Goes with an answer's body; its end is the beginning of the wait for the next request.
///
/// A request body that is still being sent when its answer has ended has the head time-out to end.
struct Sending<I> {
    /// Whether the body ends with the connection.
    open_ended: bool,
    busy: Option<Busy<I>>,
}

impl<I> Observer for Sending<I> {
    fn saw(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, BodyError>>>, body: &Body) {
        if let (true, Some(busy)) = (self.open_ended, &self.busy) {
            let ended = match frame {
                Poll::Ready(None) => true,
                Poll::Ready(Some(Ok(_))) => body.is_end_stream(),
                Poll::Ready(Some(Err(_))) | Poll::Pending => false,
            };
            busy.0.set_open_ended(!ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::{JoinHandle, LocalSet, spawn_local};
    use tower::service_fn;

    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    struct Rig {
        client: DuplexStream,
        ended: JoinHandle<Ended>,
        drain: Rc<Drain>,
        started: Instant,
    }

    impl Rig {
        /// A connection whose service takes `work` for each answer; inside a `LocalSet` only.
        fn new(work: Duration) -> Self {
            let (client, server) = duplex(64 * 1024);
            let (drain, limits) = (Drain::new(Rc::default()), ConnectionLimits::default());
            let member = drain.join();
            let peer = Peer::tcp("127.0.0.1:1".parse().unwrap());
            let info = Rc::new(ConnectionInfo::new(0, peer));
            let service = service_fn(move |_: Inbound| async move {
                sleep(work).await;
                Ok::<_, Infallible>(Response::new(Body::full("done")))
            });
            let ended = spawn_local(async move {
                let watch = Watch::new(server, None);
                serve(&builder(&limits), watch, info, service, &limits, member).await
            });
            Self { client, ended, drain, started: Instant::now() }
        }

        async fn answer(&mut self) -> String {
            let mut text = String::new();
            while !text.ends_with("done") {
                let byte = self.client.read_u8().await.unwrap();
                text.push(char::from(byte));
            }
            text
        }

        async fn ended(self) -> (Ended, u64) {
            let ended = self.ended.await.unwrap();
            (ended, self.started.elapsed().as_secs())
        }
    }

    fn timed_out((ended, seconds): (Ended, u64)) -> (Phase, u64) {
        let Ended::TimedOut(phase) = ended else { panic!("ended otherwise: {ended:?}") };
        (phase, seconds)
    }

    const NO_TIME: Duration = Duration::ZERO;
    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_closed() {
        let local = LocalSet::new();
        let end = local.run_until(async { Rig::new(NO_TIME).ended().await }).await;
        assert_eq!(timed_out(end), (Phase::Idle, 75));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_from_its_first_byte_however_it_trickles() {
        let trickle = async {
            let mut rig = Rig::new(NO_TIME);
            sleep(20 * SECOND).await;
            rig.client.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
            for _ in 0..9 {
                sleep(SECOND).await;
                rig.client.write_all(b"y").await.unwrap();
            }
            rig.ended().await
        };
        let end = LocalSet::new().run_until(trickle).await;
        assert_eq!(timed_out(end), (Phase::Head, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_begins_anew_after_each_answer() {
        let several = async {
            let mut rig = Rig::new(NO_TIME);
            for _ in 0..3 {
                sleep(70 * SECOND).await;
                rig.client.write_all(GET).await.unwrap();
                rig.answer().await;
            }
            rig.ended().await
        };
        let end = LocalSet::new().run_until(several).await;
        assert_eq!(timed_out(end), (Phase::Idle, 3 * 70 + 75));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_head_is_timed_like_the_first() {
        let second = async {
            let mut rig = Rig::new(NO_TIME);
            rig.client.write_all(GET).await.unwrap();
            rig.answer().await;
            sleep(5 * SECOND).await;
            rig.client.write_all(b"GET").await.unwrap();
            rig.ended().await
        };
        let end = LocalSet::new().run_until(second).await;
        assert_eq!(timed_out(end), (Phase::Head, 15));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_is_not_our_concern() {
        let slow = async {
            let mut rig = Rig::new(600 * SECOND);
            rig.client.write_all(GET).await.unwrap();
            assert!(rig.answer().await.starts_with("HTTP/1.1 200 OK"));
            rig.ended().await
        };
        let end = LocalSet::new().run_until(slow).await;
        assert_eq!(timed_out(end), (Phase::Idle, 675));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_has_begun_is_answered_while_finishing() {
        let leave = async {
            let mut rig = Rig::new(SECOND);
            let (first, rest) = GET.split_at(9);
            rig.client.write_all(first).await.unwrap();
            sleep(SECOND).await;
            rig.drain.tell(Stage::Finishing);
            sleep(SECOND).await;
            rig.client.write_all(rest).await.unwrap();
            let answer = rig.answer().await;
            assert!(answer.contains("connection: close"), "{answer}");
            rig.ended().await
        };
        let (ended, seconds) = LocalSet::new().run_until(leave).await;
        assert!(matches!(ended, Ended::Closed), "{ended:?}");
        assert_eq!(seconds, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_request_that_is_on_its_way_is_answered_while_finishing() {
        let leave = async |work| {
            let mut rig = Rig::new(work);
            rig.drain.tell(Stage::Finishing);
            sleep(FIRST_REQUEST_GRACE / 2).await;
            rig.client.write_all(GET).await.unwrap();
            let answer = rig.answer().await;
            assert!(answer.contains("connection: close"), "{answer}");
            let silent = Rig::new(work);
            silent.drain.tell(Stage::Finishing);
            (rig.ended().await.0, silent.ended().await.1)
        };
        for work in [NO_TIME, SECOND] {
            let (ended, silent) = LocalSet::new().run_until(leave(work)).await;
            assert!(matches!(ended, Ended::Closed), "{ended:?}");
            assert_eq!(silent, 0, "its grace is half a second");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_retiring_connection_waits_for_a_request_and_answers_it_as_its_last() {
        let retire = async {
            let mut rig = Rig::new(SECOND);
            rig.client.write_all(GET).await.unwrap();
            assert!(!rig.answer().await.contains("connection: close"));
            rig.drain.tell(Stage::Retiring);
            sleep(5 * SECOND).await;
            rig.client.write_all(GET).await.unwrap();
            assert!(rig.answer().await.contains("connection: close"));
            rig.ended().await
        };
        let (ended, seconds) = LocalSet::new().run_until(retire).await;
        assert!(matches!(ended, Ended::Closed), "{ended:?}");
        assert_eq!(seconds, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn limits_of_heads_are_kept() {
        let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(33 * 1024));
        let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(101));
        for head in [long, many] {
            let refused = async {
                let mut rig = Rig::new(NO_TIME);
                rig.client.write_all(head.as_bytes()).await.unwrap();
                let mut answer = String::new();
                rig.client.read_to_string(&mut answer).await.unwrap();
                assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
            };
            LocalSet::new().run_until(refused).await;
        }
    }
}
