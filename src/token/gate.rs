//! A gate before all calls of one credential: servers lock clients out after a few wrong logins, so
//! that `invalid_client` is counted over all tokens of the credential.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// First pause after a refused login; it doubles.
const FIRST: Duration = Duration::from_secs(30);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(900);
/// Tries with one secret.
const TRIES: u32 = 5;

/// The gate; held for moments only, never across a call.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Refusals>);

#[derive(Debug, Default)]
struct Refusals {
    count: u32,
    until: Option<Instant>,
    secret: Option<u64>,
}

impl Gate {
    /// When a call may be made.
    pub(super) fn opens(&self) -> Option<Instant> {
        self.lock().until
    }

    /// A secret that has been refused too often to be tried again.
    pub(super) fn spent_secret(&self) -> Option<u64> {
        let refusals = self.lock();
        refusals.secret.filter(|_| refusals.count >= TRIES)
    }

    /// The login was refused, with the secret of this hash.
    pub(super) fn refused(&self, now: Instant, secret: u64) -> Instant {
        let mut refusals = self.lock();
        if refusals.secret != Some(secret) {
            *refusals = Refusals { secret: Some(secret), ..Refusals::default() };
        }
        let pause = FIRST.saturating_mul(1 << refusals.count.min(5)).min(LONGEST);
        refusals.count = refusals.count.saturating_add(1);
        let until = now + pause;
        refusals.until = Some(until);
        until
    }

    /// The secret is still the refused one: it is looked at again later.
    pub(super) fn still_spent(&self, now: Instant) -> Instant {
        let until = now + FIRST;
        self.lock().until = Some(until);
        until
    }

    /// The login was accepted.
    pub(super) fn accepted(&self) {
        *self.lock() = Refusals::default();
    }

    fn lock(&self) -> MutexGuard<'_, Refusals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
