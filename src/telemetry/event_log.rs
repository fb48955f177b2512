//! The event log of Windows, which has the lines of a service: a service has no stderr.
//!
//! Lines come as for systemd's journal, each with its [`Priority`](super::journal::Priority), and each
//! becomes one event of the source in the log "Application".

use std::io::{self, Write};
use std::sync::OnceLock;

use ::eventlog::EventLog;
use ::log::{Level, Log, Record};

use super::journal::{Priority, prioritized};

static SOURCE: OnceLock<EventLog> = OnceLock::new();

/// From now on the lines of this process go to the event log, under the name of a source.
///
/// # Errors
/// The event log refuses the source.
pub fn open(source: &str) -> Result<(), eventlog::Error> {
    let _ = SOURCE.set(EventLog::new(source, Level::Trace)?);
    Ok(())
}

/// True after [`open`].
pub(super) fn is_open() -> bool {
    SOURCE.get().is_some()
}

/// The writer of the log's lines.
pub(super) fn output() -> Output {
    Output
}

/// Writes lines that have priorities to the event log if that is open, else any lines to stderr.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output;

impl Write for Output {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.write_all(lines)?;
        Ok(lines.len())
    }

    fn write_all(&mut self, lines: &[u8]) -> io::Result<()> {
        let Some(source) = SOURCE.get() else { return io::stderr().write_all(lines) };
        for (priority, text) in prioritized(&String::from_utf8_lossy(lines)) {
            write(source, priority, text);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a command's message as one event, with the highest priority of its lines. Returns false if the
/// event log is not open.
pub fn message(text: &str) -> bool {
    let Some(source) = SOURCE.get() else { return false };
    let priority =
        prioritized(&super::journal::with_priorities(text)).map(|(priority, _)| priority).min();
    write(source, priority.unwrap_or(Priority::Informational), text.trim_end());
    true
}

fn write(source: &EventLog, priority: Priority, text: &str) {
    let level = match priority {
        Priority::Error => Level::Error,
        Priority::Warning => Level::Warn,
        Priority::Informational => Level::Info,
        Priority::Debug => Level::Debug,
    };
    source.log(&Record::builder().level(level).args(format_args!("{text}")).build());
}
