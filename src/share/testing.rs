//! `StoreModel`: the four scripts as a pure state machine; time is an argument. [`canary_token`]: a token whose
//! texts are easy to find.

use std::time::Duration;

use super::protocol::{AcquireReply, PublishReply, StoredValue};
use super::sealing::SharingKeys;
use super::shared_token::SharedToken;
use crate::sensitive::Sensitive;

/// Keys of one process.
pub fn sealing_keys() -> SharingKeys {
    let key = Sensitive::new("Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=");
    SharingKeys::new([("2026-11", &key)]).unwrap()
}

/// A token each of whose texts holds `canary`.
pub fn canary_token() -> SharedToken {
    SharedToken {
        access_token: Sensitive::new("canary-access"),
        token_type: "Bearer".to_owned(),
        scope: Some("canary.read canary.write".to_owned()),
        life_ms: 3_600_000,
        asked_at: 1_800_000_000_000,
        refresh_token: Some(Sensitive::new("canary-refresh")),
        certificate_thumbprint: Some("canary-thumbprint".to_owned()),
    }
}

const HOUR: u64 = 3_600_000;

/// The two keys of one token in the store. Times are milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreModel {
    pub generation: u64,
    pub token_owner: String,
    /// The value, and when it ends.
    pub value: Option<(Vec<u8>, u64)>,
    pub epoch: u64,
    /// The leader, and when its lease ends.
    pub lease: Option<(String, u64)>,
    pub not_before: u64,
    pub refused: Option<String>,
    /// An hour since 1970, and the leads in it.
    pub calls: (u64, u64),
}

/// The arguments of `acquire`.
#[derive(Debug, Clone)]
pub struct Acquire<'a> {
    pub replica: &'a str,
    pub generation: u64,
    pub token_owner: &'a str,
    pub lease: u64,
    pub lead: bool,
    pub secret: &'a str,
    pub budget: u64,
}

impl StoreModel {
    pub fn acquire(&mut self, now: u64, asked: &Acquire<'_>) -> AcquireReply {
        let known = asked.generation;
        let other = self.generation == known && self.token_owner != asked.token_owner;
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
        if !asked.lead {
            return AcquireReply::NoOther;
        }
        if let Some((owner, until)) = &self.lease
            && *until > now
            && owner != asked.replica
        {
            return AcquireReply::Held(Duration::from_millis(until - now));
        }
        let rotated = self.refused.as_ref().is_some_and(|refused| refused != asked.secret);
        if self.not_before > now && !rotated {
            return AcquireReply::Wait(Duration::from_millis(self.not_before - now));
        }
        let hour = now / HOUR;
        let calls = if self.calls.0 == hour { self.calls.1 } else { 0 };
        if asked.budget > 0 && calls >= asked.budget {
            return AcquireReply::Wait(Duration::from_millis((hour + 1) * HOUR - now));
        }
        self.calls = (hour, calls + 1);
        self.epoch = self.generation.max(known).max(self.epoch) + 1;
        self.lease = Some((asked.replica.to_owned(), now + asked.lease));
        AcquireReply::Lead(self.epoch)
    }

    pub fn renew(&mut self, now: u64, replica: &str, epoch: u64, lease: u64) -> bool {
        let current = self.epoch == epoch;
        match &mut self.lease {
            Some((owner, until)) if owner == replica && current => {
                *until = now + lease;
                true
            }
            _ => false,
        }
    }

    pub fn publish(
        &mut self,
        now: u64,
        replica: &str,
        epoch: u64,
        sealed: &[u8],
        life: u64,
    ) -> PublishReply {
        if self.generation >= epoch {
            return PublishReply::Superseded(self.generation);
        }
        self.value = Some((sealed.to_vec(), now + life));
        (self.generation, self.token_owner) = (epoch, replica.to_owned());
        (self.not_before, self.refused) = (now + 1000, None);
        self.epoch = self.epoch.max(epoch);
        self.lease.take_if(|(owner, _)| owner == replica);
        PublishReply::Accepted
    }

    pub fn fail(&mut self, now: u64, replica: &str, wait: u64, refused: Option<&str>) -> bool {
        let led = self.lease.take_if(|(owner, _)| owner == replica).is_some();
        if led {
            self.not_before = now + wait;
            self.refused = refused.map(str::to_owned);
        }
        led
    }
}
