//! Fields of log lines for people: `name=value`, with quotes around a value that holds blanks.

use std::fmt::{self, Debug};

use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// Formats the fields of an event, its message first and bare.
pub(super) fn text_fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    debug_fn(field).delimited(" ")
}

fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let name = field.name();
    if name == "message" {
        return write!(writer, "{value:?}");
    }
    match writer.has_ansi_escapes() {
        // Italic name, faint sign: as tracing-subscriber itself draws them.
        true => write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
        false => write!(writer, "{name}=")?,
    }
    let text = format!("{value:?}");
    // The `Debug` of a string has quotes already; the `Display` of an error has none.
    match text.contains(char::is_whitespace) && !text.starts_with('"') {
        true => write!(writer, "{text:?}"),
        false => writer.write_str(&text),
    }
}
