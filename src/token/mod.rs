//! The life of a token in this process: the slow river, and the only writer of token cells.
//!
//! [`refresher`] is the loop; [`schedule`] decides when, purely; [`fetch`] is one trip, and `outcome`
//! what follows from it; [`cell`] is where the rivers meet; [`keeper`] owns the refreshers across
//! reloads.

pub mod bearer;
mod blame;
pub mod cell;
pub mod credential;
mod echo;
pub mod fetch;
mod gate;
pub mod keeper;
mod login;
pub mod metrics;
mod outcome;
pub mod probe;
pub mod refresher;
pub mod schedule;
#[cfg(test)]
mod simulation;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod watch;

pub use bearer::Bearer;
pub use cell::{Absence, NoToken, Reader};
pub use credential::Credential;
pub use keeper::{Keeper, KeeperHandle, Readers, TokenKey, Wanted, grouped};
pub use metrics::TokenMetrics;
pub use status::TokenStatus;
