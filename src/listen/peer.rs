//! Who is on the other end of a client connection, as far as the connection itself tells.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::peer_certificate::PeerCertificate;

/// What is known of a client before it has said a word of HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The other end of the socket.
    pub address: PeerAddress,
    /// What the client proved in the TLS handshake: a certificate of an authority that the listener
    /// trusts. `None` without TLS, and where the client showed none and none was required.
    pub certificate: Option<Box<PeerCertificate>>,
}

/// The other end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAddress {
    /// An address and port; whoever may send from there.
    Tcp(SocketAddr),
    /// A process of this machine, as the kernel saw it when it connected.
    Unix(UnixPeer),
}

/// The credentials of a process, vouched for by the kernel (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixPeer {
    /// Effective user.
    pub uid: u32,
    /// Effective group; supplementary groups are not told.
    pub gid: u32,
    /// The process, for the log only: numbers are used again.
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

    /// Its IP address, where it came over TCP.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.address {
            PeerAddress::Tcp(address) => Some(address.ip()),
            PeerAddress::Unix(_) => None,
        }
    }

    /// Its process credentials, where it came over a Unix socket.
    pub fn process(&self) -> Option<UnixPeer> {
        match self.address {
            PeerAddress::Tcp(_) => None,
            PeerAddress::Unix(peer) => Some(peer),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            PeerAddress::Tcp(address) => write!(f, "{address}")?,
            PeerAddress::Unix(UnixPeer { uid, gid, .. }) => write!(f, "uid {uid}, gid {gid}")?,
        }
        match &self.certificate {
            Some(certificate) => write!(f, " ({})", certificate.subject),
            None => Ok(()),
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
