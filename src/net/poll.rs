//! The state of a socket as the kernel knows it at this moment, and the error of a process that can open no
//! more of them.

use std::io;

pub use rustix::event::PollFlags;
use rustix::event::{PollFd, Timespec, poll};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

/// The event of a peer that has closed its sending side. Systems other than Linux do not tell it from the
/// end of both sides.
#[cfg(target_os = "linux")]
pub const PEER_SHUTDOWN: PollFlags = PollFlags::RDHUP;
/// The event of a peer that has closed its sending side.
#[cfg(not(target_os = "linux"))]
pub const PEER_SHUTDOWN: PollFlags = PollFlags::HUP;

/// The events that are pending on a socket: bytes to read (`IN`), the peer's FIN ([`PEER_SHUTDOWN`]), a reset or an
/// error (`HUP`, `ERR`). Calls poll(2) with a time-out of zero, so that it neither waits nor takes bytes.
///
/// A pending read proves nothing about a socket: the runtime also returns `Pending` before it has heard
/// of an event, and when the task's budget is spent.
///
/// # Errors
/// Those of poll(2), such as a lack of memory; they say nothing about the socket.
pub fn pending_events(socket: BorrowedFd<'_>) -> rustix::io::Result<PollFlags> {
    let mut sockets = [PollFd::from_borrowed_fd(socket, PollFlags::IN | PEER_SHUTDOWN)];
    poll(&mut sockets, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(sockets[0].revents())
}

/// True for an error that says that the process or the machine has no descriptor left (accept(2)).
pub fn lacks_descriptor(error: &io::Error) -> bool {
    // Windows has one limit, which rustix knows by this name.
    #[cfg(windows)]
    const EXHAUSTED: [Errno; 1] = [Errno::MFILE];
    #[cfg(unix)]
    const EXHAUSTED: [Errno; 2] = [Errno::MFILE, Errno::NFILE];
    Errno::from_io_error(error).is_some_and(|errno| EXHAUSTED.contains(&errno))
}

/// True for an error that says that this process or machine has no descriptor or memory left, so that it
/// says nothing about the peer (socket(2), connect(2)).
pub fn lacks_resource(error: &io::Error) -> bool {
    #[cfg(unix)]
    if matches!(Errno::from_io_error(error), Some(Errno::NOMEM | Errno::NOBUFS)) {
        return true;
    }
    lacks_descriptor(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_from_other_errors() {
        let error = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        assert!(lacks_descriptor(&error(Errno::MFILE)) && lacks_descriptor(&error(Errno::NFILE)));
        assert!(!lacks_descriptor(&error(Errno::NOMEM)));
        assert!(lacks_resource(&error(Errno::MFILE)) && lacks_resource(&error(Errno::NOMEM)));
        assert!(!lacks_resource(&error(Errno::CONNREFUSED)));
        assert!(!lacks_descriptor(&io::ErrorKind::ConnectionAborted.into()));
    }
}
