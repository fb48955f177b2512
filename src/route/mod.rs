//! Pure matching of requests: which rule claims a host, a method and a path.
//!
//! The route decides which token a request carries, so that a confused path would be a confused
//! privilege: there is one canonical reading of a target, and ambiguous ones are refused before
//! anything is matched. Generic over what a rule leads to, so that tests use `Table<&str>`.

pub mod host;
pub mod path;
pub mod rule;
pub mod table;
pub mod target;

pub use host::{Authority, HostPattern, PatternError};
pub use path::PathPattern;
pub use rule::{Methods, Rule};
pub use table::{Conflict, Lookup, Table};
