//! `Origin`: a checked scheme and authority (RFC 6454 section 4).

use std::fmt;
use std::net::IpAddr;

use crate::cleartext::{Cleartext, is_loopback};

/// A destination of requests: `https` anywhere, `http` on loopback, or where [`Cleartext`] permits it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    https: bool,
    /// The addresses that connections may lead to; `None` for all.
    addresses: Option<Cleartext>,
    host: String,
    port: u16,
}

/// Addresses of cloud metadata services: AWS instances, ECS and EKS by IPv4 and IPv6, and Azure.
const METADATA: [&str; 5] =
    ["169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23"];

/// The reason why a host is no destination of `http` within a cluster.
pub const NOT_IN_CLUSTER: &str = "http is allowed within the cluster only: for names of one label, *.svc, \
    *.svc.cluster.local, *.internal, *.local, and private addresses";

impl Origin {
    /// The origin of a URI; path and query are ignored.
    ///
    /// # Errors
    /// A sentence on what is wrong with the URI, without its user information.
    pub fn of(uri: &http::Uri) -> Result<Self, OriginError> {
        Self::with_cleartext(uri, Cleartext::Loopback)
    }

    /// The origin of a URI whose scheme may be `http` where `cleartext` permits it.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn with_cleartext(uri: &http::Uri, cleartext: Cleartext) -> Result<Self, OriginError> {
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(OriginError::new("the scheme is neither https nor http")),
            None => return Err(OriginError::new("it has no scheme; write https://host")),
        };
        let authority = uri.authority().ok_or_else(|| OriginError::new("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(OriginError::new("user information in a URL is not accepted"));
        }
        let host =
            authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() {
            return Err(OriginError::new("it names no host"));
        }
        let written = port(authority)
            .ok_or_else(|| OriginError::new("the port is no number between 1 and 65535"))?;
        let port = written.unwrap_or(default_port(https));
        if !https && !cleartext.permits_host(&host) {
            return Err(OriginError::new(match cleartext {
                Cleartext::Loopback => {
                    "http would send tokens in the clear; write https (http is accepted on loopback only)"
                }
                Cleartext::InCluster => NOT_IN_CLUSTER,
            }));
        }
        // The narrowest rule, so that equal URIs have equal origins.
        let narrowest = if is_loopback(&host) { Cleartext::Loopback } else { cleartext };
        let addresses = (!https).then_some(narrowest);
        Ok(Self { https, addresses, host, port })
    }

    /// The metadata service of the machine's own cloud, which is link-local and never has TLS. Only the
    /// cloud secret stores may use it.
    pub fn of_metadata(uri: &http::Uri) -> Option<Self> {
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if uri.scheme_str() != Some("http") || !METADATA.contains(&host.as_str()) {
            return None;
        }
        let port = uri.port_u16().unwrap_or(80);
        Some(Self { https: false, addresses: None, host, port })
    }

    /// True for `https`.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Host in lower case; an IPv6 address has no brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port; the scheme's default if none was written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value of the Host header: `host`, or `host:port` if the port is not the scheme's default.
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port == default_port(self.https) {
            true => host,
            false => format!("{host}:{}", self.port),
        }
    }

    /// True if the host is `localhost`, a name below it, or a loopback address.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// True if requests leave this machine in the clear.
    pub fn is_cleartext(&self) -> bool {
        self.addresses == Some(Cleartext::InCluster)
    }

    /// True if a connection to this address may carry requests.
    pub fn permits_address(&self, address: IpAddr) -> bool {
        self.addresses.is_none_or(|cleartext| cleartext.permits_address(address))
    }
}

/// The port of an authority without user information: `Some(None)` if none is written, `None` if it is
/// invalid. The `http` crate itself treats a port above 65535 as missing.
pub(super) fn port(authority: &http::uri::Authority) -> Option<Option<u16>> {
    match authority.as_str().get(authority.host().len()..) {
        None | Some("") => Some(None),
        Some(rest) => rest.strip_prefix(':')?.parse().ok().filter(|port| *port != 0).map(Some),
    }
}

/// `host:port` with brackets around an IPv6 address, as CONNECT requires it.
pub(super) fn bracketed(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// A URI has no acceptable origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OriginError {
    /// A sentence with what was found and what was expected.
    pub message: String,
}

impl OriginError {
    fn new(message: &str) -> Self {
        Self { message: message.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_or_refused() {
        let check = |uri: &str, expected: Option<&str>| {
            let found = uri.parse().ok().and_then(|uri| Origin::of(&uri).ok());
            assert_eq!(found.map(|origin| origin.to_string()).as_deref(), expected, "{uri}");
        };
        check("https://API.bank.example/v1?x", Some("https://api.bank.example"));
        check("https://bank.example:443", Some("https://bank.example"));
        check("https://bank.example:8443", Some("https://bank.example:8443"));
        check("http://127.0.0.1:8080/x", Some("http://127.0.0.1:8080"));
        check("http://[::1]:81", Some("http://[::1]:81"));
        check("http://localhost", Some("http://localhost"));
        check("http://bank.example", None);
        check("http://localhost.bank.example", None);
        check("http://idp.localhost:81", Some("http://idp.localhost:81"));
        check("http://auth.bank.svc", None);
        check("https://user:pw@bank.example", None);
        check("ftp://bank.example", None);
        check("/path", None);
        check("https://bank.example:99999", None);
        check("https://bank.example:0", None);
        check("https://bank.example:", None);
        check("http://169.254.169.254", None);
        let in_cluster = |uri: &str| {
            let uri = uri.parse().unwrap();
            Origin::with_cleartext(&uri, Cleartext::InCluster)
        };
        let service = in_cluster("http://auth.bank.svc:8080/x").unwrap();
        assert_eq!(service.to_string(), "http://auth.bank.svc:8080");
        assert!(service.is_cleartext());
        assert!(service.permits_address("10.1.2.3".parse().unwrap()));
        assert!(!service.permits_address("8.8.8.8".parse().unwrap()));
        assert!(in_cluster("http://bank.example").is_err());
        // The rule that is not needed leaves no trace.
        let local = "http://127.0.0.1:80";
        assert_eq!(in_cluster(local), Origin::of(&local.parse().unwrap()));
        assert!(!in_cluster(local).unwrap().is_cleartext());
        let encrypted = in_cluster("https://bank.example").unwrap();
        assert!(encrypted.permits_address("8.8.8.8".parse().unwrap()));
        let metadata = |uri: &str| {
            let origin = Origin::of_metadata(&uri.parse().unwrap());
            origin.map(|origin| origin.to_string())
        };
        for uri in ["http://169.254.169.254", "http://[fd00:ec2::23]:8080"] {
            assert_eq!(metadata(uri).as_deref(), Some(uri));
        }
        for uri in ["https://169.254.169.254", "http://169.254.169.253", "http://bank.example"] {
            assert_eq!(metadata(uri), None);
        }
    }
}
