//! The one canonical reading of a request target.
//!
//! Servers disagree on encoded dots and slashes, doubled slashes, dot segments and parameters. A target
//! that two servers could interpret differently is rejected, unless its route opts in. Percent-encoded
//! letters, digits, `-`, `_` and `~` are decoded (RFC 3986 section 6.2.2.2). The path that was matched
//! is then the path that is forwarded, byte for byte.

mod character;
mod error;
mod lenient;
mod spelled;

use std::borrow::Cow;

use character::is_pchar;
pub use error::{Flaw, QuirkSet, Quirks, TargetError};
pub use lenient::could_alias;
pub(super) use lenient::{Interpretations, lenient_interpretations};
use spelled::Spelled;

/// A target with one interpretation only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// The path in its canonical form: as received, with percent-encoded unreserved characters decoded.
    pub path: Cow<'a, str>,
    /// The query as received, without its question mark; it is never interpreted.
    pub query: Option<&'a str>,
    /// Features that need an opt-in of the route.
    pub quirks: Quirks,
}

impl<'a> Target<'a> {
    /// Reads a target in origin form (RFC 9112 section 3.2.1).
    ///
    /// # Errors
    /// A property that makes the target malformed, or ambiguous whatever its route allows.
    pub fn read(target: &'a str) -> Result<Self, TargetError> {
        if let Some(at) = target.find('#') {
            return Err(TargetError::new(Flaw::Fragment, target, at..at + 1));
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let control = query.and_then(|query| query.bytes().position(|b| !b.is_ascii_graphic()));
        if let Some(at) = control {
            let at = path.len() + 1 + at;
            return Err(TargetError::new(Flaw::ControlInQuery, target, at..at + 1));
        }
        if !path.starts_with('/') {
            return Err(TargetError::new(Flaw::NoSlash, path, 0..0));
        }
        if is_canonical(path) {
            return Ok(Self { path: Cow::Borrowed(path), query, quirks: Quirks::default() });
        }
        let canonical = Spelled::new(path).decode_unreserved()?;
        let mut quirks = Quirks::default();
        canonical.examine(&mut quirks)?;
        if quirks.kinds().contains(QuirkSet::ENCODED_PERCENT) {
            canonical.examine_decoded()?;
        }
        Ok(Self { path: Cow::Owned(canonical.into_text()), query, quirks })
    }
}

/// True if a path holds nothing that needs a closer look; nearly all paths are such.
fn is_canonical(path: &str) -> bool {
    let mut segments = path.as_bytes().split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let empty = segment.is_empty() && segments.peek().is_some();
        if empty || matches!(segment, b"." | b"..") || !segment.iter().copied().all(is_pchar) {
            return false;
        }
    }
    true
}

/// The normal form of a segment, for comparisons (RFC 3986 section 6.2.2): hexadecimal digits in upper
/// case, and `%3A` as `:`, because servers find resources by decoded names. Slashes, semicolons and percent
/// signs stay encoded.
pub(super) fn normalize_segment(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let mut out = String::with_capacity(segment.len());
    let mut rest = segment;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let (hex, left) = after.split_at_checked(2).unwrap_or((after, ""));
        match u8::from_str_radix(hex, 16) {
            Ok(byte) if is_pchar(byte) => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.push_str(&hex.to_ascii_uppercase());
            }
        }
        rest = left;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests;
