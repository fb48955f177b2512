//! The data plane's way out: a worker's own connections to each upstream, without locks that wait.
//!
//! [`Pool`] gives a connection, which sends one request; [`SendError`] says what failed and whether any
//! byte had left. hyper speaks HTTP on every connection.

pub mod error;
mod exchange;
mod expect_continue;
mod http1;
mod http2;
mod io;
pub mod pool;
mod response_check;
pub mod route_state;
pub mod settings;
pub mod state;
#[cfg(test)]
mod tests;

pub use error::{Forwarded, SendError, SendErrorKind};
pub use exchange::{Reuse, SendFailure, SendRequest, Transport, UpstreamResponse};
pub use pool::{Acquired, Pool};
pub use route_state::{Failure, FailureSeries, InsufficientScope, RouteState};
pub use settings::Settings;
pub use state::{RateLimit, UpstreamState, UpstreamStates, UpstreamStatus};
