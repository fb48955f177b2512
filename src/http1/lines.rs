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

impl HeadEnd {
    /// Whether what begins `input` has come to its empty line, or to a line that no head has. Only what
    /// is new since the last call is looked at.
    pub fn is_over(&mut self, input: &[u8]) -> bool {
        let new = input.get(self.seen..).unwrap_or_default();
        let over = memchr::memchr_iter(b'\n', new).any(|feed| {
            let line = input.get(..self.seen + feed).unwrap_or_default();
            !line.ends_with(b"\r") || line.ends_with(b"\r\n\r")
        });
        self.seen = input.len();
        over
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
        for cut in 0..24 {
            let mut end = HeadEnd::default();
            assert!(!end.is_over(&head[..cut]) && end.is_over(head), "{cut}");
        }
        assert!(HeadEnd::default().is_over(b"a\nb"));
    }
}
