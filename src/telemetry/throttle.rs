//! A throttle for log lines: equal lines at most once in ten seconds, with the count of suppressed ones.

use std::time::Duration;

use tokio::time::Instant;

/// Interval in which a line is logged at most once.
const QUIET: Duration = Duration::from_secs(10);

/// The state of one log line that may occur often.
#[derive(Debug, Default)]
pub struct Throttle {
    last: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    /// `Some` with the number of lines suppressed since the last one if the line is to be logged now.
    pub fn allow(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) < QUIET) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_are_counted_while_held_back() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.allow(), Some(0));
        assert_eq!((throttle.allow(), throttle.allow()), (None, None));
        tokio::time::advance(QUIET).await;
        assert_eq!(throttle.allow(), Some(2));
    }
}
