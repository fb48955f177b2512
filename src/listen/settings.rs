//! The addresses of listeners, the clients that may connect, and TLS.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::peer::UnixPeer;
use crate::net::tls::MinVersion;

/// The address of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// 127.0.0.1 and, if the machine has IPv6, `[::1]`, on one port (0: a free one).
    Localhost(u16),
    /// All addresses of the machine, of IPv4 and IPv6, on one port (0: a free one).
    All(u16),
    /// One address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(UnixSocket),
    /// Sockets of this name that systemd has bound and passed to the process (`FileDescriptorName=` of the
    /// socket unit).
    Systemd(String),
}

/// A Unix socket and the rights to connect to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnixSocket {
    /// Its file, an absolute path.
    pub path: PathBuf,
    /// Mode of the file. Connecting needs the right to write.
    pub mode: u32,
    /// Owner of the file; `None` for the user of this process.
    pub owner: Option<Account>,
    /// Group of the file; `None` for the group of this process.
    pub group: Option<Account>,
}

impl UnixSocket {
    /// The default mode of the file: this user and its group may connect.
    pub const MODE: u32 = 0o660;

    /// A socket with the default mode, owner and group.
    pub fn at(path: PathBuf) -> Self {
        Self { path, mode: Self::MODE, owner: None, group: None }
    }
}

/// A user or group of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Account {
    /// By its number.
    Id(u32),
    /// By its name in `/etc/passwd` or `/etc/group`.
    Name(String),
}

/// The processes that may use a Unix socket, in addition to the rights of its file. If neither users nor
/// groups are listed, all may.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowedPeers {
    /// Effective users.
    pub uids: Vec<u32>,
    /// Effective groups. The kernel does not report supplementary groups.
    pub gids: Vec<u32>,
}

impl AllowedPeers {
    /// Returns true if a process may use the socket.
    pub fn allow(&self, peer: UnixPeer) -> bool {
        let all = self.uids.is_empty() && self.gids.is_empty();
        all || self.uids.contains(&peer.uid) || self.gids.contains(&peer.gid)
    }
}

/// TLS of a listener. The files are read again while it runs, so that a renewed certificate needs
/// no restart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerTls {
    /// PEM chain, our certificate first.
    pub certificate_file: PathBuf,
    /// PEM private key, unencrypted.
    pub key_file: PathBuf,
    /// PEM files of the authorities whose client certificates are trusted. Without any, clients are not
    /// asked for a certificate.
    pub client_ca_files: Vec<PathBuf>,
    /// Says if clients without a certificate are served.
    pub client_certificates: ClientCertificates,
    /// Lowest protocol version that is accepted.
    pub min_version: MinVersion,
}

/// The obligation of clients to present a certificate, if authorities are configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ClientCertificates {
    /// The handshake fails without one.
    #[default]
    Required,
    /// Clients without a certificate are served; one that is presented must be valid.
    Optional,
}

impl Listen {
    /// Returns true if only this machine can reach the address.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Localhost(_) | Self::Unix(_) => true,
            // The address is known once the process runs.
            Self::All(_) | Self::Systemd(_) => false,
            Self::Tcp(address) => address.ip().is_loopback(),
        }
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Localhost(port) => write!(f, "localhost:{port}"),
            Self::All(port) => write!(f, "*:{port}"),
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
            Self::Unix(socket) => write!(f, "unix:{}", socket.path.display()),
        }
    }
}
