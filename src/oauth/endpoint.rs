//! `TokenEndpoint`: the URL tokens are asked from (RFC 6749 section 3.2).

use std::fmt;

use http::uri::Authority;

use crate::cleartext::Cleartext;

/// A token endpoint: https, or http where [`Cleartext`] permits it; no user information, no fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenEndpoint {
    uri: http::Uri,
    cleartext: Cleartext,
}

impl TokenEndpoint {
    /// Checks a URL.
    ///
    /// # Errors
    /// The URL cannot be used; the message does not repeat parts that may hold a secret.
    pub fn parse(url: &str) -> Result<Self, EndpointError> {
        Self::with_cleartext(url, Cleartext::Loopback)
    }

    /// Checks a URL whose scheme may be `http` where `cleartext` permits it.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn with_cleartext(url: &str, cleartext: Cleartext) -> Result<Self, EndpointError> {
        check_text(url)?;
        let uri: http::Uri =
            url.parse().map_err(|error| fault(format!("the token URL is no URL: {error}")))?;
        let authority = uri
            .authority()
            .ok_or_else(|| fault("the token URL names no host; write https://host/path"))?;
        check_authority(authority)?;
        check_scheme(uri.scheme_str(), authority, cleartext)?;
        check_query(uri.query())?;
        Ok(Self { uri, cleartext })
    }

    /// The URL of the request.
    pub fn uri(&self) -> &http::Uri {
        &self.uri
    }

    /// The destinations that `http` may have.
    pub fn cleartext(&self) -> Cleartext {
        self.cleartext
    }

    /// The path alone, at least `/`.
    pub fn path(&self) -> &str {
        self.uri.path()
    }
}

impl fmt::Display for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

impl std::str::FromStr for TokenEndpoint {
    type Err = EndpointError;

    fn from_str(url: &str) -> Result<Self, EndpointError> {
        Self::parse(url)
    }
}

fn check_text(url: &str) -> Result<(), EndpointError> {
    if url.is_empty() {
        return Err(fault("the token URL is empty; write https://host/path"));
    }
    if url.chars().any(|c| !c.is_ascii_graphic()) {
        return Err(fault(
            "the token URL holds a space, a control or a non-ASCII character; percent-encode or remove it",
        ));
    }
    // The URL type drops fragments in silence, and RFC 6749 section 3.2 forbids them.
    if url.contains('#') {
        return Err(fault("the token URL has a fragment (#…); remove it"));
    }
    Ok(())
}

fn check_authority(authority: &Authority) -> Result<(), EndpointError> {
    if authority.as_str().contains('@') {
        return Err(fault(
            "the token URL holds a user name or password; remove them and name secrets by reference",
        ));
    }
    let host = authority.host();
    if host.is_empty() || !host.bytes().all(host_byte) {
        return Err(fault("the token URL has no valid host; write https://host/path"));
    }
    let rest = &authority.as_str()[host.len()..];
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Ok(()),
        Some(port) if port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(()),
        _ => Err(fault("the token URL has no valid port; write a number from 1 to 65535 or none")),
    }
}

fn host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte)
}

fn check_scheme(
    scheme: Option<&str>,
    authority: &Authority,
    cleartext: Cleartext,
) -> Result<(), EndpointError> {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    match scheme {
        Some("https") => Ok(()),
        Some("http") if cleartext.permits_host(host) => Ok(()),
        Some("http") => Err(fault(format!(
            "the token URL would send the client secret to {} without TLS; write https:// \
             (http:// is for this machine, or the cluster where that is allowed)",
            authority.host()
        ))),
        Some(other) => Err(fault(format!("the token URL starts with {other}://; write https://"))),
        None => Err(fault("the token URL has no scheme; write https:// in front")),
    }
}

/// RFC 6749 section 2.3.1: the secret must not be included in the request URI.
fn check_query(query: Option<&str>) -> Result<(), EndpointError> {
    let names = query.unwrap_or("").split('&').map(|pair| pair.split('=').next().unwrap_or(""));
    match names.into_iter().find(|name| *name == "client_secret" || *name == "client_assertion") {
        Some(name) => Err(fault(format!(
            "the token URL holds {name} in its query; remove it and name the secret by reference"
        ))),
        None => Ok(()),
    }
}

fn fault(message: impl Into<String>) -> EndpointError {
    EndpointError { message: message.into() }
}

/// The reason why a text is not a token endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EndpointError {
    /// The finding and the expectation.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted() {
        for (url, path) in [
            ("https://auth.qbankconnect.com/token", "/token"),
            ("https://api.sqr-group.com/v1/oauth/token", "/v1/oauth/token"),
            ("https://host:8443/a?tenant=x", "/a"),
            ("https://host", "/"),
            ("http://127.0.0.1:9000/token", "/token"),
            ("http://[::1]:9000/token", "/token"),
            ("http://localhost/token", "/token"),
            ("http://idp.localhost/token", "/token"),
            ("https://[2001:db8::1]/t", "/t"),
        ] {
            assert_eq!(TokenEndpoint::parse(url).unwrap().path(), path, "{url}");
        }
    }

    #[test]
    fn cleartext_within_the_cluster() {
        let parse = |url| TokenEndpoint::with_cleartext(url, Cleartext::InCluster);
        for url in ["http://auth/token", "http://[fd00::1]:81/", "http://auth.x.svc:8080/token"] {
            assert_eq!(parse(url).unwrap().to_string(), url);
        }
        assert!(parse("http://auth.example/token").is_err());
    }

    #[test]
    fn refused() {
        for (url, part) in [
            ("", "empty"),
            ("/token", "no host"),
            ("auth.example/token", "no URL"),
            ("auth.example", "no scheme"),
            ("http://auth.example/token", "without TLS"),
            ("http://localhost.example/token", "without TLS"),
            ("http://0.0.0.0/token", "without TLS"),
            ("ftp://auth.example/token", "starts with ftp"),
            ("https://me:hunter2@auth.example/", "user name"),
            ("https://auth.example/token#x", "fragment"),
            ("https://auth.example/to ken", "space"),
            (" https://auth.example/token", "space"),
            ("https://auth.example:0/token", "port"),
            ("https://auth.example:/token", "port"),
            ("https://auth.example:70000/token", "port"),
            ("https://auth.example/t?client_secret=hunter2", "client_secret"),
        ] {
            let message = TokenEndpoint::parse(url).expect_err(url).message;
            assert!(message.contains(part), "{url}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
