//! How bytes leave the process: where to ([`Origin`]), through which egress proxy ([`egress`]), over
//! which TLS ([`tls`]), with which deadlines ([`connect`]), and the HTTP client of the control plane
//! ([`control`]). [`examine`] makes one connection to look at; `failure` says why one failed; [`poll`]
//! asks the kernel about a socket.

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

pub use origin::{Origin, OriginError};
