//! Pure: the length of a request's body, as its head announces it (RFC 9112 section 6).

use http::Version;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};

/// The length of a request's body, as its head announces it (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// The body has this many bytes.
    Known(u64),
    /// The body comes in chunks, or in frames of HTTP/2: its end is known when it arrives.
    Unknown,
}

/// An ambiguity in the announced length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyLengthError {
    /// Content-Length is a list, no plain number, or repeated with another value.
    #[error("Content-Length is not one plain number")]
    Length,
    /// A transfer coding other than one single `chunked`, or one in a version that has none.
    #[error("Transfer-Encoding is not one single `chunked`")]
    Coding,
}

/// Reads the length of a request's body from a head that hyper has accepted. Beside `chunked` a
/// Content-Length has no meaning, and repeated equal lengths count once (RFC 9112 section 6.3).
///
/// Of the transfer codings, hyper reads the last member of the last line only. A coding before it would
/// have to be decoded, or announced to the upstream again; as nothing does that, it is refused here.
///
/// # Errors
/// Any Transfer-Encoding but one single line `chunked`, in any case; one in another version than
/// HTTP/1.1 (RFC 9112 section 6.1, RFC 9113 section 8.2.2); a Content-Length that is not made of
/// digits alone or does not fit in 64 bits, and two that differ.
pub fn request_body_length(
    version: Version,
    headers: &HeaderMap,
) -> Result<BodyLength, BodyLengthError> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let single = codings.next().is_none();
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        return match single && chunked && version == Version::HTTP_11 {
            true => Ok(BodyLength::Unknown),
            false => Err(BodyLengthError::Coding),
        };
    }
    let mut body_length = BodyLength::None;
    for line in headers.get_all(CONTENT_LENGTH) {
        let length = BodyLength::Known(length(line).ok_or(BodyLengthError::Length)?);
        if body_length != BodyLength::None && body_length != length {
            return Err(BodyLengthError::Length);
        }
        body_length = length;
    }
    Ok(body_length)
}

/// `1*DIGIT` (RFC 9110 section 8.6); `None` for anything else, and for what overflows.
fn length(line: &HeaderValue) -> Option<u64> {
    let text = line.to_str().ok()?;
    // `parse` alone would take a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::headers::testing::head;

    #[test]
    fn body_length_is_read_strictly() {
        let check = |fields: &[(&str, &str)], expected: Result<BodyLength, BodyLengthError>| {
            assert_eq!(
                request_body_length(Version::HTTP_11, &head(fields)),
                expected,
                "{fields:?}"
            );
        };
        let (length, coding) = ("content-length", "transfer-encoding");
        check(&[], Ok(BodyLength::None));
        check(&[("content-encoding", "gzip")], Ok(BodyLength::None));
        check(&[(length, "10")], Ok(BodyLength::Known(10)));
        check(&[(length, "0")], Ok(BodyLength::Known(0)));
        check(&[(length, "007")], Ok(BodyLength::Known(7)));
        check(&[(length, "18446744073709551615")], Ok(BodyLength::Known(u64::MAX)));
        check(&[(length, "1"), (length, "1")], Ok(BodyLength::Known(1)));
        check(&[(length, "1"), (length, "01")], Ok(BodyLength::Known(1)));
        for wrong in
            ["+1", "-1", "1, 1", "", "0x1", "1 1", "1.0", "\u{661}", "18446744073709551616"]
        {
            check(&[(length, wrong)], Err(BodyLengthError::Length));
            check(&[(length, "1"), (length, wrong)], Err(BodyLengthError::Length));
        }
        check(&[(length, "1"), (length, "2")], Err(BodyLengthError::Length));
        check(&[(length, "1"), (length, "1"), (length, "0")], Err(BodyLengthError::Length));
        check(&[(coding, "chunked")], Ok(BodyLength::Unknown));
        check(&[(coding, "CHUNKED")], Ok(BodyLength::Unknown));
        check(&[(length, "10"), (coding, "chunked")], Ok(BodyLength::Unknown));
        check(&[(coding, "chunked"), (length, "x")], Ok(BodyLength::Unknown));
        for wrong in [
            "gzip, chunked",
            "chunked, chunked",
            ", chunked",
            "chunked,",
            "identity",
            "xchunked",
            "",
        ] {
            check(&[(coding, wrong)], Err(BodyLengthError::Coding));
            check(&[(coding, wrong), (length, "1")], Err(BodyLengthError::Coding));
        }
        check(&[(coding, "chunked"), (coding, "chunked")], Err(BodyLengthError::Coding));
        check(&[(coding, "gzip"), (coding, "chunked")], Err(BodyLengthError::Coding));
    }

    #[test]
    fn only_one_version_has_transfer_codings() {
        let check = |version: Version, expected: Result<BodyLength, BodyLengthError>| {
            let chunked = head(&[("transfer-encoding", "chunked")]);
            assert_eq!(request_body_length(version, &chunked), expected, "{version:?}");
        };
        check(Version::HTTP_11, Ok(BodyLength::Unknown));
        for version in [Version::HTTP_09, Version::HTTP_10, Version::HTTP_2, Version::HTTP_3] {
            check(version, Err(BodyLengthError::Coding));
        }
        let length = head(&[("content-length", "3")]);
        assert_eq!(request_body_length(Version::HTTP_2, &length), Ok(BodyLength::Known(3)));
    }
}
