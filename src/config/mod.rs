//! TOML in, typed settings out. Knows everyone's settings types; nobody below knows it.

pub mod model;

pub use model::Config;
