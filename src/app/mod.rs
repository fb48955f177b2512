//! Composition: the only folder that knows every other part.
//!
//! [`build`] binds, registers and resolves, so every early failure happens there. [`run`] spawns, waits
//! and shuts down in order. `reload` applies a new file completely or not at all; `listeners`, `workers`,
//! `admin_listeners` and `headers` are the parts that it changes, `plan` compiles the rest. `service_manager`
//! notifies systemd or Windows, `child_process` runs the command of `run -- CMD…`, `open_files` compares
//! their limit with the need, `announcements` has the log lines about the whole.

mod admin_listeners;
mod announcements;
pub mod build;
mod child_process;
mod client_certificates;
mod error;
mod headers;
mod health;
mod listeners;
mod metrics;
mod open_files;
mod plan;
mod reload;
mod report;
pub mod run;
#[cfg(windows)]
pub mod service_control;
mod service_manager;
#[cfg(feature = "share")]
mod share;
mod signal;
mod workers;

pub use build::App;
pub use error::StartError;
pub use run::RunOutcome;
