//! `ServerAddress`: a server of Redis or Valkey, as a URL names it.

use std::fmt;
use std::path::PathBuf;

use crate::net::Origin;

/// The registered port of Redis.
const DEFAULT_PORT: u16 = 6379;

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// TCP: with TLS for `rediss`, in the clear on loopback for `redis`.
    Tcp(Origin),
    /// A Unix socket.
    Unix(PathBuf),
}

impl ServerAddress {
    /// Reads `rediss://host:port`, `redis://host:port` or `unix:/path`. The port is 6379 if none is written.
    /// The number after the slash is the database, if one is written.
    ///
    /// # Errors
    /// A sentence on what is wrong with the URL, without its user information.
    pub fn parse(url: &str) -> Result<(Self, Option<u32>), String> {
        if let Some(path) = url.strip_prefix("unix:") {
            return match path.starts_with('/') && cfg!(unix) {
                true => Ok((Self::Unix(path.into()), None)),
                false => Err("a Unix socket is written unix:/absolute/path".to_owned()),
            };
        }
        let (tls, rest) = match (url.strip_prefix("rediss://"), url.strip_prefix("redis://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => {
                return Err("write rediss://host:port, redis://localhost:port or unix:/path".into());
            }
        };
        let (authority, database) = match rest.split_once('/') {
            None | Some((_, "")) => (rest.trim_end_matches('/'), None),
            Some((authority, number)) => {
                let number = number.parse().map_err(|_| {
                    "after the host comes the number of a database, or nothing".to_owned()
                })?;
                (authority, Some(number))
            }
        };
        Ok((Self::tcp(tls, authority)?, database))
    }

    /// A TCP address by `host` or `host:port`.
    fn tcp(tls: bool, authority: &str) -> Result<Self, String> {
        let parsed: http::uri::Authority =
            authority.parse().map_err(|_| "it names no host".to_owned())?;
        let authority = match authority.get(parsed.host().len()..) {
            Some("") => format!("{authority}:{DEFAULT_PORT}"),
            _ => authority.to_owned(),
        };
        let scheme = if tls { "https" } else { "http" };
        let uri = format!("{scheme}://{authority}").parse();
        let uri = uri.map_err(|_| "it is no URL".to_owned())?;
        let origin = Origin::of(&uri).map_err(|error| match tls {
            false if !error.message.contains("user information") => {
                "redis:// would send the password in the clear; write rediss:// (redis:// is accepted on \
                 loopback only)"
                    .to_owned()
            }
            _ => error.message,
        })?;
        Ok(Self::Tcp(origin))
    }

    /// The address that this server names for another one of its group, which has TLS if this one does.
    /// Without a host it is a port of this server's host.
    ///
    /// # Errors
    /// As [`Self::parse`]; a server behind a Unix socket names none.
    pub(super) fn sibling(&self, host: &str, port: u16) -> Result<Self, String> {
        let Self::Tcp(origin) = self else {
            return Err("a server behind a Unix socket names another one".to_owned());
        };
        let host = if host.is_empty() { origin.host() } else { host };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Self::tcp(origin.is_https(), &format!("{host}:{port}"))
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(origin) => {
                let scheme = if origin.is_https() { "rediss" } else { "redis" };
                let host = origin.host();
                let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
                write!(f, "{scheme}://{host}:{}", origin.port())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused() {
        let check = |url: &str, expected: Result<(&str, Option<u32>), &str>| {
            let found = ServerAddress::parse(url);
            let found = found.map(|(address, database)| (address.to_string(), database));
            match (found, expected) {
                (Ok((address, database)), Ok(expected)) => {
                    assert_eq!((&*address, database), expected, "{url}");
                }
                (Err(message), Err(part)) => assert!(message.contains(part), "{url}: {message}"),
                (found, _) => panic!("{url}: {found:?}"),
            }
        };
        check("rediss://valkey.erp.svc:6380/3", Ok(("rediss://valkey.erp.svc:6380", Some(3))));
        check("rediss://valkey.erp.svc", Ok(("rediss://valkey.erp.svc:6379", None)));
        check("redis://127.0.0.1:7000/", Ok(("redis://127.0.0.1:7000", None)));
        check("redis://[::1]", Ok(("redis://[::1]:6379", None)));
        check("rediss://[2001:db8::1]:443", Ok(("rediss://[2001:db8::1]:443", None)));
        #[cfg(unix)]
        check("unix:/run/valkey.sock", Ok(("unix:/run/valkey.sock", None)));
        check("unix:valkey.sock", Err("unix:/absolute/path"));
        check("redis://valkey.erp.svc", Err("in the clear"));
        check("redis://10.0.0.1", Err("in the clear"));
        check("rediss://user:pw@valkey", Err("user information"));
        check("rediss://valkey/one", Err("number of a database"));
        check("rediss://valkey:99999", Err("port"));
        check("rediss://", Err("names no host"));
        check("https://valkey", Err("write rediss://"));
    }

    #[test]
    fn a_sibling_has_the_tls_of_the_server_that_names_it() {
        let (asked, _) = ServerAddress::parse("rediss://valkey:6379").unwrap();
        assert_eq!(asked.sibling("10.0.0.7", 7001).unwrap().to_string(), "rediss://10.0.0.7:7001");
        assert_eq!(asked.sibling("", 7001).unwrap().to_string(), "rediss://valkey:7001");
        assert_eq!(asked.sibling("::1", 7001).unwrap().to_string(), "rediss://[::1]:7001");
        let (local, _) = ServerAddress::parse("redis://localhost").unwrap();
        assert!(local.sibling("10.0.0.7", 7001).is_err(), "a password would go out in the clear");
    }
}
