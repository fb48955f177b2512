//! One client connection: what its first bytes say is spoken, and then HTTP/1 or HTTP/2.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use hyper::upgrade::OnUpgrade;
use tokio::time::{Sleep, sleep};
use tower::Service;

use super::client_stream::PeerState;
use super::drain::{DrainHandle, OpenGuard, ShutdownPhase};
use super::io::SharedIo;
use super::linger::linger;
use super::phase::{ConnectionPhase, Deadline};
use super::settings::{ConnectionSettings, HalfClosed};
use super::worker::OnHeadError;
use super::{http1, http2};
use crate::body::{Body, BoxError};
use crate::listen::peer::Peer;
use crate::telemetry::throttle::Throttle;

/// What a client with prior knowledge of HTTP/2 begins with (RFC 9113 section 3.4), and one that agreed
/// on `h2` in its TLS handshake.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Content type of a TLS handshake record, the first byte of a ClientHello (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Bytes that the first read of a connection asks for: heads mostly fit in it, so that telling the
/// protocol costs no read of its own.
const FIRST_READ: usize = 4 * 1024;

/// How long a connection that has brought no request yet may still bring its first one when all are
/// told to finish: its client connected a moment ago, to send one.
pub(super) const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(500);

/// A request, and what is known of how it came.
pub struct Inbound {
    /// As hyper or h2 read it.
    pub request: Request<Body>,
    /// Shared by all requests of the connection.
    pub connection: Rc<ConnectionInfo>,
    /// Tells whether its client is still there.
    pub client: ClientProbe,
    /// The connection itself, once an answer with status 101 has been sent. There if an HTTP/1.1 client
    /// offers to speak another protocol.
    pub upgrade: Option<OnUpgrade>,
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// Where a connection came in and who is on its other end. The worker does not end before the last
/// clone is gone: work that goes on without its client keeps one.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// The listener's number, as given to the worker.
    pub listener: usize,
    /// The client.
    pub peer: Peer,
    /// Counts it as open.
    pub(super) _held: Option<OpenGuard>,
}

impl ConnectionInfo {
    /// A connection that no worker waits for.
    pub fn new(listener: usize, peer: Peer) -> Self {
        Self { listener, peer, _held: None }
    }
}

/// Tells whether the client of a request is still there, by asking the kernel; clones ask the same.
#[derive(Clone)]
pub struct ClientProbe {
    ask: Rc<dyn Fn() -> PeerState>,
    half_closed: HalfClosed,
    /// Whether resets come in frames, which another task reads.
    multiplexed: bool,
}

impl ClientProbe {
    /// Of an HTTP/1 connection; `half_closed` says what a FIN alone means.
    pub fn new(half_closed: HalfClosed, ask: impl Fn() -> PeerState + 'static) -> Self {
        Self { ask: Rc::new(ask), half_closed, multiplexed: false }
    }

    /// Of one HTTP/2 stream.
    pub fn multiplexed(half_closed: HalfClosed, ask: impl Fn() -> PeerState + 'static) -> Self {
        Self { multiplexed: true, ..Self::new(half_closed, ask) }
    }

    /// Of a client that never leaves.
    pub fn always_connected() -> Self {
        Self::new(HalfClosed::default(), || PeerState::Connected)
    }

    /// Whether nobody is left for whom a request that has not been sent could be sent. A FIN alone
    /// says so of an unsafe request, unless `server.half_closed` is `serve`; a safe one has a grace of
    /// its own, which the connection keeps.
    pub async fn has_left(&self, is_safe: bool) -> bool {
        if self.multiplexed {
            // The runtime takes in what sockets have brought, and the connection's task reads the
            // frames, before this task goes on.
            tokio::task::yield_now().await;
        }
        match (self.ask)() {
            PeerState::Connected => false,
            PeerState::HalfClosed => !is_safe && self.half_closed == HalfClosed::Gone,
            PeerState::Disconnected => true,
        }
    }
}

/// Why a request's head was refused by hyper or h2, which answer it themselves: 400, 414 or 431 without
/// a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// It is not HTTP/1.
    Malformed,
    /// It has more lines or bytes than allowed, or a target of more than 65,534 bytes.
    TooLarge,
    /// It is a TLS ClientHello on a listener that does not speak TLS.
    Tls,
}

/// Counts and logs heads that were refused before any request was made of them.
pub(super) struct RefusedHeads {
    told: OnHeadError,
    /// One for each reason, so that none hides another.
    warnings: [RefCell<Throttle>; 3],
}

impl RefusedHeads {
    /// `told` counts them.
    pub fn new(told: OnHeadError) -> Rc<Self> {
        Rc::new(Self { told, warnings: Default::default() })
    }

    /// Notes one; `error` says what was found.
    pub fn add(&self, reason: HeadError, error: &dyn fmt::Display, peer: &Peer) {
        (self.told)(reason);
        let [malformed, too_large, tls] = &self.warnings;
        let throttle = match reason {
            HeadError::Malformed => malformed,
            HeadError::TooLarge => too_large,
            HeadError::Tls => tls,
        };
        let Some(suppressed) = throttle.borrow_mut().allow() else { return };
        match reason {
            HeadError::Tls => tracing::warn!(
                %peer, suppressed,
                "TLS ClientHello on a listener without TLS; the client should use http://, or the \
                 listener needs a certificate (tls)"
            ),
            HeadError::TooLarge => tracing::warn!(
                %peer, %error, suppressed,
                "request head refused: its target has more than 65,534 bytes, or it exceeds \
                 server.max_header_bytes or server.max_headers"
            ),
            HeadError::Malformed => {
                tracing::warn!(%peer, %error, suppressed, "request head refused")
            }
        }
    }
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum CloseReason {
    /// In order, by either side.
    Closed,
    /// No request for too long, a head that took too long, or an answer that nobody took.
    TimedOut(ConnectionPhase),
    /// The client left before its answer.
    ClientLeft,
    /// The client cancelled more HTTP/2 streams than it may.
    Flooded,
    /// A head that hyper could not read and has answered. The socket is still open.
    BadHead(HeadError, BoxError),
    /// The socket or an answer failed.
    Failed(BoxError),
}

/// Serves one connection to its end.
pub(super) async fn serve<S>(
    io: SharedIo,
    info: Rc<ConnectionInfo>,
    service: S,
    limits: &ConnectionSettings,
    refused: &Rc<RefusedHeads>,
    member: DrainHandle,
) -> CloseReason
where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    S::Future: 'static,
{
    let first_bytes = match first_bytes(&io, limits, &member).await {
        Ok(first_bytes) => first_bytes,
        Err(ended) => {
            io.close().await;
            return ended;
        }
    };
    if first_bytes == FirstBytes::Http2 {
        // In a box, so that the many connections without it do not keep room for it.
        return Box::pin(http2::serve(io, info, service, limits, refused, member)).await;
    }
    let known = Rc::clone(&info);
    match http1::serve(io.clone(), info, service, limits, member).await {
        CloseReason::BadHead(reason, error) => {
            // hyper's plain 400 is what TLS libraries report as "wrong version number".
            let is_tls = first_bytes == FirstBytes::Tls;
            refused.add(if is_tls { HeadError::Tls } else { reason }, &error, &known.peer);
            // It was answered, and nothing after it was read.
            if !io.is_at_end() {
                Box::pin(linger(io)).await;
            }
            CloseReason::Closed
        }
        ended => ended,
    }
}

/// What the first bytes of a connection say is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstBytes {
    /// HTTP/1, or something that is for hyper to refuse.
    Http1,
    /// The whole preface of HTTP/2.
    Http2,
    /// The beginning of a TLS handshake.
    Tls,
}

impl FirstBytes {
    /// `None` where more bytes are needed: they are the beginning of HTTP/2's preface so far.
    fn tell(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [] => None,
            [TLS_HANDSHAKE, ..] => Some(Self::Tls),
            bytes if bytes.starts_with(HTTP2_PREFACE) => Some(Self::Http2),
            bytes if HTTP2_PREFACE.starts_with(bytes) => None,
            _ => Some(Self::Http1),
        }
    }
}

/// Waits for a connection's first bytes, within its time-outs. They stay to be read.
async fn first_bytes(
    io: &SharedIo,
    limits: &ConnectionSettings,
    member: &DrainHandle,
) -> Result<FirstBytes, CloseReason> {
    let mut deadline = Deadline::new(limits);
    let mut timer = pin!(sleep(limits.idle_timeout));
    let mut grace = None;
    poll_fn(|cx| {
        let stage = member.stage(cx);
        // Read before the clock is looked at: a head that has begun to arrive is still answered.
        loop {
            match io.poll_early(cx, FIRST_READ) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(CloseReason::Closed)),
                Poll::Ready(Ok(_)) => {
                    if let Some(told) = io.with_early(FirstBytes::tell) {
                        return Poll::Ready(Ok(told));
                    }
                }
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(CloseReason::Failed(error.into())));
                }
                Poll::Pending => break,
            }
        }
        if should_close_for_drain(stage, io, &mut grace, cx) {
            return Poll::Ready(Err(CloseReason::Closed));
        }
        let phase = io.phase();
        let Some(due) = deadline.due(phase, io.take_moved(), member.is_crowded()) else {
            return Poll::Pending;
        };
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(CloseReason::TimedOut(phase)))
    })
    .await
}

/// Whether a connection is to close now: all are told to finish, and no request has begun to arrive.
pub(super) fn should_close_for_drain(
    stage: ShutdownPhase,
    io: &SharedIo,
    grace: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> bool {
    if stage != ShutdownPhase::Finishing || io.phase() != ConnectionPhase::Idle {
        return false;
    }
    io.was_used() || {
        let grace = grace.get_or_insert_with(|| Box::pin(sleep(FIRST_REQUEST_GRACE)));
        grace.as_mut().poll(cx).is_ready()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_are_told_apart_however_they_are_cut() {
        let check = |bytes: &[u8], expected: Option<FirstBytes>| {
            assert_eq!(FirstBytes::tell(bytes), expected, "{bytes:?}");
        };
        check(b"", None);
        for length in 1..HTTP2_PREFACE.len() {
            check(&HTTP2_PREFACE[..length], None);
        }
        check(HTTP2_PREFACE, Some(FirstBytes::Http2));
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04", Some(FirstBytes::Http2));
        for bytes in [&b"POST"[..], b"PU", b"PRI * HTTP/1.1", b"G", b"\r\n", b"PRX"] {
            check(bytes, Some(FirstBytes::Http1));
        }
        check(b"\x16\x03\x01", Some(FirstBytes::Tls));
    }
}
