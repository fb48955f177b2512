//! Where listeners are, who may connect, and their TLS.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::peer::UnixPeer;
use crate::net::tls::MinVersion;

/// Where a listener is bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// 127.0.0.1 and, where the machine has IPv6, `[::1]`, on one port (0: a free one).
    Localhost(u16),
    /// All addresses of the machine, IPv4 and, where the machine has it, IPv6, on one port (0: a free
    /// one).
    All(u16),
    /// One address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(UnixSocket),
}

/// A Unix socket and who may connect to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnixSocket {
    /// Its file, an absolute path.
    pub path: PathBuf,
    /// Mode of the file: connecting takes the right to write.
    pub mode: u32,
    /// Owner of the file, where it is to be another than this process' user.
    pub owner: Option<Account>,
    /// Group of the file, where it is to be another than this process' group.
    pub group: Option<Account>,
}

impl UnixSocket {
    /// Mode of the file where none is configured: this user and its group.
    pub const MODE: u32 = 0o660;

    /// A socket with the usual mode and owner.
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

/// Which processes may use a Unix socket, beyond the rights of its file; none named: all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowedPeers {
    /// Effective users.
    pub uids: Vec<u32>,
    /// Effective groups; others that a process is in are not told.
    pub gids: Vec<u32>,
}

impl AllowedPeers {
    /// Whether this process may.
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
    /// PEM files of the authorities whose client certificates are trusted; none: no client is
    /// asked for one.
    pub client_ca_files: Vec<PathBuf>,
    /// Whether a client that shows none is served.
    pub client_certificates: ClientCertificates,
    /// Lowest protocol version that is accepted.
    pub min_version: MinVersion,
}

/// Whether clients must show a certificate, where authorities are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ClientCertificates {
    /// The handshake fails without one.
    #[default]
    Required,
    /// Those without one are served; a certificate that is shown must be good.
    Optional,
}

impl Listen {
    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Localhost(_) | Self::Unix(_) => true,
            Self::All(_) => false,
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
            Self::Unix(socket) => write!(f, "unix:{}", socket.path.display()),
        }
    }
}
