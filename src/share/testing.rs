//! `StoreModel`: the four scripts as a pure state machine; time is an argument. `ModelStore` is a store made of
//! them, under paused time. [`canary_token`]: a token whose texts are easy to find.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::names::TokenName;
use super::protocol::{AcquireReply, PublishReply, StoredValue};
use super::sealing::SharingKeys;
use super::shared_token::SharedToken;
use super::store::{self, Announcement, Operation, StoreError, TokenStore};
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

/// The time of one operation.
const ROUND_TRIP: Duration = Duration::from_millis(1);
/// The time-out of one operation.
const TIMEOUT: Duration = Duration::from_millis(500);

/// A store of the tests, which answers after 1 ms.
pub struct ModelStore {
    tokens: Mutex<HashMap<String, StoreModel>>,
    channels: Mutex<HashMap<String, broadcast::Sender<Announcement>>>,
    reached: watch::Sender<bool>,
    /// Set while it takes connections and answers nothing.
    hangs: Mutex<bool>,
    /// Set while announcements get lost.
    mute: Mutex<bool>,
    operations: AtomicUsize,
    start: Instant,
}

impl ModelStore {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            tokens: Mutex::default(),
            channels: Mutex::default(),
            reached: watch::Sender::new(true),
            hangs: Mutex::new(false),
            mute: Mutex::new(false),
            operations: AtomicUsize::new(0),
            start: Instant::now(),
        })
    }

    /// The token that all replicas of a test share.
    pub fn only(&self) -> StoreModel {
        let tokens = self.lock();
        assert_eq!(tokens.len(), 1);
        tokens.values().next().unwrap().clone()
    }

    /// Changes the token that all replicas of a test share.
    pub fn change(&self, change: impl FnOnce(&mut StoreModel)) {
        change(self.lock().values_mut().next().unwrap());
    }

    pub fn set_reached(&self, reached: bool) {
        self.reached.send_replace(reached);
    }

    pub fn set_hangs(&self, hangs: bool) {
        *self.hangs.lock().unwrap() = hangs;
    }

    pub fn set_mute(&self, mute: bool) {
        *self.mute.lock().unwrap() = mute;
    }

    /// Announces a handover on all channels, which no leader does.
    pub fn announce_handover_of_nobody(&self) {
        for channel in self.channels.lock().unwrap().values() {
            let _ = channel.send(Announcement::HandingOver);
        }
    }

    /// Loses all tokens and states.
    pub fn lose(&self) {
        self.lock().clear();
    }

    pub fn operations(&self) -> usize {
        self.operations.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, StoreModel>> {
        self.tokens.lock().unwrap()
    }

    fn announce(&self, name: &TokenName, announcement: Announcement) {
        if !*self.mute.lock().unwrap() {
            let _ = self.channel(name).send(announcement);
        }
    }

    fn channel(&self, name: &TokenName) -> broadcast::Sender<Announcement> {
        let mut channels = self.channels.lock().unwrap();
        channels.entry(name.to_string()).or_insert_with(|| broadcast::Sender::new(16)).clone()
    }

    fn run<'a, T: Send + 'a>(
        &'a self,
        name: &'a TokenName,
        script: impl FnOnce(&mut StoreModel, u64) -> T + Send + 'a,
    ) -> Operation<'a, T> {
        Box::pin(async move {
            self.operations.fetch_add(1, Ordering::Relaxed);
            if !*self.reached.borrow() {
                return Err(StoreError::Unreachable("not connected".to_owned()));
            }
            if *self.hangs.lock().unwrap() {
                tokio::time::sleep(TIMEOUT).await;
                return Err(StoreError::Unreachable("no reply in time".to_owned()));
            }
            tokio::time::sleep(ROUND_TRIP / 2).await;
            // Clocks of replicas do not matter: the store's stands elsewhere.
            let now = 1_800_000_000_000 + self.start.elapsed().as_millis() as u64;
            let reply = script(self.lock().entry(name.to_string()).or_default(), now);
            tokio::time::sleep(ROUND_TRIP / 2).await;
            Ok(reply)
        })
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

impl TokenStore for ModelStore {
    fn acquire<'a>(
        &'a self,
        name: &'a TokenName,
        ask: store::Acquire<'a>,
    ) -> Operation<'a, AcquireReply> {
        self.run(name, move |model, now| {
            let asked = Acquire {
                replica: ask.owner,
                generation: ask.generation,
                token_owner: ask.token_owner,
                lease: ask.lead.map_or(0, millis),
                lead: ask.lead.is_some(),
                secret: ask.secret,
                budget: ask.budget,
            };
            model.acquire(now, &asked)
        })
    }

    fn renew<'a>(
        &'a self,
        name: &'a TokenName,
        owner: &'a str,
        epoch: u64,
        lease: Duration,
    ) -> Operation<'a, bool> {
        self.run(name, move |model, now| model.renew(now, owner, epoch, millis(lease)))
    }

    fn publish<'a>(
        &'a self,
        name: &'a TokenName,
        owner: &'a str,
        epoch: u64,
        sealed: &'a [u8],
        life_left: Duration,
    ) -> Operation<'a, PublishReply> {
        self.run(name, move |model, now| {
            let reply = model.publish(now, owner, epoch, sealed, millis(life_left));
            if reply == PublishReply::Accepted {
                self.announce(name, Announcement::Published(epoch));
            }
            reply
        })
    }

    fn fail<'a>(
        &'a self,
        name: &'a TokenName,
        owner: &'a str,
        wait: Duration,
        refused: Option<&'a str>,
    ) -> Operation<'a, bool> {
        self.run(name, move |model, now| model.fail(now, owner, millis(wait), refused))
    }

    fn announce_handover<'a>(&'a self, name: &'a TokenName) -> Operation<'a, ()> {
        self.run(name, move |_, _| self.announce(name, Announcement::HandingOver))
    }

    fn announcements(&self, name: &TokenName) -> broadcast::Receiver<Announcement> {
        self.channel(name).subscribe()
    }

    fn reached(&self) -> watch::Receiver<bool> {
        self.reached.subscribe()
    }
}
