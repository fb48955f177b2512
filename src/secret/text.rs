//! The bytes of a source as the text of a secret: bounded, UTF-8, without one trailing newline.

use std::io;

use zeroize::Zeroizing;

use super::error::{MAX_BYTES, SecretFault};
use crate::sensitive::Sensitive;

/// Bytes to read from a source: two more than [`MAX_BYTES`] for the newline, and one by which a
/// longer value shows.
pub(super) const READ_LIMIT: usize = MAX_BYTES + 3;

/// A buffer that is wiped when dropped. It has the full size at once, because growing would leave
/// copies of a part of the secret behind.
pub(super) fn buffer() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(READ_LIMIT + 1))
}

/// Reads all bytes of a file or a pipe.
pub(super) fn read(from: impl io::Read) -> Result<Sensitive, SecretFault> {
    let mut bytes = buffer();
    io::Read::read_to_end(&mut from.take(READ_LIMIT as u64), &mut bytes)?;
    decode(&bytes)
}

/// The text of at most [`READ_LIMIT`] bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Sensitive, SecretFault> {
    if bytes.len() == READ_LIMIT {
        return Err(SecretFault::TooLong);
    }
    std::str::from_utf8(bytes).map(Sensitive::new).map_err(|_| SecretFault::NotUtf8)
}

/// Removes one trailing newline, which editors and `echo` add, and refuses a blank or too long value.
pub(super) fn trim(value: &Sensitive) -> Result<Sensitive, SecretFault> {
    let text = value.expose();
    let bare = text.strip_suffix('\n').map_or(text, |rest| rest.strip_suffix('\r').unwrap_or(rest));
    if bare.trim().is_empty() {
        return Err(SecretFault::Empty);
    }
    if bare.len() > MAX_BYTES {
        return Err(SecretFault::TooLong);
    }
    Ok(Sensitive::new(bare))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_goes() {
        for (found, expected) in [
            ("s", Ok("s")),
            ("s\n", Ok("s")),
            ("s\r\n", Ok("s")),
            ("s\n\n", Ok("s\n")),
            ("s\r", Ok("s\r")),
            (" s ", Ok(" s ")),
            ("a\nb\n", Ok("a\nb")),
            ("", Err(SecretFault::Empty)),
            ("\n", Err(SecretFault::Empty)),
            (" \t\r\n", Err(SecretFault::Empty)),
        ] {
            let trimmed = trim(&Sensitive::new(found));
            assert_eq!(trimmed, expected.map(Sensitive::new), "{found:?}");
        }
        assert_eq!(trim(&Sensitive::new("x".repeat(MAX_BYTES + 1))), Err(SecretFault::TooLong));
        assert!(trim(&Sensitive::new("x".repeat(MAX_BYTES))).is_ok());
    }
}
