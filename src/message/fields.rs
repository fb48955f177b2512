//! The fields of a message: as they came, and what was changed since.
//!
//! A proxy reads a head, looks at a few names, changes a few lines and writes the rest as it was. So
//! lines that came stay in the bytes they came in, found by position; lines that are added are values
//! of their own. Heads are short: a list is searched faster than a map is filled.

use std::fmt;

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
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

/// Why fields cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldError {
    /// A line is no field.
    Malformed,
    /// There are more than allowed.
    TooMany,
}

/// Room for the fields that a proxy adds, so that the list does not grow a second time.
const ADDED: usize = 6;

impl Fields {
    /// No fields.
    pub const fn new() -> Self {
        Self { read: Bytes::new(), lines: Vec::new() }
    }

    /// Reads lines (RFC 9112 section 5) up to the empty one, with which `block` ends.
    ///
    /// A line is a name, a colon, a value and CR LF, nothing else: no space before the colon, no
    /// folded line, no bare CR or LF. Names become lower case in place.
    ///
    /// # Errors
    /// The first line that is no field, or one too many.
    pub fn read(mut block: BytesMut, max: usize) -> Result<Self, FieldError> {
        // Positions are kept in 32 bits.
        u32::try_from(block.len()).map_err(|_| FieldError::Malformed)?;
        let mut lines = Vec::with_capacity(ADDED + 8);
        let mut at = 0;
        loop {
            let rest = block.get_mut(at..).unwrap_or_default();
            let feed = memchr::memchr(b'\n', rest).ok_or(FieldError::Malformed)?;
            let (line, after) = rest.split_at_mut(feed + 1);
            let Some((line, b"\r\n")) =
                line.split_last_chunk_mut().map(|(line, end)| (line, &*end))
            else {
                return Err(FieldError::Malformed);
            };
            if line.is_empty() {
                let ended = after.is_empty();
                let fields = Self { read: block.freeze(), lines };
                return if ended { Ok(fields) } else { Err(FieldError::Malformed) };
            }
            if lines.len() == max {
                return Err(FieldError::TooMany);
            }
            lines.push(Line::read(line, at)?);
            at += feed + 1;
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

    /// Writes one line.
    pub fn write_line(name: &[u8], value: &[u8], out: &mut BytesMut) {
        out.reserve(name.len() + value.len() + 4);
        for part in [name, b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
}

/// A value as text, where all of it is visible (RFC 9110 section 5.5).
pub fn text(value: &[u8]) -> Option<&str> {
    let visible = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    value.iter().all(visible).then(|| std::str::from_utf8(value).ok()).flatten()
}

impl Line {
    /// Reads a line that stands `at` the block's byte with this number.
    fn read(line: &mut [u8], at: usize) -> Result<Self, FieldError> {
        let mut colon = 0;
        loop {
            let byte = line.get_mut(colon).ok_or(FieldError::Malformed)?;
            if *byte == b':' {
                break;
            }
            *byte = TOKEN.get(usize::from(*byte)).copied().unwrap_or_default();
            if *byte == 0 {
                return Err(FieldError::Malformed);
            }
            colon += 1;
        }
        let mut value = colon + 1..line.len();
        let is_space = |at: usize| matches!(line.get(at), Some(b' ' | b'\t'));
        while !value.is_empty() && is_space(value.start) {
            value.start += 1;
        }
        while !value.is_empty() && is_space(value.end - 1) {
            value.end -= 1;
        }
        let text = line.get(value.clone()).unwrap_or_default();
        if colon == 0 || text.iter().fold(false, |bad, byte| bad | is_control(*byte)) {
            return Err(FieldError::Malformed);
        }
        let span =
            |start: usize, end: usize| Span { start: (at + start) as u32, end: (at + end) as u32 };
        let (name, value) = (span(0, colon), span(value.start, value.end));
        Ok(Self { name: Name::Read(name), value: Value::Read(value) })
    }
}

/// What may not be in a value (RFC 9110 section 5.5): controls but the tab.
fn is_control(byte: u8) -> bool {
    (byte < b' ') & (byte != b'\t') | (byte == 0x7f)
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

impl Span {
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
            "a: b\n\r\n",
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
