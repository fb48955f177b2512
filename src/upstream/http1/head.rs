//! Heads of HTTP/1.1 as bytes, both ways. Pure.

use bytes::{Bytes, BytesMut};
use http::header::UPGRADE;
use http::{Method, StatusCode, Version};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;

use super::Failure;
use crate::body::Body;
use crate::http1::{Coding, Framing, decimal, lists, write_decimal};
use crate::message::{Fields, Lines, Request, Response};

/// Bytes of an answer's head.
const MAX_BYTES: usize = 32 * 1024;
/// Fields of an answer's head.
const MAX_FIELDS: usize = 100;

/// An answer's head, and what it says of the rest.
pub struct Head {
    /// The answer, with its body still to come; in a box, since it is handed from state to state.
    pub response: Box<Response>,
    pub framing: Framing,
    pub keep_alive: bool,
}

impl Head {
    /// RFC 9110 section 15.2: another head follows.
    pub fn is_interim(&self) -> bool {
        self.response.status.is_informational() && !self.is_switch()
    }

    /// Whether another protocol is spoken from here on.
    pub fn is_switch(&self) -> bool {
        self.response.status == StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Writes a request's head, with the fields that frame its body (RFC 9112 section 6): framing is told by
/// what is sent, not by what was received.
pub fn write(request: &Request, out: &mut BytesMut) -> Coding {
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    for part in [request.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let (mut told, mut te) = (None, false);
    request.fields.write(out, |name, value| match name {
        b"content-length" => {
            told = told.or(Some(decimal(value)));
            true
        }
        b"transfer-encoding" => true,
        b"te" => {
            te = true;
            false
        }
        _ => false,
    });
    if te {
        // What belongs to this connection alone is named (RFC 9110 section 10.1.4).
        out.extend_from_slice(b"connection: te\r\n");
    }
    let known = request.body.size_hint().exact();
    let coding = match told.flatten().or(known) {
        Some(length) => {
            if length > 0 || told.is_some() {
                out.extend_from_slice(b"content-length: ");
                write_decimal(length, out);
                out.extend_from_slice(b"\r\n");
            }
            Coding::Length(length)
        }
        None => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Coding::Chunked { trailers: true }
        }
    };
    out.extend_from_slice(b"\r\n");
    coding
}

/// Takes a head off the front of what was read; `None` until it is there as a whole. `asked` is the
/// protocol that the request offers to switch to.
///
/// # Errors
/// What is no head of HTTP/1, or one whose answer ends in two ways.
pub fn read<'a>(
    input: &mut BytesMut,
    method: &Method,
    asked: impl FnOnce() -> Option<&'a [u8]>,
) -> Result<Option<Head>, Failure> {
    let Some(feed) = begun(input)? else { return Ok(None) };
    let line = input.get(..feed).and_then(status_line);
    let (version, status, reason) = line.ok_or(Failure::Invalid("its head cannot be parsed"))?;
    let mut response = Box::new(Response::new(status, Body::empty()));
    response.version = version;
    if !reason.is_empty()
        && status.canonical_reason().map(str::as_bytes) != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(Bytes::copy_from_slice(reason))
    {
        response.extensions.insert(reason);
    }
    let lines = Lines::scan(input, feed + 1, MAX_FIELDS)
        .map_err(|_| Failure::Invalid("a field of its head is invalid"))?;
    let length = lines.as_ref().map_or(input.len(), Lines::end);
    if length > MAX_BYTES {
        return Err(Failure::Invalid("its head is longer than 32 KiB"));
    }
    let Some(lines) = lines else { return Ok(None) };
    response.fields = lines.of(input.split_to(length).freeze());
    if status == StatusCode::SWITCHING_PROTOCOLS && !switches_to(asked(), &response.fields) {
        return Err(Failure::UnaskedUpgrade);
    }
    let is_11 = version == Version::HTTP_11;
    let frame = Frame::of(&response.fields)?;
    let framing = frame.framing(status, method, is_11)?;
    let keep_alive = is_11 && !frame.close && framing != Framing::UntilClose;
    Ok(Some(Head { response, framing, keep_alive }))
}

/// Version, status and reason (RFC 9112 section 4). The reason, and the space before it, may be
/// missing.
fn status_line(line: &[u8]) -> Option<(Version, StatusCode, &[u8])> {
    let line = line.strip_suffix(b"\r")?;
    let (version, rest) = match line.strip_prefix(b"HTTP/1.1 ") {
        Some(rest) => (Version::HTTP_11, rest),
        None => (Version::HTTP_10, line.strip_prefix(b"HTTP/1.0 ")?),
    };
    let (status, rest) = rest.split_at_checked(3)?;
    let reason = match rest {
        [] => rest,
        [b' ', reason @ ..] => reason,
        _ => return None,
    };
    let text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    reason.iter().all(text).then_some(())?;
    Some((version, StatusCode::from_bytes(status).ok()?, reason))
}

/// Whether an answer switches to the one protocol that was asked for.
fn switches_to(asked: Option<&[u8]>, fields: &Fields) -> bool {
    let mut named = fields.get_all(&UPGRADE);
    let (Some(asked), Some(first), None) = (asked, named.next(), named.next()) else {
        return false;
    };
    first.eq_ignore_ascii_case(asked)
}

/// Where the first line ends; what is not HTTP/1 is refused before that.
fn begun(input: &[u8]) -> Result<Option<usize>, Failure> {
    const START: &[u8] = b"HTTP/1.";
    if !START.starts_with(&input[..input.len().min(START.len())]) {
        return Err(Failure::Invalid("it is not HTTP/1"));
    }
    let feed = memchr::memchr(b'\n', input);
    match feed.unwrap_or(input.len()) {
        ..MAX_BYTES => Ok(feed),
        _ => Err(Failure::Invalid("its head is longer than 32 KiB")),
    }
}

/// What the fields say of the body and of the connection.
#[derive(Default)]
struct Frame {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    /// A length or coding that is repeated, or one that is not understood.
    ambiguous: bool,
}

impl Frame {
    fn of(fields: &Fields) -> Result<Self, Failure> {
        let mut frame = Self::default();
        for (name, value) in fields.iter() {
            match name {
                b"content-length" => {
                    let length =
                        decimal(value).ok_or(Failure::Invalid("its Content-Length is invalid"))?;
                    frame.ambiguous |= frame.length.replace(length).is_some();
                }
                b"transfer-encoding" => {
                    frame.ambiguous |= frame.chunked || !value.eq_ignore_ascii_case(b"chunked");
                    frame.chunked = true;
                }
                b"connection" => frame.close |= lists(value, b"close"),
                _ => {}
            }
        }
        Ok(frame)
    }

    /// RFC 9112 section 6.3, but for what it allows to repair.
    fn framing(
        &self,
        status: StatusCode,
        method: &Method,
        is_11: bool,
    ) -> Result<Framing, Failure> {
        if self.ambiguous || self.chunked && (self.length.is_some() || !is_11) {
            return Err(Failure::AmbiguousLength);
        }
        let bodiless = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || *method == Method::HEAD;
        Ok(match self.length {
            _ if bodiless => Framing::Length(0),
            Some(length) => Framing::Length(length),
            None if self.chunked => Framing::Chunked,
            None => Framing::UntilClose,
        })
    }
}
