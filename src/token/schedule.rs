//! Pure: when the next token call is due. Time and chance are arguments.

use std::time::Duration;

use tokio::time::Instant;

use super::credential::RefreshPolicy;

/// Least time between two calls for one token.
pub const FLOOR: Duration = Duration::from_secs(1);
/// Longest back-off while a usable token is held, or nobody asks.
const CALM_CAP: Duration = Duration::from_secs(60);
/// Longest back-off while requests find no token.
const ASKED_CAP: Duration = Duration::from_secs(3);
/// First back-off; it doubles with each failure.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Longest Retry-After that is obeyed.
const RETRY_AFTER_CAP: Duration = Duration::from_secs(300);

/// What is known about one token's calls.
#[derive(Debug, Clone)]
pub struct Schedule {
    policy: RefreshPolicy,
    /// `None`: at rest until somebody asks.
    next: Option<Instant>,
    last_call: Option<Instant>,
    failures: u32,
    /// When the last failure was, and the delay that chance gave it.
    failed: Option<(Instant, Duration)>,
    /// The server, or its lock-out, forbids calls before this.
    blocked_until: Option<Instant>,
    /// The held token is of no use from then on.
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

    /// When the next call is due; `None` while nobody needs a token.
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Whether a call is due.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Before this no asking helps.
    pub fn blocked_until(&self) -> Option<Instant> {
        self.blocked_until
    }

    /// A call has been made.
    pub fn called(&mut self, now: Instant) {
        self.last_call = Some(now);
    }

    /// A token came that was asked for at `sent` and is usable until `usable_until`. `chance` is
    /// between 0 and 1 and moves the renewal earlier by at most the policy's jitter.
    pub fn succeeded(&mut self, sent: Instant, life: Duration, usable_until: Instant, chance: f64) {
        let share = self.policy.refresh_at - self.policy.jitter * chance;
        self.renew_at(sent + life.mul_f64(share.clamp(0.05, 0.95)), usable_until);
    }

    /// The token that came ends no later than the one before: asking earlier than `due` would bring
    /// it once more.
    pub fn unchanged(&mut self, due: Instant, usable_until: Instant) {
        self.renew_at(due, usable_until);
    }

    fn renew_at(&mut self, due: Instant, usable_until: Instant) {
        (self.failures, self.failed, self.blocked_until) = (0, None, None);
        self.usable_until = Some(usable_until);
        self.next = Some(self.last_call.map_or(due, |last| due.max(last + FLOOR)));
    }

    /// A call failed. `retry_after` is the server's wish, `chance` is between 0 and 1.
    pub fn failed(&mut self, now: Instant, retry_after: Option<Duration>, chance: f64) {
        let grown = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(6)).min(CALM_CAP);
        self.failures = self.failures.saturating_add(1);
        let delay = grown.mul_f64(chance).max(FLOOR);
        self.failed = Some((now, delay));
        let mut next = now + delay;
        if let Some(end) = self.usable_until.filter(|end| *end > now) {
            // The held token's end is a moment at which trying is due whatever the back-off says.
            next = next.min(end.max(now + FLOOR));
        }
        self.blocked_until = retry_after.map(|wait| now + wait.min(RETRY_AFTER_CAP));
        self.next = Some(next.max(self.blocked_until.unwrap_or(now)));
    }

    /// Calls are forbidden until then, whoever asks.
    pub fn block(&mut self, until: Instant) {
        self.blocked_until = self.blocked_until.max(Some(until));
        self.next = self.next.map(|next| next.max(until));
    }

    /// The call came to nothing for a reason that another call does not have.
    pub fn again(&mut self, now: Instant) {
        self.next = self.last_call.map(|last| now.max(last + FLOOR)).or(Some(now));
    }

    /// A request finds no usable token.
    pub fn on_demand(&mut self, now: Instant) {
        let wanted = match self.failed {
            Some((at, delay)) => at + delay.min(ASKED_CAP),
            None => now,
        };
        self.bring_forward(wanted);
    }

    /// A new token is wanted then, whatever the back-off or the held token's age.
    pub fn force_at(&mut self, at: Instant) {
        self.bring_forward(at);
    }

    /// The machine slept for this long, which the monotonic clock does not know.
    pub fn on_wake_from_sleep(&mut self, now: Instant, span: Duration) {
        if let Some(next) = self.next {
            self.bring_forward(next.checked_sub(span).unwrap_or(now).max(now));
        }
    }

    /// Nobody needs a token any more: no call until somebody asks.
    pub fn suspend(&mut self) {
        (self.next, self.usable_until) = (None, None);
    }

    fn bring_forward(&mut self, wanted: Instant) {
        let floor = self.last_call.map(|last| last + FLOOR);
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
            schedule.called(now);
            schedule.succeeded(now, secs(life), now + secs(life * 0.9), chance);
            assert_eq!(schedule.next(), Some(now + secs(expected)), "{life}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_shortens_the_back_off_but_never_a_block() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RefreshPolicy::default(), now);
        for _ in 0..8 {
            schedule.called(now);
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
        schedule.called(now);
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
        schedule.called(now + secs(5.0));
        schedule.on_demand(now + secs(5.5));
        assert_eq!(schedule.next(), Some(now + secs(6.0)), "the floor holds for it too");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_brings_the_renewal_nearer_but_never_into_a_block() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RefreshPolicy::default(), now);
        schedule.called(now);
        schedule.succeeded(now, secs(100.0), now + secs(95.0), 0.0);
        schedule.on_wake_from_sleep(now + secs(10.0), secs(30.0));
        assert_eq!(schedule.next(), Some(now + secs(50.0)));
        schedule.block(now + secs(60.0));
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
                    prop_assert!(now >= last + FLOOR);
                }
                schedule.called(now);
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
