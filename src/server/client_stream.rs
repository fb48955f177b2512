//! Byte streams to clients, one for each kind of listener, and the presence of the client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::fd::AsFd;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::net::poll::{PEER_SHUTDOWN, PollFlags, pending_events};
#[cfg(unix)]
use crate::net::unix::UnixStream;

/// The presence of a client at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// There is no sign that it has left.
    Connected,
    /// It has closed its sending side with a TCP FIN or a TLS `close_notify`. It may be gone, or wait for
    /// the response; the two cannot be told apart.
    HalfClosed,
    /// The connection was reset, or both of its sides are closed.
    Disconnected,
}

/// The result of watching for a client that leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerWatch {
    /// The client is there, and the task is woken when that changes.
    Registered,
    /// The client is there, but its unread bytes keep the socket readable, so that no event wakes the
    /// task when it leaves. Ask again after a while.
    Hidden,
    /// The client has left.
    Left(PeerState),
}

/// A byte stream to a client.
pub trait ClientStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Ready when a read may bring something, so that no buffer is held before. May be ready too early.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The state of the client as the kernel knows it.
    fn peer_state(&self) -> PeerState;

    /// True if the client has reset the connection: it reads nothing of what was sent.
    fn was_reset(&self) -> bool;

    /// Watches for a client that leaves, and takes none of its bytes.
    fn poll_peer(&mut self, cx: &mut Context<'_>) -> PeerWatch;

    /// Makes the end of the connection a reset, so that it does not look like the end of a response.
    fn reset_on_close(&self) {}
}

/// The client's state and true if it has sent bytes that were not read yet.
fn peer_of(socket: &impl AsFd) -> (PeerState, bool) {
    // An error of poll(2) says nothing about the client, which then counts as connected.
    let events = pending_events(socket.as_fd()).unwrap_or(PollFlags::IN);
    let state = if events.intersects(PollFlags::ERR | PollFlags::HUP) {
        PeerState::Disconnected
    } else if events.contains(PEER_SHUTDOWN) {
        PeerState::HalfClosed
    } else {
        PeerState::Connected
    };
    (state, events.contains(PollFlags::IN))
}

// A macro, because tokio has no trait for the readiness of a socket.
macro_rules! client_socket {
    ($socket:ident $(, $reset_on_close:item)?) => {
        impl ClientStream for $socket {
            fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
                self.poll_read_ready(cx).map(drop)
            }

            fn peer_state(&self) -> PeerState {
                peer_of(self).0
            }

            fn was_reset(&self) -> bool {
                pending_events(self.as_fd()).is_ok_and(|events| events.contains(PollFlags::ERR))
            }

            fn poll_peer(&mut self, cx: &mut Context<'_>) -> PeerWatch {
                loop {
                    match self.poll_read_ready(cx) {
                        Poll::Pending => return PeerWatch::Registered,
                        Poll::Ready(Err(_)) => return PeerWatch::Left(PeerState::Disconnected),
                        Poll::Ready(Ok(())) => {}
                    }
                    match peer_of(self) {
                        // The readiness is kept, or a later read of these bytes would wait.
                        (PeerState::Connected, true) => return PeerWatch::Hidden,
                        // A read that filled its buffer has left the readiness set. Clearing it makes the
                        // next event wake the task. No event can be lost between the two calls, because
                        // this very thread takes in the events.
                        (PeerState::Connected, false) => {
                            let nothing = || Err(io::ErrorKind::WouldBlock.into());
                            let _: io::Result<()> = self.try_io(Interest::READABLE, nothing);
                        }
                        (left, _) => return PeerWatch::Left(left),
                    }
                }
            }

            $($reset_on_close)?
        }
    };
}

client_socket!(
    TcpStream,
    fn reset_on_close(&self) {
        // An error only means that the connection is cut already.
        let _ = self.set_zero_linger();
    }
);
#[cfg(unix)]
client_socket!(UnixStream); // which has no reset

impl<I: ClientStream> ClientStream for TlsStream<I> {
    /// Always ready: the TLS session may hold bytes that the socket no longer has.
    fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn peer_state(&self) -> PeerState {
        self.get_ref().0.peer_state()
    }

    fn was_reset(&self) -> bool {
        self.get_ref().0.was_reset()
    }

    /// Decrypts what has come, because the end of TLS is a message of its own (`close_notify`). Decrypted
    /// bytes stay in the session until they are read.
    fn poll_peer(&mut self, cx: &mut Context<'_>) -> PeerWatch {
        match Pin::new(&mut *self).poll_fill_buf(cx) {
            // The session registered for the next event of the socket.
            Poll::Pending => PeerWatch::Registered,
            // A FIN without `close_notify` is an error in TLS, but it is no reset.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                PeerWatch::Left(PeerState::HalfClosed)
            }
            Poll::Ready(Err(_)) => PeerWatch::Left(PeerState::Disconnected),
            Poll::Ready(Ok(bytes)) => match (bytes.is_empty(), self.peer_state()) {
                (_, PeerState::Disconnected) => PeerWatch::Left(PeerState::Disconnected),
                (true, _) | (_, PeerState::HalfClosed) => PeerWatch::Left(PeerState::HalfClosed),
                (false, PeerState::Connected) => PeerWatch::Hidden,
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
        PeerState::Connected // in memory there is no kernel to ask
    }

    fn was_reset(&self) -> bool {
        false
    }

    fn poll_peer(&mut self, _: &mut Context<'_>) -> PeerWatch {
        PeerWatch::Registered
    }
}
