//! `HostPattern`: an exact host name, or one wildcard label in front (`*.example.com`); and
//! [`Authority`], the host and port that a request is addressed to.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A host pattern in lower case, without a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern(String);

impl HostPattern {
    /// Parses and checks a pattern.
    ///
    /// # Errors
    /// A sentence on what is wrong with the pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let wrong = || {
            PatternError::new(
                "a host name is expected, such as erp.local or *.erp.local, without a port",
            )
        };
        let authority = Authority::parse(name.as_bytes()).map_err(|_| wrong())?;
        if authority.port.is_some() || (text.starts_with("*.") && name.starts_with('[')) {
            return Err(wrong());
        }
        let prefix = if text.starts_with("*.") { "*." } else { "" };
        Ok(Self(format!("{prefix}{}", authority.host)))
    }

    /// The pattern as written, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if the pattern matches a host, given in lower case without port.
    pub fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix("*.") {
            None => self.0 == host,
            Some(parent) => host
                .strip_suffix(parent)
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|label| !label.is_empty() && !label.contains('.')),
        }
    }

    /// True if the pattern matches more than one host.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }
}

/// Host and port of a request's authority (RFC 9110 section 4.2.3: compared without case).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    host: String,
    port: Option<u16>,
}

impl Authority {
    /// Reads the value of a Host header, or a target's authority, strictly: RFC 3986 section 3.2.
    ///
    /// # Errors
    /// User information, an empty host, an invalid character, a port above 65535 or not of digits.
    pub fn parse(bytes: &[u8]) -> Result<Self, PatternError> {
        Self::read(bytes).ok_or_else(|| PatternError::new("not a valid host"))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (host, rest) = match bytes.strip_prefix(b"[") {
            Some(inner) => {
                let end = inner.iter().position(|byte| *byte == b']')?;
                let (address, rest) = inner.split_at(end);
                let address: Ipv6Addr = std::str::from_utf8(address).ok()?.parse().ok()?;
                (format!("[{address}]"), &rest[1..])
            }
            None => {
                let end = bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len());
                let (name, rest) = bytes.split_at(end);
                (registered_name(name)?, rest)
            }
        };
        let port = match rest {
            [] | b":" => None,
            [b':', digits @ ..] => Some(port(digits)?),
            _ => return None,
        };
        Some(Self { host, port })
    }

    /// Host in lower case; an IPv6 address stands in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The same host without a port.
    pub fn without_port(self) -> Self {
        Self { port: None, ..self }
    }

    /// Port, if one was written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

fn port(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0_u16, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u16::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// A host name in lower case: letters, digits, `-`, `_` and `.`, without the dot of the DNS root.
fn registered_name(host: &[u8]) -> Option<String> {
    let host = host.strip_suffix(b".").unwrap_or(host);
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if host.len() > 253 || !host.iter().all(known) {
        return None;
    }
    if host.split(|byte| *byte == b'.').any(|label| label.is_empty() || label.len() > 63) {
        return None;
    }
    let mut name = std::str::from_utf8(host).ok()?.to_owned();
    name.make_ascii_lowercase();
    // A name of digits and dots is an IPv4 address; other spellings, such as `127.1`, are refused.
    let numeric = host.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    (!numeric || name.parse::<Ipv4Addr>().is_ok()).then_some(name)
}

/// A text is not a valid pattern or authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PatternError {
    /// A sentence with what was found and what was expected.
    pub message: String,
}

impl PatternError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_read_strictly() {
        let check = |text: &str, expected: Option<(&str, Option<u16>)>| {
            let found = Authority::parse(text.as_bytes()).ok();
            assert_eq!(
                found.as_ref().map(|authority| (authority.host(), authority.port())),
                expected,
                "{text}"
            );
        };
        check("Localhost:6750", Some(("localhost", Some(6750))));
        check("erp.local.", Some(("erp.local", None)));
        check("[::1]:80", Some(("[::1]", Some(80))));
        check("127.0.0.1", Some(("127.0.0.1", None)));
        check("127.0.0.1.:00080", Some(("127.0.0.1", Some(80))));
        check("host:", Some(("host", None)));
        check("[::1]:", Some(("[::1]", None)));
        check(&"a".repeat(63), Some((&"a".repeat(63), None)));
        for bad in [
            &"a".repeat(64),
            &"a.".repeat(128),
            ".",
            "a.b..",
            "[::1]x",
            "[a]",
            "host:65536",
            "host:80:80",
            "",
            "a b",
            "user@host",
            "a..b",
            "host:x",
            "host:99999",
            "[::1",
            "127.1",
            "a/b",
            "h\u{e9}",
            "a,b",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_wildcard_is_one_label() {
        let pattern = HostPattern::parse("*.ERP.local").unwrap();
        assert!(pattern.matches("a.erp.local"));
        assert!(
            !pattern.matches("a.b.erp.local")
                && !pattern.matches("erp.local")
                && !pattern.matches(".erp.local")
        );
        for bad in ["*", "*.", "a.*.b", "host:80", "*.[::1]"] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }
}
