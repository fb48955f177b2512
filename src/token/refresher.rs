//! `Refresher`: the loop that keeps one token fresh. It wakes for a time, for a request of a reader,
//! and for its end.

mod following;
mod sharing;
mod state;

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(super) use self::state::{Refresher, Retired};
use super::bearer::{Bearer, Renewal};
use super::fetch::{Fetch, FetchError, Fetched};
use super::fingerprint::Fingerprint;
use super::handover::{DRAIN_TIME, InFlightRequests};
use super::metrics::{ACCEPTED, REFUSED};
use super::refresh_log::{FailedCall, SLOW_CALL};
use super::rejection_history::RejectionResponse;
use super::schedule::{MAX_BACKOFF_ON_DEMAND, MIN_CALL_INTERVAL};
use super::token_cell::{CellState, UnavailableReason};
use crate::clock::{Jump, Moment};
use crate::oauth::Scope;
use crate::sensitive::Sensitive;

impl<F: Fetch> Refresher<F> {
    /// Runs until it is stopped; then the token is dropped at once.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Retired<F> {
        loop {
            // Biased: once stopped, no other branch may start a call.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.writer.notified() => {}
                () = sleep_until(self.next_wake()) => {}
                () = self.sharing.news() => {}
            }
            // The clocks first: after a suspend the held token may have expired, and what requests need is
            // judged by whether it is usable.
            self.check_clocks();
            self.process_requests();
            self.drop_unused();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.follow() => {}
            }
            let now = Instant::now();
            if let Some(opens) = self.gate.closed_until(now) {
                self.on_gate_closed(opens);
            }
            if self.next_call().is_some_and(|next| next <= now) {
                // Stopping drops a call in flight: its token would be of no use.
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = self.renew() => {}
                }
            }
            // After each turn, so that waiting requests learn of a failure as soon as of a token.
            self.publish_state();
        }
        let bearer = self.writer.drop_token();
        // After the drop, so that a reader that wakes finds no token.
        self.writer.close();
        Retired { fetch: self.fetch, bearer, refresh_token: self.refresh_token }
    }

    /// The next time at which a call is due or the state changes by itself.
    fn next_wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let held = self.writer.held();
        let ends = held.as_ref().map(|held| held.usable_until.mono).filter(|end| *end > now);
        let idle = self.credential.policy.lazy.filter(|_| held.is_some());
        let unused = idle.map(|idle| self.last_used + idle);
        [self.next_call(), ends, unused, self.sharing.next_wake()].into_iter().flatten().min()
    }

    /// The time of the next call; `None` while no request needs the token.
    fn next_call(&self) -> Option<Instant> {
        self.schedule.next().map(|next| next.max(self.sharing.ask_at(next)))
    }

    /// After a suspend the renewal comes earlier; after any clock jump a token ends on both clocks when
    /// it ends on the earlier one.
    fn check_clocks(&mut self) {
        let now = Moment::now();
        let Some(jump) = self.drift.check(now) else { return };
        if let Some(held) = self.writer.held() {
            self.writer.publish(Arc::new(held.anchored(now)));
            if !held.is_usable(now) {
                self.schedule.force_at(now.mono);
            }
        }
        if let Jump::Ahead(span) = jump {
            self.schedule.on_wake_from_sleep(now.mono, span);
        }
    }

    fn process_requests(&mut self) {
        let now = Instant::now();
        let requests = self.writer.take_requests();
        if requests.forced() {
            self.last_used = now;
            self.gate.reset_attempts();
            self.schedule.force_at(now);
            self.sharing.ask_now();
        }
        if requests.needed() {
            self.last_used = now;
            // A token may have come since the request was made: then another call is not due.
            if !self.holds_usable() {
                self.schedule.on_demand(now);
            }
        }
        if let Some(generation) = self.writer.take_rejected() {
            self.on_rejected(generation, now);
        }
    }

    /// An upstream rejected the held token: it is renewed, but not without end.
    fn on_rejected(&mut self, generation: u64, now: Instant) {
        let response = self.rejections.record(generation, now, self.life);
        if response != RejectionResponse::Known {
            self.sharing.on_rejected(matches!(response, RejectionResponse::Contended(_)));
        }
        // A renewal whose answer was lost may have revoked the token, and this is the proof: until the next
        // token requests wait, and do not collect the same 401.
        if generation == self.in_doubt && !matches!(response, RejectionResponse::Contended(_)) {
            self.writer.drop_token();
            self.log.revoked_by_lost_renewal();
        }
        match response {
            RejectionResponse::Renew => self.schedule.force_at(now),
            // The renewal after the first report has failed, and more requests wait for it.
            RejectionResponse::Known if self.schedule.failures() > 0 => {
                self.schedule.on_demand(now);
            }
            RejectionResponse::Known => {}
            RejectionResponse::Contended(until) => {
                self.metrics.contended();
                self.schedule.force_at(until);
                self.log.contended(self.gate.tokens(), self.credential.policy.share);
            }
        }
    }

    fn holds_usable(&self) -> bool {
        self.writer.held().is_some_and(|held| held.is_usable(Moment::now()))
    }

    /// Drops a lazy token after its idle period and suspends its renewal.
    fn drop_unused(&mut self) {
        let Some(idle) = self.credential.policy.lazy else { return };
        let now = Instant::now();
        if self.writer.take_used() {
            self.last_used = now;
        }
        if self.last_used + idle <= now && self.schedule.next().is_some() {
            self.schedule.suspend();
            if self.writer.drop_token().is_some() {
                self.log.dropped();
            }
            self.sharing.forget();
        }
    }

    /// Makes one token request, once the credential's gate and the endpoint have room for it.
    async fn renew(&mut self) {
        let (gate, endpoint) = (Arc::clone(&self.gate), Arc::clone(&self.endpoint));
        // The gate before the endpoint: a call that waits for the verdict on its credential's secret must
        // not keep a slot from the calls of other credentials. Both permits end with this function, also
        // when the task is stopped and the future dropped.
        self.update_status(|status| status.call_waits_since = Some(Instant::now()));
        let _call = gate.acquire().await;
        let _slot = endpoint.acquire().await;
        self.update_status(|status| status.call_waits_since = None);
        let now = Instant::now();
        // Checked again: the call of another token may have been refused while this one waited.
        if let Some(opens) = gate.closed_until(now) {
            return self.on_gate_closed(opens);
        }
        if let Err(free) = gate.take_call(now, self.credential.policy.budget) {
            return self.over_budget(now, free);
        }
        if !self.may_request().await {
            return gate.return_call();
        }
        // Until the end of this function: the outcome is reported by the replica that leads.
        let _lease = self.sharing.keep_lease();
        self.begin_handover().await;
        let now = Instant::now();
        self.schedule.record_call(now);
        // Taken out until the outcome is known: a refresh token whose answer was lost is not sent
        // again, nor is one whose call was dropped by the end of this task.
        let refresh = self.refresh_token.take();
        // Boxed, because the future is most of the task's memory and exists only during a call.
        self.update_status(|status| status.call_began = Some(now));
        let outcome = Box::pin(self.fetch(refresh.as_ref(), gate.suppressed(now))).await;
        if outcome.as_ref().is_err_and(|error| !error.called()) {
            gate.return_call();
        }
        self.update_status(|status| status.call_began = None);
        let took = now.elapsed();
        let silent = match &outcome {
            // A token request is what the server was asked: the reading of a source is none.
            Ok(fetched) => fetched.reread.is_some(),
            Err(error) => matches!(error, FetchError::SecretSuppressed | FetchError::Load(_)),
        };
        if !silent {
            let result = outcome.as_ref().map_or_else(FetchError::result, |_| "ok");
            self.metrics.called(result, took.as_secs_f64());
            self.update_status(|status| status.last_call = Some(took));
        }
        let report = self.sharing.report_of(&outcome, refresh.as_ref());
        match outcome {
            Ok(fetched) => self.on_issued(fetched, refresh, took),
            Err(error) => {
                self.note_doubt(&error);
                self.on_failed(&error, refresh, took);
            }
        }
        self.end_handover();
        self.report(report).await;
    }

    /// Requests a token, and reports a server that does not answer before the end of the request, which may
    /// be far away while others get 503.
    async fn fetch(
        &self,
        refresh: Option<&Sensitive>,
        suppressed: Option<Fingerprint>,
    ) -> Result<Fetched, FetchError> {
        let mut fetch = pin!(self.fetch.fetch(refresh, suppressed));
        if let Ok(outcome) = tokio::time::timeout(SLOW_CALL, &mut fetch).await {
            return outcome;
        }
        self.log.unanswered();
        fetch.await
    }

    /// Closes the held token of a server that keeps one live token, and gives the requests in flight
    /// with it time for the heads of their answers: the call that follows revokes it.
    async fn begin_handover(&mut self) {
        let predecessor = self.predecessor.take();
        let Some(held) = self.writer.held().or(predecessor) else {
            return self.announce_handover().await;
        };
        let Some(in_flight) = &held.in_flight else { return };
        in_flight.close();
        self.log.handing_over(in_flight.count());
        self.update_status(|status| status.handing_over = true);
        self.publish_state();
        self.announce_handover().await;
        // An expired token can fail its requests already: the next one does not wait for their answers.
        let expired = !Moment::now().is_before(held.ends);
        if !expired && tokio::time::timeout(DRAIN_TIME, in_flight.drained()).await.is_err() {
            self.metrics.handover_timed_out();
            self.log.handover_timed_out(in_flight.count());
        }
    }

    /// Opens the token that is held now: the new one, or after a failure the old one. A token that was
    /// replaced stays closed, so that a request that read it a moment ago cannot begin with it.
    fn end_handover(&mut self) {
        if let Some(held) = self.writer.held()
            && let Some(in_flight) = &held.in_flight
        {
            in_flight.open();
        }
        self.update_status(|status| status.handing_over = false);
    }

    /// Notes a held token that a failed renewal may have revoked. An answer that refuses the call, or a
    /// connection that was never open, leaves the token as it was. Where the request was sent and no
    /// readable answer came, the server may have issued a token that never arrived. The held token then
    /// serves on, because most lost calls were never processed, and dropping it would turn each slow
    /// answer of the token server into an outage; the first 401 that rejects it decides
    /// ([`on_rejected`](Self::on_rejected)).
    fn note_doubt(&mut self, error: &FetchError) {
        if self.credential.policy.one_live_token && error.outcome_unknown() {
            self.in_doubt = self.generation;
        }
    }

    fn on_issued(&mut self, fetched: Fetched, refresh: Option<Sensitive>, took: Duration) {
        let Fetched { mut issued, lifetime, sent, clock_offset, secret, identity, prover, reread } =
            fetched;
        if let Some(rotation) = self.gate.accepted(secret, sent.mono, Instant::now()) {
            self.metrics.rotated(ACCEPTED);
            self.log.secret_changed(rotation, true);
        }
        self.log.succeeded(took);
        self.reason = UnavailableReason::Pending;
        // RFC 6749 section 6: without a new refresh token the old one stays valid.
        self.refresh_token = issued.refresh_token.take().or(refresh);
        if let Some(reason) = lifetime.ignored {
            self.metrics.disagreement();
            self.log.ignored_expiry(reason);
        }
        let bearer = self.bearer(&issued.access_token, sent, lifetime.life);
        let Some(bearer) = bearer else {
            return self.on_failed(&FetchError::Header, None, took);
        };
        let bearer = bearer.granting(issued.scope).bound_to(identity).bound_to_key(prover);
        let missing = self.missing_scopes(&bearer);
        let (held, end) = (self.writer.held(), bearer.usable_until.mono);
        let rejected = |generation| self.rejections.is_rejected(generation);
        match bearer.renewal_of(held.as_deref(), Moment::now(), rejected) {
            Renewal::Same if reread.is_some() => {
                self.plan_renewal(sent.mono, lifetime.life, end, reread);
                self.keep_static(bearer, held.as_deref());
            }
            Renewal::Same => self.on_same_token(),
            Renewal::NoLater => {
                self.schedule.unchanged(end, end);
                self.publish(bearer, lifetime.life, &missing, took);
            }
            Renewal::New => {
                self.plan_renewal(sent.mono, lifetime.life, end, reread);
                self.publish(bearer, lifetime.life, &missing, took);
            }
        }
        self.update_status(|status| {
            status.attempted = true;
            status.missing_scopes = missing;
            status.clock_offset = clock_offset.or(status.clock_offset);
            (status.failing_since, status.failures) = (None, 0);
            (status.last_error, status.error_text) = (None, None);
            (status.error_hint, status.rate_limited_until) = (None, None);
        });
    }

    /// A token for requests, with the next generation; `None` if it fits into no header.
    fn bearer(&self, token: &Sensitive, sent: Moment, life: Duration) -> Option<Bearer> {
        let attach = &self.credential.attach;
        let bearer = Bearer::new(token, attach, self.generation + 1, sent, life)?;
        let counts = self.credential.policy.one_live_token;
        let in_flight = counts.then(|| InFlightRequests::new(self.metrics.handover_wait()));
        // Anchored, because a clock may have jumped during the call.
        let bearer = bearer.fingerprinted(self.sharing.fingerprint(token));
        Some(bearer.counting(in_flight).anchored(Moment::now()))
    }

    /// The requested scopes that a token does not grant.
    fn missing_scopes(&self, bearer: &Bearer) -> Vec<String> {
        bearer.lacks(&self.scopes).into_iter().map(Scope::to_string).collect()
    }

    /// The server issues the same token until it ends. The next call is due when it can bring another:
    /// at the end of its use, then at its expiry.
    fn on_same_token(&mut self) {
        let Some(held) = self.writer.held() else { return };
        let usable = held.is_usable(Moment::now());
        let due = if usable { held.usable_until.mono } else { held.ends.mono };
        self.schedule.unchanged(due, held.usable_until.mono);
        self.rejections.same_token_again(held.generation());
        self.log.same_token();
    }

    fn plan_renewal(
        &mut self,
        sent: Instant,
        life: Duration,
        usable_until: Instant,
        reread: Option<Duration>,
    ) {
        match self.sharing.renewal_share() {
            Some(share) => self.schedule.renew_at(sent + life.mul_f64(share), usable_until),
            None => self.schedule.succeeded(sent, life, usable_until, fastrand::f64()),
        }
        if let Some(reread) = reread {
            self.schedule.force_at(sent + reread);
        }
    }

    /// The source of a static token holds the held one still, which is used for as long again. It keeps its
    /// number: requests that wait for a newer one learn that there is none.
    fn keep_static(&mut self, bearer: Bearer, held: Option<&Bearer>) {
        let generation = held.map_or(self.generation, Bearer::generation);
        if self.rejections.is_rejected(generation) && self.rejections.same_token_generation() == 0 {
            self.log.static_token_rejected();
        }
        self.rejections.same_token_again(generation);
        self.writer.publish(Arc::new(bearer.numbered(generation)));
    }

    fn publish(&mut self, bearer: Bearer, life: Duration, missing: &[String], took: Duration) {
        let due = self.schedule.next();
        let renew_in = due.map(|due| due.saturating_duration_since(Instant::now()));
        self.log.obtained(&bearer, life, renew_in, took);
        // Said once for each change to such a life: the first token counts as one.
        let was_short = !self.life.is_zero() && self.life <= MIN_CALL_INTERVAL;
        if life <= MIN_CALL_INTERVAL && !was_short {
            self.log.short_life();
        }
        if !missing.is_empty() {
            self.log.missing_scopes(missing);
        }
        self.update_status(|status| {
            status.last_success = Some(SystemTime::now());
            // A static token states no life.
            let requested = self.credential.endpoint().is_some();
            (status.life, status.renewal) =
                (requested.then_some(life), renew_in.filter(|_| requested));
        });
        (self.life, self.generation) = (life, bearer.generation());
        self.writer.publish(Arc::new(bearer));
    }

    fn on_failed(&mut self, error: &FetchError, refresh: Option<Sensitive>, took: Duration) {
        let now = Instant::now();
        if refresh.is_some() {
            if self.refresh_token_refused(error) {
                // The client's own credentials are tried as soon as another call may be made.
                return self.schedule.retry_now(now);
            }
            // RFC 9700 section 4.14.2: a refresh token that may have been used is not sent again.
            if !error.outcome_unknown() {
                self.refresh_token = refresh;
            }
        }
        self.schedule.failed(now, error.retry_after(), fastrand::f64());
        let mut refusals = None;
        if let Some(secret) = error.refused_secret() {
            let (count, rotation) = self.gate.refused(now, secret);
            refusals = Some(count);
            if let Some(rotation) = rotation {
                self.metrics.rotated(REFUSED);
                self.log.secret_changed(rotation, false);
            }
        } else if matches!(error, FetchError::SecretSuppressed) {
            self.gate.still_refused(now);
        }
        if let Some(opens) = self.gate.closed_until(now) {
            self.schedule.block_until(opens);
        }
        self.reason = UnavailableReason::Failing(error.word());
        let failures = self.schedule.failures();
        let next_try = self.schedule.next().map(|next| next.saturating_duration_since(now));
        let limited = error.is_rate_limited();
        let limited_until = limited.then(|| SystemTime::now() + next_try.unwrap_or_default());
        let held = self.writer.held().filter(|held| held.is_usable(Moment::now()));
        // A request that finds no token brings the next try forward: then its time is not known yet.
        let certain = held.is_some() || self.schedule.blocked_until().is_some();
        let next_try = next_try.filter(|wait| certain || *wait <= MAX_BACKOFF_ON_DEMAND);
        self.log.failed(&FailedCall { error, refusals, failures, next_try, took, held });
        self.update_status(|status| {
            status.attempted = true;
            status.failing_since.get_or_insert_with(SystemTime::now);
            status.last_error = Some(error.word());
            status.error_text = Some(error.to_string());
            status.error_hint = error.hint().map(|hint| hint.into_owned());
            status.rate_limited_until = limited_until;
            status.failures = failures;
        });
    }

    /// Tells whether the server refused the refresh token alone, and not the client that sent it.
    fn refresh_token_refused(&self, error: &FetchError) -> bool {
        let client = self.credential.dialect.authenticate_refresh && error.rejects_client();
        let refused = error.refuses_refresh_token() && !client;
        if refused {
            self.log.refresh_token_refused();
        }
        refused
    }

    /// No call is made before this time, because the server refused the credential's secret. Where another
    /// token's call found that out, this token has no failure of its own to tell.
    fn on_gate_closed(&mut self, opens: Instant) {
        self.schedule.block_until(opens);
        if self.reason != UnavailableReason::Pending || self.holds_usable() {
            return;
        }
        let error = FetchError::SecretSuppressed;
        self.not_asked(error.word(), error.to_string(), error.hint().map(Cow::into_owned));
    }

    /// Notes why no call is made for a token that requests may wait for.
    fn not_asked(&mut self, word: &'static str, text: String, hint: Option<String>) {
        self.reason = UnavailableReason::Failing(word);
        self.update_status(|status| {
            status.attempted = true;
            status.failing_since.get_or_insert_with(SystemTime::now);
            (status.last_error, status.error_text) = (Some(word), Some(text));
            status.error_hint = hint;
        });
    }

    fn over_budget(&mut self, now: Instant, free: Instant) {
        if self.reason != UnavailableReason::BudgetSpent {
            self.log.over_budget(self.holds_usable(), free.saturating_duration_since(now));
        }
        self.reason = UnavailableReason::BudgetSpent;
        self.schedule.block_until(free);
        self.update_status(|status| {
            (status.attempted, status.last_error) = (true, Some("token_budget"));
            (status.error_text, status.error_hint) = (None, None);
        });
    }

    /// Publishes the state to waiting requests and to the status, from which the gauges are computed.
    fn publish_state(&mut self) {
        let now = Moment::now();
        let wall = |at: Instant| now.wall + at.saturating_duration_since(now.mono);
        let due = self.next_call().map(wall);
        let held = self.writer.held();
        let usable = held.as_ref().is_some_and(|held| held.is_usable(now));
        self.log.usability(usable, self.reason, self.life);
        let cooling_until = self.rejections.cooling_until();
        let mut handing_over = false;
        self.update_status(|status| {
            status.usable_until = held.as_ref().map(|held| held.usable_until);
            // A static token states no expiry.
            let stated = held.as_ref().filter(|_| self.credential.endpoint().is_some());
            status.expires = stated.map(|held| held.ends.wall);
            status.refresh_due = due;
            status.contended = cooling_until.is_some_and(|until| until > now.mono);
            handing_over = status.handing_over;
        });
        self.sharing.show(&self.status);
        self.writer.publish_state(CellState {
            generation: held.map_or(0, |held| held.generation()),
            reason: self.reason,
            blocked_until: self.schedule.blocked_until().max(self.sharing.blocked_until()),
            cooling_until,
            next_try: self.next_call(),
            handing_over,
            same_token_generation: self.rejections.same_token_generation(),
            closed: false,
        });
    }
}

/// Sleeps until a time, or without end.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
