//! Logs and metrics: their set-up and the vocabulary that all parts share.

pub mod begin;
#[cfg(windows)]
pub mod event_log;
pub mod family;
pub mod journal;
mod json;
pub mod log;
pub mod metrics;
#[cfg(unix)]
mod process;
pub mod recent;
mod text;
pub mod throttle;

pub use metrics::Registry;
