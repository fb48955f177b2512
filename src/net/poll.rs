//! The state of a socket as the kernel knows it at this moment.

pub use rustix::event::PollFlags;
use rustix::event::{PollFd, Timespec, poll};
use rustix::fd::BorrowedFd;

/// The event of a peer that has closed its sending side. Systems other than Linux do not tell it from the
/// end of both sides.
#[cfg(target_os = "linux")]
pub const PEER_SHUTDOWN: PollFlags = PollFlags::RDHUP;
/// The event of a peer that has closed its sending side.
#[cfg(not(target_os = "linux"))]
pub const PEER_SHUTDOWN: PollFlags = PollFlags::HUP;

/// The events that are pending on a socket: bytes to read (`IN`), the peer's FIN ([`PEER_SHUTDOWN`]), a reset
/// or an error (`HUP`, `ERR`). Calls poll(2) with a time-out of zero, so that it neither waits nor takes
/// bytes.
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
