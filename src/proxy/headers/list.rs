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

/// A name as servers may read it that pass fields on as variables, like CGI (RFC 3875 section 4.1.18):
/// with `-` for `_`, and without `http-` before and `-` behind it.
pub(super) fn folded(name: impl AsRef<[u8]>) -> Vec<u8> {
    let mut folded: Vec<u8> =
        name.as_ref().iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect();
    while folded.starts_with(b"http-") {
        folded.drain(..5);
    }
    while folded.last() == Some(&b'-') {
        folded.pop();
    }
    folded
}

/// Removes the fields with a matching name. Allocates only if there is one.
pub(super) fn remove_where(headers: &mut HeaderMap, matches: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| matches(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}
