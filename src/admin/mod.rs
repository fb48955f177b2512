//! The admin listeners: probes, metrics, the state of tokens, and forced refreshes.
//!
//! This folder sees the state of the program only through [`Health`], which `app` implements.

pub mod attention;
pub mod bundle;
pub mod guard;
mod page;
pub mod readiness;
pub mod report;
pub mod service;
pub mod settings;
mod token_report;

pub use readiness::Health;
pub use service::Admin;
