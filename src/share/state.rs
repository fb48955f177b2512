//! `TokenState`: the state of one shared token in a store, and the operations on it as a pure state machine.
//! The time is an argument.
//!
//! A store that compares and sets runs them on the state that it has read. The scripts of Redis are the same
//! rules in Lua, and the tests compare both.

use std::time::Duration;

use super::protocol::{AcquireReply, PublishReply, StoredValue};
use super::store::Acquire;

/// Milliseconds of an hour.
const HOUR: u64 = 3_600_000;
/// Least milliseconds between two token requests of all replicas.
const MIN_INTERVAL: u64 = 1000;

/// The state of one token. Times are milliseconds since 1970 by the clock of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenState {
    /// The generation of the token; 0: none was published.
    pub generation: u64,
    /// The replica that published it.
    pub token_owner: String,
    /// The sealed token, and the time at which it ends.
    pub value: Option<(Vec<u8>, u64)>,
    /// The epoch of the last lead.
    pub epoch: u64,
    /// The leader, and the time at which its lease ends.
    pub lease: Option<(String, u64)>,
    /// No replica requests a token before this time.
    pub not_before: u64,
    /// The fingerprint of the client secret that the token server refused.
    pub refused: Option<String>,
    /// An hour since 1970, and the leads in it.
    pub calls: (u64, u64),
}

impl TokenState {
    /// Returns the token if the store has another one than the replica; else, if asked for, the lead.
    pub fn acquire(&mut self, now: u64, ask: &Acquire<'_>) -> AcquireReply {
        let known = ask.generation;
        let other = self.generation == known && self.token_owner != ask.token_owner;
        if let Some((sealed, ends)) = self.value.as_ref().filter(|(_, ends)| *ends > now)
            && (self.generation > known || other)
        {
            return AcquireReply::Token(StoredValue {
                generation: self.generation,
                owner: self.token_owner.clone(),
                sealed: sealed.clone(),
                life_left: Duration::from_millis(ends - now),
            });
        }
        let Some(lease) = ask.lead else { return AcquireReply::NoOther };
        if let Some((owner, until)) = &self.lease
            && *until > now
            && owner != ask.owner
        {
            return AcquireReply::Held(Duration::from_millis(until - now));
        }
        // A pause after a refused secret holds for that secret: one replica may see its rotation before the
        // others.
        let rotated = self.refused.as_ref().is_some_and(|refused| refused != ask.secret);
        if self.not_before > now && !rotated {
            return AcquireReply::Wait(Duration::from_millis(self.not_before - now));
        }
        let hour = now / HOUR;
        let calls = if self.calls.0 == hour { self.calls.1 } else { 0 };
        if ask.budget > 0 && calls >= ask.budget {
            return AcquireReply::Wait(Duration::from_millis((hour + 1) * HOUR - now));
        }
        self.calls = (hour, calls + 1);
        self.epoch = self.generation.max(known).max(self.epoch) + 1;
        self.lease = Some((ask.owner.to_owned(), now + millis(lease)));
        AcquireReply::Lead(self.epoch)
    }

    /// Renews the lease of the leader of an epoch; `false` if another replica leads, or none.
    pub fn renew(&mut self, now: u64, owner: &str, epoch: u64, lease: Duration) -> bool {
        let current = self.epoch == epoch;
        match &mut self.lease {
            Some((leader, until)) if leader == owner && current => {
                *until = now + millis(lease);
                true
            }
            _ => false,
        }
    }

    /// Takes the token of an epoch, unless one of the same or a later epoch is there.
    pub fn publish(
        &mut self,
        now: u64,
        owner: &str,
        epoch: u64,
        sealed: &[u8],
        life_left: Duration,
    ) -> PublishReply {
        if self.generation >= epoch {
            return PublishReply::Superseded(self.generation);
        }
        self.value = Some((sealed.to_vec(), now + millis(life_left)));
        (self.generation, self.token_owner) = (epoch, owner.to_owned());
        (self.not_before, self.refused) = (now + MIN_INTERVAL, None);
        self.epoch = self.epoch.max(epoch);
        self.lease.take_if(|(leader, _)| leader == owner);
        PublishReply::Accepted
    }

    /// Ends the lease after a failed token request; `false` if it was lost before. `refused` is the fingerprint
    /// of the client secret if the token server refused it.
    pub fn fail(&mut self, now: u64, owner: &str, wait: Duration, refused: Option<&str>) -> bool {
        let led = self.lease.take_if(|(leader, _)| leader == owner).is_some();
        if led {
            self.not_before = now + millis(wait);
            self.refused = refused.map(str::to_owned);
        }
        led
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}
