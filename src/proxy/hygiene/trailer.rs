//! Pure: the trailers that pass, by allow-list in both directions.
//!
//! RFC 9110 section 6.5.1: fields that frame, route, authenticate or otherwise steer a message are
//! not to be merged from trailers. A list of what may pass cannot forget one of them.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue, TRAILER};

use super::{Kinds, members, redact_echoes};
use crate::message::Fields;

/// Trailers that pass without being asked for: gRPC's status, digests, timings.
const USUAL: [&str; 8] = [
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "content-digest",
    "repr-digest",
    "digest",
    "etag",
    "server-timing",
];

/// Fields that a configuration cannot allow as trailers, beside all that `Kinds` knows.
const STEERING: [&str; 30] = [
    "accept",
    "age",
    "authentication-info",
    "content-encoding",
    "content-language",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "idempotency-key",
    "location",
    "max-forwards",
    "pragma",
    "prefer",
    "proxy-status",
    "range",
    "retry-after",
    "set-cookie",
    "vary",
    "warning",
    "www-authenticate",
    "x-request-id",
    "traceparent",
];

/// Names of the trailers that pass, in both directions: the usual ones, and those of a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowedTrailers(Arc<[HeaderName]>);

impl AllowedTrailers {
    /// The usual ones and these.
    pub fn new(more: impl IntoIterator<Item = HeaderName>) -> Self {
        Self(more.into_iter().collect())
    }

    /// Whether a configuration may allow a name.
    pub fn may_allow(name: &HeaderName) -> bool {
        Kinds::of(name.as_str()) == Kinds::OTHER && !STEERING.contains(&name.as_str())
    }

    /// Whether there are any beside the usual ones.
    pub(super) fn has_more(&self) -> bool {
        !self.0.is_empty()
    }

    fn passes(&self, name: &[u8]) -> bool {
        let is = |known: &str| known.as_bytes() == name;
        USUAL.iter().any(|known| is(known)) || self.0.iter().any(|known| is(known.as_str()))
    }

    /// Leaves in `Trailer` the names of those that pass: what is announced is what comes.
    pub(super) fn announce(&self, headers: &mut Fields) {
        let names: Vec<HeaderName> = members(headers, &TRAILER)
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .filter(|name| self.passes(name.as_ref()))
            .collect();
        headers.remove(TRAILER);
        for name in names {
            headers.append(TRAILER, HeaderValue::from(name));
        }
    }
}

/// Leaves of the trailers those that pass; a value that echoes the token is redacted.
pub fn trailers(trailers: HeaderMap, allowed: &AllowedTrailers, token: Option<&[u8]>) -> HeaderMap {
    let mut trailers = Fields::from(trailers);
    trailers.retain(|name| allowed.passes(name));
    redact_echoes(&mut trailers, token);
    trailers.into()
}
