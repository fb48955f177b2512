//! Our generic layers around requests and bodies; none knows what a token is.
//!
//! [`admit`] bounds how many requests are under way, [`guard`] bounds size and pauses of a body.

pub mod admit;
pub mod guard;
