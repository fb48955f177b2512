//! The newest lines of the log, kept in memory for a support bundle.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Lines that are kept.
const MAX_LINES: usize = 500;
/// Bytes of a line that are kept.
const MAX_LINE_BYTES: usize = 2048;

/// The newest lines. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct RecentLines(Arc<Mutex<VecDeque<Vec<u8>>>>);

impl RecentLines {
    /// Keeps a line, in the memory of the oldest one where there are enough.
    pub fn push(&self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut lines = self.lock();
        let mut kept = match lines.len() {
            MAX_LINES => lines.pop_front().unwrap_or_default(),
            _ => Vec::new(),
        };
        kept.clear();
        kept.extend_from_slice(&line[..line.len().min(MAX_LINE_BYTES)]);
        lines.push_back(kept);
    }

    /// A copy of all lines, the oldest first.
    pub fn snapshot(&self) -> Vec<String> {
        self.lock().iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps each line that is written to `out`. It is used on the thread of the log, which writes whole lines:
/// no request waits for it.
pub(super) struct Tee<W> {
    pub(super) out: W,
    pub(super) recent: RecentLines,
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line)?;
        Ok(line.len())
    }

    /// Kept even where `out` is closed.
    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        self.recent.push(line);
        self.out.write_all(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept_and_their_memory_is_bounded() {
        let recent = RecentLines::default();
        for number in 0..MAX_LINES + 3 {
            recent.push(format!("line {number}\n").as_bytes());
        }
        recent.push(&[b'x'; 3 * MAX_LINE_BYTES]);
        let lines = recent.snapshot();
        assert_eq!((lines.len(), lines[0].as_str()), (MAX_LINES, "line 4"));
        assert_eq!(lines[MAX_LINES - 1].len(), MAX_LINE_BYTES);
    }

    #[test]
    fn lines_are_kept_where_nobody_reads_them() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let mut tee = Tee { out: Closed, recent: RecentLines::default() };
        assert!(tee.write_all(b"first\n").is_err());
        assert_eq!(tee.recent.snapshot(), ["first"]);
    }
}
