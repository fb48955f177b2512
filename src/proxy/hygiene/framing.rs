//! Pure: how the body of a request is delimited (RFC 9112 section 6).

use std::fmt;

use crate::message::{Fields, text};
use http::Version;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

/// How the body of a request is delimited (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks, or the frames of HTTP/2: the end shows when it comes.
    Chunked,
}

/// Why a body's end is uncertain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramingError {
    /// Both Content-Length and Transfer-Encoding.
    Both,
    /// Content-Length repeated, a list, or no plain number.
    Length,
    /// A transfer coding other than one single `chunked`.
    Coding,
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Both => "both Content-Length and Transfer-Encoding are present",
            Self::Length => "Content-Length is not one plain number",
            Self::Coding => "Transfer-Encoding is not one single `chunked`",
        })
    }
}

impl std::error::Error for FramingError {}

/// Reads how a request's body is delimited; whatever is odd is refused, not repaired.
///
/// # Errors
/// Anything that two servers could read differently.
pub fn request_framing(version: Version, headers: &Fields) -> Result<Framing, FramingError> {
    let mut codings = headers.get_all(&TRANSFER_ENCODING);
    let mut lengths = headers.get_all(&CONTENT_LENGTH);
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Framing::None),
        (Some(_), Some(_)) => Err(FramingError::Both),
        (Some(coding), None) => {
            let single = codings.next().is_none() && coding.eq_ignore_ascii_case(b"chunked");
            match single && version == Version::HTTP_11 {
                true => Ok(Framing::Chunked),
                false => Err(FramingError::Coding),
            }
        }
        (None, Some(length)) => {
            let text = text(length).unwrap_or_default();
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            match (lengths.next(), text.parse()) {
                (None, Ok(length)) if plain => Ok(Framing::Length(length)),
                _ => Err(FramingError::Length),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::hygiene::testing::head;

    #[test]
    fn framing_is_read_strictly() {
        let check = |fields: &[(&str, &str)], expected: Result<Framing, FramingError>| {
            assert_eq!(request_framing(Version::HTTP_11, &head(fields)), expected, "{fields:?}");
        };
        check(&[], Ok(Framing::None));
        check(&[("content-length", "10")], Ok(Framing::Length(10)));
        check(&[("transfer-encoding", "Chunked")], Ok(Framing::Chunked));
        check(
            &[("content-length", "10"), ("transfer-encoding", "chunked")],
            Err(FramingError::Both),
        );
        for length in ["+1", "1, 1", "", "0x1", "99999999999999999999"] {
            check(&[("content-length", length)], Err(FramingError::Length));
        }
        check(&[("content-length", "1"), ("content-length", "1")], Err(FramingError::Length));
        for coding in ["gzip, chunked", "chunked, chunked", ", chunked", "identity", "xchunked"] {
            check(&[("transfer-encoding", coding)], Err(FramingError::Coding));
        }
        check(
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            Err(FramingError::Coding),
        );
        let chunked = head(&[("transfer-encoding", "chunked")]);
        assert_eq!(request_framing(Version::HTTP_10, &chunked), Err(FramingError::Coding));
    }
}
