//! The data plane's way out: a worker's own keep-alive connections per upstream, without locks.
//!
//! [`Pool`] sends; [`SendError`] says what failed and whether any byte had left.

mod alarms;
pub mod error;
mod expect;
mod http1;
mod multiplexed;
pub mod pool;
pub mod settings;
#[cfg(test)]
mod tests;

pub use alarms::Alarms;
pub use error::{Forwarded, SendError, SendErrorKind};
pub use expect::BodyUnasked;
pub use http1::Failure;
pub use http1::Switched;
pub use pool::{Departure, Pool, Reuse, Way};
pub use settings::Settings;
