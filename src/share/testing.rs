//! `ModelStore`: a store made of the state machine, under paused time. [`canary_token`]: a token whose texts
//! are easy to find.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::names::TokenName;
use super::protocol::{AcquireReply, PublishReply};
use super::sealing::SharingKeys;
use super::shared_token::SharedToken;
use super::state::TokenState;
use super::store::{Acquire, Announcement, Operation, StoreError, TokenStore};
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

/// The time of one operation.
const ROUND_TRIP: Duration = Duration::from_millis(1);
/// The time-out of one operation.
const TIMEOUT: Duration = Duration::from_millis(500);

/// A store of the tests, which answers after 1 ms.
pub struct ModelStore {
    tokens: Mutex<HashMap<String, TokenState>>,
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
    pub fn only(&self) -> TokenState {
        let mut only = None;
        self.change(|token| only = Some(token.clone()));
        only.unwrap()
    }

    /// Changes the token that all replicas of a test share.
    pub fn change(&self, change: impl FnOnce(&mut TokenState)) {
        let (mut tokens, check) = (self.lock(), TokenName::of_name_key().to_string());
        let mut tokens = tokens.iter_mut().filter(|(name, _)| **name != check);
        let (_, only) = tokens.next().unwrap();
        assert!(tokens.next().is_none());
        change(only);
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

    fn lock(&self) -> MutexGuard<'_, HashMap<String, TokenState>> {
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
        script: impl FnOnce(&mut TokenState, u64) -> T + Send + 'a,
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

impl TokenStore for ModelStore {
    fn acquire<'a>(&'a self, name: &'a TokenName, ask: Acquire<'a>) -> Operation<'a, AcquireReply> {
        self.run(name, move |state, now| state.acquire(now, &ask))
    }

    fn renew<'a>(
        &'a self,
        name: &'a TokenName,
        owner: &'a str,
        epoch: u64,
        lease: Duration,
    ) -> Operation<'a, bool> {
        self.run(name, move |state, now| state.renew(now, owner, epoch, lease))
    }

    fn publish<'a>(
        &'a self,
        name: &'a TokenName,
        owner: &'a str,
        epoch: u64,
        sealed: &'a [u8],
        life_left: Duration,
    ) -> Operation<'a, PublishReply> {
        self.run(name, move |state, now| {
            let reply = state.publish(now, owner, epoch, sealed, life_left);
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
        self.run(name, move |state, now| state.fail(now, owner, wait, refused))
    }

    fn announce_handover<'a>(&'a self, name: &'a TokenName) -> Operation<'a, ()> {
        self.run(name, move |_, _| self.announce(name, Announcement::HandingOver))
    }

    fn announcement_time(&self) -> Duration {
        Duration::from_millis(30)
    }

    fn announcements(&self, name: &TokenName) -> broadcast::Receiver<Announcement> {
        self.channel(name).subscribe()
    }

    fn reached(&self) -> watch::Receiver<bool> {
        self.reached.subscribe()
    }
}
