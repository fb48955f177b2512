//! X.509 certificates and PEM files, read for people: names, dates, pins, and what a failed handshake
//! most often means. Chains are verified by webpki inside rustls; nothing here decides about trust
//! but [`verify`], which only adds conditions.

pub mod certificate;
mod der;
pub mod diagnosis;
pub mod distinguished_name;
mod error;
pub mod pem;
pub mod verify;

pub use distinguished_name::distinguished_name;
pub use error::TlsSetupError;
