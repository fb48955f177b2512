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

/// A reading of the store's clock, in milliseconds since 1970: the time is between both. A clock that tells
/// whole seconds is read as one second; leases and pauses then last up to a second longer than asked for, and
/// tokens end up to two seconds earlier, never the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// The least time that it can be.
    pub earliest: u64,
    /// The latest.
    pub latest: u64,
}

impl From<u64> for ClockReading {
    /// A clock that tells milliseconds.
    fn from(now: u64) -> Self {
        Self { earliest: now, latest: now }
    }
}

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
    pub fn acquire(&mut self, now: impl Into<ClockReading>, ask: &Acquire<'_>) -> AcquireReply {
        let ClockReading { earliest, latest } = now.into();
        let known = ask.generation;
        let other = self.generation == known && self.token_owner != ask.token_owner;
        if let Some((sealed, ends)) = self.value.as_ref().filter(|(_, ends)| *ends > latest)
            && (self.generation > known || other)
        {
            return AcquireReply::Token(StoredValue {
                generation: self.generation,
                owner: self.token_owner.clone(),
                sealed: sealed.clone(),
                life_left: Duration::from_millis(ends - latest),
            });
        }
        let Some(lease) = ask.lead else { return AcquireReply::NoOther };
        if let Some((owner, until)) = &self.lease
            && *until > earliest
            && owner != ask.owner
        {
            return AcquireReply::Held(Duration::from_millis(until - earliest));
        }
        // A pause after a refused secret holds for that secret: one replica may see its rotation before the
        // others.
        let rotated = self.refused.as_ref().is_some_and(|refused| refused != ask.secret);
        if self.not_before > earliest && !rotated {
            return AcquireReply::Wait(Duration::from_millis(self.not_before - earliest));
        }
        let hour = earliest / HOUR;
        let calls = if self.calls.0 == hour { self.calls.1 } else { 0 };
        if ask.budget > 0 && calls >= ask.budget {
            return AcquireReply::Wait(Duration::from_millis((hour + 1) * HOUR - earliest));
        }
        self.calls = (hour, calls + 1);
        self.epoch = self.generation.max(known).max(self.epoch) + 1;
        self.lease = Some((ask.owner.to_owned(), latest + millis(lease)));
        AcquireReply::Lead(self.epoch)
    }

    /// Renews the lease of the leader of an epoch; `false` if another replica leads, or none.
    pub fn renew(
        &mut self,
        now: impl Into<ClockReading>,
        owner: &str,
        epoch: u64,
        lease: Duration,
    ) -> bool {
        let current = self.epoch == epoch;
        match &mut self.lease {
            Some((leader, until)) if leader == owner && current => {
                *until = now.into().latest + millis(lease);
                true
            }
            _ => false,
        }
    }

    /// Takes the token of an epoch, unless one of the same or a later epoch is there.
    pub fn publish(
        &mut self,
        now: impl Into<ClockReading>,
        owner: &str,
        epoch: u64,
        sealed: &[u8],
        life_left: Duration,
    ) -> PublishReply {
        let ClockReading { earliest, latest } = now.into();
        if self.generation >= epoch {
            return PublishReply::Superseded(self.generation);
        }
        self.value = Some((sealed.to_vec(), earliest + millis(life_left)));
        (self.generation, self.token_owner) = (epoch, owner.to_owned());
        (self.not_before, self.refused) = (latest + MIN_INTERVAL, None);
        self.epoch = self.epoch.max(epoch);
        self.lease.take_if(|(leader, _)| leader == owner);
        PublishReply::Accepted
    }

    /// Ends the lease after a failed token request; `false` if it was lost before. `refused` is the
    /// fingerprint of the client secret if the token server refused it.
    pub fn fail(
        &mut self,
        now: impl Into<ClockReading>,
        owner: &str,
        wait: Duration,
        refused: Option<&str>,
    ) -> bool {
        let led = self.lease.take_if(|(leader, _)| leader == owner).is_some();
        if led {
            self.not_before = now.into().latest + millis(wait);
            self.refused = refused.map(str::to_owned);
        }
        led
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Second `second` of a clock that tells whole seconds.
    fn within(second: u64) -> ClockReading {
        ClockReading { earliest: second * 1000, latest: second * 1000 + 999 }
    }

    fn ask(owner: &str) -> Acquire<'_> {
        let lead = Some(Duration::from_secs(1));
        Acquire { owner, generation: 0, token_owner: "", lead, secret: "", budget: 0 }
    }

    #[test]
    fn a_coarse_clock_cuts_no_lease_and_lengthens_no_life() {
        let mut state = TokenState::default();
        assert_eq!(state.acquire(within(100), &ask("r1")), AcquireReply::Lead(1));
        // It may have been taken at 100.999.
        let held = state.acquire(within(101), &ask("r2"));
        assert_eq!(held, AcquireReply::Held(Duration::from_millis(999)));
        let life = Duration::from_secs(10);
        assert_eq!(state.publish(within(101), "r1", 1, b"sealed", life), PublishReply::Accepted);
        let AcquireReply::Token(value) = state.acquire(within(105), &ask("r2")) else { panic!() };
        // Published at 101.0, and read at 105.999.
        assert_eq!(value.life_left, Duration::from_millis(5001));
        let knows = Acquire { generation: 1, token_owner: "r1", ..ask("r2") };
        let floor = state.acquire(within(102), &knows);
        assert_eq!(floor, AcquireReply::Wait(Duration::from_millis(999)));
        assert_eq!(state.acquire(within(103), &knows), AcquireReply::Lead(2));
    }
}
