//! The bytes of a path, each with its place in the path as received, so that an error in a decoded form
//! names the bytes that were sent.

use std::ops::Range;

use super::character::is_pchar;
use super::error::{Flaw, QuirkSet, Quirks, TargetError};

/// A form of a path.
pub(super) struct Spelled<'a> {
    received: &'a str,
    /// Bytes, and the offsets in `received` of what they stand for.
    bytes: Vec<(u8, usize)>,
}

impl<'a> Spelled<'a> {
    /// A path as received.
    pub(super) fn new(received: &'a str) -> Self {
        Self { received, bytes: received.bytes().zip(0..).collect() }
    }

    /// Decodes percent-encoded unreserved characters except dots (RFC 3986 section 6.2.2.2). All other
    /// bytes stay as they are.
    ///
    /// # Errors
    /// A byte that no path may hold, plain or encoded.
    pub(super) fn decode_unreserved(self) -> Result<Self, TargetError> {
        let mut decoded = Vec::with_capacity(self.bytes.len());
        let mut at = 0;
        while let Some((byte, place)) = self.bytes.get(at).copied() {
            let (value, length) = if byte == b'%' {
                let value = self.escaped(at);
                (value.ok_or_else(|| self.error(Flaw::Percent, at..at + 3))?, 3)
            } else {
                (byte, 1)
            };
            let encoded = length > 1;
            let flaw = match value {
                b'\\' => Some(Flaw::Backslash),
                value if value.is_ascii_control() => Some(Flaw::Control),
                b'.' if encoded => Some(Flaw::EncodedDot),
                value if encoded || is_pchar(value) || b"/;".contains(&value) => None,
                _ => Some(Flaw::Character),
            };
            if let Some(flaw) = flaw {
                return Err(self.error(flaw, at..at + length));
            }
            if value.is_ascii_alphanumeric() || b"-_~".contains(&value) {
                decoded.push((value, place));
            } else {
                decoded.extend(self.bytes.iter().skip(at).take(length));
            }
            at += length;
        }
        Ok(Self { received: self.received, bytes: decoded })
    }

    /// Collects the quirks of a path whose unreserved characters are decoded.
    ///
    /// # Errors
    /// A segment climbs, or has parameters and no name. An opt-in accepts that servers interpret `;` and
    /// `%2F` differently, but not that a path climbs: to a server that decodes slashes and strips
    /// parameters, `..%2Fx` and `..;x` are dot segments.
    pub(super) fn examine(&self, quirks: &mut Quirks) -> Result<(), TargetError> {
        // The start of the current part, and the end of its name once its parameters have begun.
        let (mut part, mut name_end) = (1, None);
        let mut at = 1;
        while let Some((byte, _)) = self.bytes.get(at).copied() {
            let value = if byte == b'%' { self.escaped(at).unwrap_or(byte) } else { byte };
            let length = if byte == b'%' { 3 } else { 1 };
            let range = at..at + length;
            match (value, byte) {
                (b'/', b'/') if self.is_slash(at - 1) => {
                    quirks.add(self.error(Flaw::EmptySegment, at - 1..at + 1));
                }
                (b'/', b'%') => quirks.add(self.error(Flaw::EncodedSlash, range.clone())),
                (b';', _) => {
                    quirks.add(self.error(Flaw::Semicolon, range.clone()));
                    name_end = name_end.or(Some(at));
                }
                (b'%', b'%') if self.is_hex(at + 3) && self.is_hex(at + 4) => {
                    quirks.add(self.error(Flaw::EncodedPercent, at..at + 5));
                }
                _ => {}
            }
            if value == b'/' {
                self.check_name(part..name_end.unwrap_or(at), name_end.is_some())?;
                (part, name_end) = (range.end, None);
            }
            at = range.end;
        }
        self.check_name(part..name_end.unwrap_or(at), name_end.is_some())
    }

    /// Examines a path that is encoded twice, as a server reads it that decodes twice.
    ///
    /// # Errors
    /// It holds what no path may hold, or is encoded once more.
    pub(super) fn examine_decoded(&self) -> Result<(), TargetError> {
        let decoded = self.decode_percent().decode_unreserved()?;
        let mut inner = Quirks::default();
        decoded.examine(&mut inner)?;
        match inner.refused(QuirkSet::all().difference(QuirkSet::ENCODED_PERCENT)) {
            Some(again) => Err(TargetError { flaw: Flaw::EncodedThrice, ..again.clone() }),
            None => Ok(()),
        }
    }

    /// The path as text.
    pub(super) fn into_text(self) -> String {
        self.bytes.into_iter().map(|(byte, _)| char::from(byte)).collect()
    }

    /// Decodes each percent sign that is encoded and begins an escape.
    fn decode_percent(&self) -> Self {
        let mut decoded = Vec::with_capacity(self.bytes.len());
        let mut at = 0;
        while let Some(byte) = self.bytes.get(at) {
            decoded.push(*byte);
            let escapes = self.escaped(at) == Some(b'%');
            at += if escapes && self.is_hex(at + 3) && self.is_hex(at + 4) { 3 } else { 1 };
        }
        Self { received: self.received, bytes: decoded }
    }

    fn check_name(&self, name: Range<usize>, has_parameters: bool) -> Result<(), TargetError> {
        let mut bytes = self.bytes.iter().take(name.end).skip(name.start).map(|(byte, _)| *byte);
        let flaw = match (bytes.next(), bytes.next(), bytes.next()) {
            (Some(b'.'), None | Some(b'.'), None) => Flaw::DotSegment,
            (None, ..) if has_parameters => {
                let length = if self.escaped(name.start).is_some() { 3 } else { 1 };
                return Err(self.error(Flaw::NamelessParameters, name.start..name.start + length));
            }
            _ => return Ok(()),
        };
        Err(self.error(flaw, name))
    }

    /// The byte that an escape at this index stands for; `None` if it is none.
    fn escaped(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).filter(|(byte, _)| *byte == b'%')?;
        let digit = |at: usize| char::from(self.bytes.get(at)?.0).to_digit(16);
        u8::try_from(digit(at + 1)? << 4 | digit(at + 2)?).ok()
    }

    fn is_hex(&self, at: usize) -> bool {
        self.bytes.get(at).is_some_and(|(byte, _)| byte.is_ascii_hexdigit())
    }

    fn is_slash(&self, at: usize) -> bool {
        self.bytes.get(at).is_some_and(|(byte, _)| *byte == b'/')
    }

    /// The flaw at a range of bytes of this form.
    fn error(&self, flaw: Flaw, range: Range<usize>) -> TargetError {
        let place = |at: usize| self.bytes.get(at).map_or(self.received.len(), |(_, place)| *place);
        TargetError::new(flaw, self.received, place(range.start)..place(range.end))
    }
}
