//! Outbound connections: their destination ([`Origin`]), egress proxy ([`egress`]), TLS ([`tls`]) and
//! deadline ([`connect`]), and the HTTP client of the control plane ([`control`]). [`examine`] opens a test
//! connection; `failure` explains failed ones; [`poll`] asks the
//! kernel about the state of a socket.

pub mod connect;
pub mod control;
pub mod egress;
pub mod examine;
mod failure;
pub mod no_proxy;
pub mod origin;
pub mod poll;
mod resolve;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
pub mod unix;

pub use origin::{Origin, OriginError};
