//! `Schedule`: the time of the next token request. Pure: time and chance are arguments.

use std::time::Duration;

use tokio::time::Instant;

use super::credential::RefreshPolicy;

/// Least time between two calls for one token.
pub const MIN_CALL_INTERVAL: Duration = Duration::from_secs(1);
/// Longest back-off while a usable token is held, or no request needs one.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Longest back-off while requests find no token.
pub const MAX_BACKOFF_ON_DEMAND: Duration = Duration::from_secs(3);
/// First back-off; it doubles with each failure.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Longest Retry-After that is obeyed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// The calls for one token: those that were made, and the next.
#[derive(Debug, Clone)]
pub struct Schedule {
    policy: RefreshPolicy,
    /// `None`: suspended until a request needs the token.
    next: Option<Instant>,
    last_call: Option<Instant>,
    failures: u32,
    /// The time of the last failure, and the random delay after it.
    failed: Option<(Instant, Duration)>,
    /// The earliest time that the server, its lock-out or the budget allows.
    blocked_until: Option<Instant>,
    /// The time from which the held token cannot be used.
    usable_until: Option<Instant>,
}

impl Schedule {
    /// A schedule without a token: the first call is due at once, or at the first use of a lazy one.
    pub fn new(policy: RefreshPolicy, now: Instant) -> Self {
        Self {
            policy,
            next: if policy.lazy.is_some() { None } else { Some(now) },
            last_call: None,
            failures: 0,
            failed: None,
            blocked_until: None,
            usable_until: None,
        }
    }

    /// The time of the next call; `None` while no request needs the token.
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Tells whether a call is due.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The time before which no call is made, whatever requests need.
    pub fn blocked_until(&self) -> Option<Instant> {
        self.blocked_until
    }

    /// Records a call.
    pub fn record_call(&mut self, now: Instant) {
        self.last_call = Some(now);
    }

    /// Plans the renewal of a token that was requested at `sent` and is usable until `usable_until`.
    /// `chance`, between 0 and 1, moves the renewal earlier by at most the policy's jitter.
    pub fn succeeded(&mut self, sent: Instant, life: Duration, usable_until: Instant, chance: f64) {
        let share = self.policy.refresh_at - self.policy.jitter * chance;
        self.renew_at(sent + life.mul_f64(share.clamp(0.05, 0.95)), usable_until);
    }

    /// Plans the next call at `due`, because the server issues the same token until then.
    pub fn unchanged(&mut self, due: Instant, usable_until: Instant) {
        self.renew_at(due, usable_until);
    }

    /// Plans the next call at `due` for a token that is usable until `usable_until`.
    pub fn renew_at(&mut self, due: Instant, usable_until: Instant) {
        (self.failures, self.failed, self.blocked_until) = (0, None, None);
        self.usable_until = Some(usable_until);
        self.next = Some(self.last_call.map_or(due, |last| due.max(last + MIN_CALL_INTERVAL)));
    }

    /// Plans the retry of a failed call: exponential back-off with full jitter, by a `chance` between 0
    /// and 1, and not before `retry_after`.
    pub fn failed(&mut self, now: Instant, retry_after: Option<Duration>, chance: f64) {
        let grown = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(6)).min(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        let delay = grown.mul_f64(chance).max(MIN_CALL_INTERVAL);
        self.failed = Some((now, delay));
        let mut next = now + delay;
        if let Some(end) = self.usable_until.filter(|end| *end > now) {
            // From the end of the held token on, requests wait: the retry must not come later.
            next = next.min(end.max(now + MIN_CALL_INTERVAL));
        }
        self.blocked_until = retry_after.map(|wait| now + wait.min(MAX_RETRY_AFTER));
        self.next = Some(next.max(self.blocked_until.unwrap_or(now)));
    }

    /// Forbids calls until then, whatever requests need.
    pub fn block_until(&mut self, until: Instant) {
        self.blocked_until = self.blocked_until.max(Some(until));
        self.next = self.next.map(|next| next.max(until));
    }

    /// Plans another call as soon as one may be made, for a failure that it does not share.
    pub fn retry_now(&mut self, now: Instant) {
        self.next = self.last_call.map(|last| now.max(last + MIN_CALL_INTERVAL)).or(Some(now));
    }

    /// Brings the next call forward for a request without a usable token.
    pub fn on_demand(&mut self, now: Instant) {
        let wanted = match self.failed {
            Some((at, delay)) => at + delay.min(MAX_BACKOFF_ON_DEMAND),
            None => now,
        };
        self.bring_forward(wanted);
    }

    /// Brings the next call forward to this time, whatever the back-off or the age of the held token.
    pub fn force_at(&mut self, at: Instant) {
        self.bring_forward(at);
    }

    /// Brings the next call forward by the time of a suspend, in which the monotonic clock stood still.
    pub fn on_wake_from_sleep(&mut self, now: Instant, span: Duration) {
        if let Some(next) = self.next {
            self.bring_forward(next.checked_sub(span).unwrap_or(now).max(now));
        }
    }

    /// Stops the calls until a request needs the token.
    pub fn suspend(&mut self) {
        (self.next, self.usable_until) = (None, None);
    }

    fn bring_forward(&mut self, wanted: Instant) {
        // Never closer than the interval to the last call, and never within a block.
        let floor = self.last_call.map(|last| last + MIN_CALL_INTERVAL);
        let earliest = floor.into_iter().chain(self.blocked_until).fold(wanted, Instant::max);
        self.next = Some(self.next.map_or(earliest, |next| next.min(earliest)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_at_its_share_of_life() {
        let now = Instant::now();
        for (life, chance, expected) in
            [(3600.0, 0.0, 2880.0), (3600.0, 1.0, 2700.0), (20.0, 0.0, 16.0), (1.0, 0.0, 1.0)]
        {
            let mut schedule = Schedule::new(RefreshPolicy::default(), now);
            schedule.record_call(now);
            schedule.succeeded(now, secs(life), now + secs(life * 0.9), chance);
            assert_eq!(schedule.next(), Some(now + secs(expected)), "{life}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_shortens_the_back_off_but_never_a_block() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RefreshPolicy::default(), now);
        for _ in 0..8 {
            schedule.record_call(now);
            schedule.failed(now, None, 1.0);
        }
        assert_eq!(schedule.next(), Some(now + secs(60.0)));
        schedule.on_demand(now);
        assert_eq!(schedule.next(), Some(now + secs(3.0)));
        schedule.failed(now, Some(secs(900.0)), 1.0);
        schedule.on_demand(now);
        assert_eq!(schedule.next(), Some(now + secs(300.0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_tokens_end_is_not_slept_through() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RefreshPolicy::default(), now);
        schedule.record_call(now);
        schedule.succeeded(now, secs(100.0), now + secs(95.0), 0.0);
        for _ in 0..8 {
            schedule.failed(now + secs(80.0), None, 1.0);
        }
        assert_eq!(schedule.next(), Some(now + secs(95.0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lazy_token_rests_until_it_is_asked_for() {
        let now = Instant::now();
        let policy = RefreshPolicy { lazy: Some(secs(600.0)), ..RefreshPolicy::default() };
        let mut schedule = Schedule::new(policy, now);
        assert_eq!(schedule.next(), None);
        schedule.on_wake_from_sleep(now, secs(60.0));
        assert_eq!(schedule.next(), None);
        schedule.on_demand(now + secs(5.0));
        assert_eq!(schedule.next(), Some(now + secs(5.0)));
        schedule.suspend();
        schedule.record_call(now + secs(5.0));
        schedule.on_demand(now + secs(5.5));
        assert_eq!(schedule.next(), Some(now + secs(6.0)), "the floor holds for it too");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_brings_the_renewal_nearer_but_never_into_a_block() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RefreshPolicy::default(), now);
        schedule.record_call(now);
        schedule.succeeded(now, secs(100.0), now + secs(95.0), 0.0);
        schedule.on_wake_from_sleep(now + secs(10.0), secs(30.0));
        assert_eq!(schedule.next(), Some(now + secs(50.0)));
        schedule.block_until(now + secs(60.0));
        schedule.on_wake_from_sleep(now + secs(10.0), secs(3600.0));
        assert_eq!(schedule.next(), Some(now + secs(60.0)));
    }

    proptest! {
        #[test]
        fn calls_are_never_closer_than_the_floor(steps in prop::collection::vec((0u8..4, 0.0f64..1.0), 1..40)) {
            let start = Instant::now();
            let mut schedule = Schedule::new(RefreshPolicy::default(), start);
            let mut last: Option<Instant> = None;
            for (step, chance) in steps {
                let now = schedule.next().unwrap();
                if let Some(last) = last {
                    prop_assert!(now >= last + MIN_CALL_INTERVAL);
                }
                schedule.record_call(now);
                last = Some(now);
                match step {
                    0 => schedule.succeeded(now, secs(chance * 10.0), now + secs(chance * 9.0), chance),
                    1 => schedule.failed(now, None, chance),
                    2 => schedule.failed(now, Some(secs(chance * 400.0)), chance),
                    _ => schedule.unchanged(now + secs(chance), now + secs(chance)),
                }
                schedule.on_demand(now);
                schedule.force_at(now);
            }
        }
    }
}
