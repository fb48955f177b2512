//! A socket that was taken off its connection: to be closed, or to speak another protocol.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::server::slots::Place;
use crate::server::stream::Stream;

/// How long saying the end may take: a client may have no room even for that.
const LONGEST_END: Duration = Duration::from_secs(2);

/// A socket that was taken off its connection, with its place under the limit.
pub struct Placed<I> {
    stream: I,
    _place: Option<Place>,
}

impl<I: Stream> Placed<I> {
    /// The socket and its place.
    pub(super) fn new(stream: I, place: Option<Place>) -> Self {
        Self { stream, _place: place }
    }

    /// Whether the client has sent what nobody has read, as far as the runtime has heard.
    pub fn has_bytes(&mut self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0; 1];
        let mut one = ReadBuf::new(&mut byte);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut one);
        matches!(read, Poll::Ready(Ok(()))) && !one.filled().is_empty()
    }

    /// Says that nothing more will be sent, to a client that takes it.
    pub async fn say_end(&mut self) {
        let _ = tokio::time::timeout(LONGEST_END, self.stream.shutdown()).await;
    }
}

impl<I: Stream> AsyncRead for Placed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<I: Stream> AsyncWrite for Placed<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
