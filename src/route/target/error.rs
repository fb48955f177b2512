//! The flaws of request targets, each with its place, and those that a route may allow.

use std::fmt;
use std::ops::Range;

use bitflags::bitflags;

bitflags! {
    /// Features of a path that servers interpret differently and that a route may allow.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct QuirkSet: u8 {
        /// `;`, plain or encoded.
        const SEMICOLON = 1;
        /// An encoded slash.
        const ENCODED_SLASH = 1 << 1;
        /// A percent-encoded percent sign before two hexadecimal digits: a path encoded twice.
        const ENCODED_PERCENT = 1 << 2;
        /// Two slashes in a row.
        const EMPTY_SEGMENT = 1 << 3;
    }
}

/// The quirks of one path, each with its first place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quirks(Vec<TargetError>);

impl Quirks {
    /// The kinds that are there.
    pub fn kinds(&self) -> QuirkSet {
        self.0.iter().fold(QuirkSet::empty(), |kinds, found| kinds | found.flaw.quirk())
    }

    /// The first quirk in the path that is not among those allowed, as the error that it is.
    pub fn refused(&self, allowed: QuirkSet) -> Option<&TargetError> {
        let refused = self.0.iter().filter(|found| !allowed.contains(found.flaw.quirk()));
        refused.min_by_key(|found| found.position)
    }

    /// Adds a quirk unless one of its kind is known, which is then the earlier one.
    pub(super) fn add(&mut self, found: TargetError) {
        if !self.kinds().contains(found.flaw.quirk()) {
            self.0.push(found);
        }
    }
}

/// A target is malformed or ambiguous. The text names the bytes at fault and repeats no others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TargetError {
    /// The kind of the flaw.
    pub flaw: Flaw,
    /// The offset of its first byte in the target as received; the first slash is at 0.
    pub position: usize,
    /// Its bytes as received, those that are not printable ASCII as `\xNN`.
    pub(super) bytes: String,
}

/// The kinds of flaws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The path does not begin with a slash.
    #[error("a path begins with a slash")]
    NoSlash,
    /// The target holds a fragment.
    #[error("a fragment is never sent to a server")]
    Fragment,
    /// The path holds a backslash, plain or encoded.
    #[error("a backslash, which some servers take for a slash; no setting allows it")]
    Backslash,
    /// The path holds a control byte, plain or encoded.
    #[error("a control byte; no setting allows it")]
    Control,
    /// The query holds a control byte, a space or a byte beyond ASCII.
    #[error("a control byte, a space or a byte beyond ASCII must be percent-encoded")]
    ControlInQuery,
    /// The path holds a byte that RFC 3986 section 3.3 does not allow unencoded.
    #[error("this character must be percent-encoded (RFC 3986 section 3.3)")]
    Character,
    /// A percent sign is not followed by two hexadecimal digits.
    #[error(
        "a percent sign without two hexadecimal digits behind it; a literal one is written `%25`"
    )]
    Percent,
    /// The path is percent-encoded three times.
    #[error("the path is percent-encoded more than twice; no setting allows it")]
    EncodedThrice,
    /// A dot is percent-encoded.
    #[error(
        "an encoded dot, which some servers take for a part of a dot segment; write `.`; no \
         setting allows it"
    )]
    EncodedDot,
    /// A segment is `.` or `..`, or is one to a server that decodes slashes or strips parameters.
    #[error("a dot segment, by which some servers reach another path; no setting allows it")]
    DotSegment,
    /// A segment begins with parameters.
    #[error("parameters without a name before them; no setting allows it")]
    NamelessParameters,
    /// The path holds `;`, plain or encoded.
    #[error(
        "a semicolon begins parameters, which servers read differently; a route may set \
         allow_semicolon = true"
    )]
    Semicolon,
    /// The path holds an encoded slash.
    #[error(
        "an encoded slash, which servers read differently; a route may set allow_encoded_slash = \
         true"
    )]
    EncodedSlash,
    /// The path holds an encoded percent sign before two hexadecimal digits.
    #[error(
        "the path is percent-encoded twice, which servers read differently; a route may set \
         allow_encoded_percent = true"
    )]
    EncodedPercent,
    /// A segment is empty, and not the last.
    #[error(
        "two slashes in a row, which servers read differently; a route may set \
         allow_empty_segments = true"
    )]
    EmptySegment,
}

impl Flaw {
    /// The quirk that a route may allow; none for flaws that are always refused.
    fn quirk(self) -> QuirkSet {
        match self {
            Self::Semicolon => QuirkSet::SEMICOLON,
            Self::EncodedSlash => QuirkSet::ENCODED_SLASH,
            Self::EncodedPercent => QuirkSet::ENCODED_PERCENT,
            Self::EmptySegment => QuirkSet::EMPTY_SEGMENT,
            _ => QuirkSet::empty(),
        }
    }
}

impl TargetError {
    /// The flaw at a range of bytes of a target.
    pub(super) fn new(flaw: Flaw, target: &str, range: Range<usize>) -> Self {
        let mut bytes = String::new();
        for byte in target.as_bytes().get(range.clone()).unwrap_or_default() {
            match byte {
                byte if byte.is_ascii_graphic() => bytes.push(char::from(*byte)),
                byte => bytes += &format!("\\x{byte:02X}"),
            }
        }
        Self { flaw, position: range.start, bytes }
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flaw, position, bytes } = self;
        match flaw {
            Flaw::NoSlash => f.write_str("the path does not begin with a slash"),
            Flaw::Fragment | Flaw::ControlInQuery => {
                write!(f, "the target holds `{bytes}` at position {position}: {flaw}")
            }
            _ => write!(f, "the path holds `{bytes}` at position {position}: {flaw}"),
        }
    }
}
