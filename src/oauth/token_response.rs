//! Answers of token servers, read into an [`IssuedToken`] or a [`TokenError`].
//!
//! The parser is lenient only where servers are known to differ (RFC 6749 section 5.1): numbers may be
//! strings, the content type matters only where the body is a form, unknown fields are ignored. Used
//! values are checked strictly.

use std::time::{Duration, SystemTime};

use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, StatusCode};
use percent_encoding::percent_decode_str;
use serde::de::IgnoredAny;
use serde_json::Value;
use zeroize::Zeroizing;

use super::content_coding;
use super::dialect::{Dialect, Grant, ResponseFields, TokenType};
use super::error::{
    ErrorCode, ErrorDescription, MalformedResponse, TokenError, TokenErrorResponse,
};
use super::field_path::{FieldPath, Fields};
use super::json_time::{MAX_DURATION, time, whole_number};
use super::scope::{Scope, ScopeSet};
use crate::sensitive::Sensitive;

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
    let html = MalformedResponse::Html {
        status: status.as_u16(),
        is_declared: has_type(headers, "text/html"),
    };
    if !status.is_success() {
        let text = text.and_then(form_if_it_looks_like_one).unwrap_or_default();
        return Err(error_response(
            names,
            status,
            headers,
            &fields(&text, html).unwrap_or_default(),
        ));
    }
    let text = text.map_err(TokenError::Malformed)?;
    let fields = fields(&text, html).map_err(TokenError::Malformed)?;
    // Some servers send error responses with status 200.
    if value(&fields, &names.access_token).is_none() && value(&fields, &names.error).is_some() {
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
    if let Grant::TokenExchange(exchange) = &dialect.grant {
        let issued = value(fields, &FieldPath::name("issued_token_type"));
        exchange.check_issued(issued.as_ref())?;
    }
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
    let form = has_type(headers, "application/x-www-form-urlencoded");
    if form && !text.starts_with('{') { form_object(&text) } else { Ok(text) }
}

/// A body without byte order mark and the white space around it.
fn trim(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii()
}

/// True if the content type is this one, whatever its parameters.
fn has_type(headers: &HeaderMap, expected: &str) -> bool {
    let stated = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = stated.and_then(|stated| stated.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(expected))
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

/// The fields of a JSON object; `html` is the error for HTML.
fn fields(text: &str, html: MalformedResponse) -> Result<Fields<'_>, MalformedResponse> {
    match serde_json::from_str(text) {
        Ok(fields) => Ok(fields),
        Err(_) if text.is_empty() => Err(MalformedResponse::Empty),
        Err(_) if text.starts_with('<') => Err(html),
        Err(_) if looks_like_form(text) => Err(MalformedResponse::FormEncoded),
        Err(_) if serde_json::from_str::<IgnoredAny>(text).is_ok() => {
            Err(MalformedResponse::NotAnObject)
        }
        Err(_) => Err(MalformedResponse::NotJson),
    }
}

/// An error response is read as a form even if its content type does not say so: its code decides
/// whether the client is tried again.
fn form_if_it_looks_like_one(
    text: Zeroizing<String>,
) -> Result<Zeroizing<String>, MalformedResponse> {
    if looks_like_form(&text) { form_object(&text) } else { Ok(text) }
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
    check_access_token(Sensitive::new(text), max_bytes)
}

/// The token, if it can be one: visible ASCII (RFC 6749 appendix A.12) of at most `max_bytes`.
///
/// # Errors
/// It cannot.
pub fn check_access_token(
    token: Sensitive,
    max_bytes: usize,
) -> Result<Sensitive, MalformedResponse> {
    match token.expose() {
        text if text.len() > max_bytes => Err(MalformedResponse::AccessTokenTooLong),
        text if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(MalformedResponse::AccessToken)
        }
        _ => Ok(token),
    }
}

/// RFC 6749 section 7.1: a token of an unknown type must not be used. Nor is a token used that is bound
/// to no key although a proof was sent: the server has not understood it.
fn check_type(dialect: &Dialect, value: Option<&Value>) -> Result<(), MalformedResponse> {
    let kind = value.and_then(Value::as_str);
    match (dialect.token_type, kind.is_some_and(|kind| kind.eq_ignore_ascii_case("dpop"))) {
        (TokenType::Dpop, true) => return Ok(()),
        (TokenType::Dpop, false) => return Err(MalformedResponse::NotBoundToKey),
        (TokenType::Bearer, true) => return Err(MalformedResponse::BoundToKey),
        (TokenType::Bearer, false) => {}
    }
    let accepted = |kind: &str| {
        kind.eq_ignore_ascii_case("bearer")
            || dialect.accept_token_types.iter().any(|other| other.eq_ignore_ascii_case(kind))
    };
    match value {
        None if dialect.require_token_type => Err(MalformedResponse::NoTokenType),
        None => Ok(()),
        Some(value) if value.as_str().is_some_and(accepted) => Ok(()),
        Some(value) if value.as_str() == Some("N_A") => Err(MalformedResponse::NotAccessToken),
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
        _ => {
            let stated = value.as_i64().or_else(|| value.as_str()?.parse().ok());
            Err(MalformedResponse::Lifetime(stated))
        }
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

/// The wait that `Retry-After` asks for (RFC 9110 section 10.2.3): seconds, or a date, which is read against
/// the server's own clock.
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
mod tests;
