//! `Sensitive`: text that must never be printed. [`private_file`]: files for it. [`looks_random`]: a test for
//! text that may be a secret.
//!
//! `Sensitive` is a newtype over `zeroize`, so a secret redacts itself wherever it is passed. It has no
//! `Display` and no `Serialize`. The only access to the text is [`Sensitive::expose`], which is easy to find
//! in a review.

use std::fmt;
use std::fs::OpenOptions;

use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

/// Options to write a file that its owner alone may read and write, where files have modes. Add how it is
/// opened.
pub fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Secret text: wiped from memory when dropped, shown as `[redacted]` by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Sensitive(Zeroizing<String>);

impl Sensitive {
    /// Takes ownership of the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself. Each call is a place where a secret could leak.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A header value of a scheme, such as `"Bearer "`, and the text. It is marked sensitive and wiped when
    /// its last copy is dropped. `None` if the text holds anything but visible ASCII, spaces and tabs.
    pub fn header(&self, scheme: &str) -> Option<HeaderValue> {
        let visible = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
        if !self.expose().bytes().all(visible) {
            return None;
        }
        let text = Zeroizing::new([scheme.as_bytes(), self.expose().as_bytes()].concat());
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Length in bytes, which diagnostics may show.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if the text is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Longest word of a name that a person would choose, in bytes.
const LONGEST_WORD: usize = 32;

/// True if a name looks like a key instead of a person's choice: letters of both cases and digits, letters
/// that follow digits twice or more, or a word of more than 32 bytes. Such a name is refused, because it may
/// be a secret in the wrong place.
pub fn looks_random(name: &str) -> bool {
    let has = |class: fn(&char) -> bool| name.chars().any(|c| class(&c));
    let mixed = has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase);
    let words = || name.split(['_', '-', '.']);
    mixed && has(char::is_ascii_digit)
        || words().any(|word| word.len() > LONGEST_WORD || digit_letter_transitions(word) > 1)
}

/// The number of letters that follow a digit.
fn digit_letter_transitions(word: &str) -> usize {
    let bytes = word.as_bytes().windows(2);
    bytes.filter(|two| two[0].is_ascii_digit() && two[1].is_ascii_alphabetic()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let secret = Sensitive::new("hunter2");
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(format!("{:?}", Some(&secret)), "Some([redacted])");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn headers_are_marked() {
        let header = Sensitive::new("hunter2").header("Bearer ").unwrap();
        assert!(header.is_sensitive());
        assert_eq!(header, "Bearer hunter2");
        assert_eq!(format!("{header:?}"), "Sensitive");
        for text in ["a\r\nX: y", "a\0", "\u{7f}", "ä"] {
            assert_eq!(Sensitive::new(text).header(""), None, "{text:?}");
        }
    }
}
