//! Content codings (RFC 9110 section 8.4) of token answers. Requests ask for none, and some gateways
//! compress all the same.

use std::io::{self, Read};

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use zeroize::Zeroizing;

use super::error::MalformedResponse;

/// Longest decoded body, in bytes: as long as a body without a coding may be.
const MAX_DECODED_BYTES: usize = 1024 * 1024;
/// Largest number of codings, one over the other.
const MAX_CODINGS: usize = 4;
/// The first bytes of gzip (RFC 1952 section 2.3.1), which no text begins with.
const GZIP_MAGIC: &[u8] = b"\x1f\x8b";

/// A coding that is decoded, or the name of one that is not.
enum Coding {
    Gzip,
    Deflate,
    Unsupported(&'static str),
}

impl Coding {
    /// Reads a name, which counts without case; `None` for one that leaves the body as it is.
    fn parse(name: &str) -> Option<Self> {
        Some(match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => return None,
            "gzip" | "x-gzip" => Self::Gzip,
            "deflate" => Self::Deflate,
            "br" => Self::Unsupported("br"),
            "zstd" => Self::Unsupported("zstd"),
            "compress" | "x-compress" => Self::Unsupported("compress"),
            _ => Self::Unsupported("unknown"),
        })
    }
}

/// The body without its codings. A body that is labelled as coded and is plain JSON is taken as it is,
/// and gzip is recognised without a label.
///
/// # Errors
/// A coding is not supported or broken, or the decoded body is too long.
pub(super) fn decode(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Zeroizing<Vec<u8>>, MalformedResponse> {
    let mut decoded = Zeroizing::new(body.to_vec());
    let fields = headers.get_all(CONTENT_ENCODING).iter().filter_map(|field| field.to_str().ok());
    let codings: Vec<Coding> =
        fields.flat_map(|field| field.split(',')).filter_map(Coding::parse).collect();
    if codings.len() > MAX_CODINGS {
        return Err(MalformedResponse::UnsupportedCoding("too deep"));
    }
    // Listed in the order of their application, so the last one is undone first.
    for coding in codings.iter().rev() {
        if decoded.is_empty() || decoded.trim_ascii_start().starts_with(b"{") {
            break;
        }
        decoded = match coding {
            Coding::Gzip => gzip(&decoded)?,
            Coding::Deflate => deflate(&decoded)?,
            Coding::Unsupported(name) => return Err(MalformedResponse::UnsupportedCoding(name)),
        };
    }
    match decoded.starts_with(GZIP_MAGIC) {
        true => gzip(&decoded),
        false => Ok(decoded),
    }
}

fn gzip(body: &[u8]) -> Result<Zeroizing<Vec<u8>>, MalformedResponse> {
    bounded(MultiGzDecoder::new(body))?.map_err(|_| MalformedResponse::BrokenCoding("gzip"))
}

/// RFC 9110 section 8.4.1.2: deflate in the zlib format. Some servers send it without that format.
fn deflate(body: &[u8]) -> Result<Zeroizing<Vec<u8>>, MalformedResponse> {
    if let Ok(decoded) = bounded(ZlibDecoder::new(body))? {
        return Ok(decoded);
    }
    bounded(DeflateDecoder::new(body))?.map_err(|_| MalformedResponse::BrokenCoding("deflate"))
}

/// Reads to the end, or until the decoded body is too long: a small body can decode to a very long one.
fn bounded(decoder: impl Read) -> Result<io::Result<Zeroizing<Vec<u8>>>, MalformedResponse> {
    let mut decoded = Zeroizing::new(Vec::new());
    let read = decoder.take(MAX_DECODED_BYTES as u64 + 1).read_to_end(&mut decoded);
    match decoded.len() > MAX_DECODED_BYTES {
        true => Err(MalformedResponse::DecodedTooLong),
        false => Ok(read.map(|_| decoded)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const TEXT: &[u8] = b"{\"access_token\":\"t\"}";

    fn gz(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(text: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(fields: &[&'static str], body: &[u8]) -> Result<Vec<u8>, MalformedResponse> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(CONTENT_ENCODING, http::HeaderValue::from_static(field));
        }
        decode(&headers, body).map(|decoded| decoded.to_vec())
    }

    #[test]
    fn codings_are_undone() {
        for (fields, body) in [
            (&[][..], TEXT.to_vec()),
            (&["identity"], TEXT.to_vec()),
            (&["gzip"], gz(TEXT)),
            (&["GZIP"], gz(TEXT)),
            (&["x-gzip, identity"], gz(TEXT)),
            (&["deflate"], zlib(TEXT)),
            (&["deflate"], raw(TEXT)),
            (&["deflate, gzip"], gz(&zlib(TEXT))),
            (&["deflate", "gzip"], gz(&zlib(TEXT))),
            (&["gzip"], [gz(&TEXT[..5]), gz(&TEXT[5..])].concat()),
            // A label without a coding, and a coding without a label.
            (&["gzip"], TEXT.to_vec()),
            (&["br"], TEXT.to_vec()),
            (&[], gz(TEXT)),
        ] {
            assert_eq!(decoded(fields, &body), Ok(TEXT.to_vec()), "{fields:?}");
        }
        assert_eq!(decoded(&["gzip"], b""), Ok(Vec::new()));
    }

    #[test]
    fn other_codings_and_broken_bodies_are_named() {
        use MalformedResponse::{BrokenCoding, DecodedTooLong, UnsupportedCoding};
        let cut = |body: Vec<u8>| body[..body.len() - 9].to_vec();
        let bomb = vec![b' '; MAX_DECODED_BYTES + 1];
        for (fields, body, expected) in [
            (&["br"][..], b"\x0b\x02".to_vec(), UnsupportedCoding("br")),
            (&["zstd"], b"\x28\xb5".to_vec(), UnsupportedCoding("zstd")),
            (&["hunter2"], b"x".to_vec(), UnsupportedCoding("unknown")),
            (&["gzip, br"], gz(TEXT), UnsupportedCoding("br")),
            (&["gzip,gzip,gzip,gzip,gzip"], gz(TEXT), UnsupportedCoding("too deep")),
            (&["gzip"], cut(gz(TEXT)), BrokenCoding("gzip")),
            (&["gzip"], b"access_token=t".to_vec(), BrokenCoding("gzip")),
            (&["deflate"], cut(zlib(TEXT)), BrokenCoding("deflate")),
            (&["gzip"], gz(&bomb), DecodedTooLong),
            (&["deflate"], zlib(&bomb), DecodedTooLong),
            (&["deflate"], raw(&bomb), DecodedTooLong),
        ] {
            assert_eq!(decoded(fields, &body), Err(expected), "{fields:?}");
        }
        assert!(decoded(&["gzip"], &gz(&bomb[1..])).is_ok());
    }
}
