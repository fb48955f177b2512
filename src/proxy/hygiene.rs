//! Pure: what of a message's head may travel on, in both directions.
//!
//! Names are looked at once; a head that holds nothing to remove is left as it is. Our own
//! Authorization is attached after this, so that `Connection: authorization` cannot take it off.

use std::fmt;

use http::Version;
use http::header::{
    ALT_SVC, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST,
    HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};

/// Our name in Via (RFC 9110 section 7.6.3).
const PSEUDONYM: &str = "bearer-proxy";

/// What is done to requests beyond what always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestPolicy {
    /// Whether `Forwarded`, `X-Forwarded-*` and `X-Real-IP` of the app pass. By default they do
    /// not: how the app is reached is nobody's business upstream.
    pub keep_forwarding_fields: bool,
}

/// What was found while cleaning a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleaned {
    /// Via names us: the request has passed through before.
    pub looped: bool,
}

/// How the body of a request is delimited (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks, or the frames of HTTP/2: the end shows when it comes.
    Chunked,
}

/// Why a body's end is uncertain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramingError {
    /// Both Content-Length and Transfer-Encoding.
    Both,
    /// Content-Length repeated, a list, or no plain number.
    Length,
    /// A transfer coding other than one single `chunked`.
    Coding,
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Both => "both Content-Length and Transfer-Encoding are present",
            Self::Length => "Content-Length is not one plain number",
            Self::Coding => "Transfer-Encoding is not one single `chunked`",
        })
    }
}

impl std::error::Error for FramingError {}

/// Reads how a request's body is delimited; whatever is odd is refused, not repaired.
///
/// # Errors
/// Anything that two servers could read differently.
pub fn request_framing(version: Version, headers: &HeaderMap) -> Result<Framing, FramingError> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Framing::None),
        (Some(_), Some(_)) => Err(FramingError::Both),
        (Some(coding), None) => {
            let single =
                codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            match single && version == Version::HTTP_11 {
                true => Ok(Framing::Chunked),
                false => Err(FramingError::Coding),
            }
        }
        (None, Some(length)) => {
            let text = length.to_str().unwrap_or_default();
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            match (lengths.next(), text.parse()) {
                (None, Ok(length)) if plain => Ok(Framing::Length(length)),
                _ => Err(FramingError::Length),
            }
        }
    }
}

/// Leaves only what may travel to the upstream, and adds Via.
pub fn request(headers: &mut HeaderMap, policy: &RequestPolicy) -> Cleaned {
    let looped = via_names_us(headers);
    remove_nominated(headers);
    remove_if(headers, |name| stripped_from_request(name, policy));
    headers.append(VIA, HeaderValue::from_static("1.1 bearer-proxy"));
    Cleaned { looped }
}

/// HTTP/2 may split Cookie for the sake of compression; HTTP/1.1 has one (RFC 9113 section 8.2.3).
pub fn rejoin_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) {
        let mut joined = [first.as_bytes(), b"; ", second.as_bytes()].concat();
        for crumb in crumbs {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(crumb.as_bytes());
        }
        // What was valid in parts is valid as a whole.
        if let Ok(joined) = HeaderValue::from_bytes(&joined) {
            headers.insert(COOKIE, joined);
        }
    }
}

/// What is done to answers beyond what always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponsePolicy {
    /// Whether Alt-Svc passes; following it would lead the app past us.
    pub keep_alt_svc: bool,
}

/// Leaves only what may travel to the app. Where the answer says nothing of caching it becomes
/// private: the app's side carries no Authorization that would tell a cache so (RFC 9111
/// section 3.5). A value that echoes the token is redacted; other lines of its field stay.
pub fn response(headers: &mut HeaderMap, policy: &ResponsePolicy, token: Option<&[u8]>) {
    remove_nominated(headers);
    remove_if(headers, |name| {
        is_hop_by_hop(name)
            || (*name == ALT_SVC && !policy.keep_alt_svc)
            || name.as_str() == "bearer-proxy-forwarded"
    });
    if let Some(token) = token.filter(|token| !token.is_empty()) {
        redact_echoes(headers, token);
    }
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    headers.append(VIA, HeaderValue::from_static("1.1 bearer-proxy"));
}

/// RFC 9110 section 7.6.1: fields named in any line of Connection belong to this hop. Fields that a
/// message cannot do without are not taken off by being named.
fn remove_nominated(headers: &mut HeaderMap) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !matches!(*name, HOST | CONTENT_LENGTH | TRANSFER_ENCODING))
        .collect();
    for name in named {
        headers.remove(name);
    }
}

fn remove_if(headers: &mut HeaderMap, condemned: impl Fn(&HeaderName) -> bool) {
    if !headers.keys().any(&condemned) {
        return;
    }
    let names: Vec<HeaderName> = headers.keys().filter(|name| condemned(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Content-Length is left alone: it is a number that frames the answer, whatever a short token is.
fn redact_echoes(headers: &mut HeaderMap, token: &[u8]) {
    for (name, value) in headers.iter_mut() {
        let echoes = value.as_bytes().windows(token.len()).any(|part| part == token);
        if echoes && *name != CONTENT_LENGTH {
            *value = HeaderValue::from_static("[redacted]");
        }
    }
}

fn stripped_from_request(name: &HeaderName, policy: &RequestPolicy) -> bool {
    if is_hop_by_hop(name) || *name == AUTHORIZATION || *name == EXPECT {
        return true;
    }
    let text = name.as_str();
    // Some servers take `_` for `-`, so that these spellings would undo what is removed or set.
    if text.contains('_') {
        let dashed = text.replace('_', "-");
        return HeaderName::try_from(dashed).is_ok_and(|name| {
            name == HOST
                || name == CONTENT_LENGTH
                || stripped_from_request(&name, &RequestPolicy::default())
        });
    }
    is_override(text) || (is_forwarding(text) && !policy.keep_forwarding_fields)
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(*name, CONNECTION | TE | TRAILER | TRANSFER_ENCODING | UPGRADE)
        || matches!(
            name.as_str(),
            "keep-alive"
                | "proxy-connection"
                | "proxy-authorization"
                | "proxy-authenticate"
                | "proxy-authentication-info"
                | "http2-settings"
        )
}

/// Fields by which some frameworks let a request name another method or path than it has.
fn is_override(name: &str) -> bool {
    matches!(
        name,
        "x-original-url"
            | "x-rewrite-url"
            | "x-http-method-override"
            | "x-http-method"
            | "x-method-override"
    )
}

fn is_forwarding(name: &str) -> bool {
    name == "forwarded" || name == "x-real-ip" || name.starts_with("x-forwarded-")
}

fn via_names_us(headers: &HeaderMap) -> bool {
    headers.get_all(VIA).iter().any(|line| {
        line.as_bytes().split(|byte| *byte == b',').any(|member| {
            let mut words =
                member.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
            words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(PSEUDONYM.as_bytes()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn requests_are_cleaned() {
        let check = |fields: &[(&str, &str)], expected: &[&str]| {
            let mut headers = head(fields);
            request(&mut headers, &RequestPolicy::default());
            headers.remove(VIA).unwrap();
            assert_eq!(names(&headers), expected, "{fields:?}");
        };
        check(&[("accept", "a"), ("content-length", "1")], &["accept", "content-length"]);
        check(
            &[
                ("connection", "x-a, x-b"),
                ("connection", " x-c"),
                ("x-a", "1"),
                ("x-c", "1"),
                ("x-d", "1"),
            ],
            &["x-d"],
        );
        check(
            &[("connection", "host, content-length"), ("host", "h"), ("content-length", "1")],
            &["content-length", "host"],
        );
        check(
            &[("authorization", "Basic x"), ("proxy-authorization", "y"), ("te", "trailers")],
            &[],
        );
        check(
            &[("x-original-url", "/"), ("x_original_url", "/"), ("x-http-method-override", "PUT")],
            &[],
        );
        check(
            &[
                ("x-forwarded-for", "1"),
                ("x_forwarded_for", "1"),
                ("forwarded", "for=x"),
                ("x-real-ip", "1"),
            ],
            &[],
        );
        check(&[("content_length", "1"), ("x_custom", "1")], &["x_custom"]);
        check(&[("proxy_authorization", "x"), ("keep_alive", "1"), ("proxy_connection", "x")], &[]);
    }

    #[test]
    fn loops_are_seen() {
        let check = |via: &str, expected: bool| {
            let looped = request(&mut head(&[("via", via)]), &RequestPolicy::default()).looped;
            assert_eq!(looped, expected, "{via}");
        };
        check("1.1 bearer-proxy", true);
        check("1.0 fred, 1.1 Bearer-Proxy (x)", true);
        check("1.1 other", false);
        check("1.1 not-bearer-proxy", false);
    }

    #[test]
    fn answers_are_cleaned() {
        let mut headers = head(&[
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("alt-svc", "h3"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("x-echo", "Bearer tok-123"),
            ("transfer-encoding", "chunked"),
        ]);
        response(&mut headers, &ResponsePolicy::default(), Some(b"tok-123"));
        assert_eq!(names(&headers), ["cache-control", "set-cookie", "via", "x-echo"]);
        assert_eq!(headers["x-echo"], "[redacted]");
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(headers["cache-control"], "private");
        let mut headers = head(&[("content-length", "12"), ("x-a", "123")]);
        response(&mut headers, &ResponsePolicy::default(), Some(b"12"));
        assert_eq!(
            (&headers["content-length"], &headers["x-a"]),
            (&"12".parse().unwrap(), &"[redacted]".parse().unwrap())
        );
    }

    #[test]
    fn framing_is_read_strictly() {
        let check = |fields: &[(&str, &str)], expected: Result<Framing, FramingError>| {
            assert_eq!(request_framing(Version::HTTP_11, &head(fields)), expected, "{fields:?}");
        };
        check(&[], Ok(Framing::None));
        check(&[("content-length", "10")], Ok(Framing::Length(10)));
        check(&[("transfer-encoding", "Chunked")], Ok(Framing::Chunked));
        check(
            &[("content-length", "10"), ("transfer-encoding", "chunked")],
            Err(FramingError::Both),
        );
        for length in ["+1", "1, 1", "", "0x1", "99999999999999999999"] {
            check(&[("content-length", length)], Err(FramingError::Length));
        }
        check(&[("content-length", "1"), ("content-length", "1")], Err(FramingError::Length));
        for coding in ["gzip, chunked", "chunked, chunked", ", chunked", "identity", "xchunked"] {
            check(&[("transfer-encoding", coding)], Err(FramingError::Coding));
        }
        check(
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            Err(FramingError::Coding),
        );
        let chunked = head(&[("transfer-encoding", "chunked")]);
        assert_eq!(request_framing(Version::HTTP_10, &chunked), Err(FramingError::Coding));
    }

    proptest! {
        #[test]
        fn nothing_of_this_hop_passes(fields in prop::collection::vec(
            (prop_oneof![Just("connection"), Just("x-a"), Just("x-b"), Just("host"), Just("authorization"),
                Just("te"), Just("keep-alive"), Just("accept")], "(x-a|x-b|host|close|, ){0,4}"), 0..8)) {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let before = head(&fields);
            let mut after = before.clone();
            request(&mut after, &RequestPolicy::default());
            prop_assert_eq!(after.contains_key("host"), before.contains_key("host"));
            for gone in ["connection", "te", "keep-alive", "authorization"] {
                prop_assert!(!after.contains_key(gone));
            }
            for line in before.get_all("connection") {
                for name in line.to_str().unwrap().split(',').map(str::trim).filter(|name| *name != "host") {
                    prop_assert!(!after.contains_key(name) || name.is_empty());
                }
            }
        }
    }
}
