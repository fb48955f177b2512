//! Tokens that replicas share through a store (feature `share`, which each store implies), and the rules by
//! which they do.
//!
//! [`keys`] derives the keys of a configuration; [`names`] makes the keys of the store, which tell nothing of
//! the client or the server; [`shared_token`] is a token as replicas exchange it; [`sealing`] encrypts it for
//! one key, generation and owner; [`protocol`] says what a replica does about the replies of the scripts that
//! the store runs; [`store`] is the interface of a store, `redis_store` the one in Redis or Valkey (feature
//! `redis`), `kubernetes_store` the one in a Secret (feature `kubernetes`), and [`settings`] chooses one;
//! `announcements` passes on what it says, [`metrics`] counts its operations, and [`probe`] tests it.

#[cfg(not(any(feature = "redis", feature = "kubernetes")))]
compile_error!("the feature `share` is implied by a store: build with `redis` or `kubernetes`");

mod announcements;
pub mod keys;
#[cfg(feature = "kubernetes")]
pub mod kubernetes_store;
pub mod metrics;
pub mod names;
pub mod probe;
pub mod protocol;
#[cfg(feature = "redis")]
pub mod redis_store;
pub mod sealing;
pub mod settings;
pub mod shared_token;
pub mod state;
pub mod store;

#[cfg(test)]
mod simulation;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
