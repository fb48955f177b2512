//! The data plane's way out: a worker's own keep-alive connections per upstream, without locks.

pub mod settings;

pub use settings::Settings;
