//! The monotonic and the wall clock, read together.
//!
//! Neither is enough: the monotonic clock stops while a laptop sleeps, and the wall clock can be set back.
//! A [`Moment`] is one instant on both; [`Drift`] detects jumps between them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// An instant on the monotonic and the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic clock: setting the time does not move it.
    pub mono: Instant,
    /// Wall clock: continues during suspend.
    pub wall: SystemTime,
}

impl Moment {
    /// The current time on both clocks.
    pub fn now() -> Self {
        Self { mono: Instant::now(), wall: wall() }
    }

    /// The moment `span` later on both clocks.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self { mono: self.mono + span, wall: self.wall + span }
    }

    /// The moment `span` earlier on both clocks; `None` before the start of one of them.
    #[must_use]
    pub fn before(self, span: Duration) -> Option<Self> {
        Some(Self { mono: self.mono.checked_sub(span)?, wall: self.wall.checked_sub(span)? })
    }

    /// True if neither clock has reached `end`.
    pub fn is_before(self, end: Self) -> bool {
        self.mono < end.mono && self.wall < end.wall
    }

    /// This end moved so that both clocks have the same time left from `now`: the shorter of the two. The
    /// monotonic clock may have stopped, and the wall clock may have been wrong when the end was computed.
    #[must_use]
    pub fn anchored(self, now: Self) -> Self {
        let mono = self.mono.saturating_duration_since(now.mono);
        let wall = self.wall.duration_since(now.wall).unwrap_or_default();
        now.after(mono.min(wall))
    }
}

/// A jump of the wall clock relative to the monotonic one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jump {
    /// Forward by this much: the machine was suspended, or its time was set forward.
    Ahead(Duration),
    /// Back by this much: its time was set back.
    Back(Duration),
}

/// Differences up to this are no jump: time servers correct small errors all the time.
const TOLERANCE: Duration = Duration::from_secs(2);

/// Detects jumps between the clocks from one check to the next.
#[derive(Debug, Clone, Copy)]
pub struct Drift(Moment);

impl Drift {
    /// The first reading of the clocks.
    pub fn new(now: Moment) -> Self {
        Self(now)
    }

    /// The moment of the last check.
    pub fn last(&self) -> Moment {
        self.0
    }

    /// The jump since the last check, if the clocks differ by more than 2 s.
    pub fn check(&mut self, now: Moment) -> Option<Jump> {
        let mono = now.mono.saturating_duration_since(self.0.mono);
        let expected = self.0.wall + mono;
        self.0 = now;
        match now.wall.duration_since(expected) {
            Ok(ahead) => (ahead > TOLERANCE).then_some(Jump::Ahead(ahead)),
            Err(back) => (back.duration() > TOLERANCE).then_some(Jump::Back(back.duration())),
        }
    }
}

/// Seconds, rounded to milliseconds: for logs and JSON, where a floating-point number would show all
/// its digits.
pub fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}

/// Seconds since 1970, as metrics have them; `None` before that.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> Option<f64> {
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
}

/// RFC 3339 in UTC, to the second.
#[must_use]
pub fn date(time: SystemTime) -> String {
    let timestamp = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::MAX);
    timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(not(test))]
fn wall() -> SystemTime {
    SystemTime::now()
}

/// Tests may set a wall clock that follows tokio's clock, which may be paused.
#[cfg(test)]
fn wall() -> SystemTime {
    testing::wall().unwrap_or_else(SystemTime::now)
}

/// A wall clock for tests under paused time.
#[cfg(test)]
pub(crate) mod testing {
    use std::cell::Cell;
    use std::time::{Duration, SystemTime};

    use tokio::time::Instant;

    thread_local! {
        static SET: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
    }

    /// Sets this thread's wall clock, which then follows the monotonic one.
    pub(crate) fn set(wall: SystemTime) {
        SET.set(Some((Instant::now(), wall)));
    }

    /// Moves the wall clock forward, as a suspend or a setting of the time does.
    pub(crate) fn ahead(by: Duration) {
        let now = wall().unwrap_or_else(SystemTime::now);
        set(now + by);
    }

    /// Sets the wall clock back.
    pub(crate) fn back(by: Duration) {
        let now = wall().unwrap_or_else(SystemTime::now);
        set(now - by);
    }

    pub(super) fn wall() -> Option<SystemTime> {
        let (at, wall) = SET.get()?;
        Some(wall + Instant::now().saturating_duration_since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn jumps_are_noticed_once_and_slow_corrections_are_not() {
        testing::set(SystemTime::UNIX_EPOCH + secs(1_800_000_000));
        let mut drift = Drift::new(Moment::now());
        let mut check = async |change: fn(Duration), by: u64, expected: Option<Jump>| {
            tokio::time::advance(secs(5)).await;
            change(secs(by));
            assert_eq!(drift.check(Moment::now()), expected);
            assert_eq!(drift.check(Moment::now()), None, "a jump is reported once");
        };
        check(testing::ahead, 0, None).await;
        check(testing::ahead, 2, None).await;
        check(testing::ahead, 3600, Some(Jump::Ahead(secs(3600)))).await;
        check(testing::back, 1, None).await;
        check(testing::back, 3600, Some(Jump::Back(secs(3600)))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_anchored_end_survives_one_jump_after_the_other() {
        testing::set(SystemTime::UNIX_EPOCH + secs(1_800_000_000));
        let end = Moment::now().after(secs(60));
        testing::back(secs(3600));
        let anchored = end.anchored(Moment::now());
        assert_eq!(anchored, Moment::now().after(secs(60)));
        testing::ahead(secs(61));
        assert!(!Moment::now().is_before(anchored), "a sleep after it is seen");
        assert!(Moment::now().is_before(end), "which the end as it was would have hidden");
        testing::back(secs(21));
        let awake = anchored.anchored(Moment::now());
        assert_eq!(awake, Moment::now().after(secs(20)));
    }
}
