//! Unix sockets, and the types that stand in their place on Windows, where `listen` makes none.

#[cfg(unix)]
pub use std::os::unix::net::UnixListener as StdUnixListener;

#[cfg(unix)]
pub use tokio::net::{UnixListener, UnixStream};

// The listener types have a variant for each kind of socket. With TCP in the place of Unix sockets they
// need no variant fewer on Windows; `listen::unix_socket` refuses to bind one there.
#[cfg(windows)]
pub use std::net::TcpListener as StdUnixListener;

#[cfg(windows)]
pub use tokio::net::{TcpListener as UnixListener, TcpStream as UnixStream};
