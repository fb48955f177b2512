//! Tokens that replicas share through a Redis or Valkey server (feature `redis`), and the
//! rules by which they do.
//!
//! [`keys`] derives the keys of a configuration; [`names`] makes the keys of the store, which tell nothing of the client or the server; [`shared_token`] is a
//! token as replicas exchange it; [`sealing`] encrypts it for one key, generation and owner; [`protocol`] says
//! what a replica does about the replies of the scripts that the store runs; [`store`] is the interface of a store,
//! [`redis_store`] the one in Redis or Valkey, and [`metrics`] counts its operations.

pub mod keys;
pub mod metrics;
pub mod names;
pub mod protocol;
pub mod redis_store;
pub mod sealing;
pub mod shared_token;
pub mod state;
pub mod store;

#[cfg(test)]
mod simulation;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
