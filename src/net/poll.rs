//! The state of a socket as the kernel knows it at this moment.

use std::os::fd::BorrowedFd;

pub use rustix::event::PollFlags;
use rustix::event::{PollFd, Timespec, poll};

/// The events that are pending on a socket: bytes to read (`IN`), the peer's FIN (`RDHUP`), a reset or an
/// error (`HUP`, `ERR`). Calls poll(2) with a time-out of zero, so that it neither waits nor takes bytes.
///
/// A pending read proves nothing about a socket: the runtime also returns `Pending` before it has heard
/// of an event, and when the task's budget is spent.
///
/// # Errors
/// Those of poll(2), such as a lack of memory; they say nothing about the socket.
pub fn pending_events(socket: BorrowedFd<'_>) -> rustix::io::Result<PollFlags> {
    let mut sockets = [PollFd::from_borrowed_fd(socket, PollFlags::IN | PollFlags::RDHUP)];
    poll(&mut sockets, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(sockets[0].revents())
}
