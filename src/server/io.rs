//! The socket of one client connection, shared by hyper or h2, by the connection's timer, and by
//! requests that ask whether their client is still there.
//!
//! It does what hyper does not: it tells a head that has begun from a connection that is idle, notes
//! whether bytes move, looks for clients that left, and turns a cut answer whose end is the end of its
//! connection into a reset. It reads no HTTP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::client_stream::{ClientStream, PeerState, PeerWatch};
use super::connection_limit::ConnectionPermit;
use super::phase::ConnectionPhase;
use crate::net::stream::poll_write_pieces;

/// How long a TLS `close_notify` may take to be written: a client may have no room even for that.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// A handle on a connection's socket; clones share it.
///
/// All clones live on one thread, so that the lock is never contended. It is there because hyper asks
/// for `Send` where a connection may be upgraded. The kind of socket is known at run time, so that hyper,
/// h2 and the request path are compiled once, and not for each kind.
#[derive(Clone)]
pub(super) struct SharedIo(Arc<Mutex<State<dyn ClientStream>>>);

struct State<I: ?Sized> {
    /// Bytes that were read to tell which protocol is spoken, not yet handed on.
    early: BytesMut,
    phase: ConnectionPhase,
    /// Whether bytes were sent or a phase was entered since the last look.
    moved: bool,
    /// Whether the socket had no room for the last write.
    blocked: bool,
    /// Bytes that the socket took since the connection began.
    written: u64,
    /// Whether the kernel has taken all that was written since the last [`SharedIo::await_flush`].
    flushed: bool,
    /// Whether a request has come.
    used: bool,
    /// Whether the client's end of the connection has been read.
    at_end: bool,
    /// Whether the client was seen to close its side. The end of TLS is a message, which the kernel
    /// knows nothing of once it has been read.
    half_closed: bool,
    /// Whether the end of the connection would be taken for the end of the answer that is being sent.
    close_delimited: bool,
    /// The connection's task, to be woken when the rest of a request that had been answered has come:
    /// another task takes it.
    driver: Option<Waker>,
    /// The connection's place under `server.max_connections`, held until the socket closes.
    _place: Option<ConnectionPermit>,
    stream: I,
}

/// Asks for the peer of a socket, and does not keep it open.
pub(super) struct WeakIo(Weak<Mutex<State<dyn ClientStream>>>);

impl WeakIo {
    /// What is known of the client now: what the kernel says, and that it has closed its side. One whose
    /// socket is closed has left.
    pub fn peer_state(&self) -> PeerState {
        let Some(state) = self.0.upgrade() else { return PeerState::Disconnected };
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.stream.peer_state() {
            PeerState::Connected if state.half_closed || state.at_end => PeerState::HalfClosed,
            told => told,
        }
    }
}

impl SharedIo {
    /// A connection that waits for its first request.
    pub fn new(stream: impl ClientStream, place: Option<ConnectionPermit>) -> Self {
        Self(Arc::new(Mutex::new(State {
            early: BytesMut::new(),
            phase: ConnectionPhase::Idle,
            moved: true,
            blocked: false,
            written: 0,
            flushed: false,
            used: false,
            at_end: false,
            half_closed: false,
            close_delimited: false,
            driver: None,
            _place: place,
            stream,
        })))
    }

    /// For those who may outlive the connection.
    pub fn downgrade(&self) -> WeakIo {
        WeakIo(Arc::downgrade(&self.0))
    }

    fn lock(&self) -> MutexGuard<'_, State<dyn ClientStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the connection is doing now.
    pub fn phase(&self) -> ConnectionPhase {
        self.lock().phase
    }

    /// Notes what it does from now on.
    pub fn enter(&self, phase: ConnectionPhase) {
        let mut state = self.lock();
        state.phase = phase;
        state.moved = true;
        state.used |= phase.is_busy();
    }

    /// The rest of a request that had been answered has come. What the connection does from now on is
    /// for its task to decide.
    pub fn enter_idle(&self) {
        self.enter(ConnectionPhase::Idle);
        let driver = self.lock().driver.take();
        driver.into_iter().for_each(Waker::wake);
    }

    /// Notes the connection's task, for [`enter_idle`](Self::enter_idle).
    pub fn wake_when_idle(&self, cx: &Context<'_>) {
        let mut state = self.lock();
        if state.phase == ConnectionPhase::Head && state.used {
            match &mut state.driver {
                Some(driver) => driver.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
    }

    /// Whether it has brought a request.
    pub fn was_used(&self) -> bool {
        self.lock().used
    }

    /// Whether the client's end of the connection has been read.
    pub fn is_at_end(&self) -> bool {
        self.lock().at_end
    }

    /// Whether bytes were sent or a phase was entered since the last call.
    pub fn take_moved(&self) -> bool {
        std::mem::replace(&mut self.lock().moved, false)
    }

    /// Whether bytes wait to be written for which the socket has no room.
    pub fn is_blocked(&self) -> bool {
        self.lock().blocked
    }

    /// Bytes that the socket took since the connection began.
    pub fn written(&self) -> u64 {
        self.lock().written
    }

    /// From now on [`is_flushed`](Self::is_flushed) speaks of what is flushed after this call.
    pub fn await_flush(&self) {
        self.lock().flushed = false;
    }

    /// Whether a flush has ended since the last [`await_flush`](Self::await_flush). hyper and TLS flush
    /// only once their own buffers are empty, so that the kernel then has every byte.
    pub fn is_flushed(&self) -> bool {
        self.lock().flushed
    }

    /// Notes whether an answer is being sent that ends with the connection.
    pub fn set_close_delimited(&self, close_delimited: bool) {
        self.lock().close_delimited = close_delimited;
    }

    /// Looks at the bytes that were read and handed to nobody yet.
    pub fn with_early<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(&self.lock().early)
    }

    /// Reads more of a connection's first bytes, which stay to be read by whoever speaks the protocol.
    /// 0 is the end.
    pub fn poll_early(&self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        // No buffer is held while nothing comes.
        ready!(state.stream.poll_readable(cx));
        let State { stream, early, .. } = &mut *state;
        early.reserve(room);
        let read = ready!(tokio_util::io::poll_read_buf(Pin::new(stream), cx, early))?;
        let came = early.len() - read;
        let begun = begins_message(early.get(came..).unwrap_or_default());
        state.read(read, begun);
        Poll::Ready(Ok(read))
    }

    /// Makes the end of the connection a reset where it would be taken for the end of an answer.
    pub fn reset_if_close_delimited(&self) {
        let state = self.lock();
        if state.close_delimited {
            state.stream.reset_on_close();
        }
    }

    /// Notices that the client leaves.
    pub fn poll_departure(&self, cx: &mut Context<'_>) -> PeerWatch {
        let mut state = self.lock();
        let departure = state.stream.poll_departure(cx);
        state.half_closed |= departure == PeerWatch::Left(PeerState::HalfClosed);
        departure
    }

    /// Ends our side: TLS says so, and what was written goes out before the end.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, self.shutdown()).await;
    }
}

impl<I: ?Sized> State<I> {
    /// Notes what a read has brought; `begun` says whether it holds some of a message.
    fn read(&mut self, bytes: usize, begun: bool) {
        self.at_end |= bytes == 0;
        if begun && self.phase == ConnectionPhase::Idle {
            self.phase = ConnectionPhase::Head;
            self.moved = true;
        }
    }

    /// Notes how far a write has come: whether the socket had no room, and how much it took.
    fn wrote(&mut self, blocked: bool, bytes: usize) {
        self.moved |= bytes > 0;
        self.written += bytes as u64;
        self.blocked = blocked;
        self.phase = match self.phase {
            ConnectionPhase::Busy if blocked => ConnectionPhase::Stalled,
            ConnectionPhase::Stalled if !blocked => ConnectionPhase::Busy,
            phase => phase,
        };
    }
}

/// How many bytes a write took.
fn taken(written: &Poll<io::Result<usize>>) -> usize {
    match written {
        Poll::Ready(Ok(bytes)) => *bytes,
        _ => 0,
    }
}

/// Whether bytes hold more than the empty lines that may come before a request (RFC 9112 section 2.2).
fn begins_message(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
}

impl AsyncRead for SharedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        if !state.early.is_empty() {
            let taken = state.early.len().min(into.remaining());
            into.put_slice(state.early.get(..taken).unwrap_or_default());
            state.early.advance(taken);
            if state.early.is_empty() {
                state.early = BytesMut::new(); // its memory goes
            }
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut state.stream).poll_read(cx, into))?;
        let came = into.filled().get(before..).unwrap_or_default();
        state.read(came.len(), begins_message(came));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SharedIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        let written = Pin::new(&mut state.stream).poll_write(cx, bytes);
        state.wrote(written.is_pending(), taken(&written));
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        let written = poll_write_pieces(&mut state.stream, cx, parts);
        state.wrote(written.is_pending(), taken(&written));
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        // TLS takes what it cannot send yet, and only here tells that the socket has no room.
        let flushed = Pin::new(&mut state.stream).poll_flush(cx);
        state.wrote(flushed.is_pending(), 0);
        state.flushed |= matches!(flushed, Poll::Ready(Ok(())));
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_shutdown(cx)
    }
}
