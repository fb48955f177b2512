//! Pure helpers for field names and comma-separated lists.

use http::header::{HeaderMap, HeaderName};

/// The members of a comma-separated list, over all lines of a field (RFC 9110 section 5.6.1).
pub(super) fn members(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// True if a byte may stand in a token (RFC 9110 section 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A name with each `_` replaced by `-`, as some servers read it.
pub(super) fn dashed(name: impl AsRef<[u8]>) -> Vec<u8> {
    name.as_ref().iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect()
}

/// Removes the fields with a matching name. Allocates only if there is one.
pub(super) fn remove_where(headers: &mut HeaderMap, matches: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| matches(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}
