//! A byte stream to a client, of any kind that a listener accepts.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A byte stream to a client.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether its end has to be said before the socket closes: an end of TLS that is not said
    /// cannot be told from one that somebody else has made (RFC 8446 section 6.1).
    const SAYS_END: bool = false;

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
    const SAYS_END: bool = true;

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
