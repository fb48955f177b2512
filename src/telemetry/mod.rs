//! How we speak: logs and metrics, their set-up and shared vocabulary.

mod json;
pub mod log;
pub mod metrics;
mod process;
pub mod throttle;

pub use metrics::Registry;
