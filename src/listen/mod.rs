//! Sockets that clients connect to: TCP and Unix, their TLS, and who the peer is.
//!
//! [`sockets`] binds, `inherited` takes what systemd has bound, `unix_socket` owns the file of a Unix socket,
//! `bind_error` gives advice, [`tls`] reads a listener's certificate and key, [`peer`] and
//! [`peer_certificate`] identify clients, and [`descriptors`] holds some back for when there are none.

mod bind_error;
pub mod descriptors;
mod inherited;
mod listener;
pub mod peer;
pub mod peer_certificate;
pub mod settings;
pub mod sockets;
pub mod tls;
#[cfg_attr(windows, path = "unix_socket_windows.rs")]
mod unix_socket;

pub use bind_error::{BindError, BoundAddress};
pub use listener::Listener;
pub use peer::{Peer, PeerAddress, UnixPeer};
pub use peer_certificate::PeerCertificate;
pub use sockets::{AddressLock, Bound, bind};
pub use tls::TlsCell;
