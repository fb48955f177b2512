//! Workers and client connections; it knows HTTP connections, not the meaning of requests.
//!
//! [`worker`] owns a thread, `accept` is its loop, `handshake` is TLS, `connection` is one client
//! connection, which `http1` drives with hyper and `http2` with h2 on the socket in `io`. [`shutdown`] has
//! the phases of a shutdown, `drain` the connections that it waits for, and `timer` the time-outs.

mod accept;
mod client_stream;
mod command;
mod connection;
mod connection_limit;
mod drain;
mod handshake;
mod head_error;
mod http1;
mod http2;
mod inbound;
mod io;
mod linger;
mod phase;
pub mod settings;
pub mod shutdown;
mod timer;
pub mod worker;

pub use client_stream::PeerState;
pub use command::{WorkerCommand, WorkerListener};
pub use connection_limit::{ConnectionLimit, ConnectionPermit};
pub use head_error::{HeadError, OnHeadError};
pub use inbound::{ClientProbe, ConnectionInfo, Inbound, RequestService};
pub use shutdown::{ShutdownPhase, StopSignal};
pub use worker::WorkerHandle;
