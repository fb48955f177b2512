//! What holds of every answer of a token server: reading it never panics, what is accepted fits
//! into a header, and what is refused is told without the server's words.

use std::time::{Duration, SystemTime};

use bearer_proxy::oauth::{ScopeSet, lifetime, presets, token_response};
use http::{HeaderMap, HeaderValue, StatusCode};

/// Stands for anything secret in an answer.
const CANARY: &str = "canary7Gx";

/// Checks one answer: the first byte chooses the dialect, the second the status, a line the date.
pub fn check(data: &[u8]) {
    let [preset, status, rest @ ..] = data else { return };
    let all = presets::all();
    let dialect = &all[usize::from(*preset) % all.len()].dialect;
    let status = StatusCode::from_u16(200 + u16::from(*status) % 400).unwrap();
    let (date, body) = match rest.iter().position(|byte| *byte == b'\n') {
        Some(at) => rest.split_at(at),
        None => (&b""[..], rest),
    };
    let mut headers = HeaderMap::new();
    if let Ok(date) = HeaderValue::from_bytes(date) {
        headers.insert(http::header::RETRY_AFTER, date.clone());
        headers.insert(http::header::DATE, date);
    }
    match token_response::parse(dialect, &ScopeSet::default(), status, &headers, body) {
        Ok(issued) => {
            assert!(status.is_success(), "a refusal is no token");
            let token = issued.access_token.expose();
            assert!((1..=dialect.max_token_bytes).contains(&token.len()));
            assert!(HeaderValue::from_str(&format!("Bearer {token}")).is_ok());
            assert!(token.bytes().all(|byte| byte.is_ascii_graphic()), "no visible ASCII: {token}");
            // Scopes are shown, and a server may name one like the token.
            let may_show = token.len() < 9 || issued.scope.is_some();
            assert!(may_show || !format!("{issued:?}").contains(token), "Debug shows it");
            let now = SystemTime::now();
            let life = lifetime::lifetime(&issued, now, now, Duration::from_secs(300)).life;
            assert!(life <= Duration::from_secs(24 * 3600));
        }
        Err(error) => {
            let words = format!("{error} {}", error.label());
            assert!(!words.contains(CANARY), "{words}");
            assert!(words.len() < 300 && words.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            assert!(!format!("{error:?}").contains(CANARY) || error.description().is_some());
        }
    }
}
