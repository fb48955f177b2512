//! The loop around schedule and fetch, one for each token: it wakes for time, for a nudge, and for
//! the end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bearer::Bearer;
use super::blame::{Blame, Blames};
use super::cell::{Absence, State, Writer};
use super::credential::Credential;
use super::fetch::{Fetch, FetchError, Fetched};
use super::gate::Gate;
use super::metrics::OneToken;
use super::schedule::{FLOOR, Schedule};
use super::status::TokenStatus;
use crate::clock::{Drift, Jump, Moment};
use crate::oauth::{Scope, ScopeSet};
use crate::sensitive::Sensitive;

/// The end of a token that is told again may differ by this much without being another.
const SAME_END: Duration = Duration::from_secs(1);

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
    pub(super) metrics: OneToken,
    pub(super) status: Arc<Mutex<TokenStatus>>,
    pub(super) inner: Inner,
}

/// What a refresher knows.
pub(super) struct Inner {
    schedule: Schedule,
    drift: Drift,
    blames: Blames,
    absence: Absence,
    refresh_token: Option<Sensitive>,
    generation: u64,
    /// Life of the token that was published last.
    life: Duration,
    /// When the token was last seen to be used.
    used: Instant,
}

/// What is left when a refresher has ended: a token that may still be revoked.
pub(super) struct Remains<F> {
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
            blames: Blames::default(),
            absence: Absence::Pending,
            refresh_token: None,
            generation: 0,
            life: Duration::ZERO,
            used: now.mono,
        }
    }
}

/// How a token that came compares with the one that is held.
enum Renewal {
    /// It takes the place of the held one.
    New,
    /// It takes its place, but ends no later: another call would bring no more.
    NoLater,
    /// It is the held one again.
    Same,
}

impl<F: Fetch> Refresher<F> {
    /// Runs until told to stop; then the token is dropped at once.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Remains<F> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.writer.nudged() => {}
                () = until(self.wakes()) => {}
            }
            self.look_at_clocks();
            self.heed();
            self.let_go_unused();
            let now = Instant::now();
            if let Some(opens) = self.gate.shut_until(now) {
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
        self.writer.stop();
        Remains { fetch: self.fetch, bearer, refresh_token: self.inner.refresh_token }
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
        let Some(jump) = self.inner.drift.look(now) else { return };
        if let Some(held) = self.writer.held() {
            self.writer.publish(Arc::new(held.anchored(now)));
            if !held.is_usable(now) {
                self.inner.schedule.forced(now.mono);
            }
        }
        if let Jump::Ahead(span) = jump {
            self.inner.schedule.slept(now.mono, span);
        }
    }

    /// What readers asked for.
    fn heed(&mut self) {
        let now = Instant::now();
        let wishes = self.writer.take_wishes();
        if wishes.forced() {
            self.gate.forgive();
            self.inner.schedule.forced(now);
        }
        if wishes.asked() {
            self.inner.used = now;
            if !self.holds_usable() {
                self.inner.schedule.asked(now);
            }
        }
        if let Some(generation) = self.writer.take_blamed() {
            self.blamed(generation, now);
        }
    }

    /// An upstream refused the held token, so that it is renewed, but not without end.
    fn blamed(&mut self, generation: u64, now: Instant) {
        match self.inner.blames.add(generation, now, self.inner.life) {
            Blame::First => self.inner.schedule.forced(now),
            // The renewal that it led to has failed: those who are refused meanwhile wait for it.
            Blame::Again if self.inner.schedule.failures() > 0 => self.inner.schedule.asked(now),
            Blame::Again => {}
            Blame::Contended(until) => {
                self.metrics.contended();
                self.inner.schedule.forced(until);
                tracing::warn!(
                    credential = %self.credential.name,
                    "contended: the upstream has refused three tokens within one life. Another \
                     instance with the same client id may revoke ours, or the API does not accept \
                     this client"
                );
            }
        }
    }

    fn holds_usable(&self) -> bool {
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
            self.inner.schedule.rest();
            self.metrics.let_go();
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
        if let Some(opens) = gate.shut_until(now) {
            return self.inner.schedule.block(opens);
        }
        if let Err(free) = gate.take(now, self.credential.policy.budget) {
            return self.over_budget(now, free);
        }
        self.inner.schedule.called(now);
        let refresh = self.inner.refresh_token.take();
        let outcome = self.fetch.fetch(refresh.as_ref(), gate.withheld(now)).await;
        if outcome.as_ref().is_err_and(|error| !error.called()) {
            gate.give_back();
        }
        if !matches!(outcome, Err(FetchError::Withheld)) {
            let result = outcome.as_ref().map_or_else(FetchError::result, |_| "ok");
            self.metrics.called(result, now.elapsed().as_secs_f64());
        }
        match outcome {
            Ok(fetched) => self.issued(fetched, refresh),
            Err(error) => self.failed(&error, refresh),
        }
    }

    fn issued(&mut self, fetched: Fetched, refresh: Option<Sensitive>) {
        let Fetched { mut issued, lifetime, sent, clock_offset } = fetched;
        self.gate.accepted(sent.mono, Instant::now());
        self.inner.absence = Absence::Pending;
        // RFC 6749 section 6: without a new one, the old one stays.
        self.inner.refresh_token = issued.refresh_token.take().or(refresh);
        if let Some(difference) = lifetime.disagreement {
            self.metrics.disagreement();
            tracing::warn!(credential = %self.credential.name, ?difference,
                "the answer's two expiries disagree; the relative one counts");
        }
        let generation = self.inner.generation + 1;
        let made = Bearer::new(&issued.access_token, generation, sent, lifetime.life);
        // A clock may have jumped during the call.
        let made = made.map(|bearer| bearer.granting(issued.scope).anchored(Moment::now()));
        let Some(bearer) = made else {
            return self.failed(&FetchError::Setup("the token fits into no header".into()), None);
        };
        let missing = names(&bearer.lacks(&self.scopes));
        match self.renewal(&bearer) {
            Renewal::Same => self.unrenewed(),
            Renewal::NoLater => {
                let end = bearer.usable_until.mono;
                self.inner.schedule.unchanged(end, end);
                self.publish(bearer, lifetime.life, &missing);
            }
            Renewal::New => {
                let end = bearer.usable_until.mono;
                self.inner.schedule.succeeded(sent.mono, lifetime.life, end, fastrand::f64());
                self.publish(bearer, lifetime.life, &missing);
            }
        }
        if let Some(seconds) = clock_offset {
            self.metrics.clock_offset(seconds);
        }
        self.change(|status| {
            status.attempted = true;
            status.missing_scopes = missing;
            status.clock_offset = clock_offset.or(status.clock_offset);
            (status.failing_since, status.last_error, status.failures) = (None, None, 0);
        });
    }

    fn renewal(&self, bearer: &Bearer) -> Renewal {
        let now = Moment::now();
        let Some(held) = self.writer.held().filter(|held| now.is_before(held.ends)) else {
            return Renewal::New;
        };
        let later = bearer.ends.mono > held.ends.mono + SAME_END;
        match held.header() == bearer.header() {
            true if held.is_usable(now) || !later => Renewal::Same,
            false if !later && !self.inner.blames.blames(held.generation()) => Renewal::NoLater,
            _ => Renewal::New,
        }
    }

    /// The server gives the same token until it ends: it is asked again when that can help.
    fn unrenewed(&mut self) {
        let Some(held) = self.writer.held() else { return };
        let usable = held.is_usable(Moment::now());
        let due = if usable { held.usable_until.mono } else { held.ends.mono };
        self.inner.schedule.unchanged(due, held.usable_until.mono);
        self.inner.blames.unrenewed(held.generation());
        tracing::info!(credential = %self.credential.name, "the server gave the same token again");
    }

    fn publish(&mut self, bearer: Bearer, life: Duration, missing: &[String]) {
        let due = self.inner.schedule.next();
        tracing::info!(
            credential = %self.credential.name,
            life_s = life.as_secs(),
            renew_in_s = due.map(|due| due.saturating_duration_since(Instant::now()).as_secs()),
            fingerprint = bearer.fingerprint(),
            "token obtained"
        );
        if life <= FLOOR && self.inner.life > FLOOR {
            tracing::warn!(credential = %self.credential.name,
                "tokens live no longer than the least time between two calls: requests wait for the next one");
        }
        if !missing.is_empty() {
            tracing::warn!(credential = %self.credential.name, missing = missing.join(" "),
                "fewer scopes were granted than asked for");
        }
        self.metrics.issued(bearer.ends.wall, missing.len());
        (self.inner.life, self.inner.generation) = (life, bearer.generation());
        self.writer.publish(Arc::new(bearer));
    }

    fn failed(&mut self, error: &FetchError, refresh: Option<Sensitive>) {
        let now = Instant::now();
        if refresh.is_some() {
            match self.refresh_refused(error, now) {
                true => return,
                false if error.loses_refresh_token() => {}
                false => self.inner.refresh_token = refresh,
            }
        }
        self.inner.schedule.failed(now, error.retry_after(), fastrand::f64());
        let mut refusals = None;
        if let Some(secret) = error.refused_login() {
            refusals = Some(self.gate.refused(now, secret));
        } else if matches!(error, FetchError::Withheld) {
            self.gate.still_refused(now);
        }
        if let Some(opens) = self.gate.shut_until(now) {
            self.inner.schedule.block(opens);
        }
        self.inner.absence = Absence::Failing(error.word());
        let failures = self.inner.schedule.failures();
        let next = self.inner.schedule.next();
        tracing::warn!(
            credential = %self.credential.name,
            %error,
            hint = error.hint(),
            refusals_of_this_secret = refusals,
            failures,
            usable = self.holds_usable(),
            next_try_s = next.map(|next| next.saturating_duration_since(now).as_secs_f64()),
            "no token"
        );
        self.change(|status| {
            status.attempted = true;
            status.failing_since.get_or_insert_with(SystemTime::now);
            status.last_error = Some(error.word());
            status.failures = failures;
        });
    }

    /// Whether it was the refresh token alone that was refused: then the client's own credentials
    /// are tried as soon as another call may be made.
    fn refresh_refused(&mut self, error: &FetchError, now: Instant) -> bool {
        let login = self.credential.dialect.authenticate_refresh && error.rejects_client();
        if !error.refuses_refresh_token() || login {
            return false;
        }
        tracing::info!(credential = %self.credential.name, "the refresh token is no longer accepted");
        self.inner.schedule.again(now);
        true
    }

    fn over_budget(&mut self, now: Instant, free: Instant) {
        if self.inner.absence != Absence::BudgetSpent {
            tracing::error!(
                credential = %self.credential.name,
                usable = self.holds_usable(),
                free_in_s = free.saturating_duration_since(now).as_secs(),
                "token_budget is spent: no token call until there is room within the hour"
            );
        }
        self.inner.absence = Absence::BudgetSpent;
        self.inner.schedule.block(free);
        self.change(|status| (status.attempted, status.last_error) = (true, Some("token_budget")));
    }

    /// Lets waiting requests, metrics and status know.
    fn tell(&self) {
        let now = Moment::now();
        let Inner { schedule, blames, absence, .. } = &self.inner;
        let wall = |at: Instant| now.wall + at.saturating_duration_since(now.mono);
        let due = schedule.next().map(wall);
        let held = self.writer.held();
        let budget = self.credential.policy.budget;
        let budget_left = budget.map(|budget| self.gate.left(now.mono, budget));
        self.metrics.state(held.as_ref().is_some_and(|held| held.is_usable(now)), due);
        budget_left.into_iter().for_each(|left| self.metrics.budget_left(left));
        self.change(|status| {
            status.usable_until = held.as_ref().map(|held| held.usable_until);
            status.expires = held.as_ref().map(|held| held.ends.wall);
            status.refresh_due = due;
            status.contended = blames.cooling_until().is_some_and(|until| until > now.mono);
            status.budget_left = budget_left;
        });
        self.writer.tell(State {
            generation: held.map_or(0, |held| held.generation()),
            absence: *absence,
            blocked_until: schedule.blocked_until(),
            cooling_until: blames.cooling_until(),
            next_try: schedule.next(),
            unrenewed: blames.unrenewed_generation(),
            stopped: false,
        });
    }

    fn change(&self, change: impl FnOnce(&mut TokenStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn names(scopes: &[&Scope]) -> Vec<String> {
    scopes.iter().map(|scope| scope.as_str().to_owned()).collect()
}
