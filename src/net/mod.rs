//! How bytes leave the process at all: where to ([`Origin`]), through which egress proxy
//! ([`egress`]), over which TLS ([`tls`]), with which deadlines ([`connect`]), and the control
//! plane's own client ([`control`]). What a person asks of a connection is in [`examine`],
//! [`certificate`] and [`pem`]; why one failed, in words that help, in `failure` and `diagnosis`.

pub mod certificate;
pub mod connect;
pub mod control;
mod der;
mod diagnosis;
pub mod egress;
pub mod examine;
mod failure;
mod name;
pub mod no_proxy;
pub mod origin;
pub mod pem;
mod resolve;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
mod verify;

pub use name::distinguished_name;
pub use origin::{Origin, OriginError};
