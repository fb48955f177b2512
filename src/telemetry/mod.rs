//! How we speak: logs and metrics, their set-up and shared vocabulary.

pub mod family;
pub mod journal;
mod json;
pub mod log;
pub mod metrics;
mod process;
pub mod throttle;

pub use metrics::Registry;
