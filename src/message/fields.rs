//! The fields of a message: as they came, and what was changed since.
//!
//! A proxy reads a head, looks at a few names, changes a few lines and writes the rest as it was. So
//! lines that came stay in the bytes they came in, found by position; lines that are added are values
//! of their own. Heads are short: a list is searched faster than a map is filled.

use std::fmt;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields in their order. Names are in lower case; values are shown to nobody by `Debug`.
#[derive(Clone, Default)]
pub struct Fields {
    /// The bytes that lines were read from.
    read: Bytes,
    lines: Vec<Line>,
}

#[derive(Clone)]
struct Line {
    name: Name,
    value: Value,
}

#[derive(Clone)]
enum Name {
    Read(Span),
    Given(HeaderName),
}

#[derive(Clone)]
enum Value {
    Read(Span),
    Given(HeaderValue),
}

/// A part of the bytes that were read.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

/// Why fields cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldError {
    /// A line is no field.
    Malformed,
    /// A line ends without CR (RFC 9112 section 2.2).
    BareLineFeed,
    /// There are more than allowed.
    TooMany,
}

/// Room for the fields that a proxy adds, so that the list does not grow a second time.
const ADDED: usize = 6;
/// Lines that a head usually ends up with: as many as fit into the 1,032 bytes up to which glibc keeps
/// blocks at hand.
const USUAL: usize = 12;

impl Fields {
    /// No fields.
    pub const fn new() -> Self {
        Self { read: Bytes::new(), lines: Vec::new() }
    }

    /// Reads a block of lines that ends with its empty one.
    ///
    /// # Errors
    /// The first line that is no field, or one too many; a block that ends elsewhere.
    pub fn read(mut block: BytesMut, max: usize) -> Result<Self, FieldError> {
        match Lines::scan(&mut block, 0, max)? {
            Some(lines) if lines.end() == block.len() => Ok(lines.of(block.freeze())),
            _ => Err(FieldError::Malformed),
        }
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The value of the first line with this name.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        let name = name.as_ref();
        self.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// The values of all lines with this name.
    pub fn get_all<'a>(
        &'a self,
        name: &'a (impl AsRef<[u8]> + ?Sized),
    ) -> impl Iterator<Item = &'a [u8]> {
        let name = name.as_ref();
        self.iter().filter(move |(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Whether any line has this name.
    pub fn contains(&self, name: impl AsRef<[u8]>) -> bool {
        self.get(name).is_some()
    }

    /// All lines: names in lower case, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (line.name.of(&self.read), line.value.of(&self.read)))
    }

    /// Adds a line in place of all that have this name.
    pub fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        self.remove(&name);
        self.append(name, value);
    }

    /// Adds a line after all others.
    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.lines.push(Line { name: Name::Given(name), value: Value::Given(value) });
    }

    /// Takes off all lines with this name.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) {
        let name = name.as_ref();
        self.retain(|found| found != name);
    }

    /// Takes off all lines with this name; gives back the value of the first.
    pub fn take(&mut self, name: impl AsRef<[u8]>) -> Option<HeaderValue> {
        let name = name.as_ref();
        let mut values = self.lines.iter().filter(|line| line.name.of(&self.read) == name);
        let value = values.next()?.value.shared(&self.read);
        self.remove(name);
        value
    }

    /// Leaves the lines whose names are to be kept.
    pub fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let Self { read, lines } = self;
        lines.retain(|line| keep(line.name.of(read)));
    }

    /// Puts another value in the lines for which `other` has one.
    pub fn replace(&mut self, other: impl Fn(&[u8], &[u8]) -> Option<HeaderValue>) {
        let Self { read, lines } = self;
        for line in lines {
            if let Some(value) = other(line.name.of(read), line.value.of(read)) {
                line.value = Value::Given(value);
            }
        }
    }

    /// Writes all lines but those that are to be left out.
    pub fn write(&self, out: &mut BytesMut, mut left_out: impl FnMut(&[u8], &[u8]) -> bool) {
        let mut run = Span { start: 0, end: 0 };
        for Line { name, value } in &self.lines {
            let (text, bytes) = (name.of(&self.read), value.of(&self.read));
            if left_out(text, bytes) {
                continue;
            }
            match Span::line(name, value, &self.read) {
                // What came as it is written, one line after the other, is written at once.
                Some(line) if line.start == run.end => run.end = line.end,
                Some(line) => {
                    out.extend_from_slice(std::mem::replace(&mut run, line).of(&self.read))
                }
                None => {
                    out.extend_from_slice(std::mem::take(&mut run).of(&self.read));
                    Self::write_line(text, bytes, out);
                }
            }
        }
        out.extend_from_slice(run.of(&self.read));
    }

    /// Writes one line.
    pub fn write_line(name: &[u8], value: &[u8], out: &mut BytesMut) {
        out.reserve(name.len() + value.len() + 4);
        for part in [name, b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
}

/// Lines that were found in bytes which may still grow.
pub struct Lines {
    lines: Vec<Line>,
    end: usize,
}

impl Lines {
    /// Looks for lines (RFC 9112 section 5) from `start` on, up to the empty one; `None` where that has
    /// not come yet.
    ///
    /// A line is a name, a colon, a value and CR LF, nothing else: no space before the colon, no
    /// folded line, no bare CR or LF. Names become lower case in place.
    ///
    /// # Errors
    /// The first line that is no field, or one too many.
    pub fn scan(input: &mut [u8], start: usize, max: usize) -> Result<Option<Self>, FieldError> {
        // Positions are kept in 32 bits.
        u32::try_from(input.len()).map_err(|_| FieldError::Malformed)?;
        let mut lines = Vec::with_capacity(USUAL);
        let mut at = start;
        loop {
            match input.get(at..).unwrap_or_default() {
                [b'\r', b'\n', ..] => return Ok(Some(Self { lines, end: at + 2 })),
                [] | [b'\r'] => return Ok(None),
                _ if lines.len() == max => return Err(FieldError::TooMany),
                _ => {}
            }
            let Some((line, next)) = Line::scan(input, at)? else { return Ok(None) };
            lines.push(line);
            at = next;
        }
    }

    /// Where the bytes after the empty line begin.
    pub fn end(&self) -> usize {
        self.end
    }

    /// The fields, once `read` is what was looked at, at least to its end.
    pub fn of(self, read: Bytes) -> Fields {
        Fields { read, lines: self.lines }
    }
}

/// A value as text, where all of it is visible (RFC 9110 section 5.5).
pub fn text(value: &[u8]) -> Option<&str> {
    let visible = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    value.iter().all(visible).then(|| std::str::from_utf8(value).ok()).flatten()
}

impl Line {
    /// The line that begins there, and where the next one does.
    fn scan(input: &mut [u8], start: usize) -> Result<Option<(Self, usize)>, FieldError> {
        let mut colon = start;
        for byte in input.get_mut(start..).unwrap_or_default() {
            let lower = TOKEN[usize::from(*byte)];
            if lower == 0 {
                break;
            }
            *byte = lower;
            colon += 1;
        }
        match input.get(colon) {
            None => return Ok(None),
            Some(b':') if colon > start => {}
            Some(b'\n') => return Err(FieldError::BareLineFeed),
            Some(_) => return Err(FieldError::Malformed),
        }
        let mut end = colon + 1;
        end += loop {
            let rest = input.get(end..).unwrap_or_default();
            match control(rest) {
                None => return Ok(None),
                Some(tab) if rest[tab] == b'\t' => end += tab + 1,
                Some(control) => break control,
            }
        };
        match input.get(end..).unwrap_or_default() {
            [b'\r', b'\n', ..] => {}
            [b'\r'] => return Ok(None),
            [b'\n', ..] => return Err(FieldError::BareLineFeed),
            _ => return Err(FieldError::Malformed),
        }
        let value = trimmed(input, colon + 1..end);
        let name = Span::from(start..colon);
        Ok(Some((Self { name: Name::Read(name), value: Value::Read(value.into()) }, end + 2)))
    }
}

/// Without the spaces and tabs around it.
fn trimmed(input: &[u8], mut value: Range<usize>) -> Range<usize> {
    let is_space = |at: usize| matches!(input.get(at), Some(b' ' | b'\t'));
    while !value.is_empty() && is_space(value.start) {
        value.start += 1;
    }
    while !value.is_empty() && is_space(value.end - 1) {
        value.end -= 1;
    }
    value
}

/// Where the first control character is (RFC 9110 section 5.5), the tab among them.
fn control(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let (eights, rest) = bytes.as_chunks::<8>();
    for (number, eight) in eights.iter().enumerate() {
        let word = u64::from_le_bytes(*eight);
        // A byte's high bit is set where it is below 32, or 127. Borrows go upwards only, so that the
        // lowest is right.
        let below = word.wrapping_sub(ONES * 0x20) & !word;
        let delete = word ^ (ONES * 0x7f);
        let found = (below | (delete.wrapping_sub(ONES) & !delete)) & HIGH;
        if found != 0 {
            return Some(8 * number + found.trailing_zeros() as usize / 8);
        }
    }
    let last = rest.iter().position(|byte| *byte < b' ' || *byte == 0x7f)?;
    Some(8 * eights.len() + last)
}

/// The bytes of names (RFC 9110 section 5.6.2) in lower case; 0 for all others.
const TOKEN: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        let symbol = matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        );
        if byte.is_ascii_alphanumeric() || symbol {
            table[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

impl Name {
    fn of<'a>(&'a self, read: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Read(span) => span.of(read),
            Self::Given(name) => name.as_ref(),
        }
    }
}

impl Value {
    fn of<'a>(&'a self, read: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Read(span) => span.of(read),
            Self::Given(value) => value.as_bytes(),
        }
    }

    fn shared(&self, read: &Bytes) -> Option<HeaderValue> {
        match self {
            Self::Read(span) => HeaderValue::from_maybe_shared(read.slice_ref(span.of(read))).ok(),
            Self::Given(value) => Some(value.clone()),
        }
    }
}

impl From<Range<usize>> for Span {
    /// Of bytes whose number fits.
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start as u32, end: range.end as u32 }
    }
}

impl Span {
    /// The whole line, where it came as it would be written.
    fn line(name: &Name, value: &Value, read: &[u8]) -> Option<Self> {
        let (Name::Read(name), Value::Read(value)) = (name, value) else { return None };
        let line = Self { start: name.start, end: value.end + 2 };
        let between = Self { start: name.end, end: value.start };
        let after = Self { start: value.end, end: line.end };
        (between.of(read) == b": " && after.of(read) == b"\r\n").then_some(line)
    }

    fn of(self, read: &[u8]) -> &[u8] {
        read.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// From a message of HTTP/2, or one that the `http` crate built.
impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Self {
        let mut fields = Self { read: Bytes::new(), lines: Vec::with_capacity(map.len() + ADDED) };
        let mut latest = None;
        for (name, value) in map {
            latest = name.or(latest);
            if let Some(name) = &latest {
                fields.append(name.clone(), value);
            }
        }
        fields
    }
}

/// For a message of HTTP/2.
impl From<Fields> for HeaderMap {
    fn from(fields: Fields) -> Self {
        let Fields { read, lines } = fields;
        let mut map = Self::with_capacity(lines.len());
        for Line { name, value } in lines {
            let known = match name {
                Name::Given(name) => Ok(name),
                Name::Read(span) => HeaderName::from_bytes(span.of(&read)),
            };
            // What was read is valid.
            if let (Ok(name), Some(value)) = (known, value.shared(&read)) {
                map.append(name, value);
            }
        }
        map
    }
}

/// The same lines in the same order, however they came.
impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.iter().map(|(name, _)| String::from_utf8_lossy(name));
        f.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_read_strictly() {
        let check = |block: &'static str, expected: Result<&[(&str, &str)], FieldError>| {
            let read = Fields::read(BytesMut::from(block), 3);
            let read = read.as_ref().map(|all| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                all.iter().map(|(name, value)| (text(name), text(value))).collect::<Vec<_>>()
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
        for block in ["a: b\n\r\n", "a\n\r\n", "a: b\r\n\n"] {
            check(block, Err(FieldError::BareLineFeed));
        }
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
            if let Ok(all) = Fields::read(BytesMut::from(&*block), 64) {
                let mut fields = [httparse::EMPTY_HEADER; 64];
                let parsed = httparse::parse_headers(&block, &mut fields).unwrap();
                let httparse::Status::Complete((length, fields)) = parsed else { panic!("partial") };
                prop_assert_eq!(length, block.len());
                prop_assert_eq!(all.len(), fields.len());
                for field in fields {
                    let name = field.name.to_ascii_lowercase();
                    prop_assert!(all.get_all(&name).any(|value| value == field.value));
                }
            }
        }
    }
}
