//! Composition: the only folder that knows every other part.
//!
//! [`build`] binds, registers and resolves, so that every early failure happens there; [`run`]
//! spawns, waits and leaves in order; `reload` puts a new file in place of the old, or changes
//! nothing. `listeners`, `workers`, `window` (the admin's) and `headers` are what a reload changes;
//! `systemd` is who may have started us, `companion` whom we start.

pub mod build;
mod companion;
mod headers;
mod health;
mod listeners;
mod reload;
pub mod run;
mod signal;
mod systemd;
mod window;
mod workers;

pub use build::{App, StartError};
pub use run::Ended;
