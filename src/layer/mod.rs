//! Our generic layers around requests and bodies; none knows what a token is.
//!
//! [`admit`] bounds how many requests are under way, [`guard`] bounds size and pauses of a body,
//! [`page`] keeps web pages out.

pub mod admit;
pub mod guard;
pub mod page;
