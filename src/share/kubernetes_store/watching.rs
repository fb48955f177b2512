//! The task that keeps in touch with the API server: it reads the Secret, then watches it, and does so again
//! when a watch ends. What a watch misses is found by the next reading, because announcements follow from
//! states.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::super::announcements::Announcements;
use super::super::store::{Announcement, StoreError};
use super::api::Api;
use super::lines::Lines;
use super::record::SecretObject;
use crate::telemetry::throttle::Throttle;

/// Mean time between two attempts to reach the server, or to watch.
const RETRY: Duration = Duration::from_millis(500);
/// Mean time between two attempts that the server refused: what helps is done by people.
const RETRY_REFUSED: Duration = Duration::from_secs(5);
/// Least time from one watch to the next.
const MIN_WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Seconds of a watch, and the random part on top. Short: a connection that is dead shows no other sign.
const WATCH_SECONDS: (u64, u64) = (60, 30);
/// Time after which the server should have ended a watch.
const GRACE: Duration = Duration::from_secs(10);

/// The contact with the API server.
#[derive(Debug, Clone)]
pub(super) enum Contact {
    /// The first attempt is under way.
    Connecting,
    /// The server answers.
    Up,
    /// It does not, for this reason.
    Down(StoreError),
}

/// Keeps in touch until it is dropped.
pub(super) struct Watching {
    pub(super) api: Arc<Api>,
    pub(super) announcements: Announcements,
    pub(super) contact: watch::Sender<Contact>,
    pub(super) reached: watch::Sender<bool>,
    /// The errors of operations that found the server away.
    pub(super) broken: mpsc::Receiver<StoreError>,
    /// The last state of each token; `None` before the first reading.
    seen: Option<HashMap<String, Seen>>,
    log: Throttle,
}

/// The state of a token, as far as it has been announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Seen {
    generation: u64,
    handover: u64,
}

/// The end of a watch.
enum WatchEnd {
    /// It was its time, or it was cut: another one follows.
    Over,
    /// There is none, for this reason. Operations may work all the same.
    NotPossible(StoreError),
    /// The store is away, or has lost its content.
    Lost(StoreError),
}

/// One line of a watch.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl Watching {
    pub(super) fn new(
        api: Arc<Api>,
        announcements: Announcements,
        contact: watch::Sender<Contact>,
        reached: watch::Sender<bool>,
        broken: mpsc::Receiver<StoreError>,
    ) -> Self {
        Self { api, announcements, contact, reached, broken, seen: None, log: Throttle::default() }
    }

    /// Runs until it is aborted.
    pub(super) async fn run(mut self) {
        loop {
            let error = match self.read().await {
                // What it has lost is offered again because it was away.
                Ok(_) => self.follow_to_end().await,
                Err(error) => error,
            };
            self.contact.send_replace(Contact::Down(error.clone()));
            self.reached.send_replace(false);
            if let Some(suppressed) = self.log.allow() {
                tracing::warn!(%error, suppressed, "the store of shared tokens is away; held tokens stay in use");
            }
            let refused = matches!(error, StoreError::Refused(_));
            // Jitter, so that replicas that lost the server together do not come back together.
            sleep(jittered(if refused { RETRY_REFUSED } else { RETRY })).await;
            // Errors of the time before are not those of the next attempt.
            while self.broken.try_recv().is_ok() {}
        }
    }

    /// Reads the Secret, and creates it where there is none. `false` if it has lost a token.
    async fn read(&mut self) -> Result<bool, StoreError> {
        let limit = self.api.options.connect_timeout + self.api.options.operation_timeout;
        let reading = async {
            let mut link = self.api.link();
            let mut found = self.api.get(&mut link).await?.0;
            if found.is_none() {
                self.api.create(&mut link).await?;
                found = self.api.get(&mut link).await?.0;
            }
            self.api.keep(link);
            found.ok_or_else(|| self.deleted())
        };
        let secret = timeout(limit, reading).await.unwrap_or_else(|_| {
            let server = self.api.server();
            Err(StoreError::Unreachable(format!("{server} did not answer within {limit:?}")))
        })?;
        Ok(self.observe(&secret))
    }

    fn deleted(&self) -> StoreError {
        StoreError::Unreachable(format!("secrets/{} was deleted", self.api.options.secret))
    }

    fn emptied(&self) -> StoreError {
        StoreError::Unreachable(format!("secrets/{} has lost a token", self.api.options.secret))
    }

    /// Watches as long as the store is reached, and returns the reason why it is not any more.
    async fn follow_to_end(&mut self) -> StoreError {
        if !self.reached.send_replace(true) {
            tracing::info!(server = self.api.server(), "the store of shared tokens is reached");
        }
        self.contact.send_replace(Contact::Up);
        loop {
            let begun = Instant::now();
            let pause = match self.watch().await {
                WatchEnd::Lost(error) => return error,
                WatchEnd::Over => MIN_WATCH_INTERVAL.saturating_sub(begun.elapsed()),
                WatchEnd::NotPossible(error) => {
                    if let Some(suppressed) = self.log.allow() {
                        tracing::warn!(%error, suppressed, "no watch on the store of shared tokens; it is asked at each poll");
                    }
                    RETRY_REFUSED
                }
            };
            if let Ok(Some(error)) = timeout(jittered(pause), self.broken.recv()).await {
                return error;
            }
            match self.read().await {
                Ok(true) => {}
                Ok(false) => return self.emptied(),
                Err(error) => return error,
            }
        }
    }

    async fn watch(&mut self) -> WatchEnd {
        let seconds = WATCH_SECONDS.0 + fastrand::u64(..WATCH_SECONDS.1);
        let limit = self.api.options.connect_timeout + self.api.options.operation_timeout;
        let api = Arc::clone(&self.api);
        let opening = async {
            timeout(limit, api.watch(seconds)).await.unwrap_or_else(|_| {
                Err(StoreError::Unreachable(format!("no watch began within {limit:?}")))
            })
        };
        let (_connection, mut body) = tokio::select! {
            // An operation that found the server away says more than a watch that hangs.
            biased;
            Some(error) = self.broken.recv() => return WatchEnd::Lost(error),
            opened = opening => match opened {
                Ok(opened) => opened,
                Err(error) => return WatchEnd::NotPossible(error),
            },
        };
        let until = Instant::now() + Duration::from_secs(seconds) + GRACE;
        let mut lines = Lines::default();
        loop {
            let next = tokio::select! {
                biased;
                Some(error) = self.broken.recv() => return WatchEnd::Lost(error),
                next = timeout_at(until, chunk(&mut body)) => next,
            };
            let Ok(Some(bytes)) = next else { return WatchEnd::Over };
            let Ok(whole) = lines.push(&bytes) else {
                return WatchEnd::NotPossible(StoreError::Malformed);
            };
            for line in whole.iter().filter(|line| !line.trim_ascii().is_empty()) {
                if let Some(end) = self.event(line) {
                    return end;
                }
            }
        }
    }

    /// Takes one event; `Some` if it ends the watch.
    fn event(&mut self, line: &[u8]) -> Option<WatchEnd> {
        let malformed = Some(WatchEnd::NotPossible(StoreError::Malformed));
        let Ok(event) = serde_json::from_slice::<Event<'_>>(line) else { return malformed };
        match event.kind {
            "ADDED" | "MODIFIED" => {
                let Ok(secret) = serde_json::from_str::<SecretObject>(event.object.get()) else {
                    return malformed;
                };
                // As a server that comes back empty: the last leader offers its token again.
                let is_whole = secret.name() != self.api.options.secret || self.observe(&secret);
                (!is_whole).then(|| WatchEnd::Lost(self.emptied()))
            }
            "DELETED" => Some(WatchEnd::Lost(self.deleted())),
            // Such as 410 Gone: the server has forgotten the version that the watch was at.
            "ERROR" => Some(WatchEnd::Over),
            // Bookmarks, and what later versions may send.
            _ => None,
        }
    }

    /// Announces what has changed since the last state. `false` if a token that something follows is gone, or
    /// is an older one.
    fn observe(&mut self, secret: &SecretObject) -> bool {
        let is_first = self.seen.is_none();
        let before = self.seen.take().unwrap_or_default();
        let mut seen = HashMap::new();
        for name in secret.names() {
            let record = secret.record(name);
            let now = Seen { generation: record.state.generation, handover: record.handover };
            let last = before.get(name).copied().unwrap_or_default();
            // One that was announced before this process began is over, or ends by a token.
            if now.handover != last.handover && now.handover > now.generation && !is_first {
                self.announcements.send(name, Announcement::HandingOver);
            }
            if now.generation != last.generation {
                self.announcements.send(name, Announcement::Published(now.generation));
            }
            seen.insert(name.to_owned(), now);
        }
        let lost = before.iter().any(|(name, before)| {
            let now = seen.get(name).copied().unwrap_or_default();
            now.generation < before.generation && self.announcements.is_followed(name)
        });
        self.seen = Some(seen);
        !lost
    }
}

/// The next bytes of a watch; `None` at its end, however it comes.
async fn chunk(body: &mut Incoming) -> Option<bytes::Bytes> {
    loop {
        let frame = body.frame().await?.ok()?;
        if let Ok(bytes) = frame.into_data() {
            return Some(bytes);
        }
    }
}

fn jittered(mean: Duration) -> Duration {
    mean.mul_f64(0.5 + fastrand::f64())
}
