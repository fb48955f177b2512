//! A socket that listens, of either kind.

use std::net::TcpListener;

use crate::net::unix::StdUnixListener;

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// Accepts TCP connections.
    Tcp(TcpListener),
    /// Accepts connections of processes on this machine.
    Unix(StdUnixListener),
}
