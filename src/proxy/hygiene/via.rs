//! Pure: our name in Via (RFC 9110 section 7.6.3), and whether a request has met it before.

use http::Version;
use http::header::{HeaderMap, HeaderValue, VIA};

use super::members;

/// The name by which this instance is known in Via. Two instances in a row need different ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pseudonym {
    name: String,
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
}

impl Pseudonym {
    /// A name made of token characters (RFC 9110 section 5.6.2); `None` for any other.
    pub fn parse(name: &str) -> Option<Self> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(token) {
            return None;
        }
        let line = |version: &str| HeaderValue::try_from(format!("{version} {name}")).ok();
        Some(Self {
            name: name.to_owned(),
            http10: line("1.0")?,
            http11: line("1.1")?,
            http2: line("2")?,
        })
    }

    /// The member to add for a message that came in this version.
    pub fn line(&self, version: Version) -> HeaderValue {
        match version {
            Version::HTTP_10 | Version::HTTP_09 => self.http10.clone(),
            Version::HTTP_2 => self.http2.clone(),
            _ => self.http11.clone(),
        }
    }

    /// Whether any member of Via names us; names are compared without case.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        members(headers, &VIA).any(|member| {
            let mut words = member
                .split(|byte| byte.is_ascii_whitespace() || *byte == b'(')
                .filter(|word| !word.is_empty());
            words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(self.name.as_bytes()))
        })
    }
}

impl Default for Pseudonym {
    fn default() -> Self {
        Self {
            name: "bearer-proxy".to_owned(),
            http10: HeaderValue::from_static("1.0 bearer-proxy"),
            http11: HeaderValue::from_static("1.1 bearer-proxy"),
            http2: HeaderValue::from_static("2 bearer-proxy"),
        }
    }
}
