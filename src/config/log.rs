//! `[log]`: the form of the log, and the requests that it records.

use crate::diagnostics::Section;
use crate::telemetry::log::{AccessLog, BeginLog, LogFormat, LogSettings, RequestLog};

const FORMATS: [(&str, LogFormat); 3] =
    [("auto", LogFormat::Auto), ("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];

const ACCESS: [(&str, AccessLog); 4] = [
    ("off", AccessLog::Off),
    ("errors", AccessLog::Errors),
    ("errors+unsafe", AccessLog::ErrorsAndUnsafe),
    ("all", AccessLog::All),
];

const BEGIN: [(&str, BeginLog); 2] = [("off", BeginLog::Off), ("unsafe", BeginLog::Unsafe)];

pub(super) fn read(root: &Section<'_>) -> LogSettings {
    let (section, default) = (root.section("log"), LogSettings::default());
    let fixed = "expected off, error, warn, info, debug or trace";
    let level = section.item("level").and_then(|item| {
        item.parse_or(fixed, |text| LogSettings::check_level(text).map(|()| text.to_owned()))
    });
    LogSettings {
        format: section.choice("format", &FORMATS, default.format),
        level: level.unwrap_or(default.level),
        requests: RequestLog {
            access: section.choice("access", &ACCESS, default.requests.access),
            begin: section.choice("begin", &BEGIN, default.requests.begin),
        },
    }
}
