//! Pure: where a body ends (RFC 9112 sections 6.3 and 7.1), read piece by piece.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use crate::message::Fields;

/// Bytes of a line that tells a chunk's size.
const MAX_CHUNK_LINE: usize = 1024;
/// Bytes of all trailers.
const MAX_TRAILER_BYTES: usize = 32 * 1024;
/// Fields of all trailers.
const MAX_TRAILERS: usize = 100;

/// How the end of a body is told, and how much of it is left (RFC 9112 sections 6.3 and 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// The size of a chunk is next.
    Chunked,
    /// So many bytes of a chunk are left, and its line end.
    InChunk(u64),
    /// Trailers are next, or the line that ends them.
    Trailers,
    /// The end of the connection is its end.
    UntilClose,
}

/// What was found next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Some of the body.
    Data(Bytes),
    /// The fields after it, which are its end too.
    Trailers(HeaderMap),
    /// Its end.
    End,
    /// More must be read first.
    More,
}

impl Framing {
    /// Takes the next piece off the front of what was read.
    ///
    /// # Errors
    /// What is wrong with the framing.
    pub fn step(&mut self, input: &mut BytesMut) -> Result<Step, &'static str> {
        loop {
            match self {
                Self::Length(0) => return Ok(Step::End),
                _ if input.is_empty() => return Ok(Step::More),
                Self::Length(left) => return Ok(take(left, input)),
                Self::UntilClose => return Ok(Step::Data(input.split().freeze())),
                Self::InChunk(0) => match input.as_ref() {
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        *self = Self::Chunked;
                    }
                    [b'\r'] => return Ok(Step::More),
                    _ => return Err("a chunk does not end where it says"),
                },
                Self::InChunk(left) => return Ok(take(left, input)),
                Self::Chunked => match chunk_size(input)? {
                    Some((0, line)) => {
                        input.advance(line);
                        *self = Self::Trailers;
                    }
                    Some((size, line)) => {
                        input.advance(line);
                        *self = Self::InChunk(size);
                    }
                    None => return Ok(Step::More),
                },
                Self::Trailers => return trailers(input),
            }
        }
    }
}

fn take(left: &mut u64, input: &mut BytesMut) -> Step {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= length as u64;
    Step::Data(input.split_to(length).freeze())
}

/// The size that a chunk's line tells, and the length of that line; what follows a semicolon is
/// skipped, as RFC 9112 section 7.1.1 asks.
fn chunk_size(input: &[u8]) -> Result<Option<(u64, usize)>, &'static str> {
    let Some(feed) = memchr::memchr(b'\n', &input[..input.len().min(MAX_CHUNK_LINE)]) else {
        let bounded = input.len() < MAX_CHUNK_LINE;
        return if bounded { Ok(None) } else { Err("a chunk's line is too long") };
    };
    let invalid = "the size of a chunk is invalid";
    let line = input[..feed].strip_suffix(b"\r").ok_or(invalid)?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, rest) = line.split_at(digits);
    let extension = rest.trim_ascii_start();
    if !(1..=15).contains(&digits)
        || !(extension.is_empty() || extension.starts_with(b";"))
        || rest.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')
    {
        return Err(invalid);
    }
    let size = size.iter().fold(0, |size, digit| {
        size << 4 | u64::from(char::from(*digit).to_digit(16).unwrap_or_default())
    });
    Ok(Some((size, feed + 1)))
}

/// The fields after the last chunk, up to an empty line.
fn trailers(input: &mut BytesMut) -> Result<Step, &'static str> {
    if input.starts_with(b"\r\n") {
        input.advance(2);
        return Ok(Step::End);
    }
    let invalid = "a trailer is invalid";
    let mut end = None;
    for feed in memchr::memchr_iter(b'\n', input) {
        if !input[..feed].ends_with(b"\r") {
            return Err(invalid);
        }
        if input[..feed].ends_with(b"\r\n\r") {
            end = Some(feed + 1);
            break;
        }
    }
    if end.unwrap_or(input.len()) > MAX_TRAILER_BYTES {
        return Err("the trailers are too long");
    }
    let Some(end) = end else { return Ok(Step::More) };
    let all = Fields::read(input.split_to(end), MAX_TRAILERS).map_err(|_| invalid)?;
    Ok(Step::Trailers(all.into()))
}
