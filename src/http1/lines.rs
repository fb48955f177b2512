//! Pure: where a head ends, and what single values in it say.

use bytes::BytesMut;

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

/// Writes a number as [`decimal`] reads it.
pub fn write_decimal(mut number: u64, out: &mut BytesMut) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
