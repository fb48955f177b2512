//! Pure removal and addition of header fields, in both directions, by the table at the head of the
//! folder.

use http::Version;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName,
    HeaderValue, TE, TRANSFER_ENCODING, VIA,
};

use super::field::FieldClass;
use super::list::{folded, members, remove_where};
use super::message::is_grpc;
use super::redact::redact_token;
use super::trailer::AllowedTrailers;
use super::via::Via;

/// Classes that no request carries to the upstream, whatever its route says.
const NEVER_TO_UPSTREAM: FieldClass = FieldClass::CONNECTION
    .union(FieldClass::HOP)
    .union(FieldClass::CODING)
    .union(FieldClass::UPGRADE)
    .union(FieldClass::EXPECT)
    .union(FieldClass::AUTHORIZATION)
    .union(FieldClass::PROOF);

/// Classes that no response carries to the app.
const NEVER_TO_APP: FieldClass = FieldClass::CONNECTION
    .union(FieldClass::HOP)
    .union(FieldClass::CODING)
    .union(FieldClass::TE)
    .union(FieldClass::UPGRADE)
    .union(FieldClass::ALT_SVC)
    .union(FieldClass::RESERVED);

/// Classes of one name each that are removed by that name. They are common, and removing them so spares
/// the pass over all names.
const REMOVED_FIRST: FieldClass = FieldClass::CONNECTION
    .union(FieldClass::CODING)
    .union(FieldClass::TE)
    .union(FieldClass::AUTHORIZATION);

/// The header rules of one route; made once, when a plan is built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderPolicy {
    /// Forwards the fields by which a request names another method or path than it has.
    pub keep_overrides: bool,
    /// Forwards the app's `Forwarded`, `X-Forwarded-*` and their like.
    pub keep_forwarding: bool,
    /// Names that the proxy writes or reads itself. The app's fields of these names are removed, also if
    /// a server that passes fields on as variables takes them for these.
    pub reserved: ReservedNames,
    /// Trailers that are forwarded, in both directions.
    pub trailers: AllowedTrailers,
    /// The proxy's member of Via.
    pub via: Via,
}

/// Names of fields that the proxy writes or reads itself: those of fixed headers and local keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReservedNames(Vec<HeaderName>);

impl FromIterator<HeaderName> for ReservedNames {
    /// Keeps each name as it is spelled and as it is folded.
    fn from_iter<I: IntoIterator<Item = HeaderName>>(names: I) -> Self {
        let both = |name: HeaderName| {
            let folded = HeaderName::from_bytes(&folded(&name)).ok();
            folded.filter(|folded| *folded != name).into_iter().chain([name])
        };
        Self(names.into_iter().flat_map(both).collect())
    }
}

/// Findings from sanitizing a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sanitized {
    /// Via names this process: the request has passed through it before.
    pub looped: bool,
    /// The app's own Authorization, unless it belonged to this hop alone.
    pub authorization: Option<HeaderValue>,
}

/// Removes the fields that must not reach the upstream, and adds Via. `found` are the classes of the
/// head.
pub fn sanitize_request(
    headers: &mut HeaderMap,
    found: FieldClass,
    version: Version,
    policy: &HeaderPolicy,
) -> Sanitized {
    let looped = found.intersects(FieldClass::VIA) && policy.via.is_in(headers);
    let trailers_welcome = found.intersects(FieldClass::TE) && policy.trailers_welcome(headers);
    remove_hop(headers, found);
    let authorization = if found.intersects(FieldClass::AUTHORIZATION) {
        headers.remove(AUTHORIZATION)
    } else {
        None
    };
    for name in &policy.reserved.0 {
        headers.remove(name);
    }
    let to_strip = policy.to_strip();
    if found.intersects(to_strip.difference(REMOVED_FIRST) | FieldClass::FOLDED) {
        remove_where(headers, |name| policy.strips(name, to_strip));
    }
    if found.intersects(FieldClass::TRAILER) {
        policy.trailers.announce(headers);
    }
    if trailers_welcome {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    headers.append(VIA, policy.via.of_request(version));
    Sanitized { looped, authorization }
}

impl HeaderPolicy {
    fn to_strip(&self) -> FieldClass {
        let mut to_strip = NEVER_TO_UPSTREAM | FieldClass::TE;
        if !self.keep_overrides {
            to_strip |= FieldClass::OVERRIDE;
        }
        if !self.keep_forwarding {
            to_strip |= FieldClass::FORWARDING;
        }
        to_strip
    }

    /// True if a field is removed. A name that servers take for another would undo what is removed or
    /// set.
    fn strips(&self, name: &HeaderName, to_strip: FieldClass) -> bool {
        match FieldClass::classify(name) {
            FieldClass::FOLDED => {
                let folded = folded(name);
                let replaced =
                    FieldClass::HOST | FieldClass::LENGTH | FieldClass::TRAILER | FieldClass::VIA;
                FieldClass::classify(&folded).intersects(to_strip | replaced)
                    || self.reserved.0.iter().any(|ours| ours.as_str().as_bytes() == folded)
            }
            class => class.intersects(to_strip),
        }
    }

    /// True if TE asks for trailers that are forwarded: only then may `TE: trailers` be sent on (RFC
    /// 9110 section 10.1.4). gRPC servers take its absence for a proxy that loses the status.
    fn trailers_welcome(&self, headers: &HeaderMap) -> bool {
        let offered = members(headers, TE).any(|member| member.eq_ignore_ascii_case(b"trailers"));
        offered && (self.trailers.has_more() || is_grpc(headers))
    }
}

/// Removes the fields that must not reach the app, redacts values that contain the token, and adds
/// Via. A response without Cache-Control becomes private: the app's request has no Authorization
/// that would tell a cache so (RFC 9111 section 3.5).
pub fn sanitize_response(
    headers: &mut HeaderMap,
    version: Version,
    policy: &HeaderPolicy,
    token: Option<&[u8]>,
) {
    let found = FieldClass::classify_all(headers);
    remove_hop(headers, found);
    if found.intersects(NEVER_TO_APP.difference(REMOVED_FIRST)) {
        remove_where(headers, |name| FieldClass::classify(name).intersects(NEVER_TO_APP));
    }
    if found.intersects(FieldClass::TRAILER) {
        policy.trailers.announce(headers);
    }
    redact_token(headers, token);
    // Connection may have named Cache-Control, which was then removed.
    let named = found.intersects(FieldClass::CONNECTION) && !headers.contains_key(CACHE_CONTROL);
    if !found.intersects(FieldClass::CACHE_CONTROL) || named {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    headers.append(VIA, policy.via.of_response(version));
}

/// Removes the fields that each hop of a message sets for itself: Connection with the fields it
/// names, TE, and Transfer-Encoding with the Content-Length that it overrides (RFC 9112 section
/// 6.3).
fn remove_hop(headers: &mut HeaderMap, found: FieldClass) {
    if found.intersects(FieldClass::CONNECTION) {
        remove_nominated(headers);
        headers.remove(CONNECTION);
    }
    if found.intersects(FieldClass::CODING) {
        headers.remove(TRANSFER_ENCODING);
        // It would claim a length that the decoded body need not have.
        headers.remove(CONTENT_LENGTH);
    }
    if found.intersects(FieldClass::TE) {
        headers.remove(TE);
    }
}

/// Removes the fields that any line of Connection names: they belong to this hop (RFC 9110 section
/// 7.6.1). Host and Content-Length stay, since a message needs them.
fn remove_nominated(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(CONNECTION).iter();
    if let (Some(line), None) = (lines.next(), lines.next())
        && line.as_bytes().eq_ignore_ascii_case(b"keep-alive")
    {
        return; // Most servers send this, and Keep-Alive is removed by its class.
    }
    let named: Vec<HeaderName> = members(headers, CONNECTION)
        // Checked first, without copying the name: `close` and `keep-alive` are rarely fields too.
        .filter(|name| std::str::from_utf8(name).is_ok_and(|name| headers.contains_key(name)))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !matches!(*name, HOST | CONTENT_LENGTH))
        .collect();
    for name in named {
        headers.remove(name);
    }
}
