//! What holds of every head after hygiene, in both directions. The lists here are written anew, so
//! that they do not share a mistake with those of the program.

use bearer_proxy::proxy::headers::{self, AllowedTrailers, FieldClass, HeaderPolicy};
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

/// Fields of one connection, and credentials for it.
const HOP: [&str; 9] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// Fields that say how a request is read, and those that we write.
const NEVER_MISSPELT: [&str; 7] =
    ["authorization", "content-length", "host", "te", "trailer", "via", "x-api-key"];

const OVERRIDES: [&str; 5] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// Fields that nobody on the way has business with.
const PLAIN: [&str; 6] = ["accept", "cookie", "date", "idempotency-key", "traceparent", "x-a"];

const TOKEN: &[u8] = b"tok-123";

/// Checks one head, given as lines after a byte of switches.
pub fn check(data: &[u8]) {
    let Some((switches, text)) = data.split_first() else { return };
    let before = head(text);
    let policy = HeaderPolicy {
        keep_overrides: switches & 1 != 0,
        keep_forwarding: switches & 2 != 0,
        reserved: [HeaderName::from_static("x-api-key")].into_iter().collect(),
        trailers: AllowedTrailers::new([HeaderName::from_static("x-sum")]),
        ..HeaderPolicy::default()
    };
    request(&before, &policy);
    answer(&before, &policy);
}

fn head(text: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n').take(64) {
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(at);
        let value = HeaderValue::from_bytes(value.strip_prefix(b":").unwrap_or(value).trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            headers.append(name, value);
        }
    }
    headers
}

/// The head that goes upstream, with our Authorization where it is attached.
fn request(before: &HeaderMap, policy: &HeaderPolicy) {
    let mut after = before.clone();
    let found = FieldClass::classify_all(&after);
    headers::sanitize_request(&mut after, found, Version::HTTP_11, policy);
    after.insert(AUTHORIZATION, HeaderValue::from_static("Bearer ours"));
    let credentials = |name: &&HeaderName| name.as_str().replace('_', "-") == "authorization";
    assert_eq!(after.keys().filter(credentials).count(), 1);
    assert_eq!(after.get_all(AUTHORIZATION).iter().count(), 1);
    for (name, value) in &after {
        let dashed = name.as_str().replace('_', "-");
        assert!(!HOP.contains(&dashed.as_str()) && dashed != "expect", "{name}");
        assert!(!name.as_str().contains('_') || !NEVER_MISSPELT.contains(&&*dashed), "{name}");
        assert!(dashed != "x-api-key", "{name} is ours to write");
        assert!(policy.keep_overrides || !OVERRIDES.contains(&&*dashed), "{name}");
        let forwarding = dashed == "forwarded" || dashed.starts_with("x-forwarded-");
        assert!(policy.keep_forwarding || !forwarding, "{name}");
        assert!(name != "te" || value == "trailers", "te: {value:?}");
        let announced = headers::is_grpc(before) || value == "x-sum" || value == "etag";
        assert!(name != "trailer" || announced, "trailer: {value:?}");
    }
    keeps(before, &after, &[AUTHORIZATION, HeaderName::from_static("via")]);
}

/// The head that goes to the app.
fn answer(before: &HeaderMap, policy: &HeaderPolicy) {
    let mut after = before.clone();
    headers::sanitize_response(&mut after, Version::HTTP_11, policy, Some(TOKEN));
    for (name, value) in &after {
        assert!(!HOP.contains(&name.as_str()), "{name}");
        assert!(!["te", "alt-svc", "bearer-proxy-forwarded"].contains(&name.as_str()), "{name}");
        let echo = value.as_bytes().windows(TOKEN.len()).any(|part| part == TOKEN);
        assert!(!echo || name == CONTENT_LENGTH, "{name} echoes the token");
    }
    assert!(after.contains_key("cache-control"));
    let written = ["cache-control", "via"].map(HeaderName::from_static);
    keeps(before, &after, &written);
}

/// What Connection names is gone, unless it frames the message or was `written` by us; what is plain
/// stays as it was. A length that Transfer-Encoding overrides is gone too.
fn keeps(before: &HeaderMap, after: &HeaderMap, written: &[HeaderName]) {
    let lines =
        before.get_all(CONNECTION).iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
    let named: Vec<_> =
        lines.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect();
    for name in named.iter().filter(|name| !written.contains(name)) {
        let stays = *name == HOST || *name == CONTENT_LENGTH || *name == "te";
        assert!(stays || !after.contains_key(name), "{name} was named by Connection");
    }
    let plain = PLAIN.map(HeaderName::from_static).into_iter().filter(|name| !named.contains(name));
    for name in plain.chain([HOST, CONTENT_LENGTH]) {
        let values =
            |headers: &HeaderMap| headers.get_all(&name).iter().cloned().collect::<Vec<_>>();
        let (mut was, is) = (values(before), values(after));
        if name == CONTENT_LENGTH && before.contains_key(TRANSFER_ENCODING) {
            was.clear();
        }
        assert_eq!(was.len(), is.len(), "{name}");
        let echo = |value: &HeaderValue| headers::contains_token(value.as_bytes(), TOKEN);
        assert!(was.iter().zip(&is).all(|(was, is)| was == is || echo(was)), "{name}");
    }
}
