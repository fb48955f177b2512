//! Workers and client connections; it knows HTTP connections, not what requests mean.
//!
//! [`worker`] owns a thread, `accept` is its loop, `handshake` is TLS, [`connection`] is one client
//! connection, which `http1` drives with hyper and `http2` with h2 on the socket in `io`; [`drain`] is how
//! connections end at shutdown.

mod accept;
pub mod connection;
pub mod drain;
mod handshake;
mod http1;
mod http2;
mod io;
mod linger;
mod phase;
pub mod settings;
mod slots;
mod stream;
pub mod worker;

pub use connection::{ClientProbe, ConnectionInfo, HeadError, Inbound};
pub use drain::StopSignal;
pub use slots::Slots;
pub use stream::PeerState;
pub use worker::{OnHeadError, Worker, WorkerCommand, WorkerHandle, WorkerListener};
