//! What follows from a token call: a token that is new, the same again, or none.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::bearer::Bearer;
use super::fetch::{Fetch, FetchError, Fetched};
use super::refresher::Refresher;
use super::schedule::FLOOR;
use super::token_cell::UnavailableReason;
use crate::clock::{Moment, seconds};
use crate::oauth::Scope;
use crate::sensitive::Sensitive;

/// The end of a token that is told again may differ by this much without being another.
const SAME_END: Duration = Duration::from_secs(1);

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
    pub(super) fn issued(&mut self, fetched: Fetched, refresh: Option<Sensitive>) {
        let Fetched { mut issued, lifetime, sent, clock_offset } = fetched;
        self.gate.accepted(sent.mono, Instant::now());
        self.inner.reason = UnavailableReason::Pending;
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
            Renewal::Same => self.same_token_again(),
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
            false if !later && !self.inner.rejections.is_rejected(held.generation()) => {
                Renewal::NoLater
            }
            _ => Renewal::New,
        }
    }

    /// The server gives the same token until it ends: it is asked again when that can help.
    fn same_token_again(&mut self) {
        let Some(held) = self.writer.held() else { return };
        let usable = held.is_usable(Moment::now());
        let due = if usable { held.usable_until.mono } else { held.ends.mono };
        self.inner.schedule.unchanged(due, held.usable_until.mono);
        self.inner.rejections.same_token_again(held.generation());
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
        self.change(|status| status.last_success = Some(SystemTime::now()));
        (self.inner.life, self.inner.generation) = (life, bearer.generation());
        self.writer.publish(Arc::new(bearer));
    }

    pub(super) fn failed(&mut self, error: &FetchError, refresh: Option<Sensitive>) {
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
        } else if matches!(error, FetchError::SecretSuppressed) {
            self.gate.still_refused(now);
        }
        if let Some(opens) = self.gate.closed_until(now) {
            self.inner.schedule.block(opens);
        }
        self.inner.reason = UnavailableReason::Failing(error.word());
        let failures = self.inner.schedule.failures();
        let next = self.inner.schedule.next();
        tracing::warn!(
            credential = %self.credential.name,
            %error,
            hint = error.hint(),
            refusals_of_this_secret = refusals,
            failures,
            usable = self.holds_usable(),
            next_try_s = next.map(|next| seconds(next.saturating_duration_since(now))),
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

    pub(super) fn over_budget(&mut self, now: Instant, free: Instant) {
        if self.inner.reason != UnavailableReason::BudgetSpent {
            tracing::error!(
                credential = %self.credential.name,
                usable = self.holds_usable(),
                free_in_s = free.saturating_duration_since(now).as_secs(),
                "token_budget is spent: no token call until there is room within the hour"
            );
        }
        self.inner.reason = UnavailableReason::BudgetSpent;
        self.inner.schedule.block(free);
        self.change(|status| (status.attempted, status.last_error) = (true, Some("token_budget")));
    }
}

fn names(scopes: &[&Scope]) -> Vec<String> {
    scopes.iter().map(|scope| scope.as_str().to_owned()).collect()
}
