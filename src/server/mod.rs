//! Workers and client connections; it knows HTTP connections, not what requests mean.
//!
//! [`worker`] owns a thread, `accept` is its loop, `handshake` is TLS, [`connection`] is one client
//! connection, which `http1` drives with hyper and `http2` with h2 on the socket in `io`; [`drain`] is how
//! connections end at shutdown.

mod accept;
mod client_stream;
pub mod connection;
mod connection_limit;
pub mod drain;
mod handshake;
mod http1;
mod http2;
mod io;
mod linger;
mod phase;
pub mod settings;
pub mod worker;

pub use client_stream::PeerState;
pub use connection::{ClientProbe, ConnectionInfo, HeadError, Inbound};
pub use connection_limit::ConnectionLimit;
pub use drain::StopSignal;
pub use worker::{OnHeadError, WorkerCommand, WorkerHandle, WorkerListener};
