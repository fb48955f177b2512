//! `Moment`: one instant on both clocks. A token is usable only if both say so: the monotonic clock
//! stands still while a laptop sleeps, and the wall clock can be set back.

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
        Self { mono: Instant::now(), wall: SystemTime::now() }
    }

    /// This much later on both.
    pub fn after(self, span: Duration) -> Self {
        Self { mono: self.mono + span, wall: self.wall + span }
    }

    /// Whether neither clock has reached `end`.
    pub fn is_before(self, end: Self) -> bool {
        self.mono < end.mono && self.wall < end.wall
    }
}
