//! What hyper forgives in the head of a request, and we do not.
//!
//! hyper drops a fragment, takes a bare LF for the end of a line, merges repeated lengths and drops
//! a length that stands beside a transfer coding, and what it hands on shows none of it. So the
//! bytes are looked at on their way to hyper. It stays the only one that reads requests; this notes
//! which of them is not to be served.

use std::fmt;

/// Why a request is not to be served although hyper has read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Its target holds a fragment (RFC 9112 section 3.2 has no place for one).
    Fragment,
    /// A line of its head ends without CR (RFC 9112 section 2.2).
    BareLineFeed,
    /// It has more than one Content-Length (RFC 9112 section 6.3).
    Lengths,
    /// It has Content-Length and Transfer-Encoding (RFC 9112 section 6.1).
    LengthAndCoding,
    /// It has more fields than allowed; hyper counts those of HTTP/1 itself.
    TooManyFields,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fragment => {
                "the target holds a fragment (`#`), which is never sent to a server; write %23"
            }
            Self::BareLineFeed => "a line of the head ends in LF; it must end in CR LF",
            Self::Lengths => "more than one Content-Length header",
            Self::LengthAndCoding => "both Content-Length and Transfer-Encoding are present",
            Self::TooManyFields => "more header fields than server.max_headers",
        })
    }
}

/// Longest line that is looked at, in bytes. hyper refuses longer ones before that by default, and
/// what is no longer HTTP has no lines.
const LONGEST_LINE: usize = 64 * 1024;

/// Follows the heads on one connection, so far as to know where each begins and ends.
#[derive(Debug, Default)]
pub(super) struct Heads {
    place: Place,
    /// A line of which a part has come.
    line: Vec<u8>,
    /// Heads that have come whole.
    whole: u32,
    /// Requests that hyper has read.
    read: u32,
    /// The first request with a flaw, counted from 1.
    flawed: Option<(u32, Flaw)>,
}

/// Where in the stream the next byte belongs.
#[derive(Debug, Clone, Copy)]
enum Place {
    Head(Framing),
    /// Bytes of a body or, with what ends it, of a chunk.
    Skip {
        left: u64,
        chunked: bool,
    },
    ChunkSize,
    Trailers,
    /// hyper will refuse what has come, or it is not HTTP/1: nothing is looked at any more.
    Blind,
    /// Another protocol is spoken from here on.
    Switched,
}

/// What a head has said so far of its body.
#[derive(Debug, Clone, Copy, Default)]
struct Framing {
    begun: bool,
    lengths: usize,
    length: u64,
    coded: bool,
}

impl Heads {
    /// Looks at bytes as they pass.
    pub fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.place {
                Place::Blind | Place::Switched => return,
                Place::Skip { left, chunked } => self.skip(left, chunked, bytes),
                _ => match memchr::memchr(b'\n', bytes) {
                    Some(end) => {
                        let (line, rest) = bytes.split_at(end + 1);
                        self.place = self.gathered(line);
                        rest
                    }
                    None => return self.keep(bytes),
                },
            };
        }
    }

    /// Whether a message has begun to come and has not come to its end.
    pub fn within_message(&self) -> bool {
        match self.place {
            Place::Switched => false,
            Place::Head(framing) => framing.begun || !self.line.is_empty(),
            _ => true,
        }
    }

    /// What comes from now on is of another protocol.
    pub fn switch(&mut self) {
        (self.place, self.line) = (Place::Switched, Vec::new());
    }

    /// Counts a request that hyper has read; tells why it is not to be served, if it is not.
    pub fn count(&mut self) -> Option<Flaw> {
        self.read += 1;
        self.flawed.filter(|(first, _)| *first <= self.read).map(|(_, flaw)| flaw)
    }

    fn skip<'a>(&mut self, left: u64, chunked: bool, bytes: &'a [u8]) -> &'a [u8] {
        let part = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.place = match left - part as u64 {
            0 if chunked => Place::ChunkSize,
            0 => Place::default(),
            left => Place::Skip { left, chunked },
        };
        bytes.get(part..).unwrap_or_default()
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.line.extend_from_slice(bytes);
        if self.line.len() > LONGEST_LINE {
            (self.place, self.line) = (Place::Blind, Vec::new());
        }
    }

    fn gathered(&mut self, end: &[u8]) -> Place {
        if self.line.is_empty() {
            return self.line(end);
        }
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(end);
        self.line(&line)
    }

    /// What follows a line, which ends in LF.
    fn line(&mut self, line: &[u8]) -> Place {
        match self.place {
            Place::Head(framing) => self.head(framing, line),
            Place::ChunkSize => chunk(line),
            Place::Trailers if line == b"\r\n" => Place::default(),
            place => place,
        }
    }

    fn head(&mut self, mut framing: Framing, line: &[u8]) -> Place {
        let text = line.strip_suffix(b"\r\n").unwrap_or_else(|| {
            self.note(Flaw::BareLineFeed);
            line.strip_suffix(b"\n").unwrap_or(line)
        });
        if text.is_empty() && framing.begun {
            framing.flaw().into_iter().for_each(|flaw| self.note(flaw));
            self.whole += 1;
            return framing.body();
        }
        if text.is_empty() {
            return Place::Head(framing); // a line before the request (RFC 9112 section 2.2)
        }
        if framing.begun {
            framing.field(text);
        } else if text.contains(&b'#') {
            self.note(Flaw::Fragment);
        }
        framing.begun = true;
        Place::Head(framing)
    }

    fn note(&mut self, flaw: Flaw) {
        self.flawed.get_or_insert((self.whole + 1, flaw));
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::Head(Framing::default())
    }
}

impl Framing {
    fn field(&mut self, line: &[u8]) {
        if let Some(value) = value_of(b"content-length", line) {
            // hyper refuses one that is no number, unless it stands beside a coding, which we refuse.
            let length = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
            self.length = length.unwrap_or_default();
            self.lengths += 1;
        } else if value_of(b"transfer-encoding", line).is_some() {
            self.coded = true;
        }
    }

    fn flaw(&self) -> Option<Flaw> {
        match self.lengths {
            0 => None,
            _ if self.coded => Some(Flaw::LengthAndCoding),
            1 => None,
            _ => Some(Flaw::Lengths),
        }
    }

    /// What follows the head.
    fn body(self) -> Place {
        match (self.coded, self.length) {
            (true, _) => Place::ChunkSize,
            (false, 0) => Place::default(),
            (false, left) => Place::Skip { left, chunked: false },
        }
    }
}

/// The value in a line, where it is of this field; hyper refuses a space before the colon.
fn value_of<'a>(name: &[u8], line: &'a [u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    found.eq_ignore_ascii_case(name).then(|| rest.strip_prefix(b":")).flatten()
}

/// What follows a line with the size of a chunk.
fn chunk(line: &[u8]) -> Place {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let size = line.get(..digits).and_then(|digits| std::str::from_utf8(digits).ok());
    match size.and_then(|size| u64::from_str_radix(size, 16).ok()) {
        Some(0) => Place::Trailers,
        Some(size) => Place::Skip { left: size.saturating_add(2), chunked: true },
        None => Place::Blind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first flaw and the number of its request, when the bytes come in pieces of this size.
    fn flawed(bytes: &str, piece: usize) -> Option<(u32, Flaw)> {
        let mut heads = Heads::default();
        bytes.as_bytes().chunks(piece).for_each(|piece| heads.follow(piece));
        (1..=heads.whole + 1).find_map(|number| heads.count().map(|flaw| (number, flaw)))
    }

    #[test]
    fn flaws_are_found_in_any_request_and_in_heads_only() {
        let check = |bytes: &str, expected: Option<(u32, Flaw)>| {
            for piece in [1, 2, 5, 4096] {
                assert_eq!(flawed(bytes, piece), expected, "{bytes:?} by {piece}");
            }
        };
        let get = "GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
        let sized = "POST /a HTTP/1.1\r\ncontent-length: 9\r\n\r\n#\n\n#\r\n\r\n\n";
        let chunked = "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4;x=#\r\n#\n\n#\r\nA\r\n0123456789\r\n0\r\nx: #\r\n\r\n";
        let bad = "GET /a#b HTTP/1.1\r\n\r\n";
        check(get, None);
        check(&[get, sized, chunked, get].concat(), None);
        check(bad, Some((1, Flaw::Fragment)));
        check(&[get, sized, bad].concat(), Some((3, Flaw::Fragment)));
        check(&[chunked, sized, chunked, bad].concat(), Some((4, Flaw::Fragment)));
        check("\r\nGET /#\r\n\r\n", Some((1, Flaw::Fragment)));
        check("GET /a HTTP/1.1\nx: #\r\n\r\n", Some((1, Flaw::BareLineFeed)));
        check("GET /a HTTP/1.1\r\nx: #\r\n\n", Some((1, Flaw::BareLineFeed)));
        check("\nGET /a HTTP/1.1\r\n\r\n", Some((1, Flaw::BareLineFeed)));
        let fields = |fields: &str| format!("POST / HTTP/1.1\r\n{fields}\r\n0\r\n\r\n");
        let both = Some((1, Flaw::LengthAndCoding));
        check(&fields("Content-Length: 5\r\ntransfer-ENCODING: chunked\r\n"), both);
        check(&fields("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), both);
        check(&fields("Transfer-Encoding: chunked\r\nContent-Length: x\r\n"), both);
        check(&fields("Content-Length: 5\r\nContent-Length: 5\r\n"), Some((1, Flaw::Lengths)));
        check(&fields("X-Content-Length: 5\r\nX-Transfer-Encoding: x\r\n"), None);
    }

    #[test]
    fn what_hyper_refuses_or_does_not_read_is_not_followed() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\nGET /#\r\n\r\n", "x".repeat(LONGEST_LINE));
        for bytes in
            ["POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n#\n\nGET /#\r\n\r\n", &long]
        {
            assert_eq!(flawed(bytes, 3), None, "{bytes:?}");
        }
    }
}
