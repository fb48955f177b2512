//! The log: settings, formats, and the meaning of each level.
//!
//! * error: something is broken and a person must act.
//! * warn: something is wrong, and the program continues.
//! * info: events that an operator reads later: starts, reloads, tokens, the access log.
//! * debug: details for developers.
//!
//! Lines go to stderr, or to the event log of a Windows service, through a bounded queue and a dedicated
//! thread. A slow, stuck or closed reader of the log costs lines, which are counted, and never delays a
//! request.

use std::fmt;
#[cfg(unix)]
use std::io::stderr as output;
use std::io::{self, BufWriter, IsTerminal, Write, stderr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::begin;
// A Windows service has no stderr.
#[cfg(windows)]
use super::event_log::{is_open as takes_priorities, output};
use super::journal::JournalLines;
#[cfg(unix)]
use super::journal::is_stderr as takes_priorities;
use super::json::JsonLines;
use super::recent::{RecentLines, Tee};
use super::text::text_fields;
use tracing::Metadata;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::writer::EitherWriter;
use tracing_subscriber::fmt::{MakeWriter, format, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, reload};

/// Prefixes of library targets that log bodies, secrets among them, below `info`. Their lines below `info`
/// are dropped, whatever level is configured.
const LOGS_SECRETS: [&str; 5] = ["aws", "azure", "typespec", "zbus", "keyring"];

/// Capacity of the queue, in lines.
const QUEUE: usize = 8192;

/// Format and verbosity of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Format of each line.
    pub format: LogFormat,
    /// Levels by target, in the syntax of `tracing_subscriber::filter::Targets`
    /// (`info`, or `info,bearer_proxy=debug`); checked when the configuration is read.
    pub level: String,
    /// The lines that requests leave.
    pub requests: RequestLog,
}

/// The lines that requests leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestLog {
    /// Requests that leave a line when their fate is known.
    pub access: AccessLog,
    /// Requests that leave a line before their first byte goes to the upstream.
    pub begin: BeginLog,
}

/// Requests that leave a line before they are sent. It is written past the queue of the log, so that it is
/// there even if the process is killed in the next moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BeginLog {
    /// None.
    #[default]
    Off,
    /// Those of an unsafe method (RFC 9110 section 9.2.1), such as POST.
    Unsafe,
}

impl BeginLog {
    /// Its word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Unsafe => "unsafe",
        }
    }
}

/// Format of each log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Pretty if stderr is a terminal, else JSON.
    #[default]
    Auto,
    /// Text for people, with colours if allowed.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// Requests that leave a line in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// None.
    Off,
    /// Requests that this program rejected or could not forward, and responses with 5xx.
    Errors,
    /// The same as `Errors`, and every request with an unsafe method (RFC 9110 section 9.2.1).
    #[default]
    ErrorsAndUnsafe,
    /// All requests.
    All,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".into(), requests: RequestLog::default() }
    }
}

impl LogSettings {
    /// Checks that [`init`] can use `level`.
    ///
    /// # Errors
    /// A sentence with the accepted levels.
    pub fn check_level(level: &str) -> Result<(), LevelError> {
        targets(level).map(drop)
    }
}

fn targets(level: &str) -> Result<Targets, LevelError> {
    level.parse().map_err(|_| LevelError(level.to_owned()))
}

/// A text is not a valid log level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no log level; write off, error, warn, info, debug or trace, \
     or levels by target such as \"info,bearer_proxy::token=debug\""
)]
pub struct LevelError(String);

/// The log cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is invalid.
    #[error(transparent)]
    Level(#[from] LevelError),
    /// The process has a log already.
    #[error("the log of this process has been started before")]
    Started,
}

/// Starts the log of this process on stderr. `color` affects the pretty format only.
///
/// # Errors
/// An invalid level, or a second start.
pub fn init(settings: &LogSettings, color: bool) -> Result<LogGuard, LogError> {
    // Decided once: a log that changed its format in the middle could not be parsed.
    let json = match settings.format {
        LogFormat::Auto => !stderr().is_terminal(),
        LogFormat::Pretty => false,
        LogFormat::Json => true,
    };
    let format = LineFormat { json, color, journal: takes_priorities() };
    let patience = begin::Patience::default();
    let at_once =
        Arc::new(move |line: &[u8]| patience.write(|wait| begin::write_now(output(), line, wait)));
    let (subscriber, guard) = build(&settings.level, format, output(), at_once)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Started)?;
    Ok(guard)
}

fn build(
    level: &str,
    format: LineFormat,
    out: impl Write + Send + 'static,
    at_once: WriteAtOnce,
) -> Result<(impl tracing::Subscriber + Send + Sync, LogGuard), LogError> {
    let recent = RecentLines::default();
    let (filter, reload) = reload::Layer::new(targets(level)?);
    let (writer, worker) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE)
        // A full queue drops the line and counts it: waiting would hold a request up.
        .lossy(true)
        .thread_name("log")
        // The thread flushes when the queue is empty, so a burst of lines becomes one write.
        .finish(Tee { out: BufWriter::new(out), recent: recent.clone() });
    let skipped = Arc::new(AtomicUsize::new(0));
    let dropped = DroppedLines { queue: writer.error_counter(), skipped: Arc::clone(&skipped) };
    let at_once = keeping(at_once, recent.clone());
    let writer = LogWriter { queue: writer, at_once, skipped };
    let subscriber =
        Registry::default().with(filter).with(hide_secrets()).with(format.layer(writer));
    Ok((subscriber, LogGuard { worker: Some(worker), reload, dropped, recent }))
}

fn hide_secrets() -> Targets {
    let filter = Targets::new().with_default(LevelFilter::TRACE);
    LOGS_SECRETS
        .into_iter()
        .fold(filter, |filter, library| filter.with_target(library, LevelFilter::INFO))
}

/// Writes a line past the queue; see [`begin::write_now`].
type WriteAtOnce = Arc<dyn Fn(&[u8]) -> io::Result<()> + Send + Sync>;

/// Keeps the lines that are written at once among the recent ones.
fn keeping(at_once: WriteAtOnce, recent: RecentLines) -> WriteAtOnce {
    Arc::new(move |line| {
        recent.push(line);
        at_once(line)
    })
}

/// Puts lines into the queue, but writes those of the target [`begin::TARGET`] at once.
struct LogWriter {
    queue: NonBlocking,
    at_once: WriteAtOnce,
    /// Lines that could not be written at once.
    skipped: Arc<AtomicUsize>,
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = EitherWriter<NonBlocking, AtOnce<'a>>;

    fn make_writer(&'a self) -> Self::Writer {
        EitherWriter::A(self.queue.clone())
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        match metadata.target() == begin::TARGET {
            true => EitherWriter::B(AtOnce(self)),
            false => self.make_writer(),
        }
    }
}

/// Writes whole lines at once; one that cannot be written is counted and forgotten.
struct AtOnce<'a>(&'a LogWriter);

impl Write for AtOnce<'_> {
    /// The formatter writes a line in one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if (self.0.at_once)(line).is_err() {
            self.0.skipped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The format of a line after `Auto` is resolved.
#[derive(Debug, Clone, Copy, Default)]
struct LineFormat {
    /// A JSON object, else text.
    json: bool,
    /// Text with colours; never for the journal.
    color: bool,
    /// A prefix with the journal's priority.
    journal: bool,
}

impl LineFormat {
    fn layer<S>(self, writer: LogWriter) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    {
        let text = format().with_target(false);
        let layer = layer().with_ansi(self.color && !self.journal).with_writer(writer);
        match (self.json, self.journal) {
            (true, false) => Box::new(layer.event_format(JsonLines)),
            (true, true) => Box::new(layer.event_format(JournalLines(JsonLines))),
            (false, false) => Box::new(layer.fmt_fields(text_fields()).event_format(text)),
            (false, true) => {
                Box::new(layer.fmt_fields(text_fields()).event_format(JournalLines(text)))
            }
        }
    }
}

/// Keeps the log running. Dropping it writes the queued lines.
pub struct LogGuard {
    worker: Option<WorkerGuard>,
    reload: reload::Handle<Targets, Registry>,
    dropped: DroppedLines,
    recent: RecentLines,
}

impl LogGuard {
    /// Changes the level of the running log.
    ///
    /// # Errors
    /// An invalid level; the level stays.
    pub fn set_level(&self, level: &str) -> Result<(), LevelError> {
        // It fails only if the subscriber is gone, and then there is no log to change.
        let _ = self.reload.reload(targets(level)?);
        Ok(())
    }

    /// The count of dropped lines.
    pub fn dropped(&self) -> DroppedLines {
        self.dropped.clone()
    }

    /// The newest lines.
    pub fn recent(&self) -> RecentLines {
        self.recent.clone()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        // Taken out, because it must be dropped inside `catch_unwind`, not after this function.
        let worker = self.worker.take();
        // Dropping the worker waits for the queue, for about a second at most. If stderr is stuck,
        // tracing-appender then prints to stdout, which panics if stdout is closed. The process is
        // about to exit: a panic here would only replace its exit code.
        // `AssertUnwindSafe` is right because the worker is not used after this line.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(worker)));
    }
}

impl fmt::Debug for LogGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogGuard").finish_non_exhaustive()
    }
}

/// Lines that are not in the log: the queue was full, or a line that is written at once found no room.
#[derive(Debug, Clone)]
pub struct DroppedLines {
    queue: ErrorCounter,
    skipped: Arc<AtomicUsize>,
}

impl DroppedLines {
    /// Their number since the start.
    pub fn get(&self) -> usize {
        self.queue.dropped_lines() + self.skipped.load(Ordering::Relaxed)
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

    /// For tests in which no line is written at once.
    fn refuse() -> WriteAtOnce {
        Arc::new(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn written(json: bool, say: impl FnOnce(&LogGuard)) -> String {
        written_at("info", json, say)
    }

    fn written_at(level: &str, json: bool, say: impl FnOnce(&LogGuard)) -> String {
        let page = Page::default();
        let (subscriber, guard) =
            build(level, LineFormat { json, ..LineFormat::default() }, page.clone(), refuse())
                .unwrap();
        tracing::subscriber::with_default(subscriber, || say(&guard));
        drop(guard);
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_that_must_survive_the_process_does_not_wait_in_the_queue() {
        let lines = Arc::new(Mutex::new(Vec::<String>::new()));
        let at_once = Arc::clone(&lines);
        let at_once = Arc::new(move |line: &[u8]| {
            let mut lines = at_once.lock().unwrap();
            if lines.len() == 1 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            lines.push(String::from_utf8(line.to_vec()).unwrap());
            Ok(())
        });
        let page = Page::default();
        let (subscriber, guard) =
            build("info", LineFormat::default(), page.clone(), at_once).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: begin::TARGET, "first");
            assert!(lines.lock().unwrap()[0].ends_with("INFO first\n"), "{lines:?}");
            tracing::info!(target: begin::TARGET, "second");
            tracing::info!("third");
        });
        assert_eq!(guard.dropped().get(), 1, "the second found no room");
        drop(guard);
        let queued = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        assert!(queued.contains("third") && !queued.contains("second"), "{queued}");
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
    fn values_with_blanks_are_quoted_once() {
        let error = io::Error::other("no route to \"host\"\n");
        let text = written(false, |_| {
            tracing::warn!(%error, name = "a b", method = %"GET", port = 1, none = None::<u8>, "failed");
        });
        let expected = r#"WARN failed error="no route to \"host\"\n" name="a b" method=GET port=1"#;
        assert!(text.trim_end().ends_with(expected), "{text}");
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
    fn no_level_makes_libraries_log_bodies() {
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
    fn a_closed_stderr_does_not_panic() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let (subscriber, guard) = build("info", LineFormat::default(), Closed, refuse()).unwrap();
        tracing::subscriber::with_default(subscriber, || tracing::error!("into the void"));
        drop(guard);
    }
}
