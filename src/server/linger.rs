//! A lingering close, for a client that may still be sending.
//!
//! The kernel resets a socket that closes with unread bytes, and the client then loses what it has not
//! read yet: the very response that says why its body is not wanted. So our side is closed first, and
//! what still comes is read for a while and dropped (RFC 9112 section 9.6).

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long a client may be silent before it is taken to wait for the end only.
const SILENCE: Duration = Duration::from_secs(2);
/// How long a client may go on sending.
const LONGEST: Duration = Duration::from_secs(10);
/// Bytes that are read and dropped at a time.
const PIECE: usize = 16 * 1024;

/// Closes our side, and waits a limited time for the client to close its own.
pub(super) async fn linger(client: impl AsyncRead + AsyncWrite + Unpin) {
    let _over = timeout(LONGEST, until_its_end(client)).await;
}

async fn until_its_end(mut client: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    client.shutdown().await?;
    let mut dropped = vec![0; PIECE];
    while timeout(SILENCE, client.read(&mut dropped)).await?? > 0 {}
    Ok(())
}
