//! Pure: the fields of a head or of trailers, as lines (RFC 9112 section 5).
//!
//! A line is a name, a colon, a value and CR LF, nothing else: no space before the colon, no folded
//! line, no bare CR or LF. Names and values are held to their grammar by the `http` crate.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Why fields cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldError {
    /// A line is no field.
    Malformed,
    /// There are more than allowed.
    TooMany,
}

/// Room for the fields that a proxy adds, so that the map does not grow a second time.
const ADDED: usize = 4;

/// Reads all lines up to the empty one, with which `block` ends; `note` sees each field once.
///
/// # Errors
/// The first line that is no field, or one too many.
pub fn read(
    block: &Bytes,
    max: usize,
    mut note: impl FnMut(&HeaderName, &[u8]),
) -> Result<HeaderMap, FieldError> {
    let lines = memchr::memchr_iter(b'\n', block).count().saturating_sub(1);
    if lines > max {
        return Err(FieldError::TooMany);
    }
    let mut all = HeaderMap::with_capacity(lines + ADDED);
    let mut rest: &[u8] = block;
    while let Some(feed) = memchr::memchr(b'\n', rest) {
        let (line, after) = rest.split_at(feed + 1);
        rest = after;
        let line = line.strip_suffix(b"\r\n").ok_or(FieldError::Malformed)?;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or(FieldError::Malformed)?;
        let (name, value) = line.split_at(colon);
        let name = HeaderName::from_bytes(name).map_err(|_| FieldError::Malformed)?;
        let value = trimmed(value.get(1..).unwrap_or_default());
        note(&name, value);
        let value = HeaderValue::from_maybe_shared(block.slice_ref(value));
        all.append(name, value.map_err(|_| FieldError::Malformed)?);
    }
    if rest.is_empty() { Ok(all) } else { Err(FieldError::Malformed) }
}

/// Without the spaces and tabs around it.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Writes one field, a line.
pub fn write(name: &HeaderName, value: &HeaderValue, out: &mut BytesMut) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Whether a value names this member of its list (RFC 9110 section 5.6.1).
pub fn lists(value: &[u8], member: &[u8]) -> bool {
    let mut members = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.any(|found| found.eq_ignore_ascii_case(member))
}

/// RFC 9110 section 8.6: digits only.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Follows the bytes of a head as they come, to its end.
#[derive(Debug, Default)]
pub struct HeadEnd {
    /// Bytes that were looked at.
    seen: usize,
}

/// A line ends without CR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BareLineFeed;

impl HeadEnd {
    /// The length of the head that `input` begins with, once its empty line is there. Only what is
    /// new since the last call is looked at.
    ///
    /// # Errors
    /// A line that ends without CR is not repaired (RFC 9112 section 2.2).
    pub fn find(&mut self, input: &[u8]) -> Result<Option<usize>, BareLineFeed> {
        let new = input.get(self.seen..).unwrap_or_default();
        for feed in memchr::memchr_iter(b'\n', new) {
            let line = input.get(..self.seen + feed).unwrap_or_default();
            if !line.ends_with(b"\r") {
                return Err(BareLineFeed);
            }
            if line.ends_with(b"\r\n\r") {
                return Ok(Some(self.seen + feed + 1));
            }
        }
        self.seen = input.len();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_read_strictly() {
        let check = |block: &'static str, expected: Result<&[(&str, &str)], FieldError>| {
            let read = read(&Bytes::from_static(block.as_bytes()), 3, |_, _| {});
            let read = read.as_ref().map(|all| {
                let text = |(name, value): (&HeaderName, &HeaderValue)| {
                    (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into())
                };
                all.iter().map(text).collect::<Vec<(String, String)>>()
            });
            let owned = |all: &[(&str, &str)]| {
                all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
            };
            assert_eq!(read.map_err(|error| *error), expected.map(owned), "{block:?}");
        };
        check("\r\n", Ok(&[]));
        check(
            "Host: a\r\nX:\t b c \t\r\nY:\r\n\r\n",
            Ok(&[("host", "a"), ("x", "b c"), ("y", "")]),
        );
        check("a: 1\r\na: 2\r\n\r\n", Ok(&[("a", "1"), ("a", "2")]));
        check("a:b:c\r\n\r\n", Ok(&[("a", "b:c")]));
        check("a: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\n\r\n", Err(FieldError::TooMany));
        for block in [
            "a\r\n\r\n",
            ": b\r\n\r\n",
            "a : b\r\n\r\n",
            " a: b\r\n\r\n",
            "a: b\r\n c\r\n\r\n",
            "a: b\n\r\n",
            "a: b\rc\r\n\r\n",
            "a: b\r\r\n\r\n",
            "a: \0\r\n\r\n",
            "a: \x7f\r\n\r\n",
            "a: b\x0c\r\n\r\n",
            "\r\na: b\r\n",
            "a(): b\r\n\r\n",
        ] {
            check(block, Err(FieldError::Malformed));
        }
    }

    #[test]
    fn a_head_ends_with_its_empty_line_however_it_comes() {
        let head = b"GET / HTTP/1.1\r\na: b\r\n\r\nmore";
        for cut in 0..head.len() {
            let mut end = HeadEnd::default();
            let early = end.find(&head[..cut]).unwrap();
            assert_eq!(early.is_some(), cut >= 24, "{cut}");
            assert!(early.is_some() || end.find(head) == Ok(Some(24)), "{cut}");
        }
        assert_eq!(HeadEnd::default().find(b"a\nb"), Err(BareLineFeed));
    }

    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "a", "Host", ":", ": ", " ", "\t", "\r\n", "\r", "\n", "\0", "b c", "é", "x-y", ",",
            "\"", "\x7f", "1",
        ])
    }

    proptest! {
        /// `httparse`, which hyper reads with, is the oracle: what we take, it takes alike.
        #[test]
        fn another_parser_reads_alike(pieces in prop::collection::vec(piece(), 0..24)) {
            let block = Bytes::from(format!("{}\r\n\r\n", pieces.concat()));
            if let Ok(all) = read(&block, 64, |_, _| {}) {
                let mut fields = [httparse::EMPTY_HEADER; 64];
                let parsed = httparse::parse_headers(&block, &mut fields).unwrap();
                let httparse::Status::Complete((length, fields)) = parsed else { panic!("partial") };
                prop_assert_eq!(length, block.len());
                prop_assert_eq!(all.len(), fields.len());
                for field in fields {
                    let mut values = all.get_all(field.name.to_ascii_lowercase()).iter();
                    prop_assert!(values.any(|value| value.as_bytes() == field.value));
                }
            }
        }
    }
}
