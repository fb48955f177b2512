//! Priorities of log lines that systemd's journal reads from stderr, and the event log of Windows from its
//! writer.
//!
//! The journal takes a number in angle brackets at the start of a line as the line's priority
//! (sd-daemon(3)). Without one every line counts as informational, and `journalctl -p warning` shows
//! none of them.

use std::fmt::{self, Write};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The priority of a line, as in syslog(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    Error = 3,
    Warning = 4,
    Informational = 6,
    Debug = 7,
}

impl From<Level> for Priority {
    fn from(level: Level) -> Self {
        match level {
            Level::ERROR => Self::Error,
            Level::WARN => Self::Warning,
            Level::INFO => Self::Informational,
            _ => Self::Debug,
        }
    }
}

/// True if stderr is the stream that systemd connected to its journal.
///
/// systemd names that stream's device and inode in `JOURNAL_STREAM` (systemd.exec(5)). A redirected
/// stderr has others; its reader would see the priorities as text.
#[cfg(unix)]
pub fn is_stderr() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let numbers = stream.as_deref().and_then(|stream| stream.split_once(':'));
    numbers.zip(rustix::fs::fstat(std::io::stderr()).ok()).is_some_and(|((device, inode), stat)| {
        device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino)
    })
}

/// False: there is no systemd.
#[cfg(windows)]
pub fn is_stderr() -> bool {
    false
}

/// Adds the priority to each line of another format.
pub(super) struct JournalLines<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for JournalLines<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::with_capacity(512);
        self.0.format_event(context, Writer::new(&mut text), event)?;
        let priority = Priority::from(*event.metadata().level());
        text.lines().try_for_each(|line| write_line(&mut writer, priority, line))
    }
}

/// A command's message with a priority on each line. A line that begins with `error`, `warning` or `note`
/// sets the priority of the lines after it.
pub fn with_priorities(message: &str) -> String {
    let mut priority = Priority::Informational;
    let mut text = String::with_capacity(message.len() + 64);
    for line in message.lines() {
        if line.starts_with("error") {
            priority = Priority::Error;
        } else if line.starts_with("warning") {
            priority = Priority::Warning;
        } else if line.starts_with("note") {
            priority = Priority::Informational;
        }
        // Writing to a `String` cannot fail.
        let _ = write_line(&mut text, priority, line);
    }
    text
}

/// Takes the priorities off the lines of a text that has them.
#[cfg(any(windows, test))]
pub(super) fn prioritized(text: &str) -> impl Iterator<Item = (Priority, &str)> {
    text.lines().map(|line| {
        let (mark, rest) = line.split_at_checked(3).unwrap_or(("", line));
        match mark {
            "<3>" => (Priority::Error, rest),
            "<4>" => (Priority::Warning, rest),
            "<6>" => (Priority::Informational, rest),
            "<7>" => (Priority::Debug, rest),
            _ => (Priority::Informational, line),
        }
    })
}

fn write_line(out: &mut impl Write, priority: Priority, line: &str) -> fmt::Result {
    writeln!(out, "<{}>{line}", priority as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_names_a_severity_decides_for_those_that_follow() {
        let check = |message: &str, expected: &str| assert_eq!(with_priorities(message), expected);
        check("error: a\n  b\n", "<3>error: a\n<3>  b\n");
        check("warning: a\nerror: b\n", "<4>warning: a\n<3>error: b\n");
        check("error: a\nnote: b\n", "<3>error: a\n<6>note: b\n");
        check("nothing\n", "<6>nothing\n");
        check("", "");
    }

    #[test]
    fn priorities_come_off_again() {
        let check = |text: &str, expected: &[(Priority, &str)]| {
            assert_eq!(prioritized(text).collect::<Vec<_>>(), expected, "{text:?}");
        };
        let marked = with_priorities("error: a\n  b\nwarning: c\nnote: <3>\n");
        check(
            &marked,
            &[
                (Priority::Error, "error: a"),
                (Priority::Error, "  b"),
                (Priority::Warning, "warning: c"),
                (Priority::Informational, "note: <3>"),
            ],
        );
        check("<7>d\n", &[(Priority::Debug, "d")]);
        check("é\n<5>x", &[(Priority::Informational, "é"), (Priority::Informational, "<5>x")]);
        assert!(Priority::Error < Priority::Warning, "the highest is the least number");
    }
}
