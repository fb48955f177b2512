//! The operator's window, on its own socket: probes, metrics, and the state of tokens.
//!
//! It knows nothing of how tokens are made: `app` hands it a [`Health`] to look through.

pub mod guard;
pub mod readiness;
pub mod service;
pub mod settings;

pub use readiness::{Health, TokenHealth};
pub use service::Admin;
