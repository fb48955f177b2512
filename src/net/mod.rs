//! How bytes leave the process at all: where to ([`Origin`]), through which egress proxy
//! ([`egress`]), over which TLS ([`tls`]), with which deadlines ([`connect`]), and the control
//! plane's own client ([`control`]).

pub mod connect;
pub mod control;
pub mod egress;
mod failure;
pub mod no_proxy;
pub mod origin;
mod resolve;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;

pub use origin::{Origin, OriginError};
