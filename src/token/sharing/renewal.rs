//! `SharedRenewal`: the renewal of one token that replicas share, as one of them sees it.
//!
//! Before a token request the replica asks the store, which gives it the token of another replica, the lead
//! of the renewal, or a time to wait. Without the store the settings decide who renews alone. Announcements
//! of other replicas, and a look at each poll, bring their tokens.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::identity::token_name;
use super::settings::WhenUnreachable;
use super::shared_store::{Keys, SharedStore};
use crate::clock::Moment;
use crate::oauth::ScopeSet;
use crate::sensitive::Sensitive;
use crate::share::names::TokenName;
use crate::share::protocol::{AcquireReply, PublishReply, Replica, Step, StoredValue, lease};
use crate::share::sealing::{SealedPlace, Unreadable};
use crate::share::shared_token::SharedToken;
use crate::share::store::{Acquire, Announcement, StoreError};
use crate::token::Credential;
use crate::token::fetch::ReplicaProof;

/// Longest time for which requests wait because another replica hands over.
pub(in crate::token) const FOLLOW_TIME: Duration = Duration::from_secs(2);
/// Announced handovers that are followed without a new token between them, such as those of leaders that
/// died, and the least interval of further ones. Whoever may publish on the channel could hold all requests
/// otherwise.
const HANDOVERS: (u32, Duration) = (3, Duration::from_secs(12));
/// Least time between two questions to the store.
const MIN_ASK_INTERVAL: Duration = Duration::from_millis(20);
/// An announced handover within this time of an own lead is its echo. It is shorter than the second between
/// two requests that the store keeps to, so that the lead of another replica is heard.
const ECHO_TIME: Duration = Duration::from_millis(500);
/// Largest random delay of a replica that takes the renewal over without the store.
const TAKEOVER_JITTER: Duration = Duration::from_secs(3);
/// The time in which the last leader offers its token to a store that is back.
const OFFER_TIME: Duration = Duration::from_secs(1);
/// Generations before that of a value, as which it is tried to be opened.
const EARLIER: u64 = 16;
/// The life that is assumed before the first token.
const FIRST_LIFE: Duration = Duration::from_secs(60);

/// The renewal of one shared token by this replica.
pub(in crate::token) struct SharedRenewal {
    shared: Arc<SharedStore>,
    credential: Arc<Credential>,
    scopes: ScopeSet,
    replica: Replica,
    /// `None` until the keys and the client id have been read.
    place: Option<Place>,
    reached: watch::Receiver<bool>,
    /// The held token, if this replica published it, and the time at which it ends.
    published: Option<(SharedToken, Instant)>,
    /// The epoch of the lead under way.
    lead: Option<u64>,
    /// Set while the store may lack the held token.
    offers: bool,
    /// The reason why the store cannot be used now.
    trouble: Option<StoreError>,
    /// Set once an upstream has rejected the held token.
    rejected: bool,
    /// Set once another replica that has no store either revokes the tokens of this one.
    yields: bool,
    /// The end of the last token; before the first one, the start of this replica.
    ends: Instant,
    /// The delay of a takeover beyond the configured one.
    takeover_jitter: Duration,
    /// The store is not asked for the lead before this.
    ask_at: Instant,
    /// The time of the next look.
    look_at: Instant,
    /// Set while all replicas are about to look at the same time. Their next looks are spread over a poll.
    looks_with_others: bool,
    /// The time before which no replica may renew.
    blocked_until: Option<Instant>,
    /// The end of the wait for the token of a replica that hands over.
    handover_until: Option<Instant>,
    /// Set by the announcement of a handover that has not been taken yet.
    handover_announced: bool,
    /// Handovers that were followed since the last new token, and the time of the last.
    handovers: (u32, Instant),
    /// The end of the last lead.
    led_at: Option<Instant>,
    life: Duration,
}

/// The place of the token in the store.
struct Place {
    name: TokenName,
    announcements: broadcast::Receiver<Announcement>,
}

/// The answer to the question for the lead.
pub(in crate::token) enum Answer {
    /// Send the token request.
    Request,
    /// Use this token.
    Adopt(Box<AdoptedToken>),
    /// Ask again later.
    Wait,
}

/// A token of another replica.
pub(in crate::token) struct AdoptedToken {
    pub(in crate::token) token: SharedToken,
    /// The time at which it was requested, as far as its remaining life tells.
    pub(in crate::token) sent: Moment,
    /// Its life from then on.
    pub(in crate::token) life: Duration,
    /// The replica that published it.
    pub(in crate::token) owner: String,
    /// Its generation in the store.
    pub(in crate::token) generation: u64,
}

/// The state of a shared token for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareStatus {
    /// The id of this replica.
    pub replica: String,
    /// The replica that obtained the held token; empty for none.
    pub owner: String,
    /// The generation of the held token among all replicas; 0: none.
    pub generation: u64,
    /// The reason why this replica acts without the store; `None` while the store is reached.
    pub trouble: Option<String>,
}

impl ShareStatus {
    /// Tells whether this replica obtained the held token.
    pub fn leads(&self) -> bool {
        self.owner == self.replica
    }
}

impl fmt::Display for ShareStatus {
    /// Such as `held by pod-2-1f3a09bc, generation 8, this replica follows as pod-1-0c44d1e7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replica, owner, generation, .. } = self;
        match (generation, self.leads()) {
            (0, _) => write!(f, "no replica's token held by {replica}")?,
            (_, true) => write!(f, "held by {owner}, generation {generation}, this replica leads")?,
            (_, false) => {
                write!(
                    f,
                    "held by {owner}, generation {generation}, this replica follows as {replica}"
                )?;
            }
        }
        match &self.trouble {
            Some(trouble) => write!(f, ", without the store: {trouble}"),
            None => Ok(()),
        }
    }
}

/// Keeps the lease of a lead until it is dropped.
pub(in crate::token) struct LeaseGuard(Option<JoinHandle<()>>);

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// The error for a token of other replicas that this one cannot open.
fn unusable(reason: Unreadable, value: &StoredValue) -> StoreError {
    let StoredValue { generation, owner, life_left, .. } = value;
    let (reason, left) = (reason.label(), life_left.as_secs());
    StoreError::Unusable(format!(
        "generation {generation} of {owner} does not open ({reason}), and may be live for {left} s; \
         do all replicas have the same keys in encryption, the same certificate and the same version?"
    ))
}

impl SharedRenewal {
    /// The renewal of a token that this replica does not hold yet. Its id begins with the name of the host.
    pub(in crate::token) fn new(
        shared: Arc<SharedStore>,
        credential: Arc<Credential>,
        scopes: ScopeSet,
    ) -> Self {
        let (now, reached) = (Instant::now(), shared.store.reached());
        shared.metrics.show(&credential.name);
        Self {
            credential,
            scopes,
            replica: Replica::new(replica_id()),
            place: None,
            reached,
            published: None,
            lead: None,
            offers: false,
            trouble: None,
            rejected: false,
            yields: false,
            ends: now,
            takeover_jitter: TAKEOVER_JITTER.mul_f64(fastrand::f64()),
            ask_at: now,
            look_at: now + shared.rules.poll,
            looks_with_others: true,
            blocked_until: None,
            handover_until: None,
            handover_announced: false,
            handovers: (0, now),
            led_at: None,
            life: FIRST_LIFE,
            shared,
        }
    }

    /// Waits until another replica announces something, or the store is reached or lost. Cancel safe.
    pub(in crate::token) async fn news(&mut self) {
        let announced = async {
            match &mut self.place {
                Some(place) => place.announcements.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = self.reached.changed() => match changed {
                Ok(()) => self.on_reached_or_lost(),
                Err(_) => std::future::pending().await,
            },
            announced = announced => match announced {
                Ok(announcement) => self.on_announced(announcement),
                // Some were missed: the store knows what they said.
                Err(broadcast::error::RecvError::Lagged(_)) => self.look_at = Instant::now(),
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            },
        }
    }

    fn on_reached_or_lost(&mut self) {
        let now = Instant::now();
        self.offers |= self.replica.generation() > 0;
        self.shared.compare_name_key_again();
        // Back after a while, and maybe empty: the last leader offers its token before others ask for the
        // lead.
        let waits = *self.reached.borrow() && self.trouble.is_some() && !self.published_held();
        self.ask_at = if waits { now + OFFER_TIME } else { now };
        (self.look_at, self.looks_with_others) = (now, true);
    }

    /// Tells whether this replica published the held token.
    fn published_held(&self) -> bool {
        self.replica.generation() > 0 && self.replica.token_owner() == self.replica.id()
    }

    fn on_announced(&mut self, announcement: Announcement) {
        let now = Instant::now();
        match announcement {
            Announcement::Published(generation) if generation > self.replica.generation() => {
                (self.ask_at, self.look_at, self.looks_with_others) = (now, now, true);
            }
            // This replica holds it already: it was adopted before it was announced.
            Announcement::Published(_) => self.handover_until = self.handover_until.map(|_| now),
            Announcement::HandingOver => {
                let echo = self.led_at.is_some_and(|led| now < led + ECHO_TIME);
                if self.credential.policy.one_live_token && !echo && self.follows_handover(now) {
                    self.handover_announced = true;
                }
            }
        }
    }

    /// Counts an announced handover; false for one too many.
    fn follows_handover(&mut self, now: Instant) -> bool {
        let (count, last) = self.handovers;
        let follows = count < HANDOVERS.0 || now >= last + HANDOVERS.1;
        if follows {
            self.handovers = (count + 1, now);
        }
        follows
    }

    /// Takes the announcement of a handover: then the held token is not used for at most [`FOLLOW_TIME`].
    pub(in crate::token) fn take_handover(&mut self) -> bool {
        let announced = std::mem::take(&mut self.handover_announced);
        if announced {
            self.handover_until = Some(Instant::now() + FOLLOW_TIME);
        }
        announced
    }

    /// Tells, once, that the wait for another replica's handover is over.
    pub(in crate::token) fn handover_ended(&mut self) -> bool {
        self.handover_until.take_if(|until| *until <= Instant::now()).is_some()
    }

    /// The time of the next look, or of the end of another replica's handover.
    pub(in crate::token) fn next_wake(&self) -> Instant {
        self.handover_until.map_or(self.look_at, |until| until.min(self.look_at))
    }

    /// The store is not asked for the lead before this.
    pub(in crate::token) fn ask_at(&self) -> Instant {
        self.ask_at
    }

    /// Asks at once, for an operator.
    pub(in crate::token) fn ask_now(&mut self) {
        self.ask_at = Instant::now();
    }

    /// Notes that an upstream has rejected the held token; `contended` if it is the third one within one
    /// life. Where a token revokes the one before and the store cannot be used, replicas would go on revoking
    /// each other's: this one leaves the renewal to them.
    pub(in crate::token) fn on_rejected(&mut self, contended: bool) {
        self.rejected = true;
        let one_live_token = self.credential.policy.one_live_token;
        self.yields |= contended && one_live_token && self.trouble.is_some();
    }

    /// The time before which no replica may renew.
    pub(in crate::token) fn blocked_until(&self) -> Option<Instant> {
        self.blocked_until
    }

    /// The share of its life after which this replica renews a token.
    pub(in crate::token) fn renewal_share(&self, leads: bool) -> f64 {
        let delay = crate::share::protocol::delay_share(leads, fastrand::f64());
        (self.credential.policy.refresh_at + delay).min(0.99)
    }

    /// Forgets the held token, which was dropped because nothing uses it.
    pub(in crate::token) fn forget(&mut self) {
        if self.replica.generation() > 0 {
            self.replica = Replica::new(self.replica.id().to_owned());
        }
        (self.published, self.offers) = (None, false);
        self.look_at = Instant::now() + self.shared.rules.poll;
    }

    /// The state for operators.
    pub(in crate::token) fn status(&self) -> ShareStatus {
        ShareStatus {
            replica: self.replica.id().to_owned(),
            owner: self.replica.token_owner().to_owned(),
            generation: self.replica.generation(),
            trouble: self.trouble.as_ref().map(ToString::to_string),
        }
    }

    /// Asks for the lead of the renewal.
    pub(in crate::token) async fn ask(&mut self, proof: &ReplicaProof) -> Answer {
        let asked = match self.join(proof).await {
            // Asked even where the store is not reached: at the start it is about to be.
            Ok(()) => self.acquire(Some(proof)).await,
            Err(problem) => Err(StoreError::Misconfigured(problem)),
        };
        if asked.is_err() != self.trouble.is_some() {
            self.shared.note_login().await;
        }
        match asked {
            Ok(answer) => {
                self.set_trouble(None);
                answer
            }
            Err(error) => {
                self.set_trouble(Some(&error));
                self.without_store()
            }
        }
    }

    /// The fingerprint of a token for the log, the same in all replicas; `None` before the keys are read.
    pub(in crate::token) fn fingerprint(&self, token: &Sensitive) -> Option<String> {
        let (keys, place) = (self.shared.known_keys()?, self.place.as_ref()?);
        Some(keys.names.token_fingerprint(&place.name, token))
    }

    /// Looks for a newer token if it is time, and gives the store the held one where it may lack it.
    pub(in crate::token) async fn look(
        &mut self,
        proof: Option<&ReplicaProof>,
    ) -> Option<AdoptedToken> {
        let with_others = std::mem::take(&mut self.looks_with_others);
        let share = if with_others { fastrand::f64() } else { 1.0 };
        self.look_at = Instant::now() + self.shared.rules.poll.mul_f64(share);
        if self.place.is_none() || !*self.reached.borrow() {
            return None;
        }
        match self.acquire_look(proof).await {
            Ok(found) => {
                self.set_trouble(None);
                found
            }
            Err(error) => {
                self.set_trouble(Some(&error));
                None
            }
        }
    }

    /// Tells whether a look is due.
    pub(in crate::token) fn look_due(&self) -> bool {
        self.look_at <= Instant::now()
    }

    /// Finds the place of the token in the store.
    async fn join(&mut self, proof: &ReplicaProof) -> Result<(), String> {
        if self.place.is_some() {
            return Ok(());
        }
        let keys = self.shared.keys().await.map_err(|error| error.to_string())?;
        let (id, username) = (&proof.client_id, proof.username.as_ref());
        let name = token_name(&keys.names, &self.credential, &self.scopes, id, username);
        let name = name.ok_or("the token cannot be named")?;
        let announcements = self.shared.store.announcements(&name);
        self.place = Some(Place { name, announcements });
        Ok(())
    }

    async fn acquire(&mut self, proof: Option<&ReplicaProof>) -> Result<Answer, StoreError> {
        // A value that cannot be used does not keep this replica from the lead: it asks again as one that
        // knows the generation of that value.
        let mut known = None;
        for _ in 0..2 {
            let reply = self.ask_store(known.as_ref(), proof, true).await?;
            let asked = Moment::now();
            match self.step(&reply, proof, asked).await {
                (Step::Adopt, Some(token)) => return Ok(Answer::Adopt(Box::new(token))),
                (Step::Request(epoch), _) => {
                    (self.lead, self.blocked_until) = (Some(epoch), None);
                    return Ok(Answer::Request);
                }
                (Step::AskAgain(wait), _) => {
                    self.wait(wait, matches!(reply, AcquireReply::Wait(_)));
                    return Ok(Answer::Wait);
                }
                (Step::Keep(reason), _) => match reply {
                    AcquireReply::Token(value) if self.may_be_live(reason) => {
                        return Err(self.left_alone(reason, &value, asked));
                    }
                    AcquireReply::Token(value) => known = Some((value.generation, value.owner)),
                    _ => break,
                },
                _ => break,
            }
        }
        self.wait(self.shared.rules.poll, false);
        Ok(Answer::Wait)
    }

    /// True if a token that does not open may be one that other replicas use, and that a request of this one
    /// would revoke. Then it is left alone until it has ended, as if the store were away.
    fn may_be_live(&self, reason: Unreadable) -> bool {
        self.credential.policy.one_live_token && reason != Unreadable::Rollback
    }

    /// Leaves a token that does not open to its end.
    fn left_alone(&mut self, reason: Unreadable, value: &StoredValue, asked: Moment) -> StoreError {
        self.ends = self.ends.max(asked.mono + value.life_left);
        unusable(reason, value)
    }

    async fn acquire_look(
        &mut self,
        proof: Option<&ReplicaProof>,
    ) -> Result<Option<AdoptedToken>, StoreError> {
        let reply = self.ask_store(None, proof, false).await?;
        let asked = Moment::now();
        match self.step(&reply, proof, asked).await {
            (Step::Adopt, token) => Ok(token),
            (Step::Keep(reason), _) => match reply {
                AcquireReply::Token(value) if self.may_be_live(reason) => {
                    Err(self.left_alone(reason, &value, asked))
                }
                _ => Ok(None),
            },
            (Step::Offer(generation), _) if self.offers => {
                self.offer(generation).await?;
                Ok(None)
            }
            _ => {
                // The store answered: what it lacks, its publisher offers.
                self.offers &= self.published.is_some();
                Ok(None)
            }
        }
    }

    async fn ask_store(
        &self,
        known: Option<&(u64, String)>,
        proof: Option<&ReplicaProof>,
        lead: bool,
    ) -> Result<AcquireReply, StoreError> {
        let Some(place) = &self.place else { return Err(StoreError::Malformed) };
        self.shared.compare_name_key(self.replica.id()).await?;
        let secret = match (proof, self.shared.keys().await) {
            (Some(proof), Ok(keys)) => keys.names.secret_fingerprint(&place.name, &proof.secret.0),
            _ => String::new(),
        };
        let (generation, token_owner) = match known {
            Some((generation, owner)) => (*generation, owner.as_str()),
            None => (self.replica.generation(), self.replica.token_owner()),
        };
        let ask = Acquire {
            owner: self.replica.id(),
            generation,
            token_owner,
            lead: lead.then(|| lease(self.life)),
            secret: &secret,
            budget: self.credential.policy.budget.map_or(0, |budget| budget.get().into()),
        };
        self.shared.store.acquire(&place.name, ask).await
    }

    /// The step that follows from a reply, with the token of it.
    async fn step(
        &mut self,
        reply: &AcquireReply,
        proof: Option<&ReplicaProof>,
        asked: Moment,
    ) -> (Step, Option<AdoptedToken>) {
        let AcquireReply::Token(value) = reply else {
            return (self.replica.on_acquired(reply, Ok(())), None);
        };
        let opened = self.open(value, proof).await;
        let step = self.replica.on_acquired(reply, opened.as_ref().map(|_| ()).map_err(|why| *why));
        let unreadable = match step {
            Step::Keep(reason) => Some(reason),
            Step::LeaveToNewer => Some(Unreadable::Newer),
            _ => None,
        };
        if let Some(reason) = unreadable {
            self.shared.metrics.unreadable(reason.label());
            let credential = &*self.credential.name;
            tracing::warn!(
                credential,
                generation = value.generation,
                owner = value.owner,
                reason = reason.label(),
                "a shared token cannot be used"
            );
        }
        let (Step::Adopt, Ok(token)) = (step, opened) else { return (step, None) };
        let adopted = self.adopted(token, value, asked);
        (step, Some(adopted))
    }

    fn adopted(&mut self, token: SharedToken, value: &StoredValue, asked: Moment) -> AdoptedToken {
        let whole = Duration::from_millis(token.life_ms);
        let left = value.life_left.min(whole);
        // The life that has passed, unless this machine started later than that.
        let (sent, life) = match asked.before(whole.saturating_sub(left)) {
            Some(sent) => (sent, whole),
            None => (asked, left),
        };
        (self.published, self.offers, self.blocked_until) = (None, false, None);
        self.rejected = false;
        self.handover_until = self.handover_until.map(|_| Instant::now());
        (self.life, self.ends) = (life, sent.mono + life);
        self.handovers.0 = 0;
        self.shared.metrics.adopted(&self.credential.name);
        let (owner, generation) = (value.owner.clone(), value.generation);
        AdoptedToken { token, sent, life, owner, generation }
    }

    async fn open(
        &self,
        value: &StoredValue,
        proof: Option<&ReplicaProof>,
    ) -> Result<SharedToken, Unreadable> {
        let keys = self.shared.keys().await.map_err(|_| Unreadable::Key)?;
        let place = self.sealed_place(value.generation, &value.owner).ok_or(Unreadable::Key)?;
        let token = keys.values.open(&value.sealed, place).map_err(|reason| match reason {
            Unreadable::Tag if self.is_rolled_back(keys, value) => Unreadable::Rollback,
            reason => reason,
        })?;
        let mine = proof.and_then(|proof| proof.identity.as_ref()).map(|known| known.thumbprint());
        match token.certificate_thumbprint.as_deref() == mine {
            true => Ok(token),
            false => Err(Unreadable::Certificate),
        }
    }

    /// Tells whether a value that does not open in its place is an earlier one of the same token: it opens as
    /// one of the generations before, of its owner or that of the held token.
    fn is_rolled_back(&self, keys: &Keys, value: &StoredValue) -> bool {
        let generations = value.generation.saturating_sub(EARLIER)..value.generation;
        generations.rev().any(|generation| {
            [&*value.owner, self.replica.token_owner()].iter().any(|owner| {
                let place = self.sealed_place(generation, owner);
                place.is_some_and(|place| keys.values.open(&value.sealed, place).is_ok())
            })
        })
    }

    fn sealed_place<'a>(&'a self, generation: u64, owner: &'a str) -> Option<SealedPlace<'a>> {
        let (prefix, name) = (&self.shared.rules.key_prefix, &self.place.as_ref()?.name);
        Some(SealedPlace { prefix, name, generation, owner })
    }

    /// Asks again after a wait, which ends early with an announcement.
    fn wait(&mut self, wait: Duration, blocks: bool) {
        let now = Instant::now();
        self.blocked_until = blocks.then(|| now + wait);
        self.ask_at =
            now + wait.clamp(MIN_ASK_INTERVAL, self.shared.rules.poll.max(MIN_ASK_INTERVAL));
    }

    /// Decides without the store whether this replica sends the token request.
    fn without_store(&mut self) -> Answer {
        let (rules, now) = (&self.shared.rules, Instant::now());
        let leads = self.published_held() && !self.yields;
        let refused = self.trouble.as_ref().is_some_and(StoreError::is_of_this_replica);
        let takes_over = match (refused && self.credential.policy.one_live_token, leads) {
            // The store may be there for the others, who renew in time and so revoke the held token. Where it
            // served to its end, they have none either.
            (true, true) if !self.rejected => Some(self.ends),
            (true, _) => None,
            (false, true) => Some(now),
            (false, false) if rules.when_unreachable == WhenUnreachable::Own => Some(now),
            // Another replica may hold a live token, which this request would revoke.
            (false, false) => Some(self.ends + rules.takeover_after + self.takeover_jitter),
        };
        if takes_over.is_some_and(|at| at <= now) {
            return Answer::Request;
        }
        let asks = now + rules.poll;
        self.ask_at = takes_over.map_or(asks, |at| at.min(asks));
        Answer::Wait
    }

    /// Notes that the store cannot be used, or that it can be again; each is logged once.
    fn set_trouble(&mut self, error: Option<&StoreError>) {
        let credential = &*self.credential.name;
        match (error, &self.trouble) {
            (Some(error), None) => {
                tracing::warn!(credential, %error, "the store of shared tokens cannot be used");
                self.offers |= self.replica.generation() > 0;
            }
            (None, Some(_)) => {
                tracing::info!(credential, "the store of shared tokens is used again")
            }
            _ => {}
        }
        self.trouble = error.cloned();
        self.yields &= error.is_some();
    }

    /// Renews the lease of the lead under way until the guard is dropped.
    pub(in crate::token) fn keep_lease(&self) -> LeaseGuard {
        let (Some(epoch), Some(place)) = (self.lead, &self.place) else { return LeaseGuard(None) };
        let (store, name) = (Arc::clone(&self.shared.store), place.name.clone());
        let (owner, lease) = (self.replica.id().to_owned(), lease(self.life));
        LeaseGuard(Some(tokio::spawn(async move {
            loop {
                tokio::time::sleep(lease / 3).await;
                // Lost: the fence keeps what this lead publishes from replacing a later token.
                if store.renew(&name, &owner, epoch, lease).await == Ok(false) {
                    return;
                }
            }
        })))
    }

    /// Announces that the token request of this replica revokes the held token. Returns the time in which
    /// others hear it; `None` if they do not.
    pub(in crate::token) async fn announce_handover(&mut self) -> Option<Duration> {
        let (Some(_), Some(place)) = (self.lead, &self.place) else { return None };
        self.led_at = Some(Instant::now());
        let store = &self.shared.store;
        store.announce_handover(&place.name).await.ok().map(|()| store.announcement_time())
    }

    /// Publishes the token that this replica has just obtained. It is in use already: a store that is away
    /// keeps no request waiting.
    pub(in crate::token) async fn publish(&mut self, token: SharedToken, sent: Instant) {
        let (life, lead) = (Duration::from_millis(token.life_ms), self.lead.take());
        let epoch = lead.unwrap_or(self.replica.generation() + 1);
        (self.life, self.led_at) = (life, Some(Instant::now()));
        if !self.replica.may_publish(epoch) {
            return self.look_at = Instant::now();
        }
        let ends = sent + life;
        (self.ends, self.rejected, self.yields) = (ends, false, false);
        let reply = match lead {
            Some(_) => self.send(&token, ends, epoch).await,
            None => Err(StoreError::Unreachable("not asked".to_owned())),
        };
        self.published = Some((token, ends));
        match reply {
            Ok(reply) => self.on_published(epoch, reply),
            Err(error) => {
                self.replica.on_unpublished(Some(epoch));
                self.offers = true;
                if lead.is_some() {
                    self.set_trouble(Some(&error));
                }
            }
        }
        self.led_at = Some(Instant::now());
    }

    /// Publishes the held token under its generation, because the store may have lost it.
    async fn offer(&mut self, generation: u64) -> Result<(), StoreError> {
        if let Some((token, ends)) = &self.published
            && *ends > Instant::now()
        {
            let reply = self.send(token, *ends, generation).await?;
            self.on_published(generation, reply);
        }
        self.offers = false;
        Ok(())
    }

    fn on_published(&mut self, epoch: u64, reply: PublishReply) {
        // Superseded by this very generation: an earlier reply was lost, and the next look finds nothing
        // newer.
        if !self.replica.on_published(epoch, reply) {
            self.look_at = Instant::now();
        }
    }

    async fn send(
        &self,
        token: &SharedToken,
        ends: Instant,
        epoch: u64,
    ) -> Result<PublishReply, StoreError> {
        let (Ok(Keys { values, .. }), Some(place)) = (self.shared.keys().await, &self.place) else {
            return Err(StoreError::Malformed);
        };
        let owner = self.replica.id();
        let sealed = self.sealed_place(epoch, owner).and_then(|place| values.seal(token, place));
        let sealed = sealed.ok_or_else(|| StoreError::Refused("it cannot be sealed".to_owned()))?;
        let left = ends.saturating_duration_since(Instant::now());
        self.shared.store.publish(&place.name, owner, epoch, &sealed, left).await
    }

    /// Gives the lead back after a failure: no replica tries again for `wait`.
    pub(in crate::token) async fn fail(&mut self, wait: Duration, refused: Option<&ReplicaProof>) {
        let (Some(_), Some(place)) = (self.lead.take(), &self.place) else { return };
        let refused = match (refused, self.shared.keys().await) {
            (Some(proof), Ok(keys)) => {
                Some(keys.names.secret_fingerprint(&place.name, &proof.secret.0))
            }
            _ => None,
        };
        let owner = self.replica.id();
        let told = self.shared.store.fail(&place.name, owner, wait, refused.as_deref()).await;
        if let Err(error) = told {
            self.set_trouble(Some(&error));
        }
        self.led_at = Some(Instant::now());
    }
}

/// An id that no other replica has, in words that operators know.
fn replica_id() -> String {
    let host = std::env::var("HOSTNAME").ok();
    let host = host.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let plain = |letter: &char| letter.is_ascii_alphanumeric() || "-.".contains(*letter);
    let host: String = host.unwrap_or_default().chars().filter(plain).take(63).collect();
    format!("{host}-{:08x}", fastrand::u32(..))
}
