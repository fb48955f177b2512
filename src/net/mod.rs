//! How bytes leave the process at all: where to ([`Origin`]), over which TLS ([`tls`]), with which
//! deadlines ([`connect`]), and the control plane's own client ([`control`]).

pub mod connect;
pub mod control;
pub mod origin;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;

pub use origin::{Origin, OriginError};
