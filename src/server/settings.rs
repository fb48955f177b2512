//! Bounds on client connections, worker threads, and shutdown.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Bounds on connections and message heads, each with the default of the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Open client connections over all listeners. Further ones wait in the kernel's queue, and
    /// connections that were idle for a second close to make room for them.
    pub max_connections: usize,
    /// Time for a request's head, from its first byte.
    pub head_timeout: Duration,
    /// How long a kept-alive client connection may be idle.
    pub idle_timeout: Duration,
    /// How long a client may read nothing of the response that it is sent.
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
    /// True if names of header fields keep their case, in both directions, over HTTP/1.
    /// RFC 9110 section 5.1 has them compared without regard to case, and some old servers compare
    /// `SOAPAction` byte by byte. HTTP/2 has lower case only (RFC 9113 section 8.2.1). Default:
    /// true. Upstreams have the same value in [`preserve_header_case`].
    ///
    /// [`preserve_header_case`]: crate::upstream::Settings::preserve_header_case
    pub preserve_header_case: bool,
    /// The meaning of a FIN from an app whose request is under way.
    pub half_closed: HalfClosed,
}

/// The meaning of an app that closes its sending side (a TCP FIN, or the close_notify of TLS) while its
/// request is under way.
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
    /// The app is taken to be reading: a FIN alone neither cancels a request nor keeps one from being
    /// sent.
    Serve,
}

impl Default for ConnectionSettings {
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

/// The number of worker threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerCount {
    /// This many.
    Count(NonZeroUsize),
    /// The cgroup's CPU quota rounded down, at least 1 and at most 4.
    Auto,
}

impl Default for WorkerCount {
    fn default() -> Self {
        Self::Count(NonZeroUsize::MIN)
    }
}

impl WorkerCount {
    /// Most workers that `auto` stands for: more only multiply connections to upstreams.
    const AUTO_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);

    /// The number on this machine.
    pub fn count(self) -> NonZeroUsize {
        match self {
            Self::Count(count) => count,
            // The standard library reads quota and affinity, and rounds down.
            Self::Auto => std::thread::available_parallelism()
                .map_or(NonZeroUsize::MIN, |found| found.min(Self::AUTO_MAX)),
        }
    }
}

/// The times of an orderly shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// How long connections are still accepted after SIGTERM, while the program is not ready.
    pub lame_duck: Duration,
    /// How long requests under way may take to finish.
    pub drain_timeout: Duration,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self { lame_duck: Duration::from_secs(1), drain_timeout: Duration::from_secs(20) }
    }
}
