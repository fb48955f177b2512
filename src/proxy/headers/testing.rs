//! Helpers for the tests of this folder.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A head of these fields, as it is read from a connection.
pub(crate) fn head(fields: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| {
        let value = HeaderValue::from_bytes(value.as_bytes().trim_ascii());
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), value.unwrap())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in fields.iter().map(field) {
        headers.append(name, value);
    }
    headers
}

/// The lines of a head, sorted.
pub(crate) fn lines(headers: &HeaderMap) -> Vec<String> {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
    };
    let mut lines: Vec<_> = headers.iter().map(line).collect();
    lines.sort_unstable();
    lines
}
