//! Pure: the proxy's member of Via (RFC 9110 section 7.6.3), and the detection of loops by it.
//!
//! Every instance has the same name until an operator sets another, and two instances in a row are no
//! loop. Upstream the name is therefore followed by a comment with a number of this process. Where a
//! comment comes back, its number decides; where a proxy in between has removed it, the name alone does.

use http::Version;
use http::header::{HeaderMap, HeaderValue, VIA};

use super::list::{is_token_byte, members};

/// The name by which this proxy is known in Via.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pseudonym(String);

impl Pseudonym {
    /// Parses a name of at most 64 token characters (RFC 9110 section 5.6.2); `None` for any other.
    pub fn parse(name: &str) -> Option<Self> {
        let good = (1..=64).contains(&name.len()) && name.bytes().all(is_token_byte);
        good.then(|| Self(name.to_owned()))
    }
}

impl Default for Pseudonym {
    fn default() -> Self {
        Self("bearer-proxy".to_owned())
    }
}

/// The members that this process adds to Via, and recognizes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    name: Pseudonym,
    comment: String,
    to_upstream: Members,
    to_app: Members,
}

/// One member of Via for each version that a message may have arrived in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Members {
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
}

impl Via {
    /// The members of a process; `instance` tells it from other processes of the same name.
    pub fn new(name: Pseudonym, instance: u32) -> Self {
        let comment = format!("({instance:08x})");
        let to_upstream = Members::new(&format!("{} {comment}", name.0));
        let to_app = Members::new(&name.0);
        Self { name, comment, to_upstream, to_app }
    }

    /// The member to add to a request that arrived in this version.
    pub fn of_request(&self, version: Version) -> HeaderValue {
        self.to_upstream.of(version)
    }

    /// The member to add to a response that arrived in this version.
    pub fn of_response(&self, version: Version) -> HeaderValue {
        self.to_app.of(version)
    }

    /// True if a member of Via says that a request has passed through this process before.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        members(headers, VIA).any(|member| self.matches(member))
    }

    /// True if a member, `received-protocol received-by [comment]`, is of this process. Names are
    /// compared without case.
    fn matches(&self, member: &[u8]) -> bool {
        let comment_start = member.iter().position(|byte| *byte == b'(').unwrap_or(member.len());
        let (words, comment) = member.split_at(comment_start);
        let mut words = words.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let named = words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(self.name.0.as_bytes()));
        named && (!is_instance(comment) || comment == self.comment.as_bytes())
    }
}

/// True if a comment is one that an instance of this program writes.
fn is_instance(comment: &[u8]) -> bool {
    matches!(comment, [b'(', digits @ .., b')'] if digits.len() == 8 && digits.iter().all(u8::is_ascii_hexdigit))
}

impl Members {
    fn new(received_by: &str) -> Self {
        let member = |version: &str| {
            // A pseudonym is made of token characters, so that this cannot fail.
            HeaderValue::try_from(format!("{version} {received_by}"))
                .unwrap_or_else(|_| HeaderValue::from_static(""))
        };
        Self { http10: member("1.0"), http11: member("1.1"), http2: member("2") }
    }

    fn of(&self, version: Version) -> HeaderValue {
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
