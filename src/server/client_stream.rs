//! Byte streams to clients, of each kind that a listener accepts, and whether the client is there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// Whether the client of a connection is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// Nothing speaks against it.
    Connected,
    /// It has closed its sending side: a TCP FIN, or TLS `close_notify`. It may wait for the answer, or
    /// be gone; the two cannot be told apart.
    HalfClosed,
    /// The connection was reset, or nobody is left to read the answer.
    Disconnected,
}

/// What waiting for a client to leave has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerWatch {
    /// The client is there, and the task is woken when that changes.
    Awaited,
    /// The client is there. It has sent bytes that nobody reads yet, behind which its leaving cannot
    /// wake the task: ask again after a while.
    Unseen,
    /// The client has left so far.
    Left(PeerState),
}

/// A byte stream to a client.
pub trait ClientStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Ready when a read may bring something, so that no buffer is held while nothing comes. May be
    /// ready too early.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// What the kernel knows of the client now. This asks the kernel: that a read is pending says
    /// nothing, since a runtime answers so also when a task's budget is spent.
    fn peer_state(&self) -> PeerState;

    /// Notices that the client leaves, without taking any byte that it sent.
    fn poll_departure(&mut self, cx: &mut Context<'_>) -> PeerWatch;

    /// Makes the end of the connection a reset, so that it is not taken for the end of an answer.
    fn reset_on_close(&self) {}
}

/// What `poll(2)` says of a socket at once: its peer, and whether bytes wait to be read.
fn poll_socket(socket: BorrowedFd<'_>) -> (PeerState, bool) {
    let asked = PollFlags::IN | PollFlags::RDHUP;
    let mut sockets = [PollFd::from_borrowed_fd(socket, asked)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    // An error (a lack of memory, a signal) says nothing of the peer.
    if poll(&mut sockets, Some(&at_once)).is_err() {
        return (PeerState::Connected, true);
    }
    let events = sockets[0].revents();
    let state = if events.intersects(PollFlags::ERR | PollFlags::HUP) {
        PeerState::Disconnected
    } else if events.contains(PollFlags::RDHUP) {
        PeerState::HalfClosed
    } else {
        PeerState::Connected
    };
    (state, events.contains(PollFlags::IN))
}

/// Both kinds of sockets tell the same, by methods of the same names.
macro_rules! socket {
    ($socket:ident) => {
        impl ClientStream for $socket {
            fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
                self.poll_read_ready(cx).map(drop)
            }

            fn peer_state(&self) -> PeerState {
                poll_socket(self.as_fd()).0
            }

            fn poll_departure(&mut self, cx: &mut Context<'_>) -> PeerWatch {
                loop {
                    match self.poll_read_ready(cx) {
                        Poll::Pending => return PeerWatch::Awaited,
                        Poll::Ready(Err(_)) => return PeerWatch::Left(PeerState::Disconnected),
                        Poll::Ready(Ok(())) => {}
                    }
                    match poll_socket(self.as_fd()) {
                        // The readiness must stay, or whoever reads these bytes later would wait.
                        (PeerState::Connected, true) => return PeerWatch::Unseen,
                        // It was left over from a read that filled its buffer. Without it the next
                        // event wakes the task; one cannot come between the two calls, since events
                        // are taken in by this very thread.
                        (PeerState::Connected, false) => {
                            let nothing = || Err(io::ErrorKind::WouldBlock.into());
                            let _: io::Result<()> = self.try_io(Interest::READABLE, nothing);
                        }
                        (left, _) => return PeerWatch::Left(left),
                    }
                }
            }

            socket!(reset $socket);
        }
    };
    (reset TcpStream) => {
        fn reset_on_close(&self) {
            // An error only means that the connection has been cut already.
            let _ = self.set_zero_linger();
        }
    };
    (reset UnixStream) => {};
}

socket!(TcpStream);
socket!(UnixStream);

impl<I: ClientStream> ClientStream for TlsStream<I> {
    /// Bytes may wait in the TLS session that the socket below knows nothing of.
    fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn peer_state(&self) -> PeerState {
        self.get_ref().0.peer_state()
    }

    /// The end of TLS is a message of its own (`close_notify`), so that looking at the socket below is
    /// not enough: what has come is decrypted, and stays in the session until it is read.
    fn poll_departure(&mut self, cx: &mut Context<'_>) -> PeerWatch {
        let below = |stream: &Self| stream.get_ref().0.peer_state();
        match Pin::new(&mut *self).poll_fill_buf(cx) {
            Poll::Pending => PeerWatch::Awaited,
            Poll::Ready(Ok([])) => match below(self) {
                PeerState::Disconnected => PeerWatch::Left(PeerState::Disconnected),
                _ => PeerWatch::Left(PeerState::HalfClosed),
            },
            // Without `close_notify` a FIN is an error to TLS; it still is no reset.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                PeerWatch::Left(PeerState::HalfClosed)
            }
            Poll::Ready(Err(_)) => PeerWatch::Left(PeerState::Disconnected),
            Poll::Ready(Ok(_)) => match below(self) {
                PeerState::Connected => PeerWatch::Unseen,
                left => PeerWatch::Left(left),
            },
        }
    }

    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}

#[cfg(test)]
impl ClientStream for tokio::io::DuplexStream {
    fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn peer_state(&self) -> PeerState {
        PeerState::Connected // it cannot be looked into
    }

    fn poll_departure(&mut self, _: &mut Context<'_>) -> PeerWatch {
        PeerWatch::Awaited
    }
}
