//! The tokens of a manager as operators see them: their state, and the requests that may be made of them,
//! never their values.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::gate::Gate;
use super::status::TokenStatus;
use super::token_cell::Reader;
use crate::clock::Moment;

/// The tokens of a manager. Clones share one list.
#[derive(Clone, Default)]
pub struct ManagerHandle(Arc<Mutex<Vec<ManagedToken>>>);

/// One token of the list.
pub(super) struct ManagedToken {
    pub(super) status: Arc<Mutex<TokenStatus>>,
    pub(super) reader: Reader,
    /// The gate of the token's credential.
    pub(super) gate: Arc<Gate>,
}

impl ManagedToken {
    /// The state at this moment. The gate is read each time: an hourly budget recovers with time alone.
    fn status(&self) -> TokenStatus {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        status.budget_left = status.budget.map(|budget| self.gate.left(Instant::now(), budget));
        status.secret_refused = self.gate.refuses();
        status
    }

    fn is_of(&self, credential: Option<&str>) -> bool {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        credential.map_or(!status.lazy, |name| *status.credential == *name)
    }
}

impl ManagerHandle {
    /// The state of each token.
    pub fn statuses(&self) -> Vec<TokenStatus> {
        self.lock().iter().map(ManagedToken::status).collect()
    }

    /// Forces a refresh of all tokens of a credential, and lets a refused secret be tried again. Returns
    /// the number of tokens.
    pub fn refresh(&self, credential: &str) -> usize {
        let all = self.lock();
        let its = all.iter().filter(|shown| shown.is_of(Some(credential)));
        its.map(|shown| shown.reader.force()).count()
    }

    /// Requests the missing tokens of a credential, or of all that are not lazy.
    pub fn ask(&self, credential: Option<&str>) {
        let now = Moment::now();
        let all = self.lock();
        let absent = |shown: &&ManagedToken| shown.is_of(credential) && !shown.status().usable(now);
        all.iter().filter(absent).for_each(|shown| shown.reader.ask());
    }

    /// Wakes all refreshers, to look at the clocks.
    pub(super) fn wake(&self) {
        self.lock().iter().for_each(|shown| shown.reader.wake());
    }

    /// Replaces the list.
    pub(super) fn show(&self, tokens: Vec<ManagedToken>) {
        *self.lock() = tokens;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ManagedToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
