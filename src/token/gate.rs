//! `Gate`: bounds the token requests of one credential. Servers lock a client out after a few failed
//! authentications and count calls per client, so that both are counted over all its tokens.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::fingerprint::Fingerprint;

/// Pause after a first refusal, and the least time between two refused calls.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// Longest pause; each refusal of a secret doubles it up to this.
const MAX_PAUSE: Duration = Duration::from_secs(900);
/// Attempts with one secret.
const MAX_ATTEMPTS: u32 = 5;
/// Time for which an accepted secret is assumed to be still accepted.
const PROVEN_FOR: Duration = Duration::from_secs(60);
/// The time that a budget is for.
const HOUR: Duration = Duration::from_secs(3600);

/// The gate of one credential.
#[derive(Debug)]
pub(super) struct Gate {
    /// Held by the one call that finds out whether the secret is accepted.
    probe: Semaphore,
    /// Held for moments only, never across a call.
    state: Mutex<State>,
    /// Number of tokens of the credential.
    tokens: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    standing: SecretStanding,
    /// The last secret that the server accepted.
    accepted: Option<Fingerprint>,
    /// The time of the last verdict on a changed secret.
    rotated_at: Option<SystemTime>,
    /// Calls within the last hour, where a budget counts them.
    calls: VecDeque<Instant>,
}

/// The token server's verdict on the client secret.
#[derive(Debug, Clone, Copy, Default)]
enum SecretStanding {
    /// No answer yet.
    #[default]
    Unproven,
    /// The secret was accepted at this time.
    Proven(Instant),
    /// The secret was refused.
    Refused(Refusal),
}

#[derive(Debug, Clone, Copy)]
struct Refusal {
    secret: Fingerprint,
    count: u32,
    /// The time of the last refusal.
    at: Instant,
    /// The secret must not be sent before this.
    retry_at: Instant,
    /// The source must not be read before this.
    reread_at: Instant,
}

/// The first verdict on a secret that replaced an accepted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rotation {
    pub(super) from: Fingerprint,
    pub(super) to: Fingerprint,
}

/// The permission to make one call, to be kept until its answer is known.
pub(super) struct CallPermit<'a>(#[expect(dead_code, reason = "held")] Option<SemaphorePermit<'a>>);

impl Default for Gate {
    fn default() -> Self {
        Self { probe: Semaphore::new(1), state: Mutex::default(), tokens: AtomicUsize::new(1) }
    }
}

impl Gate {
    /// Waits for the permission to call. While the secret is not proven, one call at a time is made:
    /// ten tokens with a wrong secret must cost one failed authentication, not ten.
    pub(super) async fn acquire(&self) -> CallPermit<'_> {
        if self.is_proven() {
            return CallPermit(None);
        }
        let permit = self.probe.acquire().await.ok();
        // The call before may have proven the secret: then this one need not keep others waiting.
        CallPermit(permit.filter(|_| !self.is_proven()))
    }

    fn is_proven(&self) -> bool {
        matches!(self.lock().standing, SecretStanding::Proven(at) if at.elapsed() < PROVEN_FOR)
    }

    /// The end of the time in which no call is made and the secret is not read again.
    pub(super) fn closed_until(&self, now: Instant) -> Option<Instant> {
        let refusal = self.lock().standing.refusal()?;
        (refusal.reread_at > now).then_some(refusal.reread_at)
    }

    /// True if the server refused the secret last and has accepted none since.
    pub(super) fn refuses(&self) -> bool {
        self.lock().standing.refusal().is_some()
    }

    /// The time of the last verdict on a changed secret.
    pub(super) fn rotated_at(&self) -> Option<SystemTime> {
        self.lock().rotated_at
    }

    /// The secret that must not be sent now, because it was refused lately or too often.
    pub(super) fn suppressed(&self, now: Instant) -> Option<Fingerprint> {
        let refusal = self.lock().standing.refusal()?;
        (refusal.count >= MAX_ATTEMPTS || now < refusal.retry_at).then_some(refusal.secret)
    }

    /// Records a refusal. Returns the number of refusals of this secret, and the rotation that failed.
    pub(super) fn refused(&self, now: Instant, secret: Fingerprint) -> (u32, Option<Rotation>) {
        let mut state = self.lock();
        let before = state.standing.refusal().filter(|refusal| refusal.secret == secret);
        let count = before.map_or(0, |refusal| refusal.count).saturating_add(1);
        let pause = FIRST_PAUSE.saturating_mul(1 << (count - 1).min(5)).min(MAX_PAUSE);
        let (retry_at, reread_at) = (now + pause, now + FIRST_PAUSE);
        state.standing =
            SecretStanding::Refused(Refusal { secret, count, at: now, retry_at, reread_at });
        let replaced = state.accepted.filter(|_| before.is_none());
        (count, state.rotation(replaced, secret))
    }

    /// Records that the source still holds the refused secret: it is read again later.
    pub(super) fn still_refused(&self, now: Instant) {
        if let SecretStanding::Refused(refusal) = &mut self.lock().standing {
            refusal.reread_at = now + FIRST_PAUSE;
        }
    }

    /// Records the success of a call that was sent at `sent`. `secret` is `None` for a call that did
    /// not authenticate the client. Returns the rotation that succeeded.
    pub(super) fn accepted(
        &self,
        secret: Option<Fingerprint>,
        sent: Instant,
        now: Instant,
    ) -> Option<Rotation> {
        let mut state = self.lock();
        // An answer to an older call says nothing about a refusal that came after it was sent.
        if state.standing.refusal().is_some_and(|refusal| refusal.at > sent) {
            return None;
        }
        state.standing = SecretStanding::Proven(now);
        let to = secret?;
        let replaced = state.accepted.replace(to);
        state.rotation(replaced, to)
    }

    /// Gives a refused secret all its attempts again, for an operator who forces a refresh. The pause
    /// before the next one stays.
    pub(super) fn reset_attempts(&self) {
        if let SecretStanding::Refused(refusal) = &mut self.lock().standing {
            (refusal.count, refusal.retry_at) = (0, refusal.reread_at);
        }
    }

    /// Takes one call out of an hourly budget; `Err` holds the time at which one is free.
    pub(super) fn take_call(
        &self,
        now: Instant,
        budget: Option<NonZeroU32>,
    ) -> Result<(), Instant> {
        let mut state = self.lock();
        let Some(budget) = budget else {
            state.calls.clear();
            return Ok(());
        };
        if state.calls_left(now, budget) == 0 {
            return Err(state.calls.front().map_or(now, |first| *first + HOUR));
        }
        state.calls.push_back(now);
        Ok(())
    }

    /// Returns the last call to the budget, because it was not made.
    pub(super) fn return_call(&self) {
        self.lock().calls.pop_back();
    }

    /// The calls that are left of an hourly budget.
    pub(super) fn calls_left(&self, now: Instant, budget: NonZeroU32) -> u32 {
        self.lock().calls_left(now, budget)
    }

    /// Notes the number of tokens of the credential.
    pub(super) fn set_tokens(&self, tokens: usize) {
        self.tokens.store(tokens, Ordering::Relaxed);
    }

    /// The number of tokens of the credential: each one may end another at a server that keeps one for each
    /// client.
    pub(super) fn tokens(&self) -> usize {
        self.tokens.load(Ordering::Relaxed)
    }

    /// The time at which the next call is free, if an hourly budget is spent.
    pub(super) fn spent_until(&self, now: Instant, budget: Option<NonZeroU32>) -> Option<Instant> {
        let mut state = self.lock();
        let spent = state.calls_left(now, budget?) == 0;
        state.calls.front().filter(|_| spent).map(|first| *first + HOUR)
    }

    /// Tells whether a refusal or a counted call must be remembered after the credential is gone.
    pub(super) fn has_history(&self, now: Instant) -> bool {
        let mut state = self.lock();
        state.expire_calls(now);
        state.standing.refusal().is_some() || !state.calls.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SecretStanding {
    fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Unproven | Self::Proven(_) => None,
        }
    }
}

impl State {
    fn rotation(&mut self, from: Option<Fingerprint>, to: Fingerprint) -> Option<Rotation> {
        let from = from.filter(|from| *from != to)?;
        self.rotated_at = Some(SystemTime::now());
        Some(Rotation { from, to })
    }

    fn expire_calls(&mut self, now: Instant) {
        while self.calls.front().is_some_and(|first| *first + HOUR <= now) {
            self.calls.pop_front();
        }
    }

    fn calls_left(&mut self, now: Instant, budget: NonZeroU32) -> u32 {
        self.expire_calls(now);
        let made = u32::try_from(self.calls.len()).unwrap_or(u32::MAX);
        budget.get().saturating_sub(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(number: u64) -> Fingerprint {
        Fingerprint::of(number)
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_secret_rests_longer_each_time_and_is_then_not_shown_again() {
        let (gate, mut now) = (Gate::default(), Instant::now());
        for pause in [30, 60, 120, 240] {
            gate.refused(now, secret(7));
            assert_eq!(gate.closed_until(now), Some(now + secs(30)));
            assert_eq!(gate.suppressed(now + secs(pause - 1)), Some(secret(7)));
            assert_eq!(gate.suppressed(now + secs(pause)), None);
            now += secs(pause);
        }
        assert_eq!(gate.refused(now, secret(7)).0, 5);
        assert_eq!(gate.suppressed(now + secs(86_400)), Some(secret(7)));
        gate.reset_attempts();
        assert_eq!(gate.suppressed(now + secs(29)), Some(secret(7)), "and not sooner for that");
        assert_eq!(gate.suppressed(now + secs(30)), None);
        gate.accepted(None, now - secs(1), now);
        assert_eq!(gate.closed_until(now), Some(now + secs(30)), "it was sent before the refusal");
        gate.accepted(None, now, now);
        assert_eq!((gate.suppressed(now), gate.closed_until(now)), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn another_secret_begins_at_its_first_attempt() {
        let (gate, now) = (Gate::default(), Instant::now());
        let counts = [7, 7, 8].map(|number| gate.refused(now, secret(number)).0);
        assert_eq!(counts, [1, 2, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rotation_is_reported_once_for_each_verdict() {
        let (gate, now) = (Gate::default(), Instant::now());
        let accepted = |number| gate.accepted(Some(secret(number)), now, now);
        let refused = |number| gate.refused(now, secret(number)).1;
        let rotation = |from, to| Some(Rotation { from: secret(from), to: secret(to) });
        assert_eq!((refused(6), accepted(7), accepted(7)), (None, None, None), "the first secret");
        assert_eq!((refused(8), refused(8)), (rotation(7, 8), None));
        assert_eq!((accepted(8), accepted(8)), (rotation(7, 8), None));
        assert_eq!(refused(8), None, "it is the accepted one itself");
        assert_eq!(gate.accepted(None, now, now), None, "no secret was sent");
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_finds_out_for_all() {
        let gate = Gate::default();
        let first = gate.acquire().await;
        let second = tokio::time::timeout(secs(1), gate.acquire()).await;
        assert!(second.is_err(), "the first is not answered yet");
        gate.accepted(None, Instant::now(), Instant::now());
        drop(first);
        let _two = (gate.acquire().await, gate.acquire().await);
        tokio::time::advance(PROVEN_FOR).await;
        let _first = gate.acquire().await;
        assert!(tokio::time::timeout(secs(1), gate.acquire()).await.is_err(), "it is long ago");
    }

    #[tokio::test(start_paused = true)]
    async fn a_budget_is_for_any_hour() {
        let (gate, now, two) = (Gate::default(), Instant::now(), NonZeroU32::new(2));
        assert_eq!(gate.take_call(now, two), Ok(()));
        assert_eq!(gate.take_call(now + secs(1), two), Ok(()));
        assert_eq!(gate.spent_until(now, two), Some(now + HOUR));
        assert_eq!(gate.take_call(now + secs(2), two), Err(now + HOUR));
        assert_eq!(gate.spent_until(now + HOUR, two), None);
        assert_eq!(gate.take_call(now + HOUR, two), Ok(()));
        gate.return_call();
        assert_eq!(two.map(|two| gate.calls_left(now + HOUR, two)), Some(1));
    }
}
