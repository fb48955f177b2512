//! A gate before all calls of one credential: servers lock clients out after a few wrong logins and
//! count calls per client, so that both are counted over all tokens of the credential.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Pause after a first refused login, and the least time between two refused ones.
const FIRST: Duration = Duration::from_secs(30);
/// The pause doubles up to this.
const LONGEST: Duration = Duration::from_secs(900);
/// Tries with one secret.
const TRIES: u32 = 5;
/// For so long an accepted login is trusted to be accepted again.
const PROVEN: Duration = Duration::from_secs(60);
/// The time that a budget is for.
const HOUR: Duration = Duration::from_secs(3600);

/// The gate of one credential.
#[derive(Debug)]
pub(super) struct Gate {
    /// Held by the call that finds out for all whether the login is accepted.
    probe: Semaphore,
    /// Held for moments only, never across a call.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    refusals: Option<Refusals>,
    accepted: Option<Instant>,
    /// Calls within the last hour, where they are counted.
    calls: VecDeque<Instant>,
}

/// What a server thinks of a login.
#[derive(Debug, Clone, Copy)]
struct Refusals {
    /// Salted hash of client id and secret.
    secret: u64,
    count: u32,
    /// When it was refused last.
    at: Instant,
    /// This secret is not shown again before.
    until: Instant,
    /// When it is time to look whether the secret has changed.
    look: Instant,
}

/// Leave to make one call, to be kept until its answer is known.
pub(super) struct CallPermit<'a>(#[expect(dead_code, reason = "held")] Option<SemaphorePermit<'a>>);

impl Default for Gate {
    fn default() -> Self {
        Self { probe: Semaphore::new(1), state: Mutex::default() }
    }
}

impl Gate {
    /// Waits for leave to call. While nobody knows whether the login is accepted one call finds out
    /// for all; afterwards they go side by side.
    pub(super) async fn enter(&self) -> CallPermit<'_> {
        if self.is_proven() {
            return CallPermit(None);
        }
        let permit = self.probe.acquire().await.ok();
        CallPermit(permit.filter(|_| !self.is_proven()))
    }

    fn is_proven(&self) -> bool {
        self.lock().accepted.is_some_and(|at| at.elapsed() < PROVEN)
    }

    /// Until when no call may be made, nor the secret looked at.
    pub(super) fn closed_until(&self, now: Instant) -> Option<Instant> {
        self.lock().refusals.map(|refusals| refusals.look).filter(|look| *look > now)
    }

    /// True if the server refused the login last, and none was accepted since.
    pub(super) fn refuses(&self) -> bool {
        self.lock().refusals.is_some()
    }

    /// A login that must not be shown now: it was refused lately, or too often.
    pub(super) fn suppressed(&self, now: Instant) -> Option<u64> {
        let refusals = self.lock().refusals?;
        (refusals.count >= TRIES || now < refusals.until).then_some(refusals.secret)
    }

    /// The login of this hash was refused; says how often by now.
    pub(super) fn refused(&self, now: Instant, secret: u64) -> u32 {
        let mut state = self.lock();
        let before = state.refusals.filter(|refusals| refusals.secret == secret);
        let count = before.map_or(0, |refusals| refusals.count).saturating_add(1);
        let pause = FIRST.saturating_mul(1 << (count - 1).min(5)).min(LONGEST);
        let refusals = Refusals { secret, count, at: now, until: now + pause, look: now + FIRST };
        (state.refusals, state.accepted) = (Some(refusals), None);
        count
    }

    /// The secret was found to be still the refused one: it is looked at again later.
    pub(super) fn still_refused(&self, now: Instant) {
        if let Some(refusals) = &mut self.lock().refusals {
            refusals.look = now + FIRST;
        }
    }

    /// The login was accepted in a call made at `sent`, which says nothing against a refusal since.
    pub(super) fn accepted(&self, sent: Instant, now: Instant) {
        let mut state = self.lock();
        if state.refusals.is_none_or(|refusals| refusals.at <= sent) {
            (state.refusals, state.accepted) = (None, Some(now));
        }
    }

    /// Somebody says that the refused login is good now: it gets all its tries again.
    pub(super) fn reset_attempts(&self) {
        if let Some(refusals) = &mut self.lock().refusals {
            (refusals.count, refusals.until) = (0, refusals.look);
        }
    }

    /// Takes one call out of an hourly budget, or says when there will be one.
    pub(super) fn take(&self, now: Instant, budget: Option<NonZeroU32>) -> Result<(), Instant> {
        let mut state = self.lock();
        let Some(budget) = budget else {
            state.calls.clear();
            return Ok(());
        };
        state.forget(now);
        if state.left(budget) == 0 {
            return Err(state.calls.front().map_or(now, |first| *first + HOUR));
        }
        state.calls.push_back(now);
        Ok(())
    }

    /// The last call that was taken out of the budget was not made.
    pub(super) fn give_back(&self) {
        self.lock().calls.pop_back();
    }

    /// Calls that are left of an hourly budget.
    pub(super) fn left(&self, now: Instant, budget: NonZeroU32) -> u32 {
        let mut state = self.lock();
        state.forget(now);
        state.left(budget)
    }

    /// Whether it would be wrong to forget it: a login was refused, or calls are counted.
    pub(super) fn remembers(&self, now: Instant) -> bool {
        let mut state = self.lock();
        state.forget(now);
        state.refusals.is_some() || !state.calls.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, now: Instant) {
        while self.calls.front().is_some_and(|first| *first + HOUR <= now) {
            self.calls.pop_front();
        }
    }

    fn left(&self, budget: NonZeroU32) -> u32 {
        let made = u32::try_from(self.calls.len()).unwrap_or(u32::MAX);
        budget.get().saturating_sub(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_secret_rests_longer_each_time_and_is_then_not_shown_again() {
        let (gate, mut now) = (Gate::default(), Instant::now());
        for pause in [30, 60, 120, 240] {
            gate.refused(now, 7);
            assert_eq!(gate.closed_until(now), Some(now + secs(30)));
            assert_eq!(gate.suppressed(now + secs(pause - 1)), Some(7));
            assert_eq!(gate.suppressed(now + secs(pause)), None);
            now += secs(pause);
        }
        assert_eq!(gate.refused(now, 7), 5);
        assert_eq!(gate.suppressed(now + secs(86_400)), Some(7));
        gate.reset_attempts();
        assert_eq!(gate.suppressed(now + secs(29)), Some(7), "and not sooner for that");
        assert_eq!(gate.suppressed(now + secs(30)), None);
        gate.accepted(now - secs(1), now);
        assert_eq!(gate.closed_until(now), Some(now + secs(30)), "it was sent before the refusal");
        gate.accepted(now, now);
        assert_eq!((gate.suppressed(now), gate.closed_until(now)), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn another_secret_begins_anew() {
        let (gate, now) = (Gate::default(), Instant::now());
        assert_eq!((gate.refused(now, 7), gate.refused(now, 7), gate.refused(now, 8)), (1, 2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_finds_out_for_all() {
        let gate = Gate::default();
        let first = gate.enter().await;
        let second = tokio::time::timeout(secs(1), gate.enter()).await;
        assert!(second.is_err(), "the first is not answered yet");
        gate.accepted(Instant::now(), Instant::now());
        drop(first);
        let _two = (gate.enter().await, gate.enter().await);
        tokio::time::advance(PROVEN).await;
        let _first = gate.enter().await;
        assert!(tokio::time::timeout(secs(1), gate.enter()).await.is_err(), "it is long ago");
    }

    #[tokio::test(start_paused = true)]
    async fn a_budget_is_for_any_hour() {
        let (gate, now, two) = (Gate::default(), Instant::now(), NonZeroU32::new(2));
        assert_eq!(gate.take(now, two), Ok(()));
        assert_eq!(gate.take(now + secs(1), two), Ok(()));
        assert_eq!(gate.take(now + secs(2), two), Err(now + HOUR));
        assert_eq!(gate.take(now + HOUR, two), Ok(()));
        gate.give_back();
        assert_eq!(two.map(|two| gate.left(now + HOUR, two)), Some(1));
    }
}
