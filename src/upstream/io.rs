//! The socket of one upstream connection, shared by hyper and the pool.
//!
//! It does three things that hyper does not. It counts bytes, so that it is known whether any byte of a
//! request was written. It asks the kernel, right before the first byte of a request, whether the
//! connection is as its last response left it. And it lets a response be read although the request can
//! no longer be written.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use rustix::fd::AsFd;
use rustls::{AlertDescription, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::either::Either;

use super::state::OpenConnection;
use crate::net::connect::MaybeTlsStream;
use crate::net::poll::pending_events;
use crate::net::stream::poll_write_pieces;
use crate::x509::diagnosis;

/// The first bytes of a TLS alert (RFC 8446 section 5.1): what a server with TLS answers to plain HTTP.
const TLS_ALERT: [u8; 2] = [21, 3];

/// The socket as hyper owns it.
pub(super) struct UpstreamIo {
    socket: Arc<Mutex<Socket>>,
    counters: Arc<Counters>,
}

/// A view of a socket for the pool and its exchanges; it does not keep the socket open.
#[derive(Clone)]
pub(super) struct IoHandle {
    socket: Weak<Mutex<Socket>>,
    counters: Arc<Counters>,
}

// All handles of a socket live on one thread. The lock, which is never contended, and the atomics are
// there because hyper asks for `Send` where a connection may be upgraded.
struct Socket {
    stream: MaybeTlsStream,
    /// Held until the socket closes, whatever protocol is spoken by then.
    _guard: SocketGuard,
}

/// Goes with an open socket.
pub(super) struct SocketGuard {
    /// The connection's permit under `max_connections`.
    pub _permit: OwnedSemaphorePermit,
    /// Counts the connection in the state of its upstream.
    pub _open: OpenConnection,
    /// The address of the upstream, or of the egress proxy.
    pub peer: Option<SocketAddr>,
}

/// The reaction to a write that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnWriteError {
    /// The write stays pending, so that hyper goes on to read a response that came before the failure.
    /// For HTTP/1.
    StayPending,
    /// The writer gets the error. For all other protocols.
    Report,
}

#[derive(Default)]
struct Counters {
    peer: Option<SocketAddr>,
    /// Bytes written, before TLS.
    written: AtomicU64,
    /// Bytes read, after TLS.
    read: AtomicU64,
    /// Set on a reused connection between handing a request to hyper and writing its first byte.
    awaits_first_byte: AtomicBool,
    /// [`OnWriteError::StayPending`] holds now.
    hides_write_errors: AtomicBool,
    /// Set by a write whose error was not reported.
    write_failed: AtomicBool,
    /// The fatal alert with which the server ended TLS.
    alert: OnceLock<TlsAlert>,
    /// Set if the first bytes on a connection without TLS were a TLS alert.
    answered_in_tls: AtomicBool,
}

/// A fatal TLS alert of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TlsAlert {
    /// Its description (RFC 8446 section 6).
    pub description: AlertDescription,
    /// True if the server has read no request: it refused the handshake, and sent nothing after its own
    /// part of that.
    pub refused_handshake: bool,
}

impl UpstreamIo {
    /// Takes a connection on which nothing was sent yet.
    pub fn new(
        stream: MaybeTlsStream,
        on_write_error: OnWriteError,
        guard: SocketGuard,
    ) -> (Self, IoHandle) {
        let hides = on_write_error == OnWriteError::StayPending;
        let counters = Counters {
            peer: guard.peer,
            hides_write_errors: AtomicBool::new(hides),
            ..Counters::default()
        };
        let socket = Socket { stream, _guard: guard };
        let io = Self { socket: Arc::new(Mutex::new(socket)), counters: Arc::new(counters) };
        let handle =
            IoHandle { socket: Arc::downgrade(&io.socket), counters: Arc::clone(&io.counters) };
        (io, handle)
    }
}

impl IoHandle {
    /// The address of the upstream, or of the egress proxy.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.counters.peer
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.counters.written.load(Relaxed)
    }

    /// Bytes read so far.
    pub fn read(&self) -> u64 {
        self.counters.read.load(Relaxed)
    }

    /// Announces a request on a reused connection: its first byte is written only if the connection is
    /// still as the last response left it.
    pub fn expect_first_byte(&self) {
        self.counters.awaits_first_byte.store(true, Relaxed);
    }

    /// True if an announced request can no longer be sent: the connection was closed, or unsolicited
    /// bytes arrived on it.
    pub fn is_stale(&self) -> bool {
        self.counters.awaits_first_byte.load(Relaxed)
            && !self.socket.upgrade().is_some_and(|socket| lock(&socket).is_quiet())
    }

    /// Sets how failed writes are treated from now on. Returns true if one has failed already and its
    /// error was not reported: hyper then waits for a write that will never be ready.
    pub fn on_write_error(&self, reaction: OnWriteError) -> bool {
        self.counters.hides_write_errors.store(reaction == OnWriteError::StayPending, Relaxed);
        self.write_failed()
    }

    /// The fatal alert with which the server ended TLS.
    pub fn alert(&self) -> Option<TlsAlert> {
        self.counters.alert.get().copied()
    }

    /// True if the first bytes on a connection without TLS were a TLS alert.
    pub fn answered_in_tls(&self) -> bool {
        self.counters.answered_in_tls.load(Relaxed)
    }

    /// True if a write has failed and its error was not reported.
    pub fn write_failed(&self) -> bool {
        self.counters.write_failed.load(Relaxed)
    }
}

/// True for the error of a write to a socket that the peer has closed.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

fn lock(socket: &Mutex<Socket>) -> MutexGuard<'_, Socket> {
    socket.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Socket {
    /// True if the kernel has neither an end nor bytes for us: bytes that came between two exchanges
    /// would be read as the next response. An error of poll(2) proves nothing, so it counts as not quiet.
    fn is_quiet(&self) -> bool {
        let socket = match &self.stream {
            Either::Left(stream) => stream.as_fd(),
            Either::Right(stream) => stream.get_ref().0.as_fd(),
        };
        pending_events(socket).is_ok_and(|events| events.is_empty())
    }
}

impl Counters {
    /// True after a failed write whose error is not reported: no further write is tried.
    fn has_hidden_failure(&self) -> bool {
        self.write_failed.load(Relaxed) && self.hides_write_errors.load(Relaxed)
    }

    /// Notes the alert in the error of a read. In TLS 1.3 a client ends its handshake before the server has
    /// checked its certificate, so that the refusal comes after a request was written. The server has not
    /// read that request if its alert is the first thing that it sent: no answer and no session ticket,
    /// which only a server sends that has accepted the client (RFC 8446 section 4.6.1).
    fn note_alert(&self, error: &io::Error, stream: &MaybeTlsStream) {
        if let (Some(rustls::Error::AlertReceived(description)), Either::Right(tls)) =
            (diagnosis::of_io(error), stream)
        {
            let session = tls.get_ref().1;
            let refused_handshake = diagnosis::refuses_handshake(*description)
                && session.protocol_version() == Some(ProtocolVersion::TLSv1_3)
                && session.tls13_tickets_received() == 0
                && self.read.load(Relaxed) == 0;
            // An alert ends its connection, so that none comes before another.
            let _first = self.alert.set(TlsAlert { description: *description, refused_handshake });
        }
    }

    /// After a failed write: the alert that the server sent before it closed, which is the better error.
    /// What else it sent is lost with the connection.
    fn alert_behind<T>(
        &self,
        stream: &mut MaybeTlsStream,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let closed = match &written {
            Poll::Ready(Err(error)) => is_closed(error),
            _ => false,
        };
        let hidden = self.hides_write_errors.load(Relaxed);
        if hidden || !closed || matches!(stream, Either::Left(_)) {
            return written;
        }
        let mut space = [0; 1024];
        let mut buf = ReadBuf::new(&mut space);
        match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
            // The read has registered the waker. It is called, since a socket that its peer has closed is
            // readable: the event is on its way.
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => {
                self.note_alert(&error, stream);
                if self.alert.get().is_some() {
                    return Poll::Ready(Err(error));
                }
            }
            Poll::Ready(Ok(())) => {}
        }
        // Data before the alert: the server had read something.
        self.read.fetch_add(buf.filled().len() as u64, Relaxed);
        written
    }

    /// Turns a failed write into a pending one, where write errors are not reported.
    ///
    /// An upstream may answer and close before it has read the whole request (413, 401). The write then
    /// fails while the response waits to be read, and hyper would give up on both.
    fn hide_failure<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(_)) if self.hides_write_errors.load(Relaxed) => {
                self.write_failed.store(true, Relaxed);
                // No waker is registered, and none is needed: the event that failed the write also wakes
                // the read side of the same task, which brings the response or the error. Once a response
                // has ended nothing is read any more: its owner then asks for the failure.
                Poll::Pending
            }
            written => written,
        }
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let mut socket = lock(&self.socket);
        let stream = &mut socket.stream;
        // The socket's read registers the waker; what follows looks at its result and adds no wait.
        if let Err(error) = ready!(Pin::new(&mut *stream).poll_read(cx, buf)) {
            self.counters.note_alert(&error, stream);
            return Poll::Ready(Err(error));
        }
        let read = buf.filled().get(before..).unwrap_or_default();
        let first = self.counters.read.fetch_add(read.len() as u64, Relaxed) == 0;
        if first && read.starts_with(&TLS_ALERT) && matches!(stream, Either::Left(_)) {
            self.counters.answered_in_tls.store(true, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut socket = lock(&self.socket);
        if self.counters.has_hidden_failure() {
            return Poll::Pending; // as in `hide_failure`
        }
        let Counters { written: total, awaits_first_byte, .. } = &*self.counters;
        let written = poll_write_pieces(&mut socket.stream, cx, pieces);
        if let Poll::Ready(Ok(bytes)) = written {
            total.fetch_add(bytes as u64, Relaxed);
            // Cleared by a write that took bytes only: until then `is_stale` looks again before each poll.
            awaits_first_byte.store(false, Relaxed);
        }
        let written = self.counters.alert_behind(&mut socket.stream, cx, written);
        self.counters.hide_failure(written)
    }

    fn is_write_vectored(&self) -> bool {
        lock(&self.socket).stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = lock(&self.socket);
        if self.counters.has_hidden_failure() {
            return Poll::Pending; // as in `hide_failure`
        }
        let flushed = Pin::new(&mut socket.stream).poll_flush(cx);
        let flushed = self.counters.alert_behind(&mut socket.stream, cx, flushed);
        self.counters.hide_failure(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = lock(&self.socket);
        if self.counters.has_hidden_failure() {
            return Poll::Ready(Ok(())); // the socket cannot be written to any more
        }
        Pin::new(&mut socket.stream).poll_shutdown(cx)
    }
}
