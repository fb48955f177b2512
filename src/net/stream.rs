//! The byte stream of an outbound connection, and a write that gathers short pieces.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// TCP (`Left`), or TLS over TCP (`Right`).
pub type MaybeTlsStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Total length in bytes up to which pieces are copied into one write.
const SHORT_WRITE: usize = 2 * 1024;

/// Writes several pieces with one call. A single piece needs no gathering, and the kernel takes longer to
/// gather two short pieces, such as a head and its body, than copying them takes here.
pub fn poll_write_pieces<S: AsyncWrite + Unpin + ?Sized>(
    stream: &mut S,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [piece] = pieces {
        return Pin::new(stream).poll_write(cx, piece);
    }
    let mut buffer = [0; SHORT_WRITE];
    let mut room = &mut buffer[..];
    // The copy is made again at each poll. That is right because a pending write has taken nothing: the
    // caller passes the same pieces again, and after a partial write only those that are left.
    if pieces.iter().any(|piece| room.write_all(piece).is_err()) {
        return Pin::new(stream).poll_write_vectored(cx, pieces);
    }
    let length = SHORT_WRITE - room.len();
    Pin::new(stream).poll_write(cx, buffer.get(..length).unwrap_or_default())
}
