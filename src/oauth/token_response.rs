//! Answers of token servers, read into an [`IssuedToken`] or a [`TokenError`].
//!
//! The parser is lenient only where servers are known to differ (RFC 6749 section 5.1): numbers may be
//! strings, the content type matters only where the body is a form, unknown fields are ignored. Used
//! values are checked strictly.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, StatusCode};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use percent_encoding::percent_decode_str;
use serde::de::IgnoredAny;
use serde_json::Value;
use zeroize::Zeroizing;

use super::content_coding;
use super::dialect::{Dialect, ResponseFields};
use super::error::{
    ErrorCode, ErrorDescription, MalformedResponse, TokenError, TokenErrorResponse,
};
use super::field_path::{FieldPath, Fields};
use super::scope::{Scope, ScopeSet};
use crate::sensitive::Sensitive;

/// Largest absolute time in seconds; a greater number is milliseconds. It lies beyond the year 5000.
const MAX_EPOCH_SECONDS: u64 = 100_000_000_000;
/// Longest duration that is read, a hundred years, so that sums cannot overflow.
const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// A token as the server issued it. `Debug` shows neither token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// The access token: visible ASCII (RFC 6749 appendix A.12).
    pub access_token: Sensitive,
    /// The stated life of the access token.
    pub expires_in: Option<Duration>,
    /// The stated expiry of the access token.
    pub expires_at: Option<StatedExpiry>,
    /// A refresh token, where the dialect uses it.
    pub refresh_token: Option<Sensitive>,
    /// The scopes that were granted, where stated.
    pub scope: Option<ScopeSet>,
    /// The server's clock, from the `Date` header.
    pub date: Option<SystemTime>,
}

/// An absolute expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatedExpiry {
    /// A time of the server's clock.
    At(SystemTime),
    /// Neither a number nor a date. It is accepted only beside a relative expiry.
    Unreadable,
}

/// Reads an answer. No error repeats a part of the body. `requested` are the scopes of the request, by
/// which a comma inside a scope is told from one between two.
///
/// # Errors
/// The answer holds no token that can be used.
pub fn parse(
    dialect: &Dialect,
    requested: &ScopeSet,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<IssuedToken, TokenError> {
    let names = &dialect.response;
    let text = text(headers, body);
    if !status.is_success() {
        let text = text.unwrap_or_default();
        return Err(error_response(names, status, headers, &fields(&text).unwrap_or_default()));
    }
    let text = text.map_err(TokenError::Malformed)?;
    let fields = fields(&text).map_err(TokenError::Malformed)?;
    // Some servers send error responses with status 200.
    if names.access_token.find(&fields).is_none() && names.error.find(&fields).is_some() {
        return Err(error_response(names, status, headers, &fields));
    }
    issued(dialect, requested, &fields, date(headers)).map_err(TokenError::Malformed)
}

/// Tells whether a body is one whole JSON object. No shorter part of such a body is one, so it proves
/// that nothing is missing, even if the connection broke off after it.
pub fn is_whole(headers: &HeaderMap, body: &[u8]) -> bool {
    content_coding::decode(headers, body).is_ok_and(|body| {
        let text = String::from_utf8_lossy(trim(&body));
        text.starts_with('{') && serde_json::from_str::<IgnoredAny>(&text).is_ok()
    })
}

fn issued(
    dialect: &Dialect,
    requested: &ScopeSet,
    fields: &Fields<'_>,
    date: Option<SystemTime>,
) -> Result<IssuedToken, MalformedResponse> {
    let names = &dialect.response;
    let access_token = access_token(value(fields, &names.access_token), dialect.max_token_bytes)?;
    check_type(dialect, value(fields, &names.token_type).as_ref())?;
    let expires_in = expires_in(names, fields)?;
    let expires_at = expires_at(names, fields, expires_in.is_some())?;
    let refresh_token = refresh_token(value(fields, &names.refresh_token), dialect.max_token_bytes);
    Ok(IssuedToken {
        access_token,
        expires_in,
        expires_at,
        refresh_token: refresh_token.filter(|_| dialect.use_refresh_token),
        scope: value(fields, &names.scope).and_then(|value| scopes(&value, requested)),
        date,
    })
}

/// A body as the text of a JSON object: without content codings and byte order mark. Bytes that are not
/// UTF-8 are replaced, so that they make only the field useless in which they stand. A form becomes an
/// object of strings.
fn text(headers: &HeaderMap, body: &[u8]) -> Result<Zeroizing<String>, MalformedResponse> {
    let body = content_coding::decode(headers, body)?;
    let text = Zeroizing::new(String::from_utf8_lossy(trim(&body)).into_owned());
    let form = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(is_form);
    if form && !text.starts_with('{') { form_object(&text) } else { Ok(text) }
}

/// A body without byte order mark and the white space around it.
fn trim(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii()
}

fn is_form(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// A form as a JSON object.
fn form_object(form: &str) -> Result<Zeroizing<String>, MalformedResponse> {
    let decode = |word: &str| {
        let spaced = Zeroizing::new(word.replace('+', " "));
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    let pairs = form.split('&').filter_map(|pair| pair.split_once('='));
    let object = pairs.map(|(name, value)| (decode(name), Value::from(decode(value)))).collect();
    let text = serde_json::to_string(&Value::Object(object));
    text.map(Zeroizing::new).map_err(|_| MalformedResponse::NotJson)
}

/// The fields of a JSON object.
fn fields(text: &str) -> Result<Fields<'_>, MalformedResponse> {
    match serde_json::from_str(text) {
        Ok(fields) => Ok(fields),
        Err(_) if text.is_empty() => Err(MalformedResponse::Empty),
        Err(_) if text.starts_with('<') => Err(MalformedResponse::Html),
        Err(_) if looks_like_form(text) => Err(MalformedResponse::FormEncoded),
        Err(_) if serde_json::from_str::<IgnoredAny>(text).is_ok() => {
            Err(MalformedResponse::NotAnObject)
        }
        Err(_) => Err(MalformedResponse::NotJson),
    }
}

/// Tells whether a text begins like a form: a name and `=`.
fn looks_like_form(text: &str) -> bool {
    let named = |c: char| c.is_ascii_alphanumeric() || "_-.%+".contains(c);
    text.split_once('=').is_some_and(|(name, _)| !name.is_empty() && name.chars().all(named))
}

/// The value of a field that is neither null nor the empty string, which count as absent. A value that
/// cannot be read, such as half a surrogate pair, is one of the wrong type.
fn value(fields: &Fields<'_>, path: &FieldPath) -> Option<Value> {
    let raw = path.find(fields)?;
    let value = serde_json::from_str(raw.get()).unwrap_or_else(|_| Value::Array(Vec::new()));
    Some(value).filter(|value| !value.is_null() && value.as_str() != Some(""))
}

fn access_token(value: Option<Value>, max_bytes: usize) -> Result<Sensitive, MalformedResponse> {
    let Some(Value::String(text)) = value else { return Err(MalformedResponse::NoAccessToken) };
    // Wrapped before the checks, so that a refused token is wiped too.
    let token = Sensitive::new(text);
    match token.expose() {
        text if text.len() > max_bytes => Err(MalformedResponse::AccessTokenTooLong),
        text if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(MalformedResponse::AccessToken)
        }
        _ => Ok(token),
    }
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

/// The relative expiry. A field that the settings name for the absolute expiry too holds that one.
fn expires_in(
    names: &ResponseFields,
    fields: &Fields<'_>,
) -> Result<Option<Duration>, MalformedResponse> {
    if names.expires_at.as_ref() == Some(&names.expires_in) {
        return Ok(None);
    }
    value(fields, &names.expires_in).as_ref().map(life).transpose()
}

fn life(value: &Value) -> Result<Duration, MalformedResponse> {
    match whole_number(value) {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds).min(MAX_DURATION)),
        _ => Err(MalformedResponse::Lifetime),
    }
}

/// The absolute expiry. An unreadable one beside a relative expiry is no error, because a redundant
/// field is not worth an outage.
fn expires_at(
    names: &ResponseFields,
    fields: &Fields<'_>,
    optional: bool,
) -> Result<Option<StatedExpiry>, MalformedResponse> {
    let Some(path) = &names.expires_at else { return Ok(None) };
    let Some(value) = value(fields, path) else { return Ok(None) };
    match time(&value) {
        Some(time) => Ok(Some(StatedExpiry::At(time))),
        None if optional => Ok(Some(StatedExpiry::Unreadable)),
        None => Err(MalformedResponse::Expiry),
    }
}

/// A time: seconds or milliseconds since 1970, an HTTP date, or an ISO 8601 date.
fn time(value: &Value) -> Option<SystemTime> {
    match whole_number(value) {
        Some(0) => None,
        Some(number) => UNIX_EPOCH.checked_add(since_epoch(number)),
        None => date_time(value.as_str()?.trim_ascii()),
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

/// An HTTP date (RFC 9110 section 5.6.7), the date of a mail (RFC 5322 section 3.3), or an ISO 8601
/// date and time, which is UTC unless it states an offset.
fn date_time(text: &str) -> Option<SystemTime> {
    if let Ok(time) = httpdate::parse_http_date(text) {
        return Some(time);
    }
    let with_offset = || text.parse::<Timestamp>().ok();
    let mail = || jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
    with_offset().or_else(mail).or_else(|| utc(text)).map(SystemTime::from)
}

/// A date and time without an offset.
fn utc(text: &str) -> Option<Timestamp> {
    let bare =
        text.strip_suffix("UTC").or_else(|| text.strip_suffix("GMT")).unwrap_or(text).trim_end();
    // A zone in brackets would be skipped, and its offset with it.
    let time = bare.parse::<DateTime>().ok().filter(|_| !bare.contains('['))?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
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
fn refresh_token(value: Option<Value>, max_bytes: usize) -> Option<Sensitive> {
    let Some(Value::String(text)) = value else { return None };
    let token = Sensitive::new(text);
    let sendable =
        token.len() <= max_bytes && token.expose().bytes().all(|b| matches!(b, 0x20..=0x7e));
    sendable.then_some(token)
}

/// The granted scopes: words between spaces or commas, or an array of such lists. Words outside the
/// grammar are left out, since no route can ask for them.
fn scopes(value: &Value, requested: &ScopeSet) -> Option<ScopeSet> {
    let lists: Vec<&str> = match value {
        Value::String(list) => vec![list],
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let granted: ScopeSet =
        lists.into_iter().flat_map(|list| scopes_of_list(list, requested)).collect();
    Some(granted).filter(|granted| !granted.is_empty())
}

/// The scopes of one list. The list may be printed with brackets and quotes around it, which cannot be
/// part of a scope. A comma can: a word that was requested with its commas is one scope.
fn scopes_of_list(list: &str, requested: &ScopeSet) -> Vec<Scope> {
    let list = list.trim();
    let bare = list.strip_prefix('[').and_then(|list| list.strip_suffix(']')).unwrap_or(list);
    let mut scopes = Vec::new();
    for word in bare.split_ascii_whitespace() {
        match Scope::parse(word) {
            Ok(scope) if requested.contains(&scope) => scopes.push(scope),
            _ => {
                let parts = word.split(',').map(|part| part.trim_matches('"'));
                scopes.extend(parts.filter_map(|part| Scope::parse(part).ok()));
            }
        }
    }
    scopes
}

fn error_response(
    names: &ResponseFields,
    status: StatusCode,
    headers: &HeaderMap,
    fields: &Fields<'_>,
) -> TokenError {
    let text = |path: &FieldPath| match value(fields, path) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    // The body of a redirect is not the token server's word.
    let code = text(&names.error).filter(|_| !status.is_redirection());
    let code = code.as_deref().map(ErrorCode::parse);
    let description = text(&names.error_description).filter(|_| code.is_some());
    TokenError::Refused(TokenErrorResponse {
        status,
        code,
        description: description.as_deref().and_then(ErrorDescription::new),
        retry_after: retry_after(headers),
    })
}

/// The wait that `Retry-After` asks for (RFC 9110 section 10.2.3): seconds, or a date, which is read against the server's own clock.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
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
        parse(dialect, &ScopeSet::default(), StatusCode::OK, &HeaderMap::new(), body.as_bytes())
    }

    /// A form answer with its content type.
    fn form(status: StatusCode, body: &str) -> Result<IssuedToken, TokenError> {
        let kind = [("content-type", "Application/X-WWW-Form-URLencoded; charset=UTF-8")];
        let none = ScopeSet::default();
        parse(&Dialect::default(), &none, status, &headers(&kind), body.as_bytes())
    }

    fn core_banking() -> Dialect {
        preset("core-banking").unwrap().dialect
    }

    #[test]
    fn plain_answer() {
        let body = "\u{feff}{\"access_token\":\"a.b-c_d~e+f/g==\",\"token_type\":\"bEARER\",\"expires_in\":3600,\
                    \"scope\":\"read:users write:logs\",\"refresh_token\":\"r\",\"other\":{\"x\":[1]}}";
        let head = headers(&[("date", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        let token = parse(
            &Dialect::default(),
            &ScopeSet::default(),
            StatusCode::CREATED,
            &head,
            body.as_bytes(),
        )
        .unwrap();
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
        let end = Some(StatedExpiry::At(UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
        let unreadable = Some(StatedExpiry::Unreadable);
        for (rest, expires_in, expires_at) in [
            (r#""expirationTime":1800000000,"tokenValiditySec":900"#, Some(900), end),
            (r#""expirationTime":1800000000000,"tokenValiditySec":"900""#, Some(900), end),
            (r#""expirationTime":"1800000000000""#, None, end),
            (r#""expirationTime":"1800000000""#, None, end),
            (r#""expirationTime":"2027-01-15T08:00:00Z""#, None, end),
            (r#""expirationTime":"soon","tokenValiditySec":900"#, Some(900), unreadable),
            (r#""expirationTime":0,"tokenValiditySec":900"#, Some(900), unreadable),
            (r#""expirationTime":null,"tokenValiditySec":900"#, Some(900), None),
            (r#""tokenValiditySec":900"#, Some(900), None),
        ] {
            let body = format!(r#"{{"accessToken":"t","tokenType":"Bearer",{rest}}}"#);
            let token = ok(&core_banking(), &body).unwrap();
            assert_eq!(token.expires_in, expires_in.map(Duration::from_secs), "{rest}");
            assert_eq!(token.expires_at, expires_at, "{rest}");
        }
        for bad in ["0", "-5", "\"soon\"", "true", "{}"] {
            let body = format!(r#"{{"accessToken":"t","expirationTime":{bad}}}"#);
            let found = ok(&core_banking(), &body);
            assert_eq!(found, Err(TokenError::Malformed(MalformedResponse::Expiry)), "{bad}");
        }
    }

    #[test]
    fn dates() {
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", at(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", at(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", at(784_111_777)),
            ("Sun, 06 Nov 1994 09:49:37 +0100", at(784_111_777)),
            ("1994-11-06T08:49:37Z", at(784_111_777)),
            ("1994-11-06T09:49:37+01:00", at(784_111_777)),
            ("1994-11-06T09:49:37+0100", at(784_111_777)),
            ("1994-11-06t08:49:37z", at(784_111_777)),
            ("1994-11-06 08:49:37", at(784_111_777)),
            ("1994-11-06 08:49:37 UTC", at(784_111_777)),
            ("1994-11-06T08:49:37", at(784_111_777)),
            ("19941106T084937Z", at(784_111_777)),
            ("1994-11-06", at(784_080_000)),
            ("2027-01-15T08:00:00[Europe/Berlin]", None),
            ("2027-13-15", None),
            ("15.01.2027", None),
            ("", None),
        ] {
            assert_eq!(date_time(text), expected, "{text}");
        }
        let fraction = date_time("1994-11-06T08:49:37.500Z").unwrap();
        assert_eq!(Some(fraction), at(784_111_777).map(|time| time + Duration::from_millis(500)));
    }

    /// Some servers write a date into the field that RFC 6749 has for seconds.
    #[test]
    fn a_date_in_expires_in() {
        let mut dialect = Dialect::default();
        dialect.response.expires_at = Some(FieldPath::name("expires_in"));
        let body = r#"{"access_token":"t","expires_in":"2027-01-15T08:00:00Z"}"#;
        let token = ok(&dialect, body).unwrap();
        let end = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert_eq!((token.expires_in, token.expires_at), (None, Some(StatedExpiry::At(end))));
    }

    #[test]
    fn unusable_answers() {
        let long = format!("{{\"access_token\":\"{}\"}}", "a".repeat(16 * 1024 + 1));
        for (body, expected) in [
            ("", MalformedResponse::Empty),
            (" \r\n", MalformedResponse::Empty),
            ("\u{feff}", MalformedResponse::Empty),
            ("<html>", MalformedResponse::Html),
            ("access_token=t&token_type=bearer", MalformedResponse::FormEncoded),
            ("t", MalformedResponse::NotJson),
            ("a b=c", MalformedResponse::NotJson),
            ("7", MalformedResponse::NotAnObject),
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
            ("{\"access_token\":\"a\\tb\"}", MalformedResponse::AccessToken),
            ("{\"access_token\":\"t \"}", MalformedResponse::AccessToken),
            ("{\"access_token\":\"a\\u007fb\"}", MalformedResponse::AccessToken),
            ("{\"access_token\":\"\\ud800\"}", MalformedResponse::NoAccessToken),
            ("{\"access_token\":\"ü\"}", MalformedResponse::AccessToken),
            (long.as_str(), MalformedResponse::AccessTokenTooLong),
            ("{\"access_token\":\"t\",\"token_type\":\"mac\"}", MalformedResponse::TokenType),
            ("{\"access_token\":\"t\",\"token_type\":1}", MalformedResponse::TokenType),
        ] {
            let found = ok(&Dialect::default(), body);
            assert_eq!(found, Err(TokenError::Malformed(expected)), "{body}");
        }
        let longest = format!("{{\"access_token\":\"{}\"}}", "a".repeat(16 * 1024));
        assert!(ok(&Dialect::default(), &longest).is_ok());
        let raised = Dialect { max_token_bytes: 16 * 1024 + 1, ..Dialect::default() };
        assert!(ok(&raised, &long).is_ok());
    }

    #[test]
    fn tokens_are_visible_ascii() {
        for token in ["00Dx!AR8AQ.x", "v^1.1#i^1#p^3", "sb|x", "a=b", "==", "a,b;c", "!~", "{\"}"] {
            let body = serde_json::json!({ "access_token": token }).to_string();
            let found = ok(&Dialect::default(), &body).unwrap();
            assert_eq!(found.access_token.expose(), token);
        }
    }

    #[test]
    fn nested_fields() {
        let mut dialect = Dialect { use_refresh_token: true, ..Dialect::default() };
        let names = &mut dialect.response;
        names.access_token = FieldPath::parse("/data/access_token").unwrap();
        names.expires_in = FieldPath::parse("/data/life/0").unwrap();
        names.scope = FieldPath::parse("/data/scopes").unwrap();
        names.refresh_token = FieldPath::parse("/refresh").unwrap();
        names.error = FieldPath::parse("/error/code").unwrap();
        let body = r#"{"data":{"access_token":"t","life":["60"],"scopes":["a"]},"refresh":"r"}"#;
        let token = ok(&dialect, body).unwrap();
        assert_eq!(token.access_token.expose(), "t");
        assert_eq!(token.expires_in, Some(Duration::from_secs(60)));
        assert_eq!(token.scope, Some(ScopeSet::parse("a").unwrap()));
        assert_eq!(token.refresh_token, Some(Sensitive::new("r")));
        let found = ok(&dialect, r#"{"access_token":"t"}"#);
        assert_eq!(found, Err(TokenError::Malformed(MalformedResponse::NoAccessToken)));
        let error = ok(&dialect, r#"{"error":{"code":"invalid_client"}}"#).unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::InvalidClient));
    }

    #[test]
    fn defects_of_unread_fields_do_no_harm() {
        for field in
            [&b"\"x\":\"\xff\xfe\""[..], b"\"\xe4\":1", b"\"x\":\"\\ud800\"", b"\"x\":1e999"]
        {
            let body = [b"{\"access_token\":\"t\",", field, b"}"].concat();
            let (none, head) = (ScopeSet::default(), HeaderMap::new());
            let token = parse(&Dialect::default(), &none, StatusCode::OK, &head, &body).unwrap();
            assert_eq!(token.access_token.expose(), "t");
        }
        let body = b"{\"access_token\":\"t\xff\"}";
        let (none, head) = (ScopeSet::default(), HeaderMap::new());
        let found = parse(&Dialect::default(), &none, StatusCode::OK, &head, body);
        assert_eq!(found, Err(TokenError::Malformed(MalformedResponse::AccessToken)));
    }

    #[test]
    fn forms_are_read_where_the_content_type_says_so() {
        let token = form(
            StatusCode::OK,
            "access_token=a%2Bb%7C&token_type=bearer&expires_in=3600&scope=repo%2Cuser+gist\r\n",
        );
        let token = token.unwrap();
        assert_eq!(token.access_token.expose(), "a+b|");
        assert_eq!(token.expires_in, Some(Duration::from_secs(3600)));
        assert_eq!(token.scope, Some(ScopeSet::parse("repo user gist").unwrap()));
        assert_eq!(form(StatusCode::OK, r#"{"access_token":"t"}"#).unwrap().access_token.len(), 1);
        for (status, body, code) in [
            (400, "error=invalid_client&error_description=no+such", ErrorCode::InvalidClient),
            (200, "error=invalid_scope", ErrorCode::InvalidScope),
        ] {
            let error = form(StatusCode::from_u16(status).unwrap(), body).unwrap_err();
            assert_eq!(error.code(), Some(code));
        }
        let found = form(StatusCode::OK, "hello");
        assert_eq!(found, Err(TokenError::Malformed(MalformedResponse::NoAccessToken)));
    }

    #[test]
    fn coded_answers() {
        use std::io::Write as _;

        let body = br#"{"access_token":"t"}"#;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).unwrap();
        let coded = encoder.finish().unwrap();
        let head = headers(&[("content-encoding", "gzip")]);
        let (dialect, none) = (Dialect::default(), ScopeSet::default());
        assert!(parse(&dialect, &none, StatusCode::OK, &head, &coded).is_ok());
        assert!(is_whole(&head, &coded) && !is_whole(&head, &coded[..coded.len() - 1]));
        let brotli = headers(&[("content-encoding", "br")]);
        let error = parse(&dialect, &none, StatusCode::OK, &brotli, b"\x0b").unwrap_err();
        assert!(error.to_string().contains("(br)"), "{error}");
    }

    #[test]
    fn whole_objects() {
        let none = HeaderMap::new();
        for whole in ["{}", " {\"a\":{}}\r\n", "\u{feff}{}"] {
            assert!(is_whole(&none, whole.as_bytes()), "{whole}");
        }
        for part in ["", "{", "{\"a\":{}", "7", "[]", "{} x", "a=b"] {
            assert!(!is_whole(&none, part.as_bytes()), "{part}");
        }
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
            ("\"b,a\"", Some("a b")),
            ("\"b, a\"", Some("a b")),
            ("\"a,,b,\"", Some("a b")),
            ("\"[a, b]\"", Some("a b")),
            ("\"[\\\"a\\\",\\\"b\\\"]\"", Some("a b")),
            ("[\"b\",\"a\"]", Some("a b")),
            ("[\"b a\"]", Some("a b")),
            ("[\"b,a\"]", Some("a b")),
            ("[]", None),
            ("\"\"", None),
            ("null", None),
            ("7", None),
        ] {
            let body = format!("{{\"access_token\":\"t\",\"scope\":{stated}}}");
            let scope = ok(&Dialect::default(), &body).unwrap().scope;
            assert_eq!(scope, expected.map(|list| ScopeSet::parse(list).unwrap()), "{stated}");
        }
        // A requested scope may have a comma.
        let requested = ScopeSet::parse("a,b").unwrap();
        let granted = scopes(&Value::from("a,b c,d"), &requested);
        assert_eq!(granted, Some(ScopeSet::parse("a,b c d").unwrap()));
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
            let error = parse(
                &Dialect::default(),
                &ScopeSet::default(),
                status,
                &HeaderMap::new(),
                body.as_bytes(),
            )
            .unwrap_err();
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
            let error = parse(
                &Dialect::default(),
                &ScopeSet::default(),
                StatusCode::SERVICE_UNAVAILABLE,
                &headers(&head),
                b"",
            )
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
                if let Err(error) = parse(&dialect, &ScopeSet::default(), status, &head, &body) {
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
