//! What the admin listener may know of the rest: draining, started, the tokens' state.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::systemd::all_responsive;
use crate::admin::{Health, TokenHealth};
use crate::clock::Moment;
use crate::server::worker::Heartbeat;
use crate::token::{ManagerHandle, TokenStatus};

/// The program's health, computed from what the parts know; nothing is stored beside them.
pub struct AppHealth {
    draining: AtomicBool,
    started: AtomicBool,
    workers: OnceLock<Vec<Heartbeat>>,
    tokens: ManagerHandle,
}

impl AppHealth {
    pub(super) fn new(tokens: ManagerHandle) -> Self {
        Self {
            draining: AtomicBool::new(false),
            started: AtomicBool::new(false),
            workers: OnceLock::new(),
            tokens,
        }
    }

    /// The workers run.
    pub(super) fn start(&self, workers: Vec<Heartbeat>) {
        // There is one start.
        let _ = self.workers.set(workers);
        self.started.store(true, Ordering::Relaxed);
    }

    /// From now on not ready.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

impl Health for AppHealth {
    fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    fn alive(&self) -> bool {
        self.workers.get().is_none_or(|heartbeats| all_responsive(heartbeats))
    }

    fn tokens(&self) -> Vec<TokenHealth> {
        let now = Moment::now();
        self.tokens.statuses().into_iter().map(|status| shown(status, now)).collect()
    }

    fn ask(&self, credential: Option<&str>) {
        self.tokens.ask(credential);
    }

    fn refresh(&self, credential: &str) -> usize {
        self.tokens.refresh(credential)
    }
}

fn shown(status: TokenStatus, now: Moment) -> TokenHealth {
    TokenHealth {
        usable: status.usable(now),
        state: status.state(now),
        credential: status.credential.to_string(),
        token: status.token,
        scopes: status.scopes,
        lazy: status.lazy,
        attempted: status.attempted,
        expires: status.expires,
        refresh_due: status.refresh_due,
        failing_since: status.failing_since,
        failures: status.failures,
        last_error: status.last_error,
        token_url: status.token_url,
        missing_scopes: status.missing_scopes,
        contended: status.contended,
        clock_offset: status.clock_offset,
        budget_left: status.budget_left,
    }
}
