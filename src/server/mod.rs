//! The way in; it knows HTTP connections, not what requests mean.
//!
//! [`listener`] binds, [`worker`] owns a thread, `accept` is its loop, [`serve`] is the life of one
//! connection, [`head`] is what hyper forgives and we do not, [`peer`] is who is on its other end,
//! [`drain`] is how connections leave.

mod accept;
pub mod certificate;
pub mod drain;
mod frames;
pub mod head;
mod hpack;
mod http2;
mod linger;
pub mod listener;
mod opening;
pub mod peer;
mod refusal;
pub mod serve;
pub mod settings;
mod slots;
mod socket_file;
pub mod tls;
mod watch;
pub mod worker;

pub use certificate::ClientCertificate;
pub use drain::StopSignal;
pub use listener::{BindError, Bound, Claim, Listener, Local, bind};
pub use peer::{Peer, PeerAddress, UnixPeer};
pub use serve::{ConnectionInfo, Inbound};
pub use slots::Slots;
pub use tls::TlsCell;
pub use worker::{Worker, WorkerCommand, WorkerHandle, WorkerListener};
