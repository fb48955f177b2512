//! Notifications to the service manager, if there is one: systemd (`NOTIFY_SOCKET`, sd_notify(3)), or the
//! service control manager of Windows.

#[cfg(unix)]
use std::time::Duration;

#[cfg(unix)]
use sd_notify::NotifyState;

use crate::server::worker::Heartbeat;

/// Heartbeats that a responsive worker misses at most.
const MISSED_HEARTBEATS: u32 = 4;

/// The program serves; also ends a reload.
#[cfg(unix)]
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// A reload has begun; [`ready`] ends it. systemd 253 and later match the two by the time.
#[cfg(unix)]
pub(super) fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now());
    notify(&states);
}

/// The program is shutting down, within this time; for systemd the unit has a limit.
#[cfg(unix)]
pub(super) fn stopping(_: Duration) {
    notify(&[NotifyState::Stopping]);
}

/// Pings the systemd watchdog while all workers are responsive. Never returns.
#[cfg(unix)]
pub(super) async fn watchdog(heartbeats: Vec<Heartbeat>) {
    let Some(timeout) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut ticks = tokio::time::interval((timeout / 2).max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        match all_responsive(&heartbeats) {
            true => notify(&[NotifyState::Watchdog]),
            false => tracing::error!("worker unresponsive; watchdog not pinged"),
        }
    }
}

/// True if all workers have sent a recent heartbeat.
pub(super) fn all_responsive(heartbeats: &[Heartbeat]) -> bool {
    heartbeats
        .iter()
        .all(|heartbeat| heartbeat.since_last() < Heartbeat::INTERVAL * MISSED_HEARTBEATS)
}

/// Sends a notification. The program works without a service manager, so a failure is only logged.
#[cfg(unix)]
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be notified");
    }
}

#[cfg(windows)]
pub(super) use super::service_control::stopping;

/// The program serves. A reload changes no state: one that a stop interrupts must not end it.
#[cfg(windows)]
pub(super) fn ready() {
    static STARTED: std::sync::Once = std::sync::Once::new();
    STARTED.call_once(super::service_control::running);
}

/// A reload has begun.
#[cfg(windows)]
pub(super) fn reloading() {}

/// Windows has no watchdog for services. Never returns.
#[cfg(windows)]
pub(super) async fn watchdog(_: Vec<Heartbeat>) {
    std::future::pending().await
}
