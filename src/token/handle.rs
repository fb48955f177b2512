//! `ManagerHandle`: the tokens as operators see and refresh them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;

use super::gate::Gate;
use super::issuer::Issuer;
use super::status::TokenStatus;
use super::token_cell::Reader;
use crate::clock::Moment;

/// The states of all tokens and the requests that operators may make; never a token's value.
#[derive(Clone, Default)]
pub struct ManagerHandle(Arc<Mutex<Vec<ManagedToken>>>);

/// One token of a [`ManagerHandle`].
pub(super) struct ManagedToken {
    pub(super) status: Arc<Mutex<TokenStatus>>,
    pub(super) reader: Reader,
    /// The gate of the token's credential.
    pub(super) gate: Arc<Gate>,
    /// The issuer that names the token endpoint.
    pub(super) issuer: Option<Issuer>,
}

impl ManagedToken {
    /// The state at this moment. The gate is read each time: an hourly budget recovers with time alone.
    fn status(&self) -> TokenStatus {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = Instant::now();
        status.budget_left = status.budget.map(|budget| self.gate.calls_left(now, budget));
        status.budget_spent_until = self
            .gate
            .spent_until(now, status.budget)
            .map(|until| SystemTime::now() + until.saturating_duration_since(now));
        status.tokens_of_credential = self.gate.tokens();
        status.secret_refused = self.gate.refuses();
        status.secret_closed_until = self
            .gate
            .closed_until(now)
            .map(|until| SystemTime::now() + until.saturating_duration_since(now));
        status.secret_changed = self.gate.rotated_at();
        if let Some(found) = self.issuer.as_ref().and_then(Issuer::found) {
            status.token_url = found.token.to_string();
        }
        status
    }
}

impl ManagerHandle {
    /// The state of each token.
    pub fn statuses(&self) -> Vec<TokenStatus> {
        self.lock().iter().map(ManagedToken::status).collect()
    }

    /// Fetches new tokens for a credential, whatever the age of the held ones, and tries a refused
    /// client secret again. Returns the number of its tokens.
    pub fn refresh(&self, credential: &str) -> usize {
        let entries = self.lock();
        let matching = entries.iter().filter(|entry| *entry.status().credential == *credential);
        matching.map(|entry| entry.reader.force_refresh()).count()
    }

    /// Fetches new tokens for a credential whose client certificate has changed. A lazy token that is not
    /// in use is left alone.
    pub fn renew(&self, credential: &str) {
        for entry in self.lock().iter() {
            let status = entry.status();
            if *status.credential == *credential && status.wanted() {
                entry.reader.force_refresh();
            }
        }
    }

    /// Requests a token for each unusable one of a credential, or of all credentials that are not
    /// lazy.
    pub fn ask(&self, credential: Option<&str>) {
        let now = Moment::now();
        for entry in self.lock().iter() {
            let status = entry.status();
            let matches = credential.map_or(!status.lazy, |name| *status.credential == *name);
            if matches && !status.usable(now) {
                entry.reader.request_refresh();
            }
        }
    }

    /// Makes all refreshers look at the clocks.
    pub(super) fn wake(&self) {
        self.lock().iter().for_each(|entry| entry.reader.wake());
    }

    /// Replaces the list of tokens.
    pub(super) fn set(&self, entries: Vec<ManagedToken>) {
        *self.lock() = entries;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ManagedToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
