//! The monotonic and the wall clock, read together.
//!
//! Neither is enough: the monotonic one stands still while a laptop sleeps, and the wall clock can be
//! set back. A [`Moment`] is one instant on both; [`Drift`] notices when they part.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// An instant on the monotonic and the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic: not moved by setting the time.
    pub mono: Instant,
    /// Wall: goes on during suspend.
    pub wall: SystemTime,
}

impl Moment {
    /// Both clocks, now.
    pub fn now() -> Self {
        Self { mono: Instant::now(), wall: wall() }
    }

    /// This much later on both.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self { mono: self.mono + span, wall: self.wall + span }
    }

    /// Whether neither clock has reached `end`.
    pub fn is_before(self, end: Self) -> bool {
        self.mono < end.mono && self.wall < end.wall
    }

    /// This end, seen `now`, with the same time left on both clocks: the shorter one, since the
    /// monotonic clock may have slept, and the wall clock been wrong when the end was written down.
    #[must_use]
    pub fn anchored(self, now: Self) -> Self {
        let mono = self.mono.saturating_duration_since(now.mono);
        let wall = self.wall.duration_since(now.wall).unwrap_or_default();
        now.after(mono.min(wall))
    }
}

/// How the wall clock parted from the monotonic one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jump {
    /// It is ahead by this much: the machine was suspended, or its time was set forward.
    Ahead(Duration),
    /// Its time was set back by this much.
    Back(Duration),
}

/// Clocks that differ by less have not jumped: time servers correct small errors all the time.
const TOLERANCE: Duration = Duration::from_secs(2);

/// Watches both clocks: has one of them jumped since they were last looked at?
#[derive(Debug, Clone, Copy)]
pub struct Drift(Moment);

impl Drift {
    /// Begins to watch.
    pub fn new(now: Moment) -> Self {
        Self(now)
    }

    /// When the clocks were last looked at.
    pub fn last(&self) -> Moment {
        self.0
    }

    /// What has happened since the last look, if the clocks have parted by more than 2 s.
    pub fn look(&mut self, now: Moment) -> Option<Jump> {
        let mono = now.mono.saturating_duration_since(self.0.mono);
        let expected = self.0.wall + mono;
        self.0 = now;
        match now.wall.duration_since(expected) {
            Ok(ahead) => (ahead > TOLERANCE).then_some(Jump::Ahead(ahead)),
            Err(back) => (back.duration() > TOLERANCE).then_some(Jump::Back(back.duration())),
        }
    }
}

#[cfg(not(test))]
fn wall() -> SystemTime {
    SystemTime::now()
}

/// In tests that set a wall clock, it goes with tokio's clock, which may be paused.
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

    /// From now on this thread's wall clock shows this, and goes with the monotonic one.
    pub(crate) fn set(wall: SystemTime) {
        SET.set(Some((Instant::now(), wall)));
    }

    /// Moves the wall clock ahead, as a suspend or a setting of the time does.
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
            assert_eq!(drift.look(Moment::now()), expected);
            assert_eq!(drift.look(Moment::now()), None, "it is told once");
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
