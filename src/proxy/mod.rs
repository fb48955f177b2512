//! The life of a request. Read [`stack`] first, then [`forward`], then the states in [`request`].

pub mod access_log;
pub mod challenge;
pub mod client;
pub mod code;
pub mod forward;
pub mod hygiene;
pub mod limits;
pub mod metrics;
pub mod plan;
pub mod problem;
pub mod record;
pub mod rejection;
pub mod request;
pub mod rewrite;
pub mod scope;
pub mod settings;
pub mod snapshot;
pub mod stack;
mod trailers;
