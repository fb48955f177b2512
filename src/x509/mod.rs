//! X.509 certificates and PEM files, read for people: names, dates, pins, and the usual causes of a
//! failed handshake.
//!
//! webpki verifies chains inside rustls. Nothing here decides about trust except [`verify`], which
//! only adds conditions. `tests/properties/certificate.rs` compares this reader with `x509-parser`.

pub mod certificate;
pub(crate) mod der;
pub mod diagnosis;
pub mod distinguished_name;
pub(crate) mod encrypted;
mod error;
pub mod pem;
pub mod verify;

pub use distinguished_name::distinguished_name;
pub use error::TlsSetupError;
