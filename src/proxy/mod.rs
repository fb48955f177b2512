//! The life of a request. Read [`forward`] first, then the states in their order: [`received`],
//! [`routed`], [`authorized`].

pub mod access;
pub mod answer;
pub mod authorized;
pub mod challenge;
pub mod client;
pub mod code;
pub mod forward;
pub mod hygiene;
pub mod metrics;
pub mod plan;
pub mod received;
pub mod rejection;
pub mod rewrite;
pub mod routed;
pub mod settings;
mod trailers;
pub mod upgrade;
