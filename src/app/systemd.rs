//! What we tell the service manager, where one listens (`NOTIFY_SOCKET`, sd_notify(3)).

use std::time::Duration;

use sd_notify::NotifyState;

use crate::server::worker::Heartbeat;

/// A worker that was silent for so many beats hangs.
const BEATS: u32 = 4;

/// The start is over.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// A reload has begun; [`ready`] ends it. The time lets systemd 253 and later match the two.
pub(super) fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now());
    notify(&states);
}

/// We are leaving.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells the watchdog, for as long as every worker moves; ends never.
pub(super) async fn watchdog(heartbeats: Vec<Heartbeat>) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut ticks = tokio::time::interval((patience / 2).max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        match all_responsive(&heartbeats) {
            true => notify(&[NotifyState::Watchdog]),
            false => tracing::error!("a worker does not move; the watchdog is not told"),
        }
    }
}

/// Whether every worker has shown lately that it moves.
pub(super) fn all_responsive(heartbeats: &[Heartbeat]) -> bool {
    heartbeats.iter().all(|heartbeat| heartbeat.since_last() < Heartbeat::INTERVAL * BEATS)
}

/// Nothing depends on being heard.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
