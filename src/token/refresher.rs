//! The loop around schedule and fetch, one for each token: it wakes for time, for a notify, and for
//! the end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bearer::Bearer;
use super::credential::Credential;
use super::fetch::{Fetch, FetchError};
use super::gate::Gate;
use super::metrics::CallMetrics;
use super::rejection_history::{RejectionHistory, RejectionResponse};
use super::schedule::Schedule;
use super::status::TokenStatus;
use super::token_cell::{State, UnavailableReason, Writer};
use crate::clock::{Drift, Jump, Moment};
use crate::oauth::ScopeSet;
use crate::sensitive::Sensitive;

/// Keeps one token fresh.
pub(super) struct Refresher<F> {
    pub(super) credential: Arc<Credential>,
    pub(super) scopes: ScopeSet,
    pub(super) fetch: F,
    pub(super) writer: Writer,
    /// Before the calls of the credential.
    pub(super) gate: Arc<Gate>,
    /// Bounds the calls in flight to one endpoint.
    pub(super) endpoint: Arc<Semaphore>,
    pub(super) metrics: CallMetrics,
    pub(super) status: Arc<Mutex<TokenStatus>>,
    pub(super) inner: Inner,
}

/// What a refresher knows.
pub(super) struct Inner {
    pub(super) schedule: Schedule,
    drift: Drift,
    pub(super) rejections: RejectionHistory,
    pub(super) reason: UnavailableReason,
    pub(super) refresh_token: Option<Sensitive>,
    pub(super) generation: u64,
    /// Life of the token that was published last.
    pub(super) life: Duration,
    /// When the token was last seen to be used.
    used: Instant,
}

/// What is left when a refresher has ended: a token that may still be revoked.
pub(super) struct Retired<F> {
    pub(super) fetch: F,
    pub(super) bearer: Option<Arc<Bearer>>,
    pub(super) refresh_token: Option<Sensitive>,
}

impl Inner {
    pub(super) fn new(credential: &Credential) -> Self {
        let now = Moment::now();
        Self {
            schedule: Schedule::new(credential.policy, now.mono),
            drift: Drift::new(now),
            rejections: RejectionHistory::default(),
            reason: UnavailableReason::Pending,
            refresh_token: None,
            generation: 0,
            life: Duration::ZERO,
            used: now.mono,
        }
    }
}

impl<F: Fetch> Refresher<F> {
    /// Runs until told to stop; then the token is dropped at once.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Retired<F> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.writer.notified() => {}
                () = until(self.wakes()) => {}
            }
            self.look_at_clocks();
            self.heed();
            self.let_go_unused();
            let now = Instant::now();
            if let Some(opens) = self.gate.closed_until(now) {
                self.inner.schedule.block(opens);
            }
            if self.inner.schedule.is_due(now) {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = self.renew() => {}
                }
            }
            self.tell();
        }
        let bearer = self.writer.drop_token();
        self.writer.close();
        Retired { fetch: self.fetch, bearer, refresh_token: self.inner.refresh_token }
    }

    /// The next moment at which there is something to do or to say.
    fn wakes(&self) -> Option<Instant> {
        let now = Instant::now();
        let held = self.writer.held();
        let ends = held.as_ref().map(|held| held.usable_until.mono).filter(|end| *end > now);
        let unused = self.credential.policy.lazy.filter(|_| held.is_some());
        let unused = unused.map(|idle| self.inner.used + idle);
        [self.inner.schedule.next(), ends, unused].into_iter().flatten().min()
    }

    /// A suspend moves the renewal, and after any jump a token ends on both clocks when it ends on
    /// one of them.
    fn look_at_clocks(&mut self) {
        let now = Moment::now();
        let Some(jump) = self.inner.drift.check(now) else { return };
        if let Some(held) = self.writer.held() {
            self.writer.publish(Arc::new(held.anchored(now)));
            if !held.is_usable(now) {
                self.inner.schedule.force_at(now.mono);
            }
        }
        if let Jump::Ahead(span) = jump {
            self.inner.schedule.on_wake_from_sleep(now.mono, span);
        }
    }

    /// What readers asked for.
    fn heed(&mut self) {
        let now = Instant::now();
        let requests = self.writer.take_requests();
        if requests.forced() {
            self.inner.used = now;
            self.gate.reset_attempts();
            self.inner.schedule.force_at(now);
        }
        if requests.asked() {
            self.inner.used = now;
            if !self.holds_usable() {
                self.inner.schedule.on_demand(now);
            }
        }
        if let Some(generation) = self.writer.take_rejected() {
            self.rejected(generation, now);
        }
    }

    /// An upstream refused the held token, so that it is renewed, but not without end.
    fn rejected(&mut self, generation: u64, now: Instant) {
        match self.inner.rejections.add(generation, now, self.inner.life) {
            RejectionResponse::First => self.inner.schedule.force_at(now),
            // The renewal that it led to has failed: those who are refused meanwhile wait for it.
            RejectionResponse::Again if self.inner.schedule.failures() > 0 => {
                self.inner.schedule.on_demand(now)
            }
            RejectionResponse::Again => {}
            RejectionResponse::Contended(until) => {
                self.metrics.contended();
                self.inner.schedule.force_at(until);
                tracing::warn!(
                    credential = %self.credential.name,
                    "contended: the upstream has refused three tokens within one life. Another \
                     instance with the same client id may revoke ours, or the API does not accept \
                     this client"
                );
            }
        }
    }

    pub(super) fn holds_usable(&self) -> bool {
        self.writer.held().is_some_and(|held| held.is_usable(Moment::now()))
    }

    /// A lazy token that nobody has used for long enough is dropped, and not renewed.
    fn let_go_unused(&mut self) {
        let Some(idle) = self.credential.policy.lazy else { return };
        let now = Instant::now();
        if self.writer.take_used() {
            self.inner.used = now;
        }
        if self.inner.used + idle <= now && self.inner.schedule.next().is_some() {
            self.inner.schedule.suspend();
            if self.writer.drop_token().is_some() {
                tracing::info!(credential = %self.credential.name, "the token was not used and is let go");
            }
        }
    }

    /// One trip, once the credential's gate and the endpoint have room for it.
    async fn renew(&mut self) {
        let (gate, endpoint) = (Arc::clone(&self.gate), Arc::clone(&self.endpoint));
        let _pass = gate.enter().await;
        let _place = endpoint.acquire().await;
        let now = Instant::now();
        // What the call before ours found out.
        if let Some(opens) = gate.closed_until(now) {
            return self.inner.schedule.block(opens);
        }
        if let Err(free) = gate.take(now, self.credential.policy.budget) {
            return self.over_budget(now, free);
        }
        self.inner.schedule.called(now);
        let refresh = self.inner.refresh_token.take();
        // In a box: its room, most of a task's, is there only while this token is called for.
        let call = Box::pin(self.fetch.fetch(refresh.as_ref(), gate.suppressed(now)));
        let outcome = call.await;
        if outcome.as_ref().is_err_and(|error| !error.called()) {
            gate.give_back();
        }
        if !matches!(outcome, Err(FetchError::SecretSuppressed)) {
            let result = outcome.as_ref().map_or_else(FetchError::result, |_| "ok");
            self.metrics.called(result, now.elapsed().as_secs_f64());
        }
        match outcome {
            Ok(fetched) => self.issued(fetched, refresh),
            Err(error) => self.failed(&error, refresh),
        }
    }

    /// Lets waiting requests and the status, which the gauges show, know.
    fn tell(&self) {
        let now = Moment::now();
        let Inner { schedule, rejections, reason, .. } = &self.inner;
        let wall = |at: Instant| now.wall + at.saturating_duration_since(now.mono);
        let due = schedule.next().map(wall);
        let held = self.writer.held();
        self.change(|status| {
            status.usable_until = held.as_ref().map(|held| held.usable_until);
            status.expires = held.as_ref().map(|held| held.ends.wall);
            status.refresh_due = due;
            status.contended = rejections.cooling_until().is_some_and(|until| until > now.mono);
        });
        self.writer.publish_state(State {
            generation: held.map_or(0, |held| held.generation()),
            reason: *reason,
            blocked_until: schedule.blocked_until(),
            cooling_until: rejections.cooling_until(),
            next_try: schedule.next(),
            same_token_generation: rejections.same_token_generation(),
            stopped: false,
        });
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut TokenStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
