//! `TokenGuard`: a token that a request carries, and the request's place among those in flight with it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::bearer::Bearer;
use super::handover::InFlightGuard;

/// A token with which a request is in flight, from before it is attached until the head of the answer,
/// or until the request ends without one.
pub struct TokenGuard {
    bearer: Arc<Bearer>,
    _in_flight: InFlightGuard,
}

impl TokenGuard {
    /// Begins a request with a token; `None` while a renewal hands over.
    pub(super) fn begin(bearer: Arc<Bearer>) -> Option<Self> {
        let _in_flight = match &bearer.in_flight {
            None => InFlightGuard::default(),
            Some(in_flight) => in_flight.begin()?,
        };
        Some(Self { bearer, _in_flight })
    }

    /// The token.
    pub fn bearer(&self) -> &Arc<Bearer> {
        &self.bearer
    }

    /// True once a renewal hands over from this token: it is revoked, or will be.
    pub fn is_handing_over(&self) -> bool {
        self.bearer.in_flight.as_ref().is_some_and(|in_flight| in_flight.is_closed())
    }

    /// Ends the request at the head of its answer; returns the token.
    pub fn finish(self) -> Arc<Bearer> {
        self.bearer
    }
}

impl fmt::Debug for TokenGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bearer.fmt(f)
    }
}

impl Deref for TokenGuard {
    type Target = Bearer;

    fn deref(&self) -> &Bearer {
        &self.bearer
    }
}
