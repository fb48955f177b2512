//! Heads of HTTP/1.1 as bytes, both ways. Pure.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;

use super::Failure;
use super::answer::Framing;
use crate::body::Body;

/// Bytes of an answer's head.
const MAX_BYTES: usize = 32 * 1024;
/// Fields of an answer's head.
const MAX_FIELDS: usize = 100;

/// An answer's head, and what it says of the rest.
pub struct Head {
    /// The answer, with its body still to come; in a box, since it is handed from state to state.
    pub response: Box<Response<Body>>,
    pub framing: Framing,
    pub keep_alive: bool,
}

impl Head {
    /// RFC 9110 section 15.2: another head follows.
    pub fn is_interim(&self) -> bool {
        self.response.status().is_informational() && !self.is_switch()
    }

    /// Whether another protocol is spoken from here on.
    pub fn is_switch(&self) -> bool {
        self.response.status() == StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Writes a request's head up to the fields that frame its body, which `sending` adds; gives back
/// what the request says of its length.
pub fn write<'a, B>(request: &'a Request<B>, out: &mut BytesMut) -> Option<&'a HeaderValue> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    for part in [request.method().as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let mut length = None;
    for (name, value) in request.headers() {
        match *name {
            // Framing is told by what is sent, not by what was received.
            CONTENT_LENGTH => length = Some(value),
            TRANSFER_ENCODING => {}
            // What belongs to this connection alone is named (RFC 9110 section 10.1.4).
            TE => {
                write_field(name, value, out);
                out.extend_from_slice(b"connection: te\r\n");
            }
            _ => write_field(name, value, out),
        }
    }
    length
}

/// Writes fields, each a line.
pub fn write_field(name: &HeaderName, value: &HeaderValue, out: &mut BytesMut) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Takes a head off the front of what was read; `None` until it is there as a whole. `asked` is the
/// protocol that the request offers to switch to.
///
/// # Errors
/// What is no head of HTTP/1, or one whose answer ends in two ways.
pub fn read<'a>(
    input: &mut BytesMut,
    method: &Method,
    asked: impl FnOnce() -> Option<&'a HeaderValue>,
) -> Result<Option<Head>, Failure> {
    let Some(length) = end_of(input)? else { return Ok(None) };
    let head = input.split_to(length).freeze();
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let complete = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        &head,
        &mut fields,
    );
    if !matches!(complete, Ok(httparse::Status::Complete(all)) if all == length) {
        return Err(Failure::Invalid("its head cannot be parsed"));
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Failure::Invalid("its status is no status code"))?;
    let mut response = Box::new(Response::new(Body::empty()));
    *response.status_mut() = status;
    let is_11 = parsed.version == Some(1);
    *response.version_mut() = if is_11 { Version::HTTP_11 } else { Version::HTTP_10 };
    if let Some(reason) = parsed.reason
        && Some(reason) != status.canonical_reason()
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    let frame = read_fields(parsed.headers, &head, response.headers_mut())?;
    if status == StatusCode::SWITCHING_PROTOCOLS && !switches_to(asked(), response.headers()) {
        return Err(Failure::UnaskedUpgrade);
    }
    let framing = frame.framing(status, method, is_11)?;
    let keep_alive = is_11 && !frame.close && framing != Framing::UntilClose;
    Ok(Some(Head { response, framing, keep_alive }))
}

/// Whether an answer switches to the one protocol that was asked for.
fn switches_to(asked: Option<&HeaderValue>, headers: &HeaderMap) -> bool {
    let mut named = headers.get_all(UPGRADE).iter();
    let (Some(asked), Some(first), None) = (asked, named.next(), named.next()) else {
        return false;
    };
    first.as_bytes().eq_ignore_ascii_case(asked.as_bytes())
}

/// Where the head ends; a line that ends without a carriage return is refused.
fn end_of(input: &[u8]) -> Result<Option<usize>, Failure> {
    const START: &[u8] = b"HTTP/1.";
    if !START.starts_with(&input[..input.len().min(START.len())]) {
        return Err(Failure::Invalid("it is not HTTP/1"));
    }
    for feed in memchr::memchr_iter(b'\n', input) {
        let line = &input[..feed];
        if !line.ends_with(b"\r") {
            return Err(Failure::Invalid("a line of its head ends without a carriage return"));
        }
        if line.ends_with(b"\r\n\r") {
            return if feed < MAX_BYTES { Ok(Some(feed + 1)) } else { Err(TOO_LONG) };
        }
    }
    if input.len() < MAX_BYTES { Ok(None) } else { Err(TOO_LONG) }
}

const TOO_LONG: Failure = Failure::Invalid("its head is longer than 32 KiB");

/// What the fields say of the body and of the connection.
#[derive(Default)]
struct Frame {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    /// A length or coding that is repeated, or one that is not understood.
    ambiguous: bool,
}

fn read_fields(
    fields: &[httparse::Header<'_>],
    head: &Bytes,
    headers: &mut HeaderMap,
) -> Result<Frame, Failure> {
    let mut frame = Frame::default();
    headers.reserve(fields.len());
    for field in fields {
        let invalid = Failure::Invalid("a field of its head is invalid");
        let Ok(name) = HeaderName::from_bytes(field.name.as_bytes()) else { return Err(invalid) };
        frame.note(&name, field.value)?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value));
        headers.append(name, value.map_err(|_| invalid)?);
    }
    Ok(frame)
}

impl Frame {
    fn note(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), Failure> {
        if *name == CONTENT_LENGTH {
            let length = decimal(value).ok_or(Failure::Invalid("its Content-Length is invalid"))?;
            self.ambiguous |= self.length.replace(length).is_some();
        } else if *name == TRANSFER_ENCODING {
            self.ambiguous |= self.chunked || !value.eq_ignore_ascii_case(b"chunked");
            self.chunked = true;
        } else if *name == CONNECTION {
            let mut options = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            self.close |= options.any(|option| option.eq_ignore_ascii_case(b"close"));
        }
        Ok(())
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

/// RFC 9112 section 6.2: digits only.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
