//! The way in; it knows HTTP connections, not what requests mean.

pub mod settings;
