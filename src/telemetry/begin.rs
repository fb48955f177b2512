//! Lines that are written at once, past the queue of the log: they must be there even if the process is
//! killed in the next moment.
//!
//! The queue of `telemetry::log` lives in memory and dies with the process. A line written here is with
//! the kernel when the call returns. The price is a system call on the caller's thread, and a wait of at
//! most [`LONGEST_WAIT`] where the reader of the log is slow; then the line is skipped and counted.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[cfg(unix)]
use rustix::event::{PollFd, PollFlags, Timespec, poll};
#[cfg(unix)]
use rustix::fd::AsFd;
#[cfg(unix)]
use rustix::io::Errno;
#[cfg(unix)]
use rustix::net::SendFlags;

/// The target of events whose lines are written at once.
pub const TARGET: &str = "bearer_proxy::begin";

/// How long a write may wait for a slow reader of the log.
pub const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Longest line, in bytes. A pipe takes this many bytes whole or not at all (`PIPE_BUF` of Linux,
/// pipe(7)), so that a write does not block once the pipe has room.
const LONGEST_LINE: usize = 4096;

/// Writes a line to a file descriptor.
///
/// It goes past the lock of `std::io::Stderr`: the thread of the log holds that while it waits for a
/// reader that is stuck.
///
/// # Errors
/// `out` cannot be written to, or has no room within `wait` (`TimedOut`), or the line is longer than 4,096
/// bytes (`InvalidInput`).
#[cfg(unix)]
pub fn write_now(out: impl AsFd, line: &[u8], wait: Duration) -> io::Result<()> {
    if line.len() > LONGEST_LINE {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let wait = Timespec::try_from(wait).map_err(|_| io::ErrorKind::InvalidInput)?;
    let is_ready = || poll(&mut [PollFd::new(&out, PollFlags::OUT)], Some(&wait));
    // A socket, such as that of journald, takes lines long after it has ceased to be ready: Linux calls it
    // ready while three quarters of its buffer are free. So it is asked by a write that cannot block.
    let written = match send(&out, line) {
        Err(Errno::NOTSOCK) => {
            // Regular files are always ready; a pipe is once it has room for `PIPE_BUF` bytes.
            if is_ready()? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            rustix::io::write(&out, line)
        }
        Err(Errno::AGAIN) => {
            is_ready()?;
            send(&out, line)
        }
        sent => sent,
    };
    match written {
        Ok(written) if written == line.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(Errno::AGAIN) => Err(io::ErrorKind::TimedOut.into()),
        Err(error) => Err(error.into()),
    }
}

/// Writes a line to a socket if it has room for it: a line of this length fills one buffer, and is never
/// taken in part.
#[cfg(unix)]
fn send(socket: &impl AsFd, line: &[u8]) -> Result<usize, Errno> {
    rustix::net::send(socket, line, SendFlags::DONTWAIT)
}

/// Writes a line.
///
/// # Errors
/// `out` cannot be written to, or the line is longer than 4,096 bytes (`InvalidInput`).
#[cfg(windows)]
pub fn write_now(mut out: impl io::Write, line: &[u8], _: Duration) -> io::Result<()> {
    match line.len() > LONGEST_LINE {
        true => Err(io::ErrorKind::InvalidInput.into()),
        false => out.write_all(line),
    }
}

/// Waits for a slow reader of the log once, and not again until it has read: each wait holds up all
/// requests of a worker.
#[derive(Default)]
pub struct Patience(AtomicBool);

impl Patience {
    /// Calls `write` with the time that it may wait.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn write(&self, write: impl FnOnce(Duration) -> io::Result<()>) -> io::Result<()> {
        // Relaxed: two threads that both wait once do no harm.
        let wait = if self.0.load(Ordering::Relaxed) { Duration::ZERO } else { LONGEST_WAIT };
        let written = write(wait);
        let stuck = written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
        self.0.store(stuck, Ordering::Relaxed);
        written
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::time::Instant;

    use super::*;

    fn pipe() -> (File, File) {
        let (reader, writer) = io::pipe().unwrap();
        (
            File::from(std::os::fd::OwnedFd::from(reader)),
            File::from(std::os::fd::OwnedFd::from(writer)),
        )
    }

    #[test]
    fn a_line_is_there_when_the_call_returns() {
        let (mut reader, writer) = pipe();
        write_now(&writer, b"{}\n", LONGEST_WAIT).unwrap();
        let mut line = [0; 3];
        reader.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"{}\n");
    }

    #[test]
    fn a_reader_that_takes_nothing_costs_a_bounded_wait() {
        let (_reader, writer) = pipe();
        let line = [b'x'; LONGEST_LINE];
        let started = Instant::now();
        let error = loop {
            if let Err(error) = write_now(&writer, &line, LONGEST_WAIT) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= LONGEST_WAIT);
    }

    /// Linux calls a socket ready for writing only while most of its buffer is free.
    #[test]
    fn a_socket_takes_lines_while_it_has_room() {
        let (_reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let (_other, direct) = std::os::unix::net::UnixStream::pair().unwrap();
        let line = [b'x'; 330];
        direct.set_nonblocking(true).unwrap();
        let mut room = 0;
        while io::Write::write(&mut &direct, &line).is_ok() {
            room += 1;
        }
        for written in 0..room {
            assert!(write_now(&writer, &line, Duration::ZERO).is_ok(), "{written} of {room}");
        }
        let started = Instant::now();
        let error = write_now(&writer, &line, LONGEST_WAIT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= LONGEST_WAIT);
    }

    #[test]
    fn a_line_that_could_be_torn_is_refused() {
        let (_reader, writer) = pipe();
        let error = write_now(&writer, &[b'x'; LONGEST_LINE + 1], LONGEST_WAIT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_reader_that_is_stuck_is_waited_for_once() {
        let patience = Patience::default();
        let stuck = |_| Err(io::ErrorKind::TimedOut.into());
        let mut waits = Vec::new();
        for written in [stuck, stuck, |_| Ok(()), |_| Ok(())] {
            let _ = patience.write(|wait| {
                waits.push(wait);
                written(wait)
            });
        }
        assert_eq!(waits, [LONGEST_WAIT, Duration::ZERO, Duration::ZERO, LONGEST_WAIT]);
    }
}
