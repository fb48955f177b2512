//! Tokens that replicas share through a store (feature `share`): one replica renews, the others adopt its
//! token.
//!
//! [`settings`] is `[share]` of a configuration; [`shared_store`] is the store of this process with its keys;
//! `identity` names a token by all that determines it; `name_key` compares the keys of those names; `renewal`
//! is what one replica knows of one token. The refresher asks it before each token request; [`probe`] looks
//! into the store for `check --live`. Nothing here is on the path of a request of an app.

mod identity;
mod name_key;
pub mod probe;
pub(crate) mod renewal;
pub mod settings;
pub mod shared_store;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use shared_store::SharedStore;
