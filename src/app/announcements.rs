//! Log lines about the program as a whole: that it starts, that it is ready, and that lines are missing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::admin::service::Admin;
use crate::clock::seconds;
use crate::config::Config;
use crate::net::Origin;
use crate::oauth::dialect::Grant;
use crate::telemetry::log::DroppedLines;
use crate::upstream::settings::Settings;

/// Pause between the first two looks at readiness; it grows up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause between two looks at readiness.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two looks at the count of dropped lines.
const DROPPED_PAUSE: Duration = Duration::from_secs(10);

/// Logs what is about to run: version, configuration, and how much it has to serve.
pub(super) fn starting(config: &Config, tokens: usize) {
    let upstreams = &config.proxy.upstreams;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        config = %config.path.display(),
        listeners = config.proxy.listeners.len(),
        upstreams = upstreams.len(),
        routes = upstreams.iter().map(|upstream| upstream.routes.len()).sum::<usize>(),
        credentials = config.credentials.len(),
        tokens,
        log_begin = config.log.requests.begin.as_str(),
        "starting"
    );
}

/// Warns of each server to which tokens or secrets go in the clear.
pub(super) fn cleartext(config: &Config) {
    for credential in &config.credentials {
        let endpoints = credential.endpoint().into_iter().chain(&credential.revocation);
        for endpoint in endpoints {
            let origin = Origin::with_cleartext(endpoint.uri(), endpoint.cleartext());
            if origin.is_ok_and(|origin| origin.is_cleartext()) {
                tracing::warn!(credential = %credential.name, url = %endpoint, "secrets and tokens leave this machine in the clear");
            }
        }
    }
    for upstream in &config.proxy.upstreams {
        let Settings { name, origin, .. } = &upstream.connection;
        if origin.is_cleartext() {
            tracing::warn!(upstream = %name, url = %origin, "secrets and tokens leave this machine in the clear");
        }
    }
}

/// Warns of each credential whose grant is a user's password.
pub(super) fn password_grants(config: &Config) {
    for credential in &config.credentials {
        if credential.dialect.grant == Grant::Password {
            tracing::warn!(
                credential = %credential.name,
                "the password grant is insecure, and RFC 9700 section 2.4 forbids it"
            );
        }
    }
}

/// Logs the first time at which the program is ready, by the rule of `/readyz`.
pub(super) async fn ready(admin: Arc<Admin>) {
    let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
    while !admin.is_ready() {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    tracing::info!(after_s = seconds(began.elapsed()), "ready");
}

/// Logs from time to time how many lines were dropped.
pub(super) async fn dropped_lines(dropped: DroppedLines) {
    let mut reported = 0;
    loop {
        sleep(DROPPED_PAUSE).await;
        reported = report_dropped(&dropped, reported);
    }
}

/// Logs the lines that were dropped since `reported` of them were; returns the number that is reported now.
fn report_dropped(dropped: &DroppedLines, reported: usize) -> usize {
    let total = dropped.get();
    if total == reported {
        return reported;
    }
    let lines = total - reported;
    tracing::warn!(lines, total, "log lines were dropped: the reader of stderr is too slow");
    // If this line was dropped too, all are reported the next time.
    if dropped.get() == total { total } else { reported }
}
