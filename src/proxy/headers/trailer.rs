//! Pure: the trailers that pass, by allow-list in both directions; of gRPC calls, all but a few.
//!
//! RFC 9110 section 6.5.1: fields that frame, route, authenticate or otherwise steer a message are
//! not to be merged from trailers. A list of what may pass cannot forget one of them.
//!
//! gRPC sends metadata of the application's own choice as trailers, after the status of the call, so
//! that no list could name them all. There, all passes but what frames, routes or authenticates.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue, TRAILER};

use super::{FieldClass, dashed, is_grpc, members, redact_echoes, remove_where};

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

/// Fields that a configuration cannot allow as trailers, beside all that `FieldClass` knows.
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

/// Fields that authenticate, which are no trailers of a gRPC call, beside all that `FieldClass` knows.
const NEVER_WITH_GRPC: [&str; 4] =
    ["authentication-info", "cookie", "set-cookie", "www-authenticate"];

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
        FieldClass::classify(name.as_str()) == FieldClass::empty()
            && !STEERING.contains(&name.as_str())
    }

    /// Whether there are any beside the usual ones.
    pub(super) fn has_more(&self) -> bool {
        !self.0.is_empty()
    }

    fn passes(&self, name: &HeaderName, grpc: bool) -> bool {
        USUAL.contains(&name.as_str()) || self.0.contains(name) || (grpc && is_metadata(name))
    }

    /// Leaves in `Trailer` the names of those that pass: what is announced is what comes.
    pub(super) fn announce(&self, headers: &mut HeaderMap) {
        let grpc = is_grpc(headers);
        let names: Vec<HeaderName> = members(headers, TRAILER)
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .filter(|name| self.passes(name, grpc))
            .collect();
        headers.remove(TRAILER);
        for name in names {
            headers.append(TRAILER, HeaderValue::from(name));
        }
    }
}

/// Whether a trailer of a gRPC call may be metadata. Names of it may hold `_`, which some servers
/// take for `-`, so that it is read as either.
fn is_metadata(name: &HeaderName) -> bool {
    let harmless = |name: &[u8]| {
        let steers = |field: &&str| field.as_bytes() == name;
        FieldClass::classify(name) == FieldClass::empty()
            && !name.starts_with(b"proxy-")
            && !NEVER_WITH_GRPC.iter().any(steers)
    };
    match FieldClass::classify(name) {
        FieldClass::UNDERSCORE => harmless(&dashed(name)),
        _ => harmless(name.as_ref()),
    }
}

/// Leaves of the trailers those that pass, more where they end a gRPC call; a value that echoes the
/// token is redacted.
pub fn filter_trailers(
    mut trailers: HeaderMap,
    allowed: &AllowedTrailers,
    token: Option<&[u8]>,
    grpc: bool,
) -> HeaderMap {
    remove_where(&mut trailers, |name| !allowed.passes(name, grpc));
    redact_echoes(&mut trailers, token);
    trailers
}
