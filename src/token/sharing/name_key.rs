//! The comparison of this replica's `name_key` with that of the others: replicas with different ones would
//! look for other names, and hold two tokens that revoke each other.
//!
//! A check value under a name of its own is kept in the store as tokens are.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::shared_store::SharedStore;
use crate::share::names::TokenName;
use crate::share::protocol::{AcquireReply, PublishReply, StoredValue};
use crate::share::store::{Acquire, StoreError};

/// Time between two comparisons.
const INTERVAL: Duration = Duration::from_secs(3600);
/// The life of the check value. It is published again in its second half.
const LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Time for which the lead of another replica is waited for.
const LEASE: Duration = Duration::from_secs(1);
/// Time between two questions meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(10);

impl SharedStore {
    /// Compares the key at the next question, because the store may be another one than it was.
    pub(super) fn compare_name_key_again(&self) {
        self.name_key_check().same_at = None;
    }

    /// Compares the key with that of the other replicas, at most once an hour. The first replica leaves its
    /// own.
    ///
    /// # Errors
    /// The store cannot be used, or the key is another one. Then [`StoreError::Misconfigured`]: the fault is
    /// one of this replica.
    pub(super) async fn compare_name_key(&self, owner: &str) -> Result<(), StoreError> {
        if self.name_key_check().same_at.is_some_and(|at| at.elapsed() < INTERVAL) {
            return Ok(());
        }
        let keys =
            self.keys().await.map_err(|error| StoreError::Misconfigured(error.to_string()))?;
        let (name, own) = (TokenName::of_name_key(), keys.names.check_value());
        let mut ask = first_question(owner, Some(LEASE));
        let mut found = self.store.acquire(&name, ask).await?;
        let began = Instant::now();
        while matches!(found, AcquireReply::Held(_) | AcquireReply::Wait(_)) {
            if began.elapsed() > LEASE * 2 {
                return Ok(());
            }
            // Another replica is about to leave its own.
            sleep(ASK_AGAIN).await;
            found = self.store.acquire(&name, ask).await?;
        }
        if let AcquireReply::Token(value) = &found {
            let same = value.sealed == own.as_bytes();
            if !same && !self.name_key_check().confirmed {
                return Err(StoreError::Misconfigured(other_key(value)));
            }
            if !same {
                let owner = &*value.owner;
                tracing::warn!(
                    owner,
                    "a replica with another name_key uses the store of shared tokens"
                );
            }
            self.name_key_check().confirmed |= same && value.owner != owner;
            if !same || value.life_left < LIFE / 2 {
                (ask.generation, ask.token_owner) = (value.generation, &value.owner);
                let lead = self.store.acquire(&name, ask).await?;
                let is_left = self.leave_check_value(&name, owner, &own, lead).await?;
                // Another one was published within the last second: it is replaced at the next question, since
                // replicas that no other has confirmed share no token until then.
                if !same && !is_left {
                    return Ok(());
                }
            }
        } else {
            self.leave_check_value(&name, owner, &own, found).await?;
        }
        self.name_key_check().same_at = Some(Instant::now());
        Ok(())
    }

    /// Publishes the check value of this replica; `false` if the store gave no lead.
    async fn leave_check_value(
        &self,
        name: &TokenName,
        owner: &str,
        own: &str,
        lead: AcquireReply,
    ) -> Result<bool, StoreError> {
        let AcquireReply::Lead(epoch) = lead else { return Ok(false) };
        let sent = self.store.publish(name, owner, epoch, own.as_bytes(), LIFE).await?;
        Ok(sent == PublishReply::Accepted)
    }

    /// Compares the key without leaving one; `None` if no replica has left its own.
    ///
    /// # Errors
    /// The store cannot be used, or the key is another one.
    pub async fn probe_name_key(&self) -> Result<Option<String>, StoreError> {
        let keys =
            self.keys().await.map_err(|error| StoreError::Misconfigured(error.to_string()))?;
        let (name, own) = (TokenName::of_name_key(), keys.names.check_value());
        match self.store.acquire(&name, first_question("", None)).await? {
            AcquireReply::Token(value) if value.sealed == own.as_bytes() => Ok(Some(value.owner)),
            AcquireReply::Token(value) => Err(StoreError::Misconfigured(other_key(&value))),
            _ => Ok(None),
        }
    }
}

/// The question of a replica that knows no check value.
fn first_question(owner: &str, lead: Option<Duration>) -> Acquire<'_> {
    Acquire { owner, generation: 0, token_owner: "", lead, secret: "", budget: 0 }
}

fn other_key(value: &StoredValue) -> String {
    format!(
        "name_key of [share] is not that of {}; give all replicas the same one, or, to replace it, stop them all \
         and delete the entry name_key in the store",
        value.owner
    )
}
