//! `Bounded`: the stream of a connection, with a bound on what is read of one message. The server decides how
//! long a reply is, and this process must not hold more than a token may need.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read between two complete messages: far more than all replies that can be under way.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Bytes read since the last complete message. Clones share the count.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadCount(Arc<AtomicUsize>);

impl ReadCount {
    /// Begins again, after a complete message.
    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

pin_project! {
    /// A stream that fails once a message is too long.
    pub(super) struct Bounded<S> {
        #[pin]
        stream: S,
        count: ReadCount,
    }
}

impl<S> Bounded<S> {
    pub(super) fn new(stream: S, count: ReadCount) -> Self {
        Self { stream, count }
    }
}

impl<S: AsyncRead> AsyncRead for Bounded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        let polled = this.stream.poll_read(cx, buf);
        let read = buf.filled().len() - before;
        // Pending reads nothing, so that only a ready read can reach the bound: no waker is lost.
        let total = this.count.0.fetch_add(read, Ordering::Relaxed) + read;
        if total > MAX_BYTES {
            let error = "the server sent more than 4 MiB without the end of a reply";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        polled
    }
}

impl<S: AsyncWrite> AsyncWrite for Bounded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_message_ends_within_the_bound() {
        let count = ReadCount::default();
        let (mut server, client) = duplex(MAX_BYTES * 2 + 1);
        let mut client = Bounded::new(client, count.clone());
        server.write_all(&vec![0; MAX_BYTES * 2 + 1]).await.unwrap();
        let mut half = vec![0; MAX_BYTES];
        client.read_exact(&mut half).await.unwrap();
        count.reset();
        client.read_exact(&mut half).await.unwrap();
        let error = client.read_u8().await.unwrap_err();
        assert!(error.to_string().contains("4 MiB"), "{error}");
    }
}
