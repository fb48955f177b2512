//! An address that cannot be listened on, with advice.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::settings::Listen;
use crate::net::unix::StdUnixListener;
use crate::shortage::{io_words, lacks_descriptor};

/// One address that a listener is bound to, or could not be bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoundAddress {
    /// IP address and port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// The name of sockets that systemd should have passed.
    Systemd(String),
}

impl BoundAddress {
    /// The IP address and port; `None` for a Unix socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) | Self::Systemd(_) => None,
        }
    }

    /// The address of a bound Unix socket; the path is empty if it has none in the file system.
    #[cfg(unix)]
    pub(super) fn of_unix(listener: &StdUnixListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        Ok(Self::Unix(address.as_pathname().map(Into::into).unwrap_or_default()))
    }

    /// There is none on Windows.
    #[cfg(windows)]
    pub(super) fn of_unix(_: &StdUnixListener) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A failure to listen on an address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {at}{}: {}", self.configured(), self.explanation())]
pub struct BindError {
    /// The address as it was configured.
    pub listen: Listen,
    /// The address that failed.
    pub at: BoundAddress,
    /// The system's error.
    #[source]
    pub cause: io::Error,
}

impl BindError {
    /// The configured address, if it is a name for several.
    fn configured(&self) -> String {
        match self.listen {
            Listen::Localhost(_) | Listen::All(_) => format!(" (for {})", self.listen),
            Listen::Tcp(_) | Listen::Unix(_) | Listen::Systemd(_) => String::new(),
        }
    }

    /// The cause and advice, in words.
    fn explanation(&self) -> String {
        let cause = match self.cause.kind() {
            _ if self.is_owner_error() => self.cause.to_string(),
            io::ErrorKind::AddrInUse => "the address is in use".to_owned(),
            io::ErrorKind::AlreadyExists => "a file is in the way".to_owned(),
            io::ErrorKind::NotFound => "no such folder".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            io::ErrorKind::AddrNotAvailable => "no such address here".to_owned(),
            // The address is not at fault, so that no advice on it follows.
            _ if lacks_descriptor(&self.cause) => return io_words(&self.cause).into_owned(),
            _ => self.cause.to_string(),
        };
        let advice = match &self.at {
            BoundAddress::Systemd(name) => {
                return format!(
                    "no listening socket of this name was passed; start the service by systemd with a socket unit that \
                     has FileDescriptorName={name}, and restart it after a change of the socket unit"
                );
            }
            BoundAddress::Tcp(address) => self.tcp_advice(*address),
            BoundAddress::Unix(path) => self.unix_advice(&path.display().to_string()),
        };
        format!("{cause}: {advice}")
    }

    fn tcp_advice(&self, address: SocketAddr) -> String {
        let port = address.port();
        match self.cause.kind() {
            io::ErrorKind::AddrInUse => format!(
                "another program, or another bearer-proxy, listens there; \
                 `ss -ltnp 'sport = :{port}'` shows which. Stop it, or choose another port in `listen`"
            ),
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher port in `listen`"
                    .into()
            }
            io::ErrorKind::AddrNotAvailable => {
                let ip = match address {
                    SocketAddr::V4(address) => address.ip().to_string(),
                    SocketAddr::V6(address) => format!("[{}]", address.ip()),
                };
                format!("this machine has no address {ip}; write one it has, or `localhost`")
            }
            _ => "check the address in `listen`".into(),
        }
    }

    fn unix_advice(&self, path: &str) -> String {
        match self.cause.kind() {
            _ if self.is_owner_error() => {
                "another owner takes CAP_CHOWN, another group takes membership in it; under \
                 systemd, write Group= in the unit and leave owner and group out of `listen`"
                    .into()
            }
            io::ErrorKind::AddrInUse => format!(
                "another program, or another bearer-proxy, listens there; \
                 `ss -lxp src {path}` shows which. Stop it, or choose another path in `listen`"
            ),
            io::ErrorKind::AlreadyExists => {
                "it is no socket, so it is left alone; move it away, or choose another path".into()
            }
            io::ErrorKind::NotFound => "make the folder first, writable for this user".into(),
            io::ErrorKind::PermissionDenied => "the folder must be writable for this user".into(),
            _ => "check the path, owner and group in `listen`".into(),
        }
    }

    fn is_owner_error(&self) -> bool {
        self.cause.get_ref().is_some_and(|cause| cause.is::<OwnerError>())
    }
}

/// The file of a socket could not be given to its configured owner or group.
#[derive(Debug, thiserror::Error)]
#[error("the socket cannot be given to{}{}: {cause}", named("user", *.owner), named("group", *.group))]
pub(super) struct OwnerError {
    /// The user that does not own it yet.
    pub(super) owner: Option<u32>,
    /// The group that does not own it yet.
    pub(super) group: Option<u32>,
    #[source]
    pub(super) cause: io::Error,
}

fn named(kind: &str, id: Option<u32>) -> String {
    id.map(|id| format!(" {kind} {id}")).unwrap_or_default()
}
