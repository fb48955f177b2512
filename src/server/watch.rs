//! What a connection is doing, seen from its socket: the base of its time-outs.
//!
//! hyper's own head time-out starts when it begins to *wait* for a request, so it also ends idle
//! connections; and it allocates and registers a timer for each request. Here the socket notes what
//! passes, and the task that drives the connection keeps one timer that is moved only when it fires
//! or when a head does not arrive whole.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::frames::Frames;
use super::head::{Flaw, Heads};
use super::opening::Opening;
use super::refusal;
use super::settings::ConnectionLimits;
use super::slots::Place;

/// A byte stream to a client.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Ready once the client has closed its side, without taking any byte that it sent.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Lets the end of the connection not be taken for the end of an answer, where that can be told.
    fn cut(&self) {}
}

impl Stream for TcpStream {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut byte = [0; 1];
        match ready!(self.poll_peek(cx, &mut ReadBuf::new(&mut byte))) {
            Ok(0) | Err(_) => Poll::Ready(()),
            Ok(_) => Poll::Pending, // a pipelined request: the client is there
        }
    }

    fn cut(&self) {
        // An error only means that the connection is cut already.
        let _ = self.set_zero_linger();
    }
}

impl<I: Stream> Stream for TlsStream<I> {
    /// The end of TLS is a message of its own, so that looking at the socket below is not enough.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(Pin::new(self).poll_fill_buf(cx)) {
            Ok([]) | Err(_) => Poll::Ready(()),
            Ok(_) => Poll::Pending, // a pipelined request: the client is there
        }
    }

    fn cut(&self) {
        self.get_ref().0.cut();
    }
}

impl Stream for UnixStream {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let stream = &*self;
        loop {
            if ready!(stream.poll_read_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            let peeked = stream.try_io(Interest::READABLE, || {
                let mut byte = [0; 1];
                Ok(recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0)
            });
            match peeked {
                Ok(1..) => return Poll::Pending,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

#[cfg(test)]
impl Stream for tokio::io::DuplexStream {
    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending // it cannot be looked into
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Waiting for a request.
    Idle = 0,
    /// A first byte came, the head is not complete.
    Head = 1,
    /// A request is with the service.
    Busy = 2,
    /// The same, and the request is of a safe method: nobody needs its answer when the client left.
    BusySafe = 3,
    /// An answer is being sent, and the client has no room for it.
    Stalled = 4,
}

impl Phase {
    /// Whether a request is with the service.
    pub fn is_busy(self) -> bool {
        matches!(self, Self::Busy | Self::BusySafe | Self::Stalled)
    }
}

/// Shared by the socket inside hyper, the service, and the task that drives them. All three run on
/// one thread: the lock is never contended, and there only because an upgraded socket may move.
#[derive(Debug)]
pub struct Watch<I> {
    wire: Mutex<Wire<I>>,
    phase: AtomicU8,
    moved: AtomicBool,
    /// Whether the client has no room for what it is being sent.
    blocked: AtomicBool,
    /// Whether an answer is being sent that ends with the connection.
    open_ended: AtomicBool,
    /// Whether it has brought a request.
    used: AtomicBool,
    /// The connection's place under the limit, held until the socket closes.
    _place: Option<Place>,
}

/// A socket and what its bytes have told.
#[derive(Debug)]
struct Wire<I> {
    stream: I,
    opening: Opening,
    /// Of an HTTP/1 connection.
    heads: Heads,
    /// Of an HTTP/2 connection.
    frames: Option<Frames>,
    /// What goes out in place of something that hyper has written.
    instead: Vec<u8>,
}

impl<I> Watch<I> {
    /// A connection that waits for its first request.
    pub fn new(stream: I, place: Option<Place>) -> Arc<Self> {
        let opening = Opening::Unsure(Vec::new());
        Arc::new(Self {
            wire: Mutex::new(Wire {
                stream,
                opening,
                heads: Heads::default(),
                frames: None,
                instead: Vec::new(),
            }),
            phase: AtomicU8::new(Phase::Idle as u8),
            moved: AtomicBool::new(true),
            blocked: AtomicBool::new(false),
            open_ended: AtomicBool::new(false),
            used: AtomicBool::new(false),
            _place: place,
        })
    }

    /// What it is doing now.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 if self.blocked.load(Relaxed) => Phase::Stalled,
            2 => Phase::Busy,
            _ => Phase::BusySafe,
        }
    }

    /// Notes what it does from now on.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
        self.moved.store(true, Relaxed);
        if phase.is_busy() {
            self.used.store(true, Relaxed);
        }
    }

    /// Whether it has brought a request.
    pub fn was_used(&self) -> bool {
        self.used.load(Relaxed)
    }

    /// Notes whether an answer is being sent that ends with the connection.
    pub fn set_open_ended(&self, open_ended: bool) {
        self.open_ended.store(open_ended, Relaxed);
    }

    /// Whether anything was sent or any phase entered since the last call.
    pub fn take_moved(&self) -> bool {
        self.moved.swap(false, Relaxed)
    }

    /// Counts a request that hyper has read; tells why it is not to be served, if it is not.
    pub fn count_request(&self) -> Option<Flaw> {
        self.wire().heads.count()
    }

    /// From now on another protocol is spoken.
    pub fn switch(&self) {
        self.wire().heads.switch();
    }

    /// Whether an HTTP/1 client has begun to send a message and has not come to its end.
    pub fn within_message(&self) -> bool {
        self.wire().heads.within_message()
    }

    /// Whether the client speaks HTTP/2, which HTTP/1 cannot read.
    pub fn is_http2(&self) -> bool {
        self.wire().opening.is_http2()
    }

    /// From now on HTTP/2 is read.
    pub fn take_over(&self) {
        let mut wire = self.wire();
        wire.opening.settle();
        wire.frames = Some(Frames::new());
    }

    /// Since when an HTTP/2 client has been sending a head.
    pub fn head_since(&self) -> Option<Instant> {
        self.wire().frames.as_ref().and_then(Frames::head_since)
    }

    /// Whether an HTTP/2 client has sent a path with a fragment.
    pub fn has_fragment(&self) -> bool {
        self.wire().frames.as_ref().is_some_and(Frames::fragment)
    }

    /// Streams that an HTTP/2 client cancelled of late.
    pub fn resets(&self) -> u32 {
        self.wire().frames.as_ref().map_or(0, Frames::resets)
    }

    fn wire(&self) -> MutexGuard<'_, Wire<I>> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: Stream> Watch<I> {
    /// Cuts the connection if it would otherwise look like the end of an answer.
    pub fn cut_if_open_ended(&self) {
        if self.open_ended.load(Relaxed) {
            self.wire().stream.cut();
        }
    }

    /// Whether the client has left; if not, the task is woken when it does.
    pub fn is_gone(&self, cx: &mut Context<'_>) -> bool {
        self.wire().stream.poll_gone(cx).is_ready()
    }
}

impl<I: Stream> Wire<I> {
    /// Writes what goes out in place of something else.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.instead))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.instead.drain(..written)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The socket as hyper sees it.
#[derive(Debug)]
pub struct Watched<I>(pub Arc<Watch<I>>);

impl<I: Stream> Watched<I> {
    fn sent(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(result, Poll::Ready(Ok(1..))) {
            self.0.moved.store(true, Relaxed);
        }
        self.0.blocked.store(result.is_pending(), Relaxed);
        result
    }
}

impl<I: Stream> AsyncRead for Watched<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let mut wire = self.0.wire();
        let Wire { stream, opening, heads, frames, .. } = &mut *wire;
        let result = opening.poll_read(stream, cx, buf);
        let came = buf.filled().get(before..).unwrap_or_default();
        match frames {
            Some(frames) => frames.follow(came),
            None => {
                heads.follow(came);
                let begun = !came.is_empty() || opening.holds_back();
                if begun && self.0.phase() == Phase::Idle {
                    self.0.enter(Phase::Head);
                }
            }
        }
        result
    }
}

impl<I: Stream> AsyncWrite for Watched<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.0.wire();
        ready!(wire.poll_instead(cx))?;
        if self.0.phase() == Phase::Head
            && let Some(instead) = refusal::in_place_of(buf)
        {
            wire.instead = instead;
            return self.sent(Poll::Ready(Ok(buf.len())));
        }
        let result = Pin::new(&mut wire.stream).poll_write(cx, buf);
        self.sent(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
        if let (Some(only), None) = (filled.next(), filled.next()) {
            return self.poll_write(cx, only);
        }
        let mut wire = self.0.wire();
        ready!(wire.poll_instead(cx))?;
        let result = Pin::new(&mut wire.stream).poll_write_vectored(cx, bufs);
        self.sent(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.wire().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.wire();
        ready!(wire.poll_instead(cx))?;
        // TLS takes what it cannot send yet; where hyper flushes, it has nothing more to write.
        let result = Pin::new(&mut wire.stream).poll_flush(cx);
        self.0.blocked.store(result.is_pending(), Relaxed);
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.wire();
        ready!(wire.poll_instead(cx))?;
        Pin::new(&mut wire.stream).poll_shutdown(cx)
    }
}

/// How long a connection may be idle while others wait for a place.
pub const CROWDED_IDLE: Duration = Duration::from_secs(1);

/// When a connection's present phase began, and so when it has lasted too long.
#[derive(Debug)]
pub struct Deadline {
    head: Duration,
    idle: Duration,
    send: Duration,
    phase: Phase,
    since: Instant,
}

impl Deadline {
    /// A connection that has just been accepted.
    pub fn new(limits: &ConnectionLimits) -> Self {
        Self {
            head: limits.head_timeout,
            idle: limits.idle_timeout,
            send: limits.send_timeout,
            phase: Phase::Idle,
            since: Instant::now(),
        }
    }

    /// The time at which the connection is to be closed; none while a request is with the service,
    /// whose own time-outs rule then, unless its client takes nothing of the answer.
    ///
    /// While others wait for a place, an idle connection has little time left.
    pub fn due(&mut self, phase: Phase, moved: bool, crowded: bool) -> Option<Instant> {
        let entered = std::mem::replace(&mut self.phase, phase) != phase;
        let limit = match phase {
            Phase::Idle if crowded => self.idle.min(CROWDED_IDLE),
            Phase::Idle => self.idle,
            Phase::Head => self.head,
            Phase::Stalled => self.send,
            Phase::Busy | Phase::BusySafe => return None,
        };
        if entered || moved {
            self.since = Instant::now();
        }
        Some(self.since + limit)
    }
}
