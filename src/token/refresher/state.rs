//! `Refresher`: what the loop of one token knows.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::sharing::Sharing;
use crate::clock::{Drift, Moment};
use crate::oauth::ScopeSet;
use crate::sensitive::Sensitive;
use crate::token::bearer::Bearer;
use crate::token::credential::Credential;
use crate::token::fetch::Fetch;
use crate::token::gate::Gate;
use crate::token::metrics::CallMetrics;
use crate::token::refresh_log::RefreshLog;
use crate::token::rejection_history::RejectionHistory;
use crate::token::schedule::Schedule;
use crate::token::spec::TokenSpec;
use crate::token::status::TokenStatus;
use crate::token::token_cell::{UnavailableReason, Writer};

/// Keeps one token fresh.
pub struct Refresher<F> {
    pub(super) credential: Arc<Credential>,
    pub(super) scopes: ScopeSet,
    pub(super) fetch: F,
    pub(super) writer: Writer,
    /// Bounds the calls in flight to one endpoint.
    pub(super) endpoint: Arc<Semaphore>,
    pub(super) gate: Arc<Gate>,
    pub(super) metrics: CallMetrics,
    pub(super) status: Arc<Mutex<TokenStatus>>,
    pub(super) schedule: Schedule,
    pub(super) drift: Drift,
    pub(super) rejections: RejectionHistory,
    pub(super) reason: UnavailableReason,
    pub(super) refresh_token: Option<Sensitive>,
    /// The generation of the token that was published last.
    pub(super) generation: u64,
    /// The life of the token that was published last.
    pub(super) life: Duration,
    /// The token of the refresher that this one replaces, which its first token request revokes.
    pub(super) predecessor: Option<Arc<Bearer>>,
    /// The generation of a held token whose renewal had no known outcome; 0: none.
    pub(super) in_doubt: u64,
    /// The time at which a use of the token was last seen.
    pub(super) last_used: Instant,
    pub(super) log: RefreshLog,
    /// The other replicas that hold the same token.
    pub(super) sharing: Sharing,
}

/// The remains of a refresher that has ended: tokens that may still be revoked.
pub struct Retired<F> {
    pub(in crate::token) fetch: F,
    pub(in crate::token) bearer: Option<Arc<Bearer>>,
    pub(in crate::token) refresh_token: Option<Sensitive>,
}

impl<F: Fetch> Refresher<F> {
    pub(in crate::token) fn new(
        spec: &TokenSpec,
        fetch: F,
        writer: Writer,
        endpoint: Arc<Semaphore>,
        gate: Arc<Gate>,
        metrics: CallMetrics,
        status: Arc<Mutex<TokenStatus>>,
    ) -> Self {
        let now = Moment::now();
        Self {
            credential: Arc::clone(&spec.credential),
            scopes: spec.scopes.clone(),
            fetch,
            writer,
            endpoint,
            gate,
            metrics,
            status,
            schedule: Schedule::new(spec.credential.policy, now.mono),
            drift: Drift::new(now),
            rejections: RejectionHistory::default(),
            reason: UnavailableReason::Pending,
            refresh_token: None,
            generation: 0,
            life: Duration::ZERO,
            predecessor: None,
            in_doubt: 0,
            last_used: now.mono,
            log: RefreshLog::new(&spec.credential, &spec.scopes),
            sharing: Sharing::default(),
        }
    }

    /// The same refresher, in place of one whose token its first token request revokes.
    pub(in crate::token) fn replacing(self, predecessor: Option<Arc<Bearer>>) -> Self {
        Self { predecessor, ..self }
    }

    pub(super) fn update_status(&self, update: impl FnOnce(&mut TokenStatus)) {
        update(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
