//! Pure filter for trailers: an allow-list in both directions, and for gRPC calls a list of exceptions.
//!
//! Fields that frame, route or authenticate a message must not be merged from trailers (RFC 9110 section
//! 6.5.1). An allow-list cannot forget one of them.
//!
//! gRPC sends metadata with names of the application's choice as trailers, after the status of the call,
//! so that no list could name them all. There, all pass except those that frame, route or authenticate.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue, TRAILER};

use super::field::FieldClass;
use super::list::{folded, members, remove_where};
use super::message::is_grpc;
use super::redact::redact_token;

/// Trailers that pass on every route: gRPC's status, digests, timings.
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

/// Fields that a configuration cannot allow as trailers, beside those with a [`FieldClass`].
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

/// Fields that are removed from the trailers of a gRPC call, beside those with a [`FieldClass`].
const NEVER_WITH_GRPC: [&str; 4] =
    ["authentication-info", "cookie", "set-cookie", "www-authenticate"];

/// The allow-list of a route: the usual trailers, and those of its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowedTrailers {
    more: Arc<[HeaderName]>,
    never: Option<HeaderName>,
}

impl AllowedTrailers {
    /// Allows these trailers beside the usual ones.
    pub fn new(more: impl IntoIterator<Item = HeaderName>) -> Self {
        Self { more: more.into_iter().collect(), never: None }
    }

    /// True if a configuration may allow a trailer of this name.
    pub fn may_allow(name: &HeaderName) -> bool {
        FieldClass::classify(name.as_str()) == FieldClass::empty()
            && !STEERING.contains(&name.as_str())
    }

    /// The list without the header that carries the token, which no trailer may imitate.
    #[must_use]
    pub fn without(self, token_header: Option<&HeaderName>) -> Self {
        Self { never: token_header.cloned(), ..self }
    }

    /// True if the configuration allows a trailer of this name.
    pub fn allows(&self, name: &HeaderName) -> bool {
        self.more.contains(name)
    }

    /// True if the configuration allows more than the usual trailers.
    pub(super) fn has_more(&self) -> bool {
        !self.more.is_empty()
    }

    fn passes(&self, name: &HeaderName, grpc: bool) -> bool {
        let allowed = USUAL.contains(&name.as_str())
            || self.more.contains(name)
            || (grpc && is_metadata(name));
        allowed && self.never.as_ref() != Some(name)
    }

    /// Removes from `Trailer` the names that do not pass, so that it announces what comes.
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

/// True if a trailer of a gRPC call may be metadata. A name that servers may take for another is checked
/// as that other too.
fn is_metadata(name: &HeaderName) -> bool {
    let harmless = |name: &[u8]| {
        let steers = |field: &&str| field.as_bytes() == name;
        FieldClass::classify(name) == FieldClass::empty()
            && !name.starts_with(b"proxy-")
            && !NEVER_WITH_GRPC.iter().any(steers)
    };
    match FieldClass::classify(name) {
        FieldClass::FOLDED => harmless(&folded(name)),
        _ => harmless(name.as_ref()),
    }
}

/// Removes the trailers that do not pass, and redacts values that contain the token. `grpc` is set
/// for the trailers of a gRPC call.
pub fn filter_trailers(
    mut trailers: HeaderMap,
    allowed: &AllowedTrailers,
    token: Option<&[u8]>,
    grpc: bool,
) -> HeaderMap {
    remove_where(&mut trailers, |name| !allowed.passes(name, grpc));
    redact_token(&mut trailers, token);
    trailers
}
