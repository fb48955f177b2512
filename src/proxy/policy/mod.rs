//! The result of a configuration: its [`settings`], the [`plan`] that requests follow, the
//! [`clients`] that may use it, and the [`metrics`] of both.

pub mod clients;
pub mod metrics;
pub mod plan;
pub mod plan_error;
pub mod settings;
