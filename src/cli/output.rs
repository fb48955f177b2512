//! Output for the person: results on stdout, everything else on stderr.
//!
//! Rust's own macros panic when the reader has closed the pipe. Here a closed stdout (`| head`) is not a
//! failure, and a closed stderr changes nothing.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

use crate::telemetry::journal;

/// `print!` for a verb's result; `?` reports what kept it from being written, such as a full disk.
macro_rules! out {
    ($($words:tt)*) => { $crate::cli::output::write_stdout(format_args!($($words)*)) };
}

/// Like `out!`, with a newline.
macro_rules! outln {
    ($($words:tt)*) => { $crate::cli::output::write_stdout(format_args!("{}\n", format_args!($($words)*))) };
}

/// `eprint!` for everything else.
macro_rules! err {
    ($($words:tt)*) => { $crate::cli::output::write_stderr(format_args!($($words)*)) };
}

/// Like `err!`, with a newline.
macro_rules! errln {
    ($($words:tt)*) => { $crate::cli::output::write_stderr(format_args!("{}\n", format_args!($($words)*))) };
}

pub(super) use {err, errln, out, outln};

/// Writes to stdout.
pub(super) fn write_stdout(words: Arguments<'_>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_fmt(words).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes to stderr, with priorities where that is systemd's journal. Where it fails, there is
/// nothing left to write to.
pub(super) fn write_stderr(words: Arguments<'_>) {
    let _ = match journal::is_stderr() {
        true => io::stderr().write_all(journal::with_priorities(&words.to_string()).as_bytes()),
        false => io::stderr().lock().write_fmt(words),
    };
}
