//! Output for the person: results on stdout, everything else on stderr.
//!
//! Rust's own macros panic when the reader has closed the pipe. Here a closed stdout (`| head`) is not a
//! failure, and a closed stderr changes nothing.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

use jiff::Timestamp;

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

/// Writes to stderr, with priorities where that is systemd's journal, or to the event log of a Windows
/// service. Where it fails, there is nothing left to write to.
pub(super) fn write_stderr(words: Arguments<'_>) {
    #[cfg(windows)]
    if crate::telemetry::event_log::message(&words.to_string()) {
        return;
    }
    let _ = match journal::is_stderr() {
        true => io::stderr().write_all(journal::with_priorities(&words.to_string()).as_bytes()),
        false => io::stderr().lock().write_fmt(words),
    };
}

/// A number of seconds in words.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Puts after each time, written as RFC 3339 in UTC, how far from `now` it is: `(in 3 min)`, `(12 s ago)`.
pub(super) fn with_ages(text: &str, now: Timestamp) -> String {
    let mut aged = String::with_capacity(text.len());
    for word in text.split_inclusive(char::is_whitespace) {
        let end = word.find('Z').map_or(0, |at| at + 1);
        let (time, rest) = word.split_at(end);
        aged += time;
        if let Ok(time) = time.parse::<Timestamp>() {
            let distance = time.as_second() - now.as_second();
            let span = span(distance.unsigned_abs());
            aged += &if distance > 0 { format!(" (in {span})") } else { format!(" ({span} ago)") };
        }
        aged += rest;
    }
    aged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_with_their_distance() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let check = |text: &str, expected: &str| assert_eq!(with_ages(text, now), expected);
        check("until 2026-01-01T00:03:00Z: x", "until 2026-01-01T00:03:00Z (in 3 min): x");
        check("at 2025-12-31T23:59:48Z,\nand", "at 2025-12-31T23:59:48Z (12 s ago),\nand");
        check("2026-01-04T00:00:00Z", "2026-01-04T00:00:00Z (in 3 days)");
        check("2026-01-01T00:00:00Z\n", "2026-01-01T00:00:00Z (0 s ago)\n");
        for plain in ["", "Zero Z", "2026-01-01", "file /a/Z  read", "é Zü 2026-13-01T00:00:00Z"]
        {
            check(plain, plain);
        }
    }
}
