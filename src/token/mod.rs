//! The life of a token in this process: the token path, and the only writer of token cells.
//!
//! [`manager`] owns the refreshers across reloads; `refresher` is the loop for one token; [`schedule`]
//! plans its calls, purely; `gate` bounds the calls of a credential. [`fetch`] is the interface to the
//! source of a token: `token_client` requests one, and `static_token` reads one. [`token_cell`] passes the
//! token to requests; `handover` counts them where a renewal must wait for them.

pub mod bearer;
pub mod client_identity;
mod client_secret;
pub mod clock_offset;
mod clock_watch;
pub mod credential;
pub mod discovery;
pub mod dpop;
mod endpoint_call;
mod endpoint_client;
pub mod fetch;
pub mod fetch_error;
pub mod fetchers;
mod fingerprint;
mod gate;
pub mod handle;
mod handover;
pub mod issuer;
pub mod manager;
pub mod metrics;
mod other_token;
pub mod probe;
mod refresh_log;
pub mod refresher;
mod refusal;
mod rejection_history;
pub mod schedule;
#[cfg(feature = "share")]
pub mod sharing;
#[cfg(test)]
mod simulation;
mod spec;
mod static_token;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod token_cell;
mod token_client;
mod token_guard;

pub use bearer::{Bearer, TokenHeader};
pub use credential::Credential;
pub use fingerprint::Fingerprint;
pub use handle::ManagerHandle;
pub use manager::TokenManager;
pub use metrics::TokenMetrics;
pub use refresh_log::SLOW_CALL;
#[cfg(feature = "share")]
pub use sharing::renewal::ShareStatus;
pub use spec::{TokenKey, TokenReaders, TokenSpec, effective_specs};
pub use status::TokenStatus;
pub use token_cell::{Reader, TokenUnavailable, UnavailableReason};
pub use token_guard::TokenGuard;
