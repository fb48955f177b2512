//! Pure: an `access_token` in the query (RFC 6750 section 2.3).
//!
//! RFC 6750 section 2 forbids sending a token in more than one way, and a server that reads the query
//! first would act for another user than the route intends.

use http::uri::PathAndQuery;

/// True if the query has an access token, in any spelling that a server may accept: percent-encoded, in
/// another case, as an element of a list.
pub fn has_access_token(query: &str) -> bool {
    query.split(SEPARATORS).any(is_access_token)
}

/// Removes access tokens from a target, and the question mark if no parameter is left.
pub fn strip_access_token(target: &PathAndQuery) -> Option<PathAndQuery> {
    let (path, query) = (target.path(), target.query().unwrap_or_default());
    match without_access_token(query) {
        Some(left) => PathAndQuery::try_from(format!("{path}?{left}")).ok(),
        None => PathAndQuery::try_from(path).ok(),
    }
}

/// Removes access tokens from a query and keeps all other bytes; `None` if nothing is left.
pub fn without_access_token(query: &str) -> Option<String> {
    let mut left = String::with_capacity(query.len());
    for part in query.split_inclusive(SEPARATORS) {
        if !is_access_token(part.trim_end_matches(SEPARATORS)) {
            left.push_str(part);
        }
    }
    let left =
        left.strip_suffix(SEPARATORS).filter(|_| !query.ends_with(SEPARATORS)).unwrap_or(&left);
    if left.is_empty() { None } else { Some(left.to_owned()) }
}

/// Separators of parameters. Servers differ on `;`, so that it counts as one.
const SEPARATORS: [char; 2] = ['&', ';'];

const ACCESS_TOKEN: &[u8] = b"access_token";

fn is_access_token(parameter: &str) -> bool {
    let name = parameter.split('=').next().unwrap_or_default();
    // Encoding never shortens a name.
    if name.len() < ACCESS_TOKEN.len() {
        return false;
    }
    let plain = percent_encoding::percent_decode_str(name);
    let name: Vec<u8> = plain.take_while(|byte| *byte != b'[').collect();
    name.trim_ascii().eq_ignore_ascii_case(ACCESS_TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_tokens_are_found_and_taken_out() {
        let check = |query: &str, expected: Option<&str>| {
            assert_eq!(without_access_token(query).as_deref(), expected, "{query}");
            assert_eq!(has_access_token(query), expected != Some(query), "{query}");
        };
        check("a=1&b=2", Some("a=1&b=2"));
        check("access_token=x", None);
        check("a=1&access_token=x", Some("a=1"));
        check("access_token=x&a=%2F&", Some("a=%2F&"));
        check("a=1;access_token=x;b", Some("a=1;b"));
        check("Access_Token=x&access%5Ftoken=y&a", Some("a"));
        check("%61ccess_token&access_token[]=x&access_token%5B0%5D=y&b", Some("b"));
        check(
            "my_access_token=x&access_tokens=y&q=access_token",
            Some("my_access_token=x&access_tokens=y&q=access_token"),
        );
        check("&&a", Some("&&a"));
    }
}
