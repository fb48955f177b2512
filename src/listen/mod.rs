//! Sockets that clients connect to: TCP and Unix, their TLS, and who the peer is.
//!
//! [`sockets`] binds, `unix_socket` owns the file of a Unix socket, [`tls`] reads a listener's
//! certificate and key, [`peer`] and [`peer_certificate`] say who connected.

pub mod peer;
pub mod peer_certificate;
pub mod settings;
pub mod sockets;
pub mod tls;
mod unix_socket;

pub use peer::{Peer, PeerAddress, UnixPeer};
pub use peer_certificate::PeerCertificate;
pub use sockets::{AddressLock, BindError, Bound, BoundAddress, Listener, bind};
pub use tls::TlsCell;
