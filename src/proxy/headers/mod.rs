//! Pure: what of a message's head and trailers may travel on, in both directions.
//!
//! | fields | to the upstream | to the app |
//! | --- | --- | --- |
//! | what any line of `Connection` names, but `Host` and `Content-Length` | removed | removed |
//! | `Connection`, `Keep-Alive`, `Proxy-Connection`, `Transfer-Encoding`, `Upgrade`, `HTTP2-Settings` | removed; a WebSocket handshake has its own put back | removed |
//! | `Content-Length` | removed beside `Transfer-Encoding` | removed beside `Transfer-Encoding` |
//! | `Proxy-Authorization`, `Proxy-Authenticate`, `Proxy-Authentication-Info` | removed | removed |
//! | `TE` | `trailers`, where the route lists trailers or the request is gRPC | removed |
//! | `Trailer`, and trailers | those on the allow-list | those on the allow-list |
//! | the same, of gRPC calls | all but what frames, routes or authenticates | all but what frames, routes or authenticates |
//! | `Authorization` | ours in its place (`incoming_authorization`) | as it is |
//! | `Expect` | `100-continue`, where there is a body; all else: 417 | as it is |
//! | `X-Original-URL`, `X-Rewrite-URL`, `X-HTTP-Method-Override`, `X-HTTP-Method`, `X-Method-Override` | removed (`allow_override_headers`) | as they are |
//! | `Forwarded`, `X-Forwarded-*`, `X-Real-IP`, `X-Client-IP`, `True-Client-IP` and their like | removed (`forwarding_headers`) | as they are |
//! | local keys of `[clients]` | removed | as they are |
//! | names of `set_headers` | ours in their place | as they are |
//! | any of the above, and `Host`, `Content-Length`, spelt with `_` | removed | as they are |
//! | `Via` | ours added; this process found: 508 | ours added |
//! | `Alt-Svc`, `Bearer-Proxy-Forwarded` | as they are | removed |
//! | `Cache-Control` | as it is | `private`, where there is none |
//! | `Location`, `Content-Location`, `Link`, `Refresh` that lead into the upstream | as they are | rewritten, see [`rewrite`] |
//! | `Path` and `Domain` of `Set-Cookie` | | rewritten where the upstream's settings say so |
//! | any value that holds the token, percent-encoded or not | | `[redacted]` |
//! | all else, such as `Date`, `Server`, `WWW-Authenticate` | as it is | as it is |
//!
//! Names are looked at once; a head that holds nothing to remove is left as it is. Our own
//! Authorization is attached after this, so that `Connection: authorization` cannot take it off.
//! An upstream's 407 passes like any status, but bare of its challenge: no app shall answer it.

pub mod body_length;
pub mod challenge;
pub mod field;
pub mod forwarding;
pub mod query;
pub mod rewrite;
mod trailer;
mod via;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use http::Version;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST,
    HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use memchr::memchr;
use percent_encoding::percent_decode;

pub use body_length::{BodyLength, BodyLengthError, request_body_length};
pub use field::FieldClass;
pub use trailer::{AllowedTrailers, filter_trailers};
pub use via::{Pseudonym, Via};

/// What no request carries on, whatever its route says.
const NEVER_TO_UPSTREAM: FieldClass = FieldClass::CONNECTION
    .union(FieldClass::HOP)
    .union(FieldClass::CODING)
    .union(FieldClass::UPGRADE)
    .union(FieldClass::EXPECT)
    .union(FieldClass::AUTHORIZATION);

/// What no answer carries on.
const NEVER_TO_APP: FieldClass = FieldClass::CONNECTION
    .union(FieldClass::HOP)
    .union(FieldClass::CODING)
    .union(FieldClass::TE)
    .union(FieldClass::UPGRADE)
    .union(FieldClass::ALT_SVC)
    .union(FieldClass::RESERVED);

/// What has been removed by its one name before all names are looked through: common enough that
/// this is worth sparing.
const REMOVED_FIRST: FieldClass = FieldClass::CONNECTION
    .union(FieldClass::CODING)
    .union(FieldClass::TE)
    .union(FieldClass::AUTHORIZATION);

/// What one route's messages may carry; made once, when a plan is built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderPolicy {
    /// Whether fields pass by which a request names another method or path than it has.
    pub keep_overrides: bool,
    /// Whether the app's forwarding fields pass.
    pub keep_forwarding: bool,
    /// Names that this program writes or reads itself. The app's are removed, however spelt.
    pub reserved: ReservedNames,
    /// Trailers that pass, in both directions.
    pub trailers: AllowedTrailers,
    /// What is written into Via, and not to be found there.
    pub via: Via,
}

/// Names that this program writes or reads itself: fixed headers, local keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReservedNames(Vec<HeaderName>);

impl FromIterator<HeaderName> for ReservedNames {
    /// Keeps names as they are spelt, and with `-` for `_`.
    fn from_iter<I: IntoIterator<Item = HeaderName>>(names: I) -> Self {
        let both = |name: HeaderName| {
            let dashed = HeaderName::try_from(name.as_str().replace('_', "-")).ok();
            dashed.filter(|dashed| *dashed != name).into_iter().chain([name])
        };
        Self(names.into_iter().flat_map(both).collect())
    }
}

/// What was found while cleaning a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sanitized {
    /// Via names us: the request has passed through before.
    pub looped: bool,
    /// The app's own Authorization, unless it belonged to this hop alone.
    pub authorization: Option<HeaderValue>,
}

/// Leaves only what may travel to the upstream, and adds Via. `found` is what the head holds.
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
    if found.intersects(to_strip.difference(REMOVED_FIRST) | FieldClass::UNDERSCORE) {
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

/// Whether a request asks to go on by the WebSocket protocol (RFC 6455 section 4.2.1): one line of
/// Upgrade that offers nothing else, and a line of Connection that names `upgrade`. Any other Upgrade
/// is an offer that may stay unanswered (RFC 9110 section 7.8), as Java's clients make it of `h2c`
/// with every connection, and is removed like all that belongs to one connection.
pub fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let single = headers.get_all(UPGRADE).iter().count() == 1;
    let mut offers = members(headers, UPGRADE);
    single
        && offers.next().is_some_and(|offer| offer.eq_ignore_ascii_case(b"websocket"))
        && offers.next().is_none()
        && members(headers, CONNECTION).any(|name| name.eq_ignore_ascii_case(b"upgrade"))
}

/// Whether a message is of a gRPC call: its Content-Type begins with `application/grpc`, in any case
/// (RFC 9110 section 8.3.1). So do those of gRPC with a named message format, such as
/// `application/grpc+proto`.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let start = headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..GRPC.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

/// HTTP/2 may split Cookie for the sake of compression; HTTP/1.1 has one (RFC 9113 section 8.2.3).
pub fn rejoin_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    if let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) {
        let mut joined = [first, b"; ", second].concat();
        for crumb in crumbs {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(crumb);
        }
        // What was valid in parts is valid as a whole.
        if let Ok(joined) = HeaderValue::from_bytes(&joined) {
            headers.insert(COOKIE, joined);
        }
    }
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

    /// Some servers take `_` for `-`, so that such a spelling would undo what is removed or set.
    fn strips(&self, name: &HeaderName, to_strip: FieldClass) -> bool {
        match FieldClass::classify(name) {
            FieldClass::UNDERSCORE => {
                let dashed = dashed(name);
                let replaced =
                    FieldClass::HOST | FieldClass::LENGTH | FieldClass::TRAILER | FieldClass::VIA;
                FieldClass::classify(&dashed).intersects(to_strip | replaced)
                    || self.reserved.0.iter().any(|ours| ours.as_str().as_bytes() == dashed)
            }
            class => class.intersects(to_strip),
        }
    }

    /// RFC 9110 section 10.1.4: only `trailers` may go on, and only where we let trailers through.
    /// gRPC servers take a TE without it for a proxy that loses the status.
    fn trailers_welcome(&self, headers: &HeaderMap) -> bool {
        let offered = members(headers, TE).any(|member| member.eq_ignore_ascii_case(b"trailers"));
        offered && (self.trailers.has_more() || is_grpc(headers))
    }
}

/// Leaves only what may travel to the app. Where the answer says nothing of caching it becomes
/// private: the app's side carries no Authorization that would tell a cache so (RFC 9111
/// section 3.5). A value that echoes the token is redacted; other lines of its field stay.
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
    redact_echoes(headers, token);
    // Connection may have named it.
    let named = found.intersects(FieldClass::CONNECTION) && !headers.contains_key(CACHE_CONTROL);
    if !found.intersects(FieldClass::CACHE_CONTROL) || named {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    headers.append(VIA, policy.via.of_answer(version));
}

/// Removes what every hop of a message makes anew: Connection with the fields it names, TE, and
/// Transfer-Encoding with the Content-Length that it overrides (RFC 9112 section 6.3).
fn remove_hop(headers: &mut HeaderMap, found: FieldClass) {
    if found.intersects(FieldClass::CONNECTION) {
        remove_nominated(headers);
        headers.remove(CONNECTION);
    }
    if found.intersects(FieldClass::CODING) {
        headers.remove(TRANSFER_ENCODING);
        // Left in, it would claim a length that the decoded body need not have.
        headers.remove(CONTENT_LENGTH);
    }
    if found.intersects(FieldClass::TE) {
        headers.remove(TE);
    }
}

/// RFC 9110 section 7.6.1: fields named in any line of Connection belong to this hop. Fields that a
/// message cannot do without are not taken off by being named.
fn remove_nominated(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(CONNECTION).iter();
    if let (Some(line), None) = (lines.next(), lines.next())
        && line.as_bytes().eq_ignore_ascii_case(b"keep-alive")
    {
        return; // what most servers say, and that field is removed by its name
    }
    let named: Vec<HeaderName> = members(headers, CONNECTION)
        // Asked first, and without copying the name: `close` and `keep-alive` are rarely fields too.
        .filter(|name| std::str::from_utf8(name).is_ok_and(|name| headers.contains_key(name)))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !matches!(*name, HOST | CONTENT_LENGTH))
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// Removes the fields whose names are to_strip; where none is, nothing is allocated.
fn remove_where(headers: &mut HeaderMap, to_strip: impl Fn(&HeaderName) -> bool) {
    let gone: Vec<HeaderName> = headers.keys().filter(|name| to_strip(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

/// A name with `-` for `_`.
fn dashed(name: impl AsRef<[u8]>) -> Vec<u8> {
    name.as_ref().iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect()
}

/// The members of a comma-separated list, over all lines of a field (RFC 9110 section 5.6.1).
fn members(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// Content-Length is left alone: it is a number that frames the answer, whatever a short token is.
fn redact_echoes(headers: &mut HeaderMap, token: Option<&[u8]>) {
    let Some(token) = token.filter(|token| !token.is_empty()) else { return };
    for (name, value) in headers.iter_mut() {
        if holds(value.as_bytes(), token) && *name != CONTENT_LENGTH {
            *value = HeaderValue::from_static("[redacted]");
        }
    }
}

/// Whether bytes hold the token, as it is or percent-encoded, as in a URL. No bytes hold an empty one.
pub fn holds(bytes: &[u8], token: &[u8]) -> bool {
    // Encoding makes a text no shorter, so that most values are too short to hold most tokens.
    let Some(first) = token.first().filter(|_| bytes.len() >= token.len()) else { return false };
    // The first byte is compared before all: it is cheap, and rarely the same.
    let plain = |bytes: &[u8]| {
        bytes.windows(token.len()).any(|part| part.first() == Some(first) && part == token)
    };
    let decoded = || percent_decode(bytes).collect::<Vec<_>>();
    plain(bytes) || (memchr(b'%', bytes).is_some() && plain(&decoded()))
}
