//! Pure: our name in Via (RFC 9110 section 7.6.3), and whether a request has met us before.
//!
//! Every instance has the same name until somebody gives it another, and two in a row are no loop.
//! So the name goes upstream with a number of this process in its comment. Where a comment comes
//! back, the number decides; where a proxy in between took it off, the name alone does.

use http::Version;
use http::header::{HeaderMap, HeaderValue, VIA};

use super::members;

/// The name by which this program is known in Via.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pseudonym(String);

impl Pseudonym {
    /// A name made of token characters (RFC 9110 section 5.6.2); `None` for any other.
    pub fn parse(name: &str) -> Option<Self> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let good = !name.is_empty() && name.len() <= 64 && name.bytes().all(token);
        good.then(|| Self(name.to_owned()))
    }
}

impl Default for Pseudonym {
    fn default() -> Self {
        Self("bearer-proxy".to_owned())
    }
}

/// What this process writes into Via, and reads from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    name: Pseudonym,
    comment: String,
    upwards: Lines,
    downwards: Lines,
}

/// A member of Via for each version that a message may have come in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lines {
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
}

impl Via {
    /// `instance` tells this process from others of its name.
    pub fn new(name: Pseudonym, instance: u32) -> Self {
        let comment = format!("({instance:08x})");
        let upwards = Lines::new(&format!("{} {comment}", name.0));
        let downwards = Lines::new(&name.0);
        Self { name, comment, upwards, downwards }
    }

    /// The member to add to a request that came in this version.
    pub fn of_request(&self, version: Version) -> HeaderValue {
        self.upwards.line(version)
    }

    /// The member to add to an answer that came in this version.
    pub fn of_answer(&self, version: Version) -> HeaderValue {
        self.downwards.line(version)
    }

    /// Whether any member of Via says that a request has passed through this process before.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        members(headers, VIA).any(|member| self.is(member))
    }

    /// `received-protocol received-by [comment]`; names are compared without case.
    fn is(&self, member: &[u8]) -> bool {
        let (words, comment) = match member.iter().position(|byte| *byte == b'(') {
            Some(at) => member.split_at(at),
            None => (member, &[][..]),
        };
        let mut words = words.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let named = words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(self.name.0.as_bytes()));
        named && (!is_number(comment) || comment == self.comment.as_bytes())
    }
}

/// Whether a comment is one that an instance of ours writes.
fn is_number(comment: &[u8]) -> bool {
    matches!(comment, [b'(', digits @ .., b')'] if digits.len() == 8 && digits.iter().all(u8::is_ascii_hexdigit))
}

impl Lines {
    /// What is no header value cannot be a pseudonym; an empty member says nothing.
    fn new(by: &str) -> Self {
        let line = |version: &str| {
            HeaderValue::try_from(format!("{version} {by}"))
                .unwrap_or_else(|_| HeaderValue::from_static(""))
        };
        Self { http10: line("1.0"), http11: line("1.1"), http2: line("2") }
    }

    fn line(&self, version: Version) -> HeaderValue {
        match version {
            Version::HTTP_10 | Version::HTTP_09 => self.http10.clone(),
            Version::HTTP_2 => self.http2.clone(),
            _ => self.http11.clone(),
        }
    }
}

impl Default for Via {
    fn default() -> Self {
        Self::new(Pseudonym::default(), 0)
    }
}
