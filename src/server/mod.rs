//! The way in; it knows HTTP connections, not what requests mean.
//!
//! [`listener`] binds, [`worker`] owns a thread, `accept` is its loop, [`serve`] is one connection,
//! `http1` and `http2` are its life, [`flaw`] is what makes a request one that is not served, [`peer`]
//! is who is on the other end, [`drain`] is how connections leave.

mod accept;
mod activity;
pub mod certificate;
pub mod drain;
pub mod flaw;
mod frames;
mod hpack;
pub mod http1;
mod http2;
mod linger;
pub mod listener;
pub mod peer;
pub mod serve;
pub mod settings;
mod slots;
mod socket_file;
mod stream;
pub mod tls;
pub mod worker;

pub use certificate::ClientCertificate;
pub use drain::StopSignal;
pub use http1::Takeover;
pub use listener::{BindError, Bound, Claim, Listener, Local, bind};
pub use peer::{Peer, PeerAddress, UnixPeer};
pub use serve::{ConnectionInfo, Inbound};
pub use slots::Slots;
pub use tls::TlsCell;
pub use worker::{Worker, WorkerCommand, WorkerHandle, WorkerListener};
