//! The socket of one client connection, shared by hyper or h2, by the connection's timer, and by requests
//! that ask if their client is still there.
//!
//! It does what hyper does not: it tells a head that has begun from an idle connection, notes whether
//! bytes move, watches for clients that leave, and turns a cut response whose end is the end of its
//! connection into a reset. It parses no HTTP.

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
/// All clones live on one thread, so the lock is never contended. It is there because hyper asks for
/// `Send` where a connection may be upgraded. The kind of socket is known at run time only, so that
/// hyper, h2 and the request path are compiled once.
#[derive(Clone)]
pub(super) struct SharedIo(Arc<Mutex<State<dyn ClientStream>>>);

struct State<I: ?Sized> {
    /// Bytes that were read to detect the protocol, and are still to be handed on.
    early: BytesMut,
    phase: ConnectionPhase,
    /// True if bytes were sent or a phase was entered since the last look.
    moved: bool,
    /// True if the socket had no room for the last write.
    blocked: bool,
    /// Bytes that the socket took since the connection began.
    written: u64,
    /// True if a flush has ended since the last [`SharedIo::await_flush`].
    flushed: bool,
    /// True once a request has come.
    used: bool,
    /// True once the client's end of the connection was read.
    at_end: bool,
    /// True once the client was seen to close its side. The kernel does not know the end of TLS, which is
    /// a message that was read.
    half_closed: bool,
    /// True while a response is sent whose end is the end of the connection.
    close_delimited: bool,
    /// The connection's task, woken when another task has read the rest of a request that had been
    /// answered.
    driver: Option<Waker>,
    /// Held until the socket closes.
    _permit: Option<ConnectionPermit>,
    stream: I,
}

/// A handle that does not keep the socket open.
pub(super) struct WeakIo(Weak<Mutex<State<dyn ClientStream>>>);

impl WeakIo {
    /// The state of the client: as the kernel knows it, or half closed if its end was read. The client of
    /// a closed socket is disconnected.
    pub fn peer_state(&self) -> PeerState {
        // The last strong handle is gone once the connection has closed its socket.
        let Some(state) = self.0.upgrade() else { return PeerState::Disconnected };
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.stream.peer_state() {
            PeerState::Connected if state.half_closed || state.at_end => PeerState::HalfClosed,
            known => known,
        }
    }
}

impl SharedIo {
    /// A connection that waits for its first request.
    pub fn new(stream: impl ClientStream, permit: Option<ConnectionPermit>) -> Self {
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
            _permit: permit,
            stream,
        })))
    }

    /// The state of the client as the kernel knows it.
    pub fn peer_state(&self) -> PeerState {
        self.downgrade().peer_state()
    }

    /// True if the client has reset the connection.
    pub fn was_reset(&self) -> bool {
        self.lock().stream.was_reset()
    }

    /// A handle for holders that may outlive the connection.
    pub fn downgrade(&self) -> WeakIo {
        WeakIo(Arc::downgrade(&self.0))
    }

    fn lock(&self) -> MutexGuard<'_, State<dyn ClientStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present phase.
    pub fn phase(&self) -> ConnectionPhase {
        self.lock().phase
    }

    /// Enters a phase.
    pub fn enter(&self, phase: ConnectionPhase) {
        let mut state = self.lock();
        state.phase = phase;
        state.moved = true;
        state.used |= phase.is_busy();
    }

    /// Becomes idle when another task has read the rest of a request that had been answered. Wakes the
    /// connection's task, which decides how the connection goes on.
    pub fn enter_idle(&self) {
        self.enter(ConnectionPhase::Idle);
        // Taken before it is woken, since the lock must not be held meanwhile.
        let driver = self.lock().driver.take();
        driver.into_iter().for_each(Waker::wake);
    }

    /// Registers the connection's task for [`enter_idle`](Self::enter_idle).
    pub fn wake_when_idle(&self, cx: &Context<'_>) {
        let mut state = self.lock();
        // Only in this phase does another task end the phase; all other events wake the connection's task.
        if state.phase == ConnectionPhase::Head && state.used {
            match &mut state.driver {
                Some(driver) => driver.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
    }

    /// True once a request has come.
    pub fn was_used(&self) -> bool {
        self.lock().used
    }

    /// True once the client's end of the connection was read.
    pub fn is_at_end(&self) -> bool {
        self.lock().at_end
    }

    /// True if bytes were sent or a phase was entered since the last call.
    pub fn take_moved(&self) -> bool {
        std::mem::replace(&mut self.lock().moved, false)
    }

    /// True if the socket has no room for bytes that wait to be written.
    pub fn is_blocked(&self) -> bool {
        self.lock().blocked
    }

    /// Bytes that the socket took since the connection began.
    pub fn written(&self) -> u64 {
        self.lock().written
    }

    /// Makes [`is_flushed`](Self::is_flushed) false until the next flush has ended.
    pub fn await_flush(&self) {
        self.lock().flushed = false;
    }

    /// True if a flush has ended since the last [`await_flush`](Self::await_flush). hyper and TLS flush
    /// only once their own buffers are empty, so that the kernel then has every byte.
    pub fn is_flushed(&self) -> bool {
        self.lock().flushed
    }

    /// Notes if a response is being sent whose end is the end of the connection.
    pub fn set_close_delimited(&self, close_delimited: bool) {
        self.lock().close_delimited = close_delimited;
    }

    /// Looks at the early bytes that were not handed on yet.
    pub fn with_early<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(&self.lock().early)
    }

    /// Reads more of a connection's first bytes, at most `room`, which stay to be read. 0 is the end.
    pub fn poll_early(&self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        // The buffer is allocated only after this, so that idle connections hold none.
        ready!(state.stream.poll_readable(cx));
        let State { stream, early, .. } = &mut *state;
        early.reserve(room);
        let read = ready!(tokio_util::io::poll_read_buf(Pin::new(stream), cx, early))?;
        // Only the new bytes: those before them are noted already.
        let begun = early.len() - read;
        let begun = begins_message(early.get(begun..).unwrap_or_default());
        state.note_read(read, begun);
        Poll::Ready(Ok(read))
    }

    /// Makes the end of the connection a reset if it would look like the end of a response.
    pub fn reset_if_close_delimited(&self) {
        let state = self.lock();
        if state.close_delimited {
            state.stream.reset_on_close();
        }
    }

    /// Watches for a client that leaves.
    pub fn poll_peer(&self, cx: &mut Context<'_>) -> PeerWatch {
        let mut state = self.lock();
        let watch = state.stream.poll_peer(cx);
        state.half_closed |= watch == PeerWatch::Left(PeerState::HalfClosed);
        watch
    }

    /// Closes our side in order: what was written goes out first, then the end of TLS.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, self.shutdown()).await;
    }
}

impl<I: ?Sized> State<I> {
    /// Notes a read; `begun` says that it holds some of a message.
    fn note_read(&mut self, bytes: usize, begun: bool) {
        self.at_end |= bytes == 0;
        // Bytes that come in a busy phase are a pipelined request, which hyper reads later.
        if begun && self.phase == ConnectionPhase::Idle {
            self.phase = ConnectionPhase::Head;
            self.moved = true;
        }
    }

    /// Notes if the socket had no room.
    fn note_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
        self.phase = match self.phase {
            ConnectionPhase::Busy if blocked => ConnectionPhase::Stalled,
            ConnectionPhase::Stalled if !blocked => ConnectionPhase::Busy,
            phase => phase,
        };
    }
}

/// True if bytes hold more than the empty lines that may precede a request (RFC 9112 section 2.2).
fn begins_message(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
}

impl AsyncRead for SharedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        // Ready without a look at the socket: the next read goes there and registers the waker.
        if !state.early.is_empty() {
            let taken = state.early.len().min(buf.remaining());
            buf.put_slice(state.early.get(..taken).unwrap_or_default());
            state.early.advance(taken);
            if state.early.is_empty() {
                state.early = BytesMut::new(); // frees its memory
            }
            return Poll::Ready(Ok(()));
        }
        // hyper may pass a buffer that is filled in part.
        let before = buf.filled().len();
        ready!(Pin::new(&mut state.stream).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        state.note_read(read.len(), begins_message(read));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SharedIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // One piece is written as it is, and noted in one place.
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        let written = poll_write_pieces(&mut state.stream, cx, pieces);
        // Not for an empty write, which is no progress of the client.
        if let Poll::Ready(Ok(bytes @ 1..)) = written {
            state.moved = true;
            state.written += bytes as u64;
        }
        state.note_blocked(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        // TLS buffers what it cannot send, and reports only here that the socket has no room.
        let flushed = Pin::new(&mut state.stream).poll_flush(cx);
        state.note_blocked(flushed.is_pending());
        // Set, and never cleared here: a flush that follows says nothing less.
        state.flushed |= matches!(flushed, Poll::Ready(Ok(())));
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_shutdown(cx)
    }
}
