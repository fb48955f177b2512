//! Equal lines of the log at most once in ten seconds, with the number that was held back.

use std::time::Duration;

use tokio::time::Instant;

/// The time in which a line is not said again.
const QUIET: Duration = Duration::from_secs(10);

/// One for each line that may come often.
#[derive(Debug, Default)]
pub struct Throttle {
    last: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    /// Whether the line is due: `Some` with the number of lines held back since the last.
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
