//! Checks that a response can be passed on: its end can be read in one way only, and it switches
//! protocols only if the request asked for that.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{Response, StatusCode, Version};

use super::error::SendErrorKind;

/// The `Content-Length` lines of a response (RFC 9112 section 6.3).
enum ContentLength {
    Absent,
    /// One line with one number.
    Single,
    /// The same number several times, or one that is surrounded by whitespace.
    Repeated(u64),
    /// Different numbers, or anything else.
    Invalid,
}

impl ContentLength {
    fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(CONTENT_LENGTH).iter();
        match (lines.next(), lines.next()) {
            (None, _) => return Self::Absent,
            (Some(line), None) if decimal(line.as_bytes()).is_some() => return Self::Single,
            _ => {}
        }
        let lines = headers.get_all(CONTENT_LENGTH).iter();
        let members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        let mut numbers = members.map(|member| decimal(member.trim_ascii()));
        match numbers.next().flatten() {
            Some(first) if numbers.all(|other| other == Some(first)) => Self::Repeated(first),
            _ => Self::Invalid,
        }
    }
}

/// A number that consists of digits alone, without a sign.
fn decimal(text: &[u8]) -> Option<u64> {
    let digits = text.iter().all(u8::is_ascii_digit).then_some(text)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Checks a response over HTTP/1, where `requested` is the protocol that the request offered in
/// `Upgrade`. Equal lengths that are repeated become one.
///
/// hyper looks at lengths only where a body follows, so the response to HEAD, whose length is that of
/// another response, is checked here as well.
///
/// # Errors
/// [`SendErrorKind::UnaskedUpgrade`] or [`SendErrorKind::AmbiguousLength`].
pub(super) fn check_http1<B>(
    response: &mut Response<B>,
    requested: Option<&HeaderValue>,
) -> Result<(), SendErrorKind> {
    let headers = response.headers();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let named = sole(headers, UPGRADE).zip(requested);
        return match named.is_some_and(|(named, requested)| equal(named, requested.as_bytes())) {
            true => Ok(()),
            false => Err(SendErrorKind::UnaskedUpgrade),
        };
    }
    let has_coding = headers.contains_key(TRANSFER_ENCODING);
    // HTTP/1.0 has no transfer codings.
    let is_chunked = || {
        response.version() == Version::HTTP_11
            && sole(headers, TRANSFER_ENCODING).is_some_and(|coding| equal(coding, b"chunked"))
    };
    match ContentLength::of(headers) {
        ContentLength::Absent | ContentLength::Single if !has_coding => Ok(()),
        ContentLength::Absent if is_chunked() => Ok(()),
        ContentLength::Repeated(length) if !has_coding => {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            Ok(())
        }
        _ => Err(SendErrorKind::AmbiguousLength),
    }
}

/// Checks a response over HTTP/2, which has neither protocol switches nor transfer codings.
///
/// # Errors
/// As for [`check_http1`], and [`SendErrorKind::TooManyHeaders`]: hyper counts lines over HTTP/1 only.
pub(super) fn check_http2<B>(
    response: &Response<B>,
    max_headers: usize,
) -> Result<(), SendErrorKind> {
    let headers = response.headers();
    let length = ContentLength::of(headers);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        Err(SendErrorKind::UnaskedUpgrade)
    } else if headers.len() > max_headers {
        Err(SendErrorKind::TooManyHeaders)
    } else if !matches!(length, ContentLength::Absent | ContentLength::Single)
        || headers.contains_key(TRANSFER_ENCODING)
    {
        Err(SendErrorKind::AmbiguousLength)
    } else {
        Ok(())
    }
}

/// The value of a field that has exactly one line.
fn sole(headers: &HeaderMap, name: http::HeaderName) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

fn equal(value: &HeaderValue, expected: &[u8]) -> bool {
    value.as_bytes().eq_ignore_ascii_case(expected)
}
