//! Answers of token servers, read into an [`IssuedToken`] or a [`TokenError`].
//!
//! The parser is lenient only where servers are known to differ (RFC 6749 section 5.1): numbers may be
//! strings, the content type does not matter, unknown fields are ignored. Used values are checked
//! strictly.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::{Map, Value};

use super::dialect::{Dialect, ResponseFields};
use super::error::{
    ErrorCode, ErrorDescription, MalformedResponse, TokenError, TokenErrorResponse,
};
use super::scope::{Scope, ScopeSet};
use crate::sensitive::Sensitive;

/// Longest access or refresh token that is accepted, in bytes.
const MAX_TOKEN_BYTES: usize = 8192;
/// Largest absolute time in seconds; a greater number is milliseconds. It lies beyond the year 5000.
const MAX_EPOCH_SECONDS: u64 = 100_000_000_000;
/// Longest duration that is read, a hundred years, so that sums cannot overflow.
const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// A token as the server issued it. `Debug` shows neither token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// The access token, of the grammar that RFC 6750 section 2.1 allows in a header.
    pub access_token: Sensitive,
    /// The stated life of the access token.
    pub expires_in: Option<Duration>,
    /// The stated expiry of the access token, by the server's clock.
    pub expires_at: Option<SystemTime>,
    /// A refresh token, where the dialect uses it.
    pub refresh_token: Option<Sensitive>,
    /// The scopes that were granted, where stated.
    pub scope: Option<ScopeSet>,
    /// The server's clock, from the `Date` header.
    pub date: Option<SystemTime>,
}

/// Reads an answer. No error repeats a part of the body.
///
/// # Errors
/// The answer holds no token that can be used.
pub fn parse(
    dialect: &Dialect,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<IssuedToken, TokenError> {
    let fields = &dialect.response;
    if !status.is_success() {
        return Err(error_response(fields, status, headers, body));
    }
    let object = object(body).map_err(TokenError::Malformed)?;
    // Some servers send error responses with status 200.
    if !object.contains_key(&fields.access_token) && object.contains_key(&fields.error) {
        return Err(error_response(fields, status, headers, body));
    }
    issued(dialect, object, date(headers)).map_err(TokenError::Malformed)
}

fn issued(
    dialect: &Dialect,
    mut object: Map<String, Value>,
    date: Option<SystemTime>,
) -> Result<IssuedToken, MalformedResponse> {
    let fields = &dialect.response;
    let access_token = access_token(object.remove(&fields.access_token))?;
    check_type(dialect, present(&object, &fields.token_type))?;
    let expires_in = present(&object, &fields.expires_in).map(life).transpose()?;
    let expires_at = expires_at(fields, &object, expires_in.is_some())?;
    let refresh_token = refresh_token(object.remove(&fields.refresh_token));
    Ok(IssuedToken {
        access_token,
        expires_in,
        expires_at,
        refresh_token: refresh_token.filter(|_| dialect.use_refresh_token),
        scope: present(&object, &fields.scope).and_then(scopes),
        date,
    })
}

/// The JSON object of a body, whatever its content type says; a byte order mark is skipped.
fn object(body: &[u8]) -> Result<Map<String, Value>, MalformedResponse> {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(MalformedResponse::NotAnObject),
        Err(_) if text.is_empty() => Err(MalformedResponse::Empty),
        Err(_) if text.starts_with(b"<") => Err(MalformedResponse::Html),
        Err(_) => Err(MalformedResponse::NotJson),
    }
}

/// A field that is neither null nor the empty string, which count as absent.
fn present<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null() && value.as_str() != Some(""))
}

fn access_token(value: Option<Value>) -> Result<Sensitive, MalformedResponse> {
    let Some(Value::String(text)) = value else { return Err(MalformedResponse::NoAccessToken) };
    // Wrapped before the checks, so that a refused token is wiped too.
    let token = Sensitive::new(text);
    match token.expose() {
        "" => Err(MalformedResponse::NoAccessToken),
        text if text.len() > MAX_TOKEN_BYTES => Err(MalformedResponse::AccessTokenTooLong),
        text if !is_b64token(text) => Err(MalformedResponse::AccessToken),
        _ => Ok(token),
    }
}

/// RFC 6750 section 2.1: `b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b))
}

/// RFC 6749 section 7.1: a token of an unknown type must not be used.
fn check_type(dialect: &Dialect, value: Option<&Value>) -> Result<(), MalformedResponse> {
    let accepted = |kind: &str| {
        kind.eq_ignore_ascii_case("bearer")
            || dialect.accept_token_types.iter().any(|other| other.eq_ignore_ascii_case(kind))
    };
    match value {
        None if dialect.require_token_type => Err(MalformedResponse::NoTokenType),
        None => Ok(()),
        Some(value) if value.as_str().is_some_and(accepted) => Ok(()),
        Some(_) => Err(MalformedResponse::TokenType),
    }
}

fn life(value: &Value) -> Result<Duration, MalformedResponse> {
    match whole_number(value) {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds).min(MAX_DURATION)),
        _ => Err(MalformedResponse::Lifetime),
    }
}

/// The absolute expiry. An unreadable one is ignored where `expires_in` stands beside it, because a
/// redundant field is not worth an outage.
fn expires_at(
    fields: &ResponseFields,
    object: &Map<String, Value>,
    optional: bool,
) -> Result<Option<SystemTime>, MalformedResponse> {
    let value = fields.expires_at.as_ref().and_then(|name| present(object, name));
    match value.map(|value| whole_number(value).filter(|number| *number > 0)) {
        None => Ok(None),
        Some(Some(number)) => Ok(UNIX_EPOCH.checked_add(since_epoch(number))),
        Some(None) if optional => Ok(None),
        Some(None) => Err(MalformedResponse::Lifetime),
    }
}

fn since_epoch(number: u64) -> Duration {
    let since = if number > MAX_EPOCH_SECONDS {
        Duration::from_millis(number)
    } else {
        Duration::from_secs(number)
    };
    since.min(MAX_DURATION * 2)
}

/// A number that is not negative, written as a number or as a string; a fraction is cut off.
fn whole_number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| whole_float(number.as_f64()?)),
        Value::String(text) => {
            let text = text.trim_ascii();
            let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            text.parse().ok().or_else(|| whole_float(text.parse().ok().filter(|_| numeric)?))
        }
        _ => None,
    }
}

fn whole_float(number: f64) -> Option<u64> {
    // The cast saturates, and what is that large is capped by all callers.
    (number.is_finite() && number >= 0.0).then_some(number as u64)
}

/// RFC 6749 section 5.1 lets a server add a refresh token; one that could not be sent back
/// (appendix A.17) is treated as if it were not there.
fn refresh_token(value: Option<Value>) -> Option<Sensitive> {
    let Some(Value::String(text)) = value else { return None };
    let token = Sensitive::new(text);
    let sendable = !token.is_empty()
        && token.len() <= MAX_TOKEN_BYTES
        && token.expose().bytes().all(|b| matches!(b, 0x20..=0x7e));
    sendable.then_some(token)
}

/// The granted scopes: a list delimited by spaces or an array. Words outside the grammar are left
/// out, since no route can ask for them.
fn scopes(value: &Value) -> Option<ScopeSet> {
    let words: Vec<&str> = match value {
        Value::String(list) => list.split_ascii_whitespace().collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let granted: ScopeSet = words.into_iter().filter_map(|word| Scope::parse(word).ok()).collect();
    Some(granted).filter(|granted| !granted.is_empty())
}

fn error_response(
    fields: &ResponseFields,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> TokenError {
    let object = object(body).unwrap_or_default();
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    // The body of a redirect is not the token server's word.
    let code = text(&fields.error).filter(|_| !status.is_redirection()).map(ErrorCode::parse);
    let description = text(&fields.error_description).filter(|_| code.is_some());
    TokenError::Refused(TokenErrorResponse {
        status,
        code,
        description: description.and_then(ErrorDescription::new),
        retry_after: retry_after(headers),
    })
}

/// RFC 9110 section 10.2.3: seconds, or a date, which is read against the server's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim_ascii();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(MAX_DURATION));
    }
    let wait = http_date(headers, &RETRY_AFTER)?.duration_since(date(headers)?);
    Some(wait.unwrap_or_default().min(MAX_DURATION))
}

fn date(headers: &HeaderMap) -> Option<SystemTime> {
    http_date(headers, &DATE)
}

fn http_date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oauth::presets::preset;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn ok(dialect: &Dialect, body: &str) -> Result<IssuedToken, TokenError> {
        parse(dialect, StatusCode::OK, &HeaderMap::new(), body.as_bytes())
    }

    fn core_banking() -> Dialect {
        preset("core-banking").unwrap().dialect
    }

    #[test]
    fn plain_answer() {
        let body = "\u{feff}{\"access_token\":\"a.b-c_d~e+f/g==\",\"token_type\":\"bEARER\",\"expires_in\":3600,\
                    \"scope\":\"read:users write:logs\",\"refresh_token\":\"r\",\"other\":{\"x\":[1]}}";
        let head = headers(&[("date", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        let token =
            parse(&Dialect::default(), StatusCode::CREATED, &head, body.as_bytes()).unwrap();
        assert_eq!(token.access_token.expose(), "a.b-c_d~e+f/g==");
        assert_eq!(token.expires_in, Some(Duration::from_secs(3600)));
        assert_eq!(token.scope, Some(ScopeSet::parse("write:logs read:users").unwrap()));
        assert_eq!(token.refresh_token, None, "the dialect does not use it");
        assert_eq!(token.date, Some(UNIX_EPOCH + Duration::from_secs(784_111_777)));
        assert!(!format!("{token:?}").contains("a.b-c"));
    }

    #[test]
    fn lives() {
        for (stated, expected) in [
            ("3600", Ok(3600)),
            ("\"3600\"", Ok(3600)),
            ("\" 3600 \"", Ok(3600)),
            ("3600.0", Ok(3600)),
            ("\"3600.0\"", Ok(3600)),
            ("3.6e3", Ok(3600)),
            ("1", Ok(1)),
            ("0", Err(())),
            ("-1", Err(())),
            ("\"-1\"", Err(())),
            ("3599.97", Ok(3599)),
            ("\"3599.5\"", Ok(3599)),
            ("0.5", Err(())),
            ("true", Err(())),
            ("\"soon\"", Err(())),
            ("\"1e3\"", Err(())),
            ("\"inf\"", Err(())),
            ("[3600]", Err(())),
        ] {
            let body = format!("{{\"access_token\":\"t\",\"expires_in\":{stated}}}");
            let found = ok(&Dialect::default(), &body);
            match expected {
                Ok(seconds) => {
                    assert_eq!(found.unwrap().expires_in, Some(Duration::from_secs(seconds)));
                }
                Err(()) => assert_eq!(
                    found,
                    Err(TokenError::Malformed(MalformedResponse::Lifetime)),
                    "{stated}"
                ),
            }
        }
        for absent in ["null", "\"\""] {
            let body = format!("{{\"access_token\":\"t\",\"expires_in\":{absent}}}");
            assert_eq!(ok(&Dialect::default(), &body).unwrap().expires_in, None);
        }
        let huge =
            ok(&Dialect::default(), "{\"access_token\":\"t\",\"expires_in\":1e300}").unwrap();
        assert_eq!(huge.expires_in, Some(MAX_DURATION));
    }

    #[test]
    fn core_banking_times() {
        let end = Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        for (rest, expires_in, expires_at) in [
            (r#""expirationTime":1800000000,"tokenValiditySec":900"#, Some(900), end),
            (r#""expirationTime":1800000000000,"tokenValiditySec":"900""#, Some(900), end),
            (r#""expirationTime":"1800000000000""#, None, end),
            (r#""expirationTime":"1800000000""#, None, end),
            (r#""expirationTime":"2027-01-15","tokenValiditySec":900"#, Some(900), None),
            (r#""tokenValiditySec":900"#, Some(900), None),
        ] {
            let body = format!(r#"{{"accessToken":"t","tokenType":"Bearer",{rest}}}"#);
            let token = ok(&core_banking(), &body).unwrap();
            assert_eq!(token.expires_in, expires_in.map(Duration::from_secs), "{rest}");
            assert_eq!(token.expires_at, expires_at, "{rest}");
        }
        for bad in ["0", "-5", "\"2027-01-15\""] {
            let body = format!(r#"{{"accessToken":"t","expirationTime":{bad}}}"#);
            let found = ok(&core_banking(), &body);
            assert_eq!(found, Err(TokenError::Malformed(MalformedResponse::Lifetime)), "{bad}");
        }
    }

    #[test]
    fn unusable_answers() {
        let long = format!("{{\"access_token\":\"{}\"}}", "a".repeat(8193));
        for (body, expected) in [
            ("", MalformedResponse::Empty),
            (" \r\n", MalformedResponse::Empty),
            ("\u{feff}", MalformedResponse::Empty),
            ("<html>", MalformedResponse::Html),
            ("access_token=t&token_type=bearer", MalformedResponse::NotJson),
            ("{\"access_token\":\"t\"", MalformedResponse::NotJson),
            ("[]", MalformedResponse::NotAnObject),
            ("\"t\"", MalformedResponse::NotAnObject),
            ("{}", MalformedResponse::NoAccessToken),
            ("{\"accessToken\":\"t\"}", MalformedResponse::NoAccessToken),
            ("{\"access_token\":null}", MalformedResponse::NoAccessToken),
            ("{\"access_token\":7}", MalformedResponse::NoAccessToken),
            ("{\"access_token\":\"\"}", MalformedResponse::NoAccessToken),
            ("{\"access_token\":\"a b\"}", MalformedResponse::AccessToken),
            ("{\"access_token\":\"a\\r\\nX: y\"}", MalformedResponse::AccessToken),
            ("{\"access_token\":\"a=b\"}", MalformedResponse::AccessToken),
            ("{\"access_token\":\"==\"}", MalformedResponse::AccessToken),
            ("{\"access_token\":\"ü\"}", MalformedResponse::AccessToken),
            (long.as_str(), MalformedResponse::AccessTokenTooLong),
            ("{\"access_token\":\"t\",\"token_type\":\"mac\"}", MalformedResponse::TokenType),
            ("{\"access_token\":\"t\",\"token_type\":1}", MalformedResponse::TokenType),
        ] {
            let found = ok(&Dialect::default(), body);
            assert_eq!(found, Err(TokenError::Malformed(expected)), "{body}");
        }
        let longest = format!("{{\"access_token\":\"{}\"}}", "a".repeat(8192));
        assert!(ok(&Dialect::default(), &longest).is_ok());
    }

    #[test]
    fn token_types() {
        let accepting = Dialect { accept_token_types: vec!["JWT".into()], ..Dialect::default() };
        let demanding = Dialect { require_token_type: true, ..Dialect::default() };
        let plain = Dialect::default();
        for (dialect, rest, good) in [
            (&plain, "", true),
            (&plain, r#","token_type":null"#, true),
            (&plain, r#","token_type":"""#, true),
            (&plain, r#","token_type":"jwt""#, false),
            (&accepting, r#","token_type":"jwt""#, true),
            (&accepting, r#","token_type":"BEARER""#, true),
            (&demanding, "", false),
            (&demanding, r#","token_type":"""#, false),
            (&demanding, r#","token_type":"Bearer""#, true),
        ] {
            let body = format!(r#"{{"access_token":"t"{rest}}}"#);
            assert_eq!(ok(dialect, &body).is_ok(), good, "{body}");
        }
    }

    #[test]
    fn granted_scopes() {
        for (stated, expected) in [
            ("\"a b\"", Some("a b")),
            ("\"a  a\\tb\"", Some("a b")),
            ("[\"a\",\"b\",7]", Some("a b")),
            ("\"a ü\"", Some("a")),
            ("\"\"", None),
            ("null", None),
            ("7", None),
        ] {
            let body = format!("{{\"access_token\":\"t\",\"scope\":{stated}}}");
            let scope = ok(&Dialect::default(), &body).unwrap().scope;
            assert_eq!(scope, expected.map(|list| ScopeSet::parse(list).unwrap()), "{stated}");
        }
    }

    #[test]
    fn refresh_tokens() {
        let dialect = preset("datacrunch").unwrap().dialect;
        for (stated, expected) in [
            ("\"r 1\"", Some("r 1")),
            ("\"\"", None),
            ("7", None),
            ("\"r\\n\"", None),
            ("null", None),
        ] {
            let body = format!("{{\"access_token\":\"t\",\"refresh_token\":{stated}}}");
            let token = ok(&dialect, &body).unwrap();
            assert_eq!(token.refresh_token.as_ref().map(Sensitive::expose), expected);
        }
    }

    #[test]
    fn failures() {
        for (status, body, expected) in [
            (
                400,
                r#"{"error":"invalid_scope","error_description":"x"}"#,
                Some(ErrorCode::InvalidScope),
            ),
            (401, r#"{"error":"invalid_client"}"#, Some(ErrorCode::InvalidClient)),
            (200, r#"{"error":"invalid_client"}"#, Some(ErrorCode::InvalidClient)),
            (400, r#"{"error":"hunter2"}"#, Some(ErrorCode::Other)),
            (400, r#"{"error":{"code":"x"}}"#, None),
            (302, r#"{"error":"invalid_client"}"#, None),
            (302, r#"{"access_token":"t"}"#, None),
            (500, "<html>hunter2</html>", None),
            (503, "", None),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error =
                parse(&Dialect::default(), status, &HeaderMap::new(), body.as_bytes()).unwrap_err();
            let response = error.response().unwrap();
            assert_eq!((response.status, response.code), (status, expected), "{body}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn when_to_come_back() {
        let now = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        for (head, expected) in [
            (vec![], None),
            (vec![("retry-after", "120")], Some(120)),
            (vec![("retry-after", " 0 ")], Some(0)),
            (vec![("retry-after", "-1")], None),
            (vec![("retry-after", "soon")], None),
            (vec![("retry-after", "99999999999999999999999")], Some(MAX_DURATION.as_secs())),
            (vec![("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT")], None),
            (vec![now, ("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT")], Some(60)),
            (vec![now, ("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")], Some(0)),
        ] {
            let error =
                parse(&Dialect::default(), StatusCode::SERVICE_UNAVAILABLE, &headers(&head), b"")
                    .unwrap_err();
            assert_eq!(error.retry_after(), expected.map(Duration::from_secs), "{head:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_or_leaks(
            status in 100u16..1000,
            wrapper in 0usize..4,
            noise in prop::collection::vec(any::<u8>(), 0..64),
            marker in "zq[0-9]{6}zq",
        ) {
            let status = StatusCode::from_u16(status).unwrap();
            let body = match wrapper {
                0 => [noise.as_slice(), marker.as_bytes()].concat(),
                1 => format!("{{\"error\":\"{marker}\",\"error_description\":\"{marker}\"}}").into_bytes(),
                2 => format!("{{\"access_token\":\"{marker} {marker}\",\"token_type\":\"{marker}\"}}").into_bytes(),
                _ => format!("{{\"access_token\":\"t\",\"token_type\":\"{marker}\",\"expires_in\":\"{marker}\"}}").into_bytes(),
            };
            let mut head = HeaderMap::new();
            if let Ok(value) = http::HeaderValue::from_bytes(&noise) {
                head.insert(RETRY_AFTER, value.clone());
                head.insert(DATE, value);
            }
            for dialect in [Dialect::default(), core_banking()] {
                if let Err(error) = parse(&dialect, status, &head, &body) {
                    let shown = format!("{error} {error:?} {:?}", error.hint());
                    prop_assert!(!shown.contains(&marker), "{}", shown);
                }
            }
        }

        #[test]
        fn arbitrary_json_is_read_or_refused(text in "[\\[\\]{}\":,a-z0-9.eE+-]{0,80}") {
            let _ = ok(&Dialect::default(), &text);
            let _ = ok(&core_banking(), &format!("{{\"accessToken\":\"t\",\"expirationTime\":{text}}}"));
        }
    }
}
