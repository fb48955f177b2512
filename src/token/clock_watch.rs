//! Notices suspends, steps of the wall clock and times in which the program stood still; counts them
//! and has all refreshers look at their tokens again.

use std::time::Duration;

use tokio::time::Instant;

use super::handle::ManagerHandle;
use super::metrics::TokenMetrics;
use crate::clock::{Drift, Jump, Moment, seconds};

/// How often the clocks are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// A look that comes so much later means that the program stood still: stopped, or starved.
const LATE: Duration = Duration::from_secs(2);
/// Values of the `kind` label.
const KINDS: [&str; 4] = ["suspend", "ahead", "back", "stall"];

/// Watches for ever. Requests look at both clocks themselves: this is for the refreshers.
pub(super) async fn watch(tokens: ManagerHandle, metrics: TokenMetrics) {
    for kind in KINDS {
        metrics.clock_jumps.with_label_values(&[kind]);
    }
    let mut drift = Drift::new(Moment::now());
    let mut slept = asleep();
    loop {
        let due = Instant::now() + EVERY;
        tokio::time::sleep_until(due).await;
        let late = due.elapsed();
        let jump = drift.check(Moment::now());
        let before = std::mem::replace(&mut slept, asleep());
        let kind = match jump {
            Some(Jump::Ahead(by)) if slept.saturating_sub(before) > by / 2 => "suspend",
            Some(Jump::Ahead(_)) => "ahead",
            Some(Jump::Back(_)) => "back",
            None if late > LATE => "stall",
            None => continue,
        };
        metrics.clock_jumps.with_label_values(&[kind]).inc();
        tracing::warn!(
            kind,
            ?jump,
            late_s = seconds(late),
            "the clocks have jumped: tokens are looked at again"
        );
        tokens.wake();
    }
}

/// How long the machine has been suspended since it started.
#[cfg(target_os = "linux")]
fn asleep() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let [boot, mono] = [ClockId::Boottime, ClockId::Monotonic].map(|id| {
        let time = clock_gettime(id);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::from_secs(seconds)
            + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
    });
    boot.saturating_sub(mono)
}

/// Other systems do not tell: a suspend counts as a step ahead there.
#[cfg(not(target_os = "linux"))]
fn asleep() -> Duration {
    Duration::ZERO
}
