//! `TokenStore`: the store of shared tokens as the renewal of a token sees it. Nothing of it is on the path
//! of a request.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{broadcast, watch};

use super::names::TokenName;
use super::protocol::{AcquireReply, PublishReply};

/// The result of one operation. Boxed, so that a renewal needs no type parameter for its store: there are a
/// few operations in the life of a token.
pub type Operation<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A store that all replicas reach. Each operation ends within the configured time-out.
pub trait TokenStore: Send + Sync {
    /// Asks for the token or, with `lead`, for the lead of its renewal.
    fn acquire<'a>(&'a self, name: &'a TokenName, ask: Acquire<'a>) -> Operation<'a, AcquireReply>;

    /// Renews the lease of a leader; `false` if another replica leads, or none.
    fn renew<'a>(
        &'a self,
        name: &'a TokenName,
        owner: &'a str,
        epoch: u64,
        lease: Duration,
    ) -> Operation<'a, bool>;

    /// Publishes a sealed token under its epoch, and announces it.
    fn publish<'a>(
        &'a self,
        name: &'a TokenName,
        owner: &'a str,
        epoch: u64,
        sealed: &'a [u8],
        life_left: Duration,
    ) -> Operation<'a, PublishReply>;

    /// Gives the lead back after a failure: no replica tries again for `wait`. `refused` is the fingerprint
    /// of the client secret if the token server refused it. `false` if the lease was lost before.
    fn fail<'a>(
        &'a self,
        name: &'a TokenName,
        owner: &'a str,
        wait: Duration,
        refused: Option<&'a str>,
    ) -> Operation<'a, bool>;

    /// Announces that the leader hands over: the token request that it is about to send revokes the token.
    fn announce_handover<'a>(&'a self, name: &'a TokenName) -> Operation<'a, ()>;

    /// The time in which an announcement reaches the other replicas, as far as it gets there.
    fn announcement_time(&self) -> Duration;

    /// The announcements of a token from now on. A receiver that lags, or a store that was away, has missed
    /// some: then the store is asked.
    fn announcements(&self, name: &TokenName) -> broadcast::Receiver<Announcement>;

    /// Tells whether the store is reached now, and changes with it.
    fn reached(&self) -> watch::Receiver<bool>;
}

/// The arguments of [`TokenStore::acquire`].
#[derive(Debug, Clone, Copy)]
pub struct Acquire<'a> {
    /// The id of the replica that asks.
    pub owner: &'a str,
    /// The generation of the token that it holds; 0: none.
    pub generation: u64,
    /// The replica that published that token; empty for none.
    pub token_owner: &'a str,
    /// The lease, if the replica asks for the lead too.
    pub lead: Option<Duration>,
    /// The fingerprint of its client secret.
    pub secret: &'a str,
    /// Most token requests of all replicas in an hour; 0: no limit.
    pub budget: u64,
}

/// A message between replicas about one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announcement {
    /// A token of this generation was published.
    Published(u64),
    /// The leader is about to send the token request that revokes the held token.
    HandingOver,
}

/// The reason why an operation has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store was not reached in time, or cannot serve now: it is loading, or a replica that takes no
    /// writes. Trying again may help.
    #[error("the store is not reachable: {0}")]
    Unreachable(String),
    /// The store refused the operation: a wrong password, or a right that is missing. Only a change of the
    /// configuration helps.
    #[error("the store refused the operation: {0}")]
    Refused(String),
    /// This replica has other settings than the others, or its keys cannot be read.
    #[error("{0}")]
    Misconfigured(String),
    /// The token in the store cannot be used, and may be live.
    #[error("the token in the store cannot be used: {0}")]
    Unusable(String),
    /// The reply is none that the scripts give.
    #[error("the store's reply cannot be read")]
    Malformed,
}

impl StoreError {
    /// Tells whether the fault is one of this replica, so that others may reach the store.
    pub fn is_of_this_replica(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Misconfigured(_))
    }
}
