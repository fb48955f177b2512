//! Sockets that clients connect to: TCP and Unix, their TLS, and who the peer is.
//!
//! [`sockets`] binds, `unix_socket` owns the file of a Unix socket, [`tls`] reads a listener's
//! certificate and key, [`peer`] and [`client_certificate`] say who connected.

pub mod client_certificate;
pub mod peer;
pub mod settings;
pub mod sockets;
pub mod tls;
mod unix_socket;

pub use client_certificate::ClientCertificate;
pub use peer::{Peer, PeerAddress, UnixPeer};
pub use sockets::{BindError, Bound, Claim, Listener, Local, bind};
pub use tls::TlsCell;
