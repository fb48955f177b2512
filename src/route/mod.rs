//! Pure matching of requests: the rule that claims a host, a method and a path.
//!
//! The route decides which token a request carries, so a confused path would be a confused privilege.
//! A target therefore has one canonical reading, and ambiguous targets are rejected before anything is
//! matched. A table is generic over the value of a rule; tests use `Table<&str>`.

pub mod host;
pub mod path;
pub mod rule;
pub mod table;
pub mod target;

pub use host::{Authority, HostPattern, PatternError};
pub use path::PathPattern;
pub use rule::{Methods, Rule};
pub use table::{Conflict, Lookup, Table};
