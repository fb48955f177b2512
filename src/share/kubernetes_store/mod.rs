//! `KubernetesStore`: the store of shared tokens in one Kubernetes Secret, by compare and set: each change
//! names the `resourceVersion` of the Secret that it was made from, and the API server refuses it if another
//! change came first.
//!
//! [`options`] says where; `connection` and `api` are HTTP, `lines` the lines of a watch; `record` is the
//! state of a token in the Secret; `watching` keeps in touch and announces what has changed; [`probe`] tests
//! all of it.
//!
//! The clock is the `Date` of the API server's answers, never that of the replica. It tells whole seconds.

mod api;
mod connection;
mod lines;
pub mod options;
pub mod probe;
mod record;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use self::api::Api;
use self::record::{MAX_SECRET_BYTES, SecretObject, TokenRecord, TooLarge};
use self::watching::{Contact, Watching};
use super::announcements::Announcements;
use super::metrics::{Outcome, ShareMetrics, StoreOperation};
use super::names::TokenName;
use super::protocol::{AcquireReply, PublishReply};
use super::state::ClockReading;
use super::store::{Acquire, Announcement, Operation, StoreError, TokenStore};

pub use self::api::is_dns_label;
pub use self::options::KubernetesOptions;

/// The time from a change of the Secret to the last replica that watches it.
const ANNOUNCEMENT_TIME: Duration = Duration::from_millis(100);
/// Longest pause after the first conflict of an operation; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
/// Longest pause after a conflict.
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// The store. It keeps in touch with the API server until it is dropped.
pub struct KubernetesStore {
    api: Arc<Api>,
    announcements: Announcements,
    contact: watch::Receiver<Contact>,
    reached: watch::Receiver<bool>,
    broken: mpsc::Sender<StoreError>,
    metrics: ShareMetrics,
    _watching: AbortOnDropHandle<()>,
}

impl KubernetesStore {
    /// Starts a store in the current tokio runtime. It connects in the background.
    pub fn start(options: KubernetesOptions, metrics: ShareMetrics) -> Self {
        let api = Arc::new(Api::new(Arc::new(options)));
        let announcements = Announcements::default();
        let (to_contact, contact) = watch::channel(Contact::Connecting);
        let (to_reached, reached) = watch::channel(false);
        let (broken, was_broken) = mpsc::channel(1);
        metrics.follow(reached.clone());
        let watching = Watching::new(
            Arc::clone(&api),
            announcements.clone(),
            to_contact,
            to_reached,
            was_broken,
        );
        let watching = AbortOnDropHandle::new(tokio::spawn(watching.run()));
        Self { api, announcements, contact, reached, broken, metrics, _watching: watching }
    }

    /// Waits for the first attempt to reach the server, and no longer for one that it does not answer.
    async fn ready(&self) -> Result<(), StoreError> {
        let mut contact = self.contact.clone();
        match contact.wait_for(|contact| !matches!(contact, Contact::Connecting)).await.as_deref() {
            Ok(Contact::Up) => Ok(()),
            Ok(Contact::Down(error)) => Err(error.clone()),
            Ok(Contact::Connecting) | Err(_) => {
                Err(StoreError::Unreachable("this process is ending".to_owned()))
            }
        }
    }

    /// Runs an operation within the time-out. One that finds the server away tells the watching task.
    async fn bounded<T>(
        &self,
        operation: &str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.api.options.operation_timeout;
        let answers = self.api.answers();
        let worked = timeout(limit, async {
            self.ready().await?;
            work.await
        });
        let error = match worked.await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            // It is there, and slow, or the Secret is changed too often.
            Err(_) if self.api.answers() != answers => {
                let (server, secret) = (self.api.server(), &self.api.options.secret);
                return Err(StoreError::Unreachable(format!(
                    "{server} did not carry out {operation} within {limit:?}, though it answers; is secrets/{secret} \
                     changed by many at once?"
                )));
            }
            Err(_) => {
                let server = self.api.server();
                StoreError::Unreachable(format!(
                    "{server} did not answer {operation} within {limit:?}"
                ))
            }
        };
        if matches!(error, StoreError::Unreachable(_)) && *self.reached.borrow() {
            // A full channel holds the error of another operation, which says the same.
            let _ = self.broken.try_send(error.clone());
        }
        Err(error)
    }

    /// Changes the state of a token by a step that may be tried several times: each time on the state that
    /// the Secret has then.
    async fn change<T>(
        &self,
        name: &TokenName,
        step: impl Fn(&mut TokenRecord, ClockReading) -> T,
    ) -> Result<T, StoreError> {
        let mut link = self.api.link();
        let text = name.to_string();
        let mut pause = FIRST_PAUSE;
        // Bounded by the time-out of the operation.
        loop {
            let (found, now) = self.api.get(&mut link).await?;
            let Some(secret) = found else {
                self.api.create(&mut link).await?;
                pause = again(pause).await;
                continue;
            };
            let before = secret.record(&text).current(now);
            let mut record = before.clone();
            let reply = step(&mut record, now);
            if record == before {
                self.api.keep(link);
                return Ok(reply);
            }
            let patch = secret.patch(name, &record, now).map_err(|size| self.too_large(&size))?;
            if self.api.patch(&mut link, patch).await? {
                self.api.keep(link);
                return Ok(reply);
            }
            pause = again(pause).await;
        }
    }

    fn too_large(&self, size: &TooLarge) -> StoreError {
        let (secret, size) = (&self.api.options.secret, size.0);
        StoreError::Refused(format!(
            "secrets/{secret} would have {size} bytes, of {MAX_SECRET_BYTES} at most; give tokens a Secret of their own, \
             or share fewer"
        ))
    }

    /// Removes a token from the Secret.
    async fn remove(&self, name: &TokenName) -> Result<(), StoreError> {
        self.bounded("remove", async {
            let mut link = self.api.link();
            loop {
                let Some(secret) = self.api.get(&mut link).await?.0 else { return Ok(()) };
                if self.api.patch(&mut link, SecretObject::removal(&secret, name)).await? {
                    return Ok(());
                }
                again(FIRST_PAUSE).await;
            }
        })
        .await
    }

    /// Bounds an operation, and counts it.
    async fn counted<T>(
        &self,
        operation: StoreOperation,
        outcome: fn(&T) -> Outcome,
        result: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let bounded = self.bounded(operation.as_str(), result);
        self.metrics.counted(operation, outcome, bounded).await
    }
}

/// Waits before the next attempt, and returns the longest wait before the one after it. Jitter, so that those
/// who met once do not meet again.
async fn again(pause: Duration) -> Duration {
    sleep(pause.mul_f64(fastrand::f64())).await;
    (pause * 2).min(LONGEST_PAUSE)
}

impl TokenStore for KubernetesStore {
    fn acquire<'a>(&'a self, name: &'a TokenName, ask: Acquire<'a>) -> Operation<'a, AcquireReply> {
        let changed = self.change(name, move |record, now| record.state.acquire(now, &ask));
        Box::pin(self.counted(StoreOperation::Acquire, Outcome::of_acquired, changed))
    }

    fn renew<'a>(
        &'a self,
        name: &'a TokenName,
        owner: &'a str,
        epoch: u64,
        lease: Duration,
    ) -> Operation<'a, bool> {
        let changed =
            self.change(name, move |record, now| record.state.renew(now, owner, epoch, lease));
        Box::pin(self.counted(StoreOperation::Renew, Outcome::of_lease, changed))
    }

    fn publish<'a>(
        &'a self,
        name: &'a TokenName,
        owner: &'a str,
        epoch: u64,
        sealed: &'a [u8],
        life_left: Duration,
    ) -> Operation<'a, PublishReply> {
        let changed = self.change(name, move |record, now| {
            record.state.publish(now, owner, epoch, sealed, life_left)
        });
        Box::pin(self.counted(StoreOperation::Publish, Outcome::of_published, changed))
    }

    fn fail<'a>(
        &'a self,
        name: &'a TokenName,
        owner: &'a str,
        wait: Duration,
        refused: Option<&'a str>,
    ) -> Operation<'a, bool> {
        let changed =
            self.change(name, move |record, now| record.state.fail(now, owner, wait, refused));
        Box::pin(self.counted(StoreOperation::Fail, Outcome::of_lease, changed))
    }

    fn announce_handover<'a>(&'a self, name: &'a TokenName) -> Operation<'a, ()> {
        // A state whose change each watch sees: the epoch of the lead that hands over.
        let changed = self.change(name, |record, _| record.handover = record.state.epoch);
        Box::pin(self.counted(StoreOperation::Handover, |()| Outcome::Ok, changed))
    }

    fn announcement_time(&self) -> Duration {
        ANNOUNCEMENT_TIME
    }

    fn announcements(&self, name: &TokenName) -> broadcast::Receiver<Announcement> {
        self.announcements.subscribe(name)
    }

    fn reached(&self) -> watch::Receiver<bool> {
        self.reached.clone()
    }
}
