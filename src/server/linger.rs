//! The end of a connection whose client may still be sending.
//!
//! A socket that is closed with unread bytes is reset by the kernel, and a reset takes with it what
//! the client has not read yet: the very answer that says why its body is not wanted. So our side is
//! closed first, and what still comes is read for a while and dropped (RFC 9112 section 9.6).

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long a client may be silent before it is taken to wait for nothing but the end.
const SILENCE: Duration = Duration::from_secs(2);
/// How long it may go on in all.
const LONGEST: Duration = Duration::from_secs(10);
/// Bytes that are dropped at a time.
const PIECE: usize = 16 * 1024;

/// Waits for the client's end, for as long as that is worth waiting for.
pub(super) async fn linger(client: impl AsyncRead + AsyncWrite + Unpin) {
    let _over = timeout(LONGEST, until_its_end(client)).await;
}

async fn until_its_end(mut client: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    client.shutdown().await?;
    let mut dropped = vec![0; PIECE];
    while timeout(SILENCE, client.read(&mut dropped)).await?? > 0 {}
    Ok(())
}
