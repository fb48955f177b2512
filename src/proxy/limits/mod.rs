//! Limits of requests: their number in flight, the size and pauses of their bodies, and the web
//! pages that may send them.

pub mod body;
pub mod in_flight;
pub mod load_shed;
pub mod web_origin;
