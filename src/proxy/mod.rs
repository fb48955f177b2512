//! The life of a request. Read [`stack`] first, then [`forward`], then the states in [`request`].
//!
//! [`policy`] is made from the configuration, [`headers`] are the rules for header fields, and
//! [`limits`] are those for the number and size of requests.

pub mod access_log;
pub mod code;
pub mod forward;
pub mod headers;
pub mod history;
pub mod limits;
pub mod nearest_route;
pub mod policy;
pub mod problem;
pub mod record;
pub mod rejection;
pub mod request;
pub mod request_id;
pub mod requests;
pub mod snapshot;
pub mod stack;
