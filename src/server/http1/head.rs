//! Pure: heads of HTTP/1.1 as bytes, both ways: requests read, answers written.
//!
//! A head that is not to be served becomes a request all the same, with the [`Flaw`] among its
//! extensions: it is refused where all others are, in the same words, and counted.

use std::mem::take;
use std::ops::Range;

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{Method, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;

use super::date;
use crate::body::Body;
use crate::http1::{Coding, Framing, decimal, lists, write_decimal};
use crate::message::{FieldError, Fields, Lines, Request, Response};
use crate::server::flaw::Flaw;

/// The longest target that a [`Uri`] can hold, in bytes.
const LONGEST_TARGET: usize = u16::MAX as usize - 1;

/// A request's head, and what it says of the rest.
#[derive(Debug)]
pub struct Head {
    /// The request; its body is still to come.
    pub request: Box<Request>,
    /// How the end of its body is told.
    pub framing: Framing,
    /// Whether the client waits to be asked for the body (RFC 9110 section 10.1.1).
    pub expects: bool,
    /// What it says of the answer.
    pub asked: Asked,
}

/// What a request says of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Whether the connection may be used again.
    pub keep_alive: bool,
    /// Whether only a head is wanted.
    pub head_only: bool,
    /// Whether the client speaks HTTP/1.0, which knows no chunks.
    pub old: bool,
    /// Whether trailers are welcome.
    pub trailers: bool,
    /// Whether nobody knows what follows the head.
    pub astray: bool,
}

/// Takes a head off the front of what was read; `None` until it is there as a whole, or is known to be
/// flawed.
pub fn read(input: &mut BytesMut, max_fields: usize) -> Option<Head> {
    let mut request = Box::new(Request::default());
    match read_into(&mut request, input, max_fields) {
        Ok((framing, expects, asked)) => Some(Head { request, framing, expects, asked }),
        Err(Stop::Early) => None,
        Err(Stop::Flaw(flaw)) => Some(flawed(request, flaw)),
    }
}

/// Why no request was read.
enum Stop {
    /// More is to come.
    Early,
    Flaw(Flaw),
}

impl From<Flaw> for Stop {
    fn from(flaw: Flaw) -> Self {
        Self::Flaw(flaw)
    }
}

impl From<FieldError> for Stop {
    fn from(error: FieldError) -> Self {
        Self::Flaw(match error {
            FieldError::Malformed => Flaw::Malformed,
            FieldError::BareLineFeed => Flaw::BareLineFeed,
            FieldError::TooMany => Flaw::TooManyFields,
        })
    }
}

fn read_into(
    request: &mut Request,
    input: &mut BytesMut,
    max_fields: usize,
) -> Result<(Framing, bool, Asked), Stop> {
    let feed = memchr::memchr(b'\n', input).ok_or(Stop::Early)?;
    let target = read_line(input.get(..feed).unwrap_or_default(), request)?;
    let lines = Lines::scan(input, feed + 1, max_fields)?.ok_or(Stop::Early)?;
    let read = match lines.end() {
        all if all == input.len() => take(input), // nothing is left to hold memory for
        length => input.split_to(length),
    };
    let read = read.freeze();
    request.uri = Uri::from_maybe_shared(read.slice(target)).map_err(|_| Flaw::Malformed)?;
    request.fields = lines.of(read);
    let said = Said::by(&request.fields);
    let framing = said.framing(request.version)?;
    let old = request.version == Version::HTTP_10;
    let keep_alive = !said.close && (!old || said.keep_alive);
    let head_only = request.method == Method::HEAD;
    let trailers = said.trailers && !old;
    let asked = Asked { keep_alive, head_only, old, trailers, astray: false };
    Ok((framing, said.expects && !old, asked))
}

/// What stands for a head that is not to be served: as much of it as could be read.
pub fn flawed(mut request: Box<Request>, flaw: Flaw) -> Head {
    request.extensions.insert(flaw);
    let head_only = request.method == Method::HEAD;
    let (keep_alive, old, trailers) = (false, false, false);
    let asked = Asked { keep_alive, head_only, old, trailers, astray: true };
    Head { request, framing: Framing::Length(0), expects: false, asked }
}

/// RFC 9112 section 3: method, target and version, one space between; gives the place of the target.
fn read_line(line: &[u8], request: &mut Request) -> Result<Range<usize>, Flaw> {
    let line = line.strip_suffix(b"\r").ok_or(Flaw::BareLineFeed)?;
    let space = line.iter().position(|byte| *byte == b' ').ok_or(Flaw::Malformed)?;
    let (method, rest) = line.split_at(space);
    request.method = Method::from_bytes(method).map_err(|_| Flaw::Malformed)?;
    let (target, version) = match rest.strip_suffix(b" HTTP/1.1") {
        Some(rest) => (rest, Version::HTTP_11),
        None => (rest.strip_suffix(b" HTTP/1.0").ok_or(Flaw::Malformed)?, Version::HTTP_10),
    };
    request.version = version;
    if target.contains(&b'#') {
        return Err(Flaw::Fragment);
    }
    if target.len() > LONGEST_TARGET {
        return Err(Flaw::TargetTooLong);
    }
    if target.len() < 2 {
        return Err(Flaw::Malformed);
    }
    Ok(space + 1..space + target.len())
}

/// What the fields of a head have said of its body and of the connection.
#[derive(Debug, Default)]
struct Said {
    lengths: usize,
    length: Option<u64>,
    codings: usize,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects: bool,
    trailers: bool,
}

impl Said {
    fn by(fields: &Fields) -> Self {
        let mut said = Self::default();
        for (name, value) in fields.iter() {
            match name {
                b"content-length" => {
                    said.lengths += 1;
                    said.length = decimal(value);
                }
                b"transfer-encoding" => {
                    said.codings += 1;
                    said.chunked = value.eq_ignore_ascii_case(b"chunked");
                }
                b"connection" => {
                    said.close |= lists(value, b"close");
                    said.keep_alive |= lists(value, b"keep-alive");
                }
                b"expect" => said.expects = value.eq_ignore_ascii_case(b"100-continue"),
                b"te" => said.trailers |= lists(value, b"trailers"),
                _ => {}
            }
        }
        said
    }

    /// RFC 9112 section 6.3, but for what it allows to repair.
    fn framing(&self, version: Version) -> Result<Framing, Flaw> {
        match (self.codings, self.lengths) {
            (0, 0) => Ok(Framing::Length(0)),
            (0, 1) => self.length.map(Framing::Length).ok_or(Flaw::Length),
            (0, _) => Err(Flaw::Lengths),
            (1, 0) if self.chunked && version == Version::HTTP_11 => Ok(Framing::Chunked),
            (_, 0) => Err(Flaw::Coding),
            _ => Err(Flaw::LengthAndCoding),
        }
    }
}

/// How an answer is sent, once its head is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// How the end of its body is told.
    pub coding: Coding,
    /// Whether the connection is used again.
    pub keep_alive: bool,
}

/// Writes the head of an answer, with the fields that frame its body (RFC 9112 section 6). A body
/// that is not to be sent is taken off.
pub fn write(response: &mut Response, asked: Asked, out: &mut BytesMut) -> Way {
    let status = response.status;
    let bare = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let silent = bare || asked.head_only;
    let exact = response.body.size_hint().exact();
    if silent {
        response.body = Body::empty();
    }
    let told = || decimal(response.fields.get(CONTENT_LENGTH)?);
    // What a head stands for without a body is for the upstream to say.
    let length = exact.filter(|length| !silent || *length > 0).or_else(told);
    let coding = match length {
        _ if silent => Coding::Length(0),
        Some(length) => Coding::Length(length),
        None if asked.old => Coding::UntilClose,
        None => Coding::Chunked { trailers: asked.trailers },
    };
    let closes = response.fields.get_all(&CONNECTION).any(|line| lists(line, b"close"));
    let keep_alive = asked.keep_alive && coding != Coding::UntilClose && !closes;
    write_line(response, asked.old, out);
    write_fields(response, out);
    if let (Some(length), false) = (length, bare) {
        out.extend_from_slice(b"content-length: ");
        write_decimal(length, out);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(match coding {
        Coding::Chunked { .. } => b"transfer-encoding: chunked\r\n",
        Coding::Length(_) | Coding::UntilClose => b"",
    });
    out.extend_from_slice(match keep_alive {
        _ if status == StatusCode::SWITCHING_PROTOCOLS => b"",
        true if asked.old => b"connection: keep-alive\r\n",
        true => b"",
        false => b"connection: close\r\n",
    });
    out.extend_from_slice(b"\r\n");
    Way { coding, keep_alive }
}

fn write_line(response: &Response, old: bool, out: &mut BytesMut) {
    let status = response.status;
    out.extend_from_slice(if old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(match response.extensions.get::<ReasonPhrase>() {
        Some(reason) => reason.as_bytes(),
        None => status.canonical_reason().unwrap_or_default().as_bytes(),
    });
    out.extend_from_slice(b"\r\n");
}

/// All fields but those of this connection, and `Date` where there is none (RFC 9110 section 6.6.1).
fn write_fields(response: &Response, out: &mut BytesMut) {
    let switches = response.status == StatusCode::SWITCHING_PROTOCOLS;
    let mut dated = false;
    response.fields.write(out, |name, _| match name {
        b"content-length" | b"transfer-encoding" => true,
        b"connection" => !switches,
        b"date" => {
            dated = true;
            false
        }
        _ => false,
    });
    if !dated {
        date::write(out);
    }
}
