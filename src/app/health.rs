//! The health of the program as the admin listeners see it.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::report::Reporter;
use super::service_manager::all_responsive;
use crate::admin::Health;
use crate::admin::bundle::BundleParts;
use crate::admin::report::StatusReport;
use crate::server::worker::Heartbeat;
use crate::token::{ManagerHandle, TokenStatus};

/// The program's health, computed from the state of its parts at each call.
pub struct AppHealth {
    draining: AtomicBool,
    /// Empty until the workers run.
    workers: OnceLock<Vec<Heartbeat>>,
    tokens: ManagerHandle,
    reporter: Reporter,
}

impl AppHealth {
    pub(super) fn new(tokens: ManagerHandle, reporter: Reporter) -> Self {
        Self { draining: AtomicBool::new(false), workers: OnceLock::new(), tokens, reporter }
    }

    /// The workers run from now on.
    pub(super) fn start(&self, workers: Vec<Heartbeat>) {
        // It fails only on a second start, and the program starts once.
        let _ = self.workers.set(workers);
    }

    /// The program is not ready from now on.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

impl Health for AppHealth {
    fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn started(&self) -> bool {
        self.workers.get().is_some()
    }

    fn alive(&self) -> bool {
        self.workers.get().is_none_or(|heartbeats| all_responsive(heartbeats))
    }

    fn tokens(&self) -> Vec<TokenStatus> {
        self.tokens.statuses()
    }

    fn report(&self) -> Pin<Box<dyn Future<Output = StatusReport> + Send + '_>> {
        Box::pin(self.reporter.report())
    }

    fn bundle_parts(&self) -> BundleParts {
        self.reporter.bundle_parts()
    }

    fn ask(&self, credential: Option<&str>) {
        self.tokens.ask(credential);
    }

    fn refresh(&self, credential: &str) -> usize {
        self.tokens.refresh(credential)
    }
}
