//! What makes a request one that is not served, found where its bytes are read.

use std::fmt;

/// Why a request is not to be served; among its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Its head is not valid HTTP/1.1.
    Malformed,
    /// Its target holds a fragment (RFC 9112 section 3.2 has no place for one).
    Fragment,
    /// Its target is longer than any configuration allows.
    TargetTooLong,
    /// A line of its head ends without CR (RFC 9112 section 2.2).
    BareLineFeed,
    /// Its Content-Length is no plain number.
    Length,
    /// It has more than one Content-Length (RFC 9112 section 6.3).
    Lengths,
    /// Its Transfer-Encoding is not one single `chunked` of HTTP/1.1.
    Coding,
    /// It has Content-Length and Transfer-Encoding (RFC 9112 section 6.1).
    LengthAndCoding,
    /// It has more fields than allowed.
    TooManyFields,
    /// Its head has more bytes than allowed.
    HeadTooLarge,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the head is not valid HTTP/1.1",
            Self::Fragment => {
                "the target holds a fragment (`#`), which is never sent to a server; write %23"
            }
            Self::TargetTooLong => "the target exceeds what any configuration allows",
            Self::BareLineFeed => "a line of the head ends in LF; it must end in CR LF",
            Self::Length => "Content-Length is not one plain number",
            Self::Lengths => "more than one Content-Length header",
            Self::Coding => "Transfer-Encoding is not one single `chunked`",
            Self::LengthAndCoding => "both Content-Length and Transfer-Encoding are present",
            Self::TooManyFields => "more header fields than server.max_headers",
            Self::HeadTooLarge => "the head exceeds server.max_header_bytes",
        })
    }
}
