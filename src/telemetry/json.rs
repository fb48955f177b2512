//! Log lines for machines: one flat JSON object per line.
//!
//! `tracing-subscriber`'s own JSON formatter needs four times the instructions for the same line, and
//! every POST leaves a line.

use std::fmt::{self, Debug, Write};
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats an event as an object of `timestamp`, `level`, the event's fields with `message` first, and
/// `target`.
pub struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::with_capacity(512);
        line.push_str("{\"timestamp\":\"");
        if let Ok(now) = Timestamp::try_from(SystemTime::now()) {
            let _ = PRINTER.print_timestamp(&now, &mut line);
        }
        let metadata = event.metadata();
        line.push_str("\",\"level\":\"");
        line.push_str(metadata.level().as_str());
        line.push('"');
        event.record(&mut Fields(&mut line));
        line.push_str(",\"target\":\"");
        line.push_str(metadata.target());
        line.push_str("\"}\n");
        writer.write_str(&line)
    }
}

/// RFC 3339 with microseconds.
const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// Appends fields to an object that is being written.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn name(&mut self, field: &Field) {
        self.0.push_str(",\"");
        self.0.push_str(field.name());
        self.0.push_str("\":");
    }

    fn number(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        let _ = write!(self.0, "{value}");
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        self.0.push('"');
        let _ = Escaped(self.0).write_str(value);
        self.0.push('"');
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.name(field);
        self.0.push('"');
        let _ = write!(Escaped(self.0), "{value:?}");
        self.0.push('"');
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no form for NaN and infinity.
        if value.is_finite() { self.number(field, value) } else { self.number(field, "null") }
    }
}

/// Escapes characters that a JSON string cannot hold (RFC 8259 section 7).
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, mut text: &str) -> fmt::Result {
        let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
        while let Some(at) = text.as_bytes().iter().position(special) {
            let (clean, rest) = text.split_at(at);
            self.0.push_str(clean);
            let mut rest = rest.chars();
            match rest.next() {
                Some(character @ ('"' | '\\')) => self.0.extend(['\\', character]),
                Some('\n') => self.0.push_str("\\n"),
                Some(other) => write!(self.0, "\\u{:04x}", u32::from(other))?,
                None => {}
            }
            text = rest.as_str();
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_said_stays_one_string() {
        let check = |text: &str| {
            let mut escaped = String::from("\"");
            Escaped(&mut escaped).write_str(text).unwrap();
            escaped.push('"');
            assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text, "{escaped}");
        };
        for text in ["", "plain", "\"", "a\\b\n\r\tc\u{1}\u{7f}", "\u{e9}\"\u{2028}", "\\\\\"\""] {
            check(text);
        }
    }
}
