//! Detects suspends, steps of the wall clock and stalls of the program; counts them and makes all
//! refreshers check their tokens.

use std::time::Duration;

use tokio::time::Instant;

use super::handle::ManagerHandle;
use super::metrics::TokenMetrics;
use crate::clock::{Drift, Jump, Moment, seconds};

/// Time between two looks at the clocks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Delay of a look that means that the program was stopped or starved.
const STALL: Duration = Duration::from_secs(2);
/// Values of the `kind` label.
const KINDS: [&str; 4] = ["suspend", "ahead", "back", "stall"];

/// Watches the clocks without end. Requests compare both clocks themselves; this is for the refreshers,
/// which sleep by the monotonic clock.
pub(super) async fn watch_clocks(tokens: ManagerHandle, metrics: TokenMetrics) {
    for kind in KINDS {
        metrics.clock_jumps.with_label_values(&[kind]);
    }
    let mut drift = Drift::new(Moment::now());
    let mut asleep = suspended();
    loop {
        let due = Instant::now() + INTERVAL;
        tokio::time::sleep_until(due).await;
        let late = due.elapsed();
        let jump = drift.check(Moment::now());
        let before = std::mem::replace(&mut asleep, suspended());
        let kind = match jump {
            Some(Jump::Ahead(by)) if asleep.saturating_sub(before) > by / 2 => "suspend",
            Some(Jump::Ahead(_)) => "ahead",
            Some(Jump::Back(_)) => "back",
            None if late > STALL => "stall",
            None => continue,
        };
        metrics.clock_jumps.with_label_values(&[kind]).inc();
        let jump_s = jump.map(|jump| match jump {
            Jump::Ahead(by) => seconds(by),
            Jump::Back(by) => -seconds(by),
        });
        tracing::warn!(
            kind,
            jump_s,
            late_s = seconds(late),
            "clock jump detected; checking tokens"
        );
        tokens.wake();
    }
}

/// The time for which the machine has been suspended since its start.
#[cfg(target_os = "linux")]
fn suspended() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let [boot, mono] = [ClockId::Boottime, ClockId::Monotonic].map(|id| {
        let time = clock_gettime(id);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::from_secs(seconds)
            + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
    });
    boot.saturating_sub(mono)
}

/// Other systems do not report it: a suspend counts as a step forward there.
#[cfg(not(target_os = "linux"))]
fn suspended() -> Duration {
    Duration::ZERO
}
