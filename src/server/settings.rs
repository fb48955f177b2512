//! What the way in needs to know: addresses, limits, and how it leaves.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::peer::UnixPeer;
use crate::net::tls::MinVersion;

/// Where a listener is bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// 127.0.0.1 and, where the machine has IPv6, `[::1]`, on one port (0: a free one).
    Localhost(u16),
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
            Self::Tcp(address) => address.ip().is_loopback(),
        }
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Localhost(port) => write!(f, "localhost:{port}"),
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(socket) => write!(f, "unix:{}", socket.path.display()),
        }
    }
}

/// Bounds on connections and message heads, each with the default of the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open client connections over all listeners; more wait in the kernel's queue, and those that
    /// have been idle for a second make room for them.
    pub max_connections: usize,
    /// Time for a request's head, from its first byte.
    pub head_timeout: Duration,
    /// How long a kept-alive client connection may be idle.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of the answer that it is being sent.
    pub send_timeout: Duration,
    /// Requests under way on one HTTP/2 connection.
    pub max_streams: u32,
    /// Requests that an HTTP/2 client may cancel within ten seconds.
    pub max_resets: u32,
    /// Lines of header fields in the head of one request, 10 to 1000. Another value than the default
    /// of 100 costs about 5 % of the work for a request: hyper then keeps its table of them on the
    /// heap.
    pub max_headers: usize,
    /// Bytes of the head of one request, 8 KiB (hyper's smallest buffer) to 1 MiB. Default: 32 KiB.
    pub max_header_bytes: usize,
    /// Whether names of header fields keep the case they came in, in both directions, over HTTP/1.
    /// RFC 9110 section 5.1 has them compared without regard to case, and some old servers compare
    /// `SOAPAction` byte by byte. HTTP/2 has lower case only (RFC 9113 section 8.2.1). Default:
    /// true. Upstreams have the same value in [`preserve_header_case`].
    ///
    /// [`preserve_header_case`]: crate::upstream::Settings::preserve_header_case
    pub preserve_header_case: bool,
    /// What it means that an app closes its sending side while its request is under way.
    pub half_closed: HalfClosed,
}

/// What it means that an app closes its sending side (a TCP FIN, or the close_notify of TLS) while
/// its request is under way.
///
/// A FIN alone does not tell an app that left from one that still reads: RFC 9112 section 9.6 lets
/// a client close the half of the connection that it no longer needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HalfClosed {
    /// The app is taken to have left: a request that has not been sent upstream yet is not sent if
    /// its method is unsafe, and one whose method is safe (RFC 9110 section 9.2.1) is cancelled
    /// after two seconds. The default.
    #[default]
    Gone,
    /// The app is taken to be reading: a FIN alone cancels no request and keeps none from being
    /// sent.
    Serve,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_connections: 512,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            send_timeout: Duration::from_secs(60),
            max_streams: 100,
            max_resets: 100,
            max_headers: 100,
            max_header_bytes: 32 * 1024,
            preserve_header_case: true,
            half_closed: HalfClosed::default(),
        }
    }
}

/// How many worker threads carry requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// This many.
    Count(NonZeroUsize),
    /// The cgroup's CPU quota rounded down, at least 1 and at most 4.
    Auto,
}

impl Default for Workers {
    fn default() -> Self {
        Self::Count(NonZeroUsize::MIN)
    }
}

impl Workers {
    /// Most workers that `auto` stands for: more only multiply connections to upstreams.
    const AUTO_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);

    /// Their number here and now.
    pub fn count(self) -> NonZeroUsize {
        match self {
            Self::Count(count) => count,
            // The standard library reads quota and affinity, and rounds down.
            Self::Auto => std::thread::available_parallelism()
                .map_or(NonZeroUsize::MIN, |found| found.min(Self::AUTO_MAX)),
        }
    }
}

/// How the program leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// After SIGTERM, how long new connections are still accepted while not ready.
    pub lame_duck: Duration,
    /// How long requests under way may take to finish.
    pub drain_timeout: Duration,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self { lame_duck: Duration::from_secs(1), drain_timeout: Duration::from_secs(20) }
    }
}
