//! The log: settings, formats, and what each level means here.
//!
//! * error: something is broken and a person must act.
//! * warn: something is not as it should be, and we go on.
//! * info: what an operator wants to read back later: starts, reloads, tokens, the access log.
//! * debug: what a developer asks for.
//!
//! Lines go to stderr through a bounded queue and a thread of its own: a reader of the log that is
//! slow, stuck or gone costs lines (which are counted), never a request.

use std::fmt;
use std::io::{BufWriter, IsTerminal, Write, stderr};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::journal::{self, JournalLines};
use super::json::JsonLines;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::{format, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, reload};

/// Libraries that tell bodies and answers, secrets among them, to who asks for all they have to say.
/// What they say from `info` on is said; no level that is asked for makes it more.
const TALKATIVE: [&str; 5] = ["aws", "azure", "typespec", "zbus", "keyring"];

/// Lines that may wait to be written.
const QUEUE: usize = 8192;

/// What the log looks like and how much it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Lines for people or for machines.
    pub format: LogFormat,
    /// Levels by target, in the syntax of `tracing_subscriber::filter::Targets`
    /// (`info`, or `info,bearer_proxy=debug`); checked when the configuration is read.
    pub level: String,
    /// Which requests leave a line.
    pub access: AccessLog,
}

/// Lines for people or for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Pretty where stderr is a terminal, else JSON.
    #[default]
    Auto,
    /// One line of text, with colours where allowed.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Which requests leave a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// None.
    Off,
    /// Those that we refused or failed, and answers of 5xx.
    Errors,
    /// Those, and every request of an unsafe method: each POST leaves a line.
    #[default]
    ErrorsAndUnsafe,
    /// All.
    All,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".into(), access: AccessLog::default() }
    }
}

impl LogSettings {
    /// Whether `level` is one that [`init`] can use; the error says what would be.
    pub fn check_level(level: &str) -> Result<(), LevelError> {
        targets(level).map(drop)
    }
}

fn targets(level: &str) -> Result<Targets, LevelError> {
    level.parse().map_err(|_| LevelError(level.to_owned()))
}

/// A level that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelError(String);

impl fmt::Display for LevelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = &self.0;
        write!(
            f,
            "{found:?} is no log level; write off, error, warn, info, debug or trace, \
             or levels by target such as \"info,bearer_proxy::token=debug\""
        )
    }
}

impl std::error::Error for LevelError {}

/// Why the log could not be started.
#[derive(Debug)]
pub enum LogError {
    /// The level is none.
    Level(LevelError),
    /// It had been started before.
    Started,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level(error) => error.fmt(f),
            Self::Started => f.write_str("the log of this process has been started before"),
        }
    }
}

impl std::error::Error for LogError {}

/// Starts the log of this process, on stderr. `color` is used by lines for people alone.
pub fn init(settings: &LogSettings, color: bool) -> Result<LogGuard, LogError> {
    let json = match settings.format {
        LogFormat::Auto => !stderr().is_terminal(),
        LogFormat::Pretty => false,
        LogFormat::Json => true,
    };
    let lines = Lines { json, color, journal: journal::is_stderr() };
    let (subscriber, guard) = build(&settings.level, lines, stderr())?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Started)?;
    Ok(guard)
}

fn build(
    level: &str,
    lines: Lines,
    out: impl Write + Send + 'static,
) -> Result<(impl tracing::Subscriber + Send + Sync, LogGuard), LogError> {
    let (filter, reload) = reload::Layer::new(targets(level).map_err(LogError::Level)?);
    let (writer, worker) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE)
        .lossy(true)
        .thread_name("log")
        // It is flushed whenever no line waits, so that many lines at once are one write.
        .finish(BufWriter::new(out));
    let dropped = DroppedLines(writer.error_counter());
    let subscriber = Registry::default().with(filter).with(discreet()).with(lines.layer(writer));
    Ok((subscriber, LogGuard { worker: Some(worker), reload, dropped }))
}

fn discreet() -> Targets {
    let all = Targets::new().with_default(LevelFilter::TRACE);
    TALKATIVE.into_iter().fold(all, |all, library| all.with_target(library, LevelFilter::INFO))
}

/// How a line is written.
#[derive(Debug, Clone, Copy, Default)]
struct Lines {
    /// As a JSON object, else as text.
    json: bool,
    /// Text with colours; the journal gets none.
    color: bool,
    /// With the journal's priorities.
    journal: bool,
}

impl Lines {
    fn layer<S>(self, writer: NonBlocking) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    {
        let text = format().with_target(false);
        let layer = layer().with_ansi(self.color && !self.journal).with_writer(writer);
        match (self.json, self.journal) {
            (true, false) => Box::new(layer.event_format(JsonLines)),
            (true, true) => Box::new(layer.event_format(JournalLines(JsonLines))),
            (false, false) => Box::new(layer.event_format(text)),
            (false, true) => Box::new(layer.event_format(JournalLines(text))),
        }
    }
}

/// Keeps the log going; what still waits is written when it is dropped.
pub struct LogGuard {
    worker: Option<WorkerGuard>,
    reload: reload::Handle<Targets, Registry>,
    dropped: DroppedLines,
}

impl LogGuard {
    /// Changes the level of the running log.
    pub fn set_level(&self, level: &str) -> Result<(), LevelError> {
        // It fails only where the subscriber is gone, and then there is no log to change.
        let _ = self.reload.reload(targets(level)?);
        Ok(())
    }

    /// The count of lines that were dropped.
    pub fn dropped(&self) -> DroppedLines {
        self.dropped.clone()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let worker = self.worker.take();
        // Where stderr is stuck, tracing-appender complains on stdout, which panics if that is
        // closed. There is nobody left to tell.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(worker)));
    }
}

impl fmt::Debug for LogGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogGuard").finish_non_exhaustive()
    }
}

/// Lines that were dropped because the queue was full.
#[derive(Debug, Clone)]
pub struct DroppedLines(ErrorCounter);

impl DroppedLines {
    /// Their number since the start.
    pub fn get(&self) -> usize {
        self.0.dropped_lines()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(json: bool, say: impl FnOnce(&LogGuard)) -> String {
        written_at("info", json, say)
    }

    fn written_at(level: &str, json: bool, say: impl FnOnce(&LogGuard)) -> String {
        let page = Page::default();
        let (subscriber, guard) =
            build(level, Lines { json, ..Lines::default() }, page.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || say(&guard));
        drop(guard);
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn levels_are_checked() {
        let check = |level: &str, good: bool| {
            assert_eq!(LogSettings::check_level(level).is_ok(), good, "{level:?}");
        };
        check("info", true);
        check("off", true);
        check("info,bearer_proxy=debug", true);
        check("bearer_proxy::token=trace", true);
        check("info,,x=loud", false);
        check("a=b=c", false);
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = written(true, |_| tracing::info!(port = 6750, "listening"));
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!((&line["message"], &line["port"]), (&"listening".into(), &6750.into()));
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn text_is_one_line_without_colours() {
        let text = written(false, |_| tracing::warn!(port = 6750, "listening"));
        assert!(text.ends_with("WARN listening port=6750\n"), "{text:?}");
    }

    #[test]
    fn the_level_can_change() {
        let text = written(false, |guard| {
            tracing::debug!("not said");
            guard.set_level("debug").unwrap();
            tracing::debug!("said");
        });
        assert!(text.contains("said") && !text.contains("not said"), "{text:?}");
    }

    #[test]
    fn no_level_makes_talkative_libraries_tell_bodies() {
        for level in ["trace", "info,aws_smithy_runtime=trace"] {
            let text = written_at(level, false, |guard| {
                tracing::trace!(target: "aws_smithy_runtime::client", "a body");
                guard.set_level(level).unwrap();
                tracing::debug!(target: "azure_core", "a body");
                tracing::info!(target: "azure_core", "an event");
            });
            assert!(text.contains("an event") && !text.contains("a body"), "{text:?}");
        }
    }

    #[test]
    fn a_closed_log_harms_nobody() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let (subscriber, guard) = build("info", Lines::default(), Closed).unwrap();
        tracing::subscriber::with_default(subscriber, || tracing::error!("into the void"));
        drop(guard);
    }
}
