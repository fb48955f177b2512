//! Composition: the only folder that knows every other part.
//!
//! [`build`] binds, registers and resolves, so that every early failure happens there; [`run`]
//! spawns, waits and leaves in order; `reload` puts a new file in place of the old, or changes
//! nothing. `listeners`, `workers`, `admin_listeners` and `headers` are what a reload changes;
//! `systemd` is who may have started us, `child_process` whom we start.

mod admin_listeners;
pub mod build;
mod child_process;
mod headers;
mod health;
mod listeners;
mod reload;
pub mod run;
mod signal;
mod systemd;
mod workers;

pub use build::{App, StartError};
pub use run::RunOutcome;
