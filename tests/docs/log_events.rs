//! The events that the program logs, as the macros of `tracing` in `src/` name them.

use std::fs;
use std::path::Path;

/// Levels, the gravest first; the last is that of the access log, whose macro takes it as an argument.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "$level"];

/// One event.
#[derive(Debug, Default, PartialEq)]
pub struct LogEvent {
    /// Folder of `src/` that it comes from.
    pub folder: String,
    pub level: String,
    pub message: String,
    /// Names of its fields.
    pub fields: Vec<String>,
    /// Target, if it is not that of the module.
    pub target: Option<String>,
}

impl LogEvent {
    /// Place of its level among [`LEVELS`].
    pub fn severity(&self) -> Option<usize> {
        LEVELS.iter().position(|level| *level == self.level)
    }
}

/// All events, in the order of the files.
pub fn log_events(root: &Path) -> Vec<LogEvent> {
    let mut paths = Vec::new();
    crate::collect("rs", &root.join("src"), &mut paths);
    paths.sort();
    let for_tests = |path: &Path| {
        ["tests.rs", "testing.rs"].iter().any(|name| path.file_name().is_some_and(|it| it == *name))
    };
    let mut events = Vec::new();
    for path in paths.into_iter().filter(|path| !for_tests(path)) {
        let text = fs::read_to_string(&path).unwrap();
        let below = path.strip_prefix(root.join("src")).unwrap();
        let folder = below.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let shipped = text.split("#[cfg(test)]\nmod ").next().unwrap();
        for (at, path) in shipped.match_indices("tracing::") {
            let call = &shipped[at + path.len()..];
            let level = LEVELS
                .into_iter()
                .find(|level| call.strip_prefix(*level).is_some_and(|rest| rest.starts_with("!(")));
            if let Some(level) = level {
                let mut event = event(&call[level.len() + 2..]);
                (event.folder, event.level) = (folder.to_owned(), level.to_owned());
                events.push(event);
            }
        }
    }
    events
}

/// An event from the arguments of its macro; the text may go on after them.
fn event(text: &str) -> LogEvent {
    let mut event = LogEvent::default();
    for argument in arguments(text) {
        let argument = argument.trim();
        if let Some(message) = argument.strip_prefix('"') {
            event.message = literal(message);
        } else if let Some(target) = argument.strip_prefix("target: \"") {
            event.target = Some(literal(target));
        } else if !argument.is_empty() {
            let name = argument.split('=').next().unwrap().trim();
            event.fields.push(name.trim_start_matches(['%', '?']).to_owned());
        }
    }
    event
}

/// The arguments up to the closing parenthesis.
fn arguments(text: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth) = (Vec::new(), 0, 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => {
                found.push(&text[start..at]);
                return found;
            }
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    panic!("a macro is not closed: {text:.80}");
}

/// A string literal without its first quote; a backslash at the end of a line skips white space.
fn literal(text: &str) -> String {
    let text = &text[..text.rfind('"').unwrap()];
    let mut lines = text.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |all, line| all + line.trim_start()).replace("\\\"", "\"")
}

#[test]
fn macros_are_read() {
    let text = "target: \"a::b\", id = f(1, \"x, y\"), %peer, ?kind, status,\n  \"one (1) \\\n   two\"\n); more()";
    let expected = LogEvent {
        message: "one (1) two".into(),
        fields: ["id", "peer", "kind", "status"].map(str::to_owned).into(),
        target: Some("a::b".into()),
        ..LogEvent::default()
    };
    assert_eq!(event(text), expected);
}
