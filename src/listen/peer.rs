//! The identity of a client, as far as the connection itself proves it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::peer_certificate::PeerCertificate;

/// The identity of a client, known before its first request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The other end of the socket.
    pub address: PeerAddress,
    /// The certificate that the client proved to hold in the TLS handshake, issued by an authority that
    /// the listener trusts. `None` without TLS, and if the client presented none and none was required.
    pub certificate: Option<Box<PeerCertificate>>,
}

/// The other end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAddress {
    /// An address and port. All programs that may send from there share it.
    Tcp(SocketAddr),
    /// A process on this machine, as the kernel saw it when it connected.
    Unix(UnixPeer),
}

/// The credentials of a process, as the kernel reports them (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixPeer {
    /// Effective user.
    pub uid: u32,
    /// Effective group. The kernel does not report supplementary groups.
    pub gid: u32,
    /// The process, for the log only: its number may be reused.
    pub pid: Option<i32>,
}

impl Peer {
    /// A TCP client without a certificate.
    pub const fn tcp(address: SocketAddr) -> Self {
        Self { address: PeerAddress::Tcp(address), certificate: None }
    }

    /// A client of a Unix socket.
    pub const fn unix(peer: UnixPeer) -> Self {
        Self { address: PeerAddress::Unix(peer), certificate: None }
    }

    /// The IP address of a TCP client.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.address {
            PeerAddress::Tcp(address) => Some(address.ip()),
            PeerAddress::Unix(_) => None,
        }
    }

    /// The process credentials of a client of a Unix socket.
    pub fn process(&self) -> Option<UnixPeer> {
        match self.address {
            PeerAddress::Tcp(_) => None,
            PeerAddress::Unix(peer) => Some(peer),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        match &self.certificate {
            Some(certificate) => write!(f, " ({})", certificate.subject),
            None => Ok(()),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(UnixPeer { uid, gid, .. }) => write!(f, "uid {uid}, gid {gid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_told_apart() {
        let tcp = Peer::tcp("127.0.0.1:7".parse().unwrap());
        assert_eq!(tcp.to_string(), "127.0.0.1:7");
        assert!(tcp.ip().is_some_and(|ip| ip.is_loopback()) && tcp.process().is_none());
        let process = UnixPeer { uid: 1000, gid: 100, pid: Some(7) };
        let unix = Peer::unix(process);
        assert_eq!(unix.to_string(), "uid 1000, gid 100");
        assert_eq!((unix.ip(), unix.process()), (None, Some(process)));
    }
}
