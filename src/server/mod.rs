//! The way in; it knows HTTP connections, not what requests mean.
//!
//! [`listener`] binds, [`worker`] owns a thread, `accept` is its loop, [`connection`] is one client
//! connection, which `http1` drives with hyper and `http2` with h2 on the socket in `io`, [`peer`] is who
//! is on the other end, [`drain`] is how connections leave.

mod accept;
pub mod certificate;
pub mod connection;
pub mod drain;
mod http1;
mod http2;
mod io;
mod linger;
pub mod listener;
pub mod peer;
mod phase;
pub mod settings;
mod slots;
mod socket_file;
mod stream;
pub mod tls;
pub mod worker;

pub use certificate::ClientCertificate;
pub use connection::{ClientProbe, ConnectionInfo, HeadError, Inbound};
pub use drain::StopSignal;
pub use listener::{BindError, Bound, Claim, Listener, Local, bind};
pub use peer::{Peer, PeerAddress, UnixPeer};
pub use slots::Slots;
pub use stream::PeerState;
pub use tls::TlsCell;
pub use worker::{OnHeadError, Worker, WorkerCommand, WorkerHandle, WorkerListener};
