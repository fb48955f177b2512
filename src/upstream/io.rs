//! The socket of one upstream connection, shared by hyper and the pool.
//!
//! It does what hyper does not: it counts bytes, so that it is known whether any of a request had left;
//! it asks the kernel, at the last moment before the first byte of a request, whether the connection is
//! as its last answer left it; and it lets an answer be read although the request can no longer be
//! written.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use crate::net::connect::MaybeTlsStream;
use crate::net::stream::poll_write_pieces;

/// The socket as hyper has it.
pub(super) struct UpstreamIo {
    socket: Arc<Mutex<Socket>>,
    counters: Arc<Counters>,
}

/// What the pool and exchanges know of a socket; it does not keep it open.
#[derive(Clone)]
pub(super) struct IoHandle {
    socket: Weak<Mutex<Socket>>,
    counters: Arc<Counters>,
}

/// One thread has all of them; the lock, which is never contended, and the atomics are there because
/// hyper asks for `Send` where a connection may be upgraded.
struct Socket {
    stream: MaybeTlsStream,
    write_error: WriteError,
    /// Whether a write has failed.
    write_failed: bool,
    /// The connection's place under `max_connections`, held until the socket closes, whatever protocol
    /// is spoken by then.
    _permit: OwnedSemaphorePermit,
}

/// What becomes of a write that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteError {
    /// Nobody is told: what the upstream said before may still be read. For HTTP/1.
    Withheld,
    /// Whoever writes is told. For all other protocols.
    Told,
}

#[derive(Default)]
struct Counters {
    /// Bytes that were written, before TLS.
    written: AtomicU64,
    /// Bytes that were read, after TLS.
    read: AtomicU64,
    /// Whether the next byte that is written is the first of a request on a connection that has carried
    /// others.
    begins: AtomicBool,
}

impl UpstreamIo {
    /// Takes a connection that nothing was sent on.
    pub fn new(
        stream: MaybeTlsStream,
        write_error: WriteError,
        permit: OwnedSemaphorePermit,
    ) -> (Self, IoHandle) {
        let socket = Socket { stream, write_error, write_failed: false, _permit: permit };
        let io = Self { socket: Arc::new(Mutex::new(socket)), counters: Arc::default() };
        let handle =
            IoHandle { socket: Arc::downgrade(&io.socket), counters: Arc::clone(&io.counters) };
        (io, handle)
    }

    fn lock(&self) -> MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IoHandle {
    /// Bytes that were written so far.
    pub fn written(&self) -> u64 {
        self.counters.written.load(Relaxed)
    }

    /// Bytes that were read so far.
    pub fn read(&self) -> u64 {
        self.counters.read.load(Relaxed)
    }

    /// A request is handed to hyper: none of its bytes is written unless the connection is as the last
    /// answer left it then.
    pub fn begin(&self) {
        self.counters.begins.store(true, Relaxed);
    }

    /// Whether a request that has not begun cannot be sent any more: the connection is closed, or bytes
    /// came that nobody had asked for.
    pub fn is_spoilt(&self) -> bool {
        self.counters.begins.load(Relaxed) && !self.is_quiet()
    }

    /// Whether the kernel knows of no byte and no end that nobody has read.
    fn is_quiet(&self) -> bool {
        let Some(socket) = self.socket.upgrade() else { return false };
        let socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket.is_quiet()
    }

    /// Another protocol is spoken from now on.
    pub fn switched(&self) {
        if let Some(socket) = self.socket.upgrade() {
            socket.lock().unwrap_or_else(PoisonError::into_inner).write_error = WriteError::Told;
        }
    }
}

impl Socket {
    fn fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            MaybeTlsStream::Plain(stream) => stream.as_fd(),
            MaybeTlsStream::Tls(stream) => stream.get_ref().0.as_fd(),
        }
    }

    /// Whether the connection is as its last answer left it: neither closed nor with bytes that nobody
    /// asked for, which would become the next answer.
    ///
    /// This asks the kernel. That a read is pending is no fact about the socket: a runtime answers so
    /// also when it has not heard of the bytes yet, and when a task's budget is spent.
    fn is_quiet(&self) -> bool {
        let events = PollFlags::IN | PollFlags::RDHUP;
        let mut sockets = [PollFd::from_borrowed_fd(self.fd(), events)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut sockets, Some(&at_once)), Ok(0))
    }

    /// Whether nothing is written any more, and nobody is told.
    fn withholds(&self) -> bool {
        self.write_failed && self.write_error == WriteError::Withheld
    }

    /// What hyper is told of a write.
    ///
    /// An upstream may answer and close before it has read the whole request (413, 401). The write then
    /// fails while the answer waits to be read, and hyper would give up on both. So a failed write is
    /// pending for ever: the read side, where the same event arrives, brings the answer or the error.
    fn wrote<T>(&mut self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(_)) if self.write_error == WriteError::Withheld => {
                self.write_failed = true;
                Poll::Pending
            }
            written => written,
        }
    }
}

impl UpstreamIo {
    /// Writes, by `write`, unless it would be the first byte of a request and the connection is spoilt.
    ///
    /// The look is here, between hyper's encoding and the socket, so that nothing can come between the
    /// two but what is on its way at this very moment.
    fn write(
        &self,
        write: impl FnOnce(&mut MaybeTlsStream) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let mut socket = self.lock();
        if socket.withholds() {
            return Poll::Pending;
        }
        let Counters { written: total, begins, .. } = &*self.counters;
        if begins.load(Relaxed) && !socket.is_quiet() {
            return Poll::Ready(Err(io::Error::other("bytes or an end came before the request")));
        }
        let written = write(&mut socket.stream);
        let written = socket.wrote(written);
        if let Poll::Ready(Ok(bytes)) = written {
            total.fetch_add(bytes as u64, Relaxed);
            begins.store(false, Relaxed);
        }
        written
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut socket = self.lock();
        let before = into.filled().len();
        ready!(Pin::new(&mut socket.stream).poll_read(cx, into))?;
        let came = into.filled().len() - before;
        self.counters.read.fetch_add(came as u64, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(|stream| Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(|stream| poll_write_pieces(stream, cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.lock();
        if socket.withholds() {
            return Poll::Pending;
        }
        let flushed = Pin::new(&mut socket.stream).poll_flush(cx);
        socket.wrote(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.lock();
        if socket.withholds() {
            return Poll::Ready(Ok(())); // nobody listens any more
        }
        Pin::new(&mut socket.stream).poll_shutdown(cx)
    }
}
