//! RFC 6749 client credentials as values and bytes: no socket, no clock.
//!
//! Read `scope`, `endpoint` and `client_auth` for the words, `dialect` for what known servers do
//! differently, `request` and `reply` for the bytes, `error` for what a failure means.

pub mod client_auth;
pub mod dialect;
pub mod endpoint;
pub mod scope;

pub use client_auth::ClientAuth;
pub use dialect::Dialect;
pub use endpoint::TokenEndpoint;
pub use scope::{Scope, ScopeSet};
