//! RFC 6749 client credentials as values and bytes: no socket, no clock.
//!
//! Read `scope`, `endpoint` and `client_auth` for the words, `dialect` and `presets` for what known
//! servers do differently, `request`, `token_response` and `revoke` for the bytes, `lifetime` for how long a
//! token may be used, `error` for what a failure means.

pub mod assertion;
pub mod client_auth;
pub mod dialect;
mod encode;
pub mod endpoint;
pub mod error;
pub mod lifetime;
pub mod presets;
pub mod request;
pub mod revoke;
pub mod scope;
pub mod token_response;

pub use client_auth::ClientAuth;
pub use dialect::{ClientCredentials, Dialect};
pub use endpoint::TokenEndpoint;
pub use error::{ErrorCode, FailureClass, TokenError};
pub use lifetime::{Lifetime, lifetime};
pub use presets::Preset;
pub use request::GrantType;
pub use scope::{Scope, ScopeSet};
pub use token_response::IssuedToken;
