//! Composition: the only folder that knows every other part.
//!
//! [`build`] binds, registers and resolves, so that every early failure happens there; [`run`]
//! spawns, waits and leaves in order; `reload` puts a new file in place of the old, or changes
//! nothing.

pub mod build;
mod health;
mod reload;
pub mod run;
mod signal;

pub use build::{App, StartError};
pub use run::Ended;
