//! `Sensitive`: text that must never be printed; and whether text looks like a secret.
//!
//! A newtype over `zeroize`, so that secrets redact themselves wherever they travel. It has no
//! `Display` and no `Serialize`; the one way to the text is [`Sensitive::expose`], which is easy to
//! search for in a review.

use std::fmt;

use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

/// Secret text: wiped from memory when dropped, shown as `[redacted]` by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Sensitive(Zeroizing<String>);

impl Sensitive {
    /// Takes the text over; the caller's copy is moved, not cloned.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself. Each call of this is a place where a secret could leak.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text after a scheme, such as `"Bearer "`, as the value of a header: marked sensitive, and
    /// wiped when its last copy is dropped. `None` where it holds what is no visible ASCII.
    pub fn header(&self, scheme: &'static str) -> Option<HeaderValue> {
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

    /// Whether there is no text at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Longest word of a name; keys are longer.
const LONGEST_WORD: usize = 32;

/// Whether no person would give this name, so that it is refused where it is written: letters of
/// both cases among digits, letters that follow digits again and again, or a word without end.
pub fn looks_random(name: &str) -> bool {
    let has = |class: fn(&char) -> bool| name.chars().any(|c| class(&c));
    let mixed = has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase);
    let words = || name.split(['_', '-', '.']);
    mixed && has(char::is_ascii_digit)
        || words().any(|word| word.len() > LONGEST_WORD || digit_letter_transitions(word) > 1)
}

/// How often a letter follows a digit.
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
