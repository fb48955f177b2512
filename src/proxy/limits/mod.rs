//! What bounds requests: how many are under way, how large and how slow their bodies are, and which web
//! pages may send them.

pub mod body;
pub mod in_flight;
pub mod load_shed;
pub mod web_origin;
