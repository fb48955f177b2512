//! Pure search for a token in the values that an upstream sends, since an upstream may echo the request.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use memchr::memchr;
use percent_encoding::percent_decode;

/// Replaces each value that contains the token; other lines of the same field stay. Content-Length is
/// left alone: it frames the response, whatever digits a short token has.
pub fn redact_token(headers: &mut HeaderMap, token: Option<&[u8]>) {
    let Some(token) = token else { return };
    for (name, value) in headers.iter_mut() {
        if contains_token(value.as_bytes(), token) && *name != CONTENT_LENGTH {
            *value = HeaderValue::from_static("[redacted]");
        }
    }
}

/// True if bytes contain the token, as it is or percent-encoded as in a URL. Nothing contains an empty
/// token.
pub fn contains_token(bytes: &[u8], token: &[u8]) -> bool {
    // Encoding never shortens a text, so that most values are too short for most tokens.
    let Some(first) = token.first().filter(|_| bytes.len() >= token.len()) else { return false };
    // The first byte is compared before the rest: that is cheap, and rarely equal.
    let plain = |bytes: &[u8]| {
        bytes.windows(token.len()).any(|part| part.first() == Some(first) && part == token)
    };
    let decoded = || percent_decode(bytes).collect::<Vec<_>>();
    plain(bytes) || (memchr(b'%', bytes).is_some() && plain(&decoded()))
}
