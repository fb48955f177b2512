//! `Sensitive`: text that must never be printed.
//!
//! A newtype over `zeroize`, so that secrets redact themselves wherever they travel. It has no
//! `Display` and no `Serialize`; the one way to the text is [`Sensitive::expose`], which is easy to
//! search for in a review.

use std::fmt;

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
}
