//! RFC 6749 client credentials as values and bytes: no socket, no clock.
//!
//! `scope`, `endpoint` and `client_auth` define the terms, `jws` signs assertions and `dpop` proofs, `jwk`
//! reads keys in JSON (`key_der` is what they become), `thumbprint` names keys, `dialect` and `presets` the
//! deviations of known servers. `request` writes requests, `token_response` reads answers, with
//! `content_coding`, `field_path` and `json_time`, `confirmation` the certificate that a token names,
//! `metadata` what a server says of itself, `lifetime` computes the life of a token, and `error` classifies
//! failures.

pub mod assertion;
pub mod client_auth;
pub mod confirmation;
mod content_coding;
pub mod dialect;
pub mod dpop;
mod encode;
pub mod endpoint;
pub mod error;
pub mod field_path;
pub mod google_key;
mod json_time;
pub mod jwk;
pub mod jws;
mod key_der;
pub mod lifetime;
pub mod metadata;
pub mod presets;
pub mod request;
pub mod scope;
pub mod thumbprint;
pub mod token_exchange;
pub mod token_response;
pub mod vendors;

pub use client_auth::ClientAuth;
pub use dialect::{ClientCredentials, Dialect};
pub use endpoint::TokenEndpoint;
pub use error::{ErrorCode, FailureClass, TokenError};
pub use field_path::FieldPath;
pub use lifetime::{Lifetime, lifetime};
pub use presets::Preset;
pub use request::{ClientRequest, GrantType, RevokedToken};
pub use scope::{Scope, ScopeSet};
pub use token_response::{IssuedToken, retry_after};
