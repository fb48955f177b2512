//! `Problem`: what is wrong with a configuration, and where; and how a list of them reads.
//!
//! A file may hold what does not belong into it, so that nothing of it is shown but keys and those
//! values whose kind is known not to be secret; the rest of a line appears as asterisks.

use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// One thing that is wrong, or worth a note.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Whether the configuration can be used all the same.
    pub note: bool,
    /// What is wrong.
    pub title: String,
    /// The key, such as `upstreams.qbank.routes[2].scopes`.
    pub at: String,
    /// Where, in bytes of the file.
    pub span: Range<usize>,
    /// What stands beside the place: what to write instead.
    pub label: String,
    /// Further help.
    pub help: Option<String>,
    /// Whether the place itself may be shown.
    pub visible: bool,
}

/// All problems of a file, in the order of their places.
#[derive(Debug)]
pub struct Problems {
    path: PathBuf,
    text: String,
    /// Where keys stand.
    keys: Vec<Range<usize>>,
    all: Vec<Problem>,
}

impl Problems {
    pub(super) fn new(
        path: &Path,
        text: &str,
        keys: Vec<Range<usize>>,
        mut all: Vec<Problem>,
    ) -> Self {
        all.sort_by_key(|problem| (problem.span.start, problem.span.end));
        Self { path: path.to_owned(), text: text.to_owned(), keys, all }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The problems.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.all.iter()
    }

    /// For people: each with its line, its column and what to write instead.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let path = self.path.display().to_string();
        let mut text = String::new();
        for problem in &self.all {
            let shown = self.masked(problem);
            let level = if problem.note { Level::NOTE } else { Level::ERROR };
            let span = self.place(&problem.span);
            let annotation = AnnotationKind::Primary.span(span).label(problem.label.as_str());
            let snippet =
                Snippet::source(shown.as_str()).path(path.as_str()).annotation(annotation);
            let mut group = level.primary_title(problem.title.as_str()).element(snippet);
            if let Some(help) = &problem.help {
                group = group.element(Level::HELP.message(help.as_str()));
            }
            text += &renderer.render(&[group]);
            text += "\n\n";
        }
        let errors = self.all.iter().filter(|problem| !problem.note).count();
        let notes = self.all.len() - errors;
        if errors > 0 {
            text += &format!(
                "{errors} error{}, {notes} note{}: nothing was started\n",
                plural(errors),
                plural(notes)
            );
        }
        text
    }

    /// For programs: a JSON array.
    pub fn to_json(&self) -> String {
        let all: Vec<_> = self
            .all
            .iter()
            .map(|problem| {
                let (line, column) = self.line_column(problem.span.start);
                serde_json::json!({
                    "severity": if problem.note { "note" } else { "error" },
                    "file": self.path.display().to_string(),
                    "line": line,
                    "column": column,
                    "at": problem.at,
                    "problem": problem.title,
                    "expected": problem.label,
                    "help": problem.help,
                })
            })
            .collect();
        serde_json::to_string_pretty(&all).unwrap_or_default()
    }

    /// A span that lies within the text and covers at least one byte of it.
    fn place(&self, span: &Range<usize>) -> Range<usize> {
        let length = self.text.len();
        let start = span.start.min(length.saturating_sub(1));
        start..span.end.clamp(start, length).max((start + 1).min(length))
    }

    fn line_column(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at.min(self.text.len())).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The text with everything hidden but structure, keys and the place itself, byte for byte.
    fn masked(&self, problem: &Problem) -> String {
        let mut visible = self.keys.clone();
        if problem.visible {
            visible.push(problem.span.clone());
        }
        let masked = self.text.bytes().enumerate().map(|(at, byte)| {
            let structure = byte.is_ascii_whitespace() || b"[]{}=,\"'".contains(&byte);
            let shown =
                byte.is_ascii() && (structure || visible.iter().any(|span| span.contains(&at)));
            char::from(if shown { byte } else { b'*' })
        });
        masked.collect()
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
