//! The loop around schedule and fetch, one for each token: it wakes for time, for a nudge, and for
//! the end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bearer::Bearer;
use super::cell::{State, Writer};
use super::clock::Moment;
use super::credential::Credential;
use super::fetch::{Fetch, FetchError, Fetched};
use super::gate::Gate;
use super::metrics::OneToken;
use super::schedule::Schedule;
use super::status::TokenStatus;
use crate::oauth::ScopeSet;
use crate::sensitive::Sensitive;

/// Longest sleep: after a suspend or a step of the clock, the loop looks again within this.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// So many refused tokens within one life mean that somebody else revokes ours.
const CONTENDED: usize = 3;
/// Pause before another renewal for a refused token, once it is contended.
const COOL_DOWN: Duration = Duration::from_secs(30);

/// Keeps one token fresh.
pub(super) struct Refresher<F> {
    pub(super) credential: Arc<Credential>,
    pub(super) scopes: ScopeSet,
    pub(super) fetch: F,
    pub(super) writer: Writer,
    pub(super) schedule: Schedule,
    pub(super) gate: Arc<Gate>,
    pub(super) metrics: OneToken,
    pub(super) status: Arc<Mutex<TokenStatus>>,
    pub(super) refresh_token: Option<Sensitive>,
    pub(super) generation: u64,
    pub(super) blamed: VecDeque<Instant>,
    pub(super) life: Duration,
}

impl<F: Fetch> Refresher<F> {
    /// Runs until told to stop; then the token is dropped at once.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.writer.nudged() => self.heed(),
                () = tokio::time::sleep_until(self.wakes()) => {}
            }
            let now = Instant::now();
            if let Some(opens) = self.gate.opens().filter(|opens| *opens > now) {
                self.schedule.block(opens);
            }
            if self.schedule.next() <= now {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = self.renew() => {}
                }
            }
            self.tell();
        }
        self.writer.stop();
    }

    /// The next moment at which there is something to do or to say.
    fn wakes(&self) -> Instant {
        let now = Instant::now();
        let ends = self.writer.held().map(|held| held.usable_until.mono).filter(|end| *end > now);
        ends.into_iter().fold(self.schedule.next().min(now + LONGEST_SLEEP), Instant::min)
    }

    /// What readers asked for.
    fn heed(&mut self) {
        let now = Instant::now();
        if self.writer.take_asked() && !self.holds_usable() {
            self.schedule.asked(now);
        }
        if self.writer.take_blamed() {
            self.blamed(now);
        }
    }

    /// An upstream refused the held token, so that it is renewed, but not without end.
    fn blamed(&mut self, now: Instant) {
        while self.blamed.front().is_some_and(|first| *first + self.life < now) {
            self.blamed.pop_front();
        }
        let last = self.blamed.back().copied();
        self.blamed.push_back(now);
        if self.blamed.len() < CONTENDED {
            return self.schedule.forced(now);
        }
        self.blamed.truncate(CONTENDED);
        tracing::warn!(
            credential = %self.credential.name,
            "the upstream has refused three tokens within one life: another instance with the same \
             client id may revoke ours, or the API does not accept this client"
        );
        if last.is_none_or(|last| last + COOL_DOWN <= now) {
            self.schedule.forced(now);
        }
    }

    fn holds_usable(&self) -> bool {
        self.writer.held().is_some_and(|held| held.is_usable(Moment::now()))
    }

    /// One trip; a refused refresh token falls back to the client's own credentials at once.
    async fn renew(&mut self) {
        let started = Instant::now();
        self.schedule.called(started);
        let spent = self.gate.spent_secret();
        let refresh = self.refresh_token.take();
        let mut outcome = self.fetch.fetch(refresh.as_ref(), spent).await;
        if refresh.is_some() {
            match &outcome {
                Err(error) if error.refuses_refresh_token() => {
                    tracing::info!(credential = %self.credential.name, "the refresh token is no longer accepted");
                    outcome = self.fetch.fetch(None, spent).await;
                }
                // RFC 6749 section 6: without a new one, the old one stays.
                _ => self.refresh_token = refresh,
            }
        }
        let result = outcome.as_ref().map_or_else(FetchError::result, |_| "ok");
        self.metrics.called(result, started.elapsed().as_secs_f64());
        match outcome {
            Ok(fetched) => self.issued(fetched),
            Err(error) => self.failed(&error, result),
        }
        self.change(|status| status.attempted = true);
    }

    fn issued(&mut self, fetched: Fetched) {
        self.gate.accepted();
        let Fetched { issued, lifetime, sent } = fetched;
        if let Some(difference) = lifetime.disagreement {
            tracing::warn!(credential = %self.credential.name, ?difference,
                "the answer's two expiries disagree; the relative one counts");
        }
        if issued.refresh_token.is_some() {
            self.refresh_token = issued.refresh_token;
        }
        let missing =
            issued.scope.as_ref().map_or(0, |granted| self.scopes.missing_from(granted).len());
        self.generation += 1;
        let made = Bearer::new(&issued.access_token, self.generation, sent, lifetime.life);
        let Some(bearer) = made.map(Arc::new) else { return };
        let unchanged = self.writer.held().is_some_and(|held| {
            held.is_usable(Moment::now())
                && (held.header() == bearer.header() || bearer.ends.mono <= held.ends.mono)
                && self.blamed.is_empty()
        });
        if unchanged {
            let usable_until = self.writer.held().map(|held| held.usable_until.mono);
            self.schedule.unchanged(usable_until.unwrap_or(bearer.usable_until.mono));
            tracing::info!(credential = %self.credential.name, "the server gave the same token again");
        } else {
            let usable_until = bearer.usable_until.mono;
            self.schedule.succeeded(sent.mono, lifetime.life, usable_until, fastrand::f64());
            tracing::info!(
                credential = %self.credential.name,
                life_s = lifetime.life.as_secs(),
                renew_in_s = self.schedule.next().saturating_duration_since(Instant::now()).as_secs(),
                fingerprint = bearer.fingerprint(),
                "token obtained"
            );
            self.life = lifetime.life;
            self.metrics.issued(bearer.ends.wall, missing);
            self.writer.publish(bearer);
        }
        if missing > 0 {
            tracing::warn!(credential = %self.credential.name, missing, "fewer scopes were granted than asked for");
        }
        self.change(|status| {
            (status.failing_since, status.last_error, status.failures) = (None, None, 0);
        });
    }

    fn failed(&mut self, error: &FetchError, result: &'static str) {
        let now = Instant::now();
        self.schedule.failed(now, error.retry_after(), fastrand::f64());
        if let Some(secret) = error.refused_login() {
            self.schedule.block(self.gate.refused(now, secret));
        } else if matches!(error, FetchError::Spent) {
            self.schedule.block(self.gate.still_spent(now));
        }
        let failures = self.schedule.failures();
        tracing::warn!(
            credential = %self.credential.name,
            %error,
            result,
            failures,
            usable = self.holds_usable(),
            next_try_s = self.schedule.next().saturating_duration_since(now).as_secs_f64(),
            "no token"
        );
        self.change(|status| {
            status.failing_since.get_or_insert_with(SystemTime::now);
            status.last_error = Some(result);
            status.failures = failures;
        });
    }

    /// Lets waiting requests, metrics and status know.
    fn tell(&self) {
        let now = Moment::now();
        let due = now.wall + self.schedule.next().saturating_duration_since(now.mono);
        let held = self.writer.held();
        self.metrics.state(held.as_ref().is_some_and(|held| held.is_usable(now)), due);
        let mut failing = None;
        self.change(|status| {
            status.usable_until = held.as_ref().map(|held| held.usable_until);
            status.expires = held.as_ref().map(|held| held.ends.wall);
            status.refresh_due = Some(due);
            failing = status.last_error;
        });
        self.writer.tell(State {
            failing,
            blocked_until: self.schedule.blocked_until(),
            next_try: Some(self.schedule.next()),
            stopped: false,
        });
    }

    fn change(&self, change: impl FnOnce(&mut TokenStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
