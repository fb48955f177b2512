//! The life of a token in this process: the slow river, and the only writer of token cells.
//!
//! [`refresher`] is the loop; [`schedule`] decides when, purely; [`fetch`] is one trip, and `outcome`
//! what follows from it; [`token_cell`] is where the rivers meet; [`manager`] owns the refreshers across
//! reloads.

pub mod bearer;
mod client_secret;
mod clock_watch;
pub mod credential;
mod echo;
pub mod fetch;
mod gate;
pub mod handle;
pub mod manager;
pub mod metrics;
mod outcome;
pub mod probe;
pub mod refresher;
mod rejection_history;
pub mod schedule;
#[cfg(test)]
mod simulation;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod token_cell;

pub use bearer::Bearer;
pub use credential::Credential;
pub use handle::ManagerHandle;
pub use manager::{TokenKey, TokenManager, TokenReaders, TokenSpec, effective_specs};
pub use metrics::TokenMetrics;
pub use status::TokenStatus;
pub use token_cell::{Reader, TokenUnavailable, UnavailableReason};
