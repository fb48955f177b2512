//! In place of Unix sockets on Windows: each is refused.

use std::io;

use super::settings::UnixSocket;
use crate::net::unix::StdUnixListener;

/// Connections that wait in the kernel's queue, such as while the connection limit is reached.
pub(super) const BACKLOG: i32 = 1024;

/// The file of a listening socket, which cannot exist here.
pub use std::convert::Infallible as SocketFile;

/// Refuses a Unix socket.
///
/// # Errors
/// Always.
pub(super) fn bind(_: &UnixSocket) -> io::Result<(StdUnixListener, SocketFile)> {
    Err(unsupported())
}

impl UnixSocket {
    /// Refuses, since there is no such file.
    ///
    /// # Errors
    /// Always.
    pub fn give_access(&self) -> io::Result<()> {
        Err(unsupported())
    }
}

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "Windows has no Unix sockets here: listen on a port")
}
