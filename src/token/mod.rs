//! The life of a token in this process: the slow river, and the only writer of token cells.
//!
//! [`refresher`] is the loop; [`schedule`] decides when, purely; [`fetch`] is one trip; [`cell`] is
//! where the rivers meet; [`keeper`] owns the refreshers across reloads.

pub mod bearer;
pub mod cell;
pub mod clock;
pub mod credential;
pub mod fetch;
mod gate;
pub mod keeper;
mod login;
pub mod metrics;
pub mod probe;
pub mod refresher;
pub mod schedule;
pub mod status;

pub use bearer::Bearer;
pub use cell::{NoToken, Reader};
pub use clock::Moment;
pub use credential::Credential;
pub use keeper::{Keeper, KeeperHandle, Wanted};
pub use metrics::TokenMetrics;
pub use status::TokenStatus;
