//! `Bearer`: a token as requests carry it (RFC 6750): a header value made once, marked sensitive.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::dpop::{BoundKey, Prover};
use super::fingerprint::Fingerprint;
use super::handover::InFlightRequests;
use crate::clock::Moment;
use crate::net::tls::ClientIdentity;
use crate::oauth::{Scope, ScopeSet};
use crate::sensitive::Sensitive;

/// The place of a token in a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenHeader {
    /// The header.
    pub name: HeaderName,
    /// The text before the token, with its blank; empty for a token that stands alone.
    pub scheme: Box<str>,
}

impl Default for TokenHeader {
    /// RFC 6750 section 2.1.
    fn default() -> Self {
        Self { name: AUTHORIZATION, scheme: "Bearer ".into() }
    }
}

/// A token in use.
#[derive(Clone)]
pub struct Bearer {
    name: HeaderName,
    header: HeaderValue,
    /// Length of the scheme in `header`.
    scheme_len: usize,
    generation: u64,
    /// The end of its use, on both clocks.
    pub(super) usable_until: Moment,
    /// The stated expiry, on both clocks.
    pub(super) ends: Moment,
    fingerprint: String,
    /// The scopes of the answer.
    granted: Option<ScopeSet>,
    /// The client certificate to which the token is bound. It stands beside the token, so that a request
    /// that holds the one holds the other.
    identity: Option<Arc<ClientIdentity>>,
    /// The requests in flight with it; `None` where they are not counted.
    pub(super) in_flight: Option<Arc<InFlightRequests>>,
    /// The key to which the token is bound (RFC 9449).
    dpop: Option<Arc<BoundKey>>,
}

/// Largest difference of two expiries of one token: servers state whole seconds.
const SAME_EXPIRY: Duration = Duration::from_secs(1);

/// The relation of a new token to the held one.
pub(super) enum Renewal {
    /// The new token replaces the held one.
    New,
    /// The new token replaces the held one but ends no later: another call would bring no more.
    NoLater,
    /// The new token is the held one.
    Same,
}

impl Bearer {
    /// A token that was requested at `sent` and lives for `life` from then; `None` where it is not a
    /// header value, which a token of a checked answer always is.
    pub fn new(
        token: &Sensitive,
        place: &TokenHeader,
        generation: u64,
        sent: Moment,
        life: Duration,
    ) -> Option<Self> {
        let header = token.header(&place.scheme)?;
        let (name, scheme_len) = (place.name.clone(), place.scheme.len());
        let usable_until = sent.after(life.saturating_sub(margin(life)));
        let fingerprint = Fingerprint::of(token.expose()).to_string();
        let (ends, granted) = (sent.after(life), None);
        Some(Self {
            name,
            header,
            scheme_len,
            generation,
            usable_until,
            ends,
            fingerprint,
            granted,
            identity: None,
            in_flight: None,
            dpop: None,
        })
    }

    /// The token with the scopes of its answer; `None` means the requested scopes (RFC 6749
    /// section 5.1).
    #[must_use]
    pub fn granting(self, granted: Option<ScopeSet>) -> Self {
        Self { granted, ..self }
    }

    /// The token bound to the client certificate of its token request; `None` for a token that any
    /// connection may carry.
    #[must_use]
    pub fn bound_to(self, identity: Option<Arc<ClientIdentity>>) -> Self {
        Self { identity, ..self }
    }

    /// The client certificate that a connection must have been opened with to carry the token (RFC 8705
    /// section 3); `None` for a token that any connection may carry.
    pub fn identity(&self) -> Option<&Arc<ClientIdentity>> {
        self.identity.as_ref()
    }

    /// The token under the number of the held one, which it is.
    pub(super) fn numbered(self, generation: u64) -> Self {
        Self { generation, ..self }
    }

    /// The token with the fingerprint that all replicas log, if there is one.
    #[must_use]
    pub(super) fn fingerprinted(self, shared: Option<String>) -> Self {
        Self { fingerprint: shared.unwrap_or(self.fingerprint), ..self }
    }

    /// The token with a count of the requests in flight with it.
    #[must_use]
    pub(super) fn counting(self, in_flight: Option<InFlightRequests>) -> Self {
        Self { in_flight: in_flight.map(Arc::new), ..self }
    }

    /// The token bound to the key that proved itself in its token request; `None` for a token without.
    #[must_use]
    pub fn bound_to_key(self, prover: Option<Prover>) -> Self {
        let dpop = prover.map(|prover| Arc::new(BoundKey::new(prover, self.token_bytes())));
        Self { dpop, ..self }
    }

    /// The key that must prove itself in each request that carries the token; `None` for a token that
    /// needs no proof.
    pub fn dpop(&self) -> Option<&BoundKey> {
        self.dpop.as_deref()
    }

    /// The scopes that the server said to have granted, if it named them.
    pub fn granted(&self) -> Option<&ScopeSet> {
        self.granted.as_ref()
    }

    /// The scopes of a set that the token does not grant.
    pub fn lacks<'a>(&self, wanted: &'a ScopeSet) -> Vec<&'a Scope> {
        self.granted.as_ref().map_or_else(Vec::new, |granted| wanted.missing_from(granted))
    }

    /// The token after a clock jump: it ends on both clocks when it ends on the earlier one.
    pub(super) fn anchored(&self, now: Moment) -> Self {
        let (usable_until, ends) = (self.usable_until.anchored(now), self.ends.anchored(now));
        Self { usable_until, ends, ..self.clone() }
    }

    /// Sets the header that carries the token. Neither name nor value is copied: both are shared.
    pub fn attach(&self, headers: &mut HeaderMap) {
        headers.insert(self.name.clone(), self.header.clone());
    }

    /// Value of the header that carries the token.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// The token's own bytes, to find where an upstream echoes them.
    pub fn token_bytes(&self) -> &[u8] {
        self.header.as_bytes().get(self.scheme_len..).unwrap_or_default()
    }

    /// The relation to the held token. `rejected` tells whether an upstream rejected a generation.
    pub(super) fn renewal_of(
        &self,
        held: Option<&Self>,
        now: Moment,
        rejected: impl FnOnce(u64) -> bool,
    ) -> Renewal {
        let Some(held) = held.filter(|held| now.is_before(held.ends)) else {
            return Renewal::New;
        };
        let later = self.ends.mono > held.ends.mono + SAME_EXPIRY;
        match held.header == self.header {
            true if held.is_usable(now) || !later => Renewal::Same,
            false if !later && !rejected(held.generation) => Renewal::NoLater,
            _ => Renewal::New,
        }
    }

    /// The token itself, for its revocation.
    pub(super) fn token(&self) -> Sensitive {
        Sensitive::new(String::from_utf8_lossy(self.token_bytes()))
    }

    /// The number of the token among those of its cell: a newer token has a greater one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Tells whether the token may still be sent.
    pub fn is_usable(&self, now: Moment) -> bool {
        now.is_before(self.usable_until)
    }

    /// The time for which the token may still be sent, by the earlier clock.
    pub fn usable_for(&self, now: Moment) -> Duration {
        let by_wall = self.usable_until.wall.duration_since(now.wall).unwrap_or_default();
        self.usable_until.mono.saturating_duration_since(now.mono).min(by_wall)
    }

    /// The salted fingerprint for the log, eight hexadecimal digits.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bearer([redacted], generation {})", self.generation)
    }
}

/// The time at the end of its life in which a token is not used, because it must be valid when it
/// arrives.
fn margin(life: Duration) -> Duration {
    life.div_f64(10.0).min(Duration::from_secs(5))
}
