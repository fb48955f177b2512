//! `Problem`: what is wrong with a configuration, where, and what to do. Plain data, so that it can
//! be drawn for people or printed as JSON. It never holds the text of a secret: excerpts are masked
//! before they get here.

use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use super::mask::{Excerpt, MaskedSource, Visibility};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but is hardly what was meant.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in a line.
    pub message: String,
    /// The key, such as `upstreams.qbank.routes[2].scopes`; empty for the file as a whole.
    pub at: String,
    /// Line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 for the file as a whole.
    pub column: usize,
    /// What stands under the caret.
    pub label: Option<String>,
    /// The value, where it can be no secret.
    pub found: Option<String>,
    /// What may stand there.
    pub expected: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// What else is worth knowing.
    pub note: Option<String>,
    pub(crate) excerpt: Option<Excerpt>,
}

/// All problems of one file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    path: PathBuf,
    list: Vec<Problem>,
}

impl Problems {
    pub(crate) fn new(path: &Path, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|problem| (problem.line, problem.column));
        list.dedup();
        Self { path: path.to_owned(), list }
    }

    pub(crate) fn of_file(path: &Path, diagnostic: Diagnostic) -> Self {
        Self { path: path.to_owned(), list: vec![diagnostic.unplaced("")] }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many of them are errors.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many of them are warnings.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|problem| problem.severity == severity).count()
    }

    /// As JSON, for `check -o json`.
    pub fn to_json(&self) -> serde_json::Value {
        let problems: Vec<_> = self.list.iter().map(Problem::to_json).collect();
        serde_json::json!({
            "file": self.path.display().to_string(),
            "errors": self.errors(),
            "warnings": self.warnings(),
            "problems": problems,
        })
    }
}

impl Deref for Problems {
    type Target = [Problem];

    fn deref(&self) -> &[Problem] {
        &self.list
    }
}

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}

impl Problem {
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "severity": self.severity.as_str(),
            "message": self.message,
            "at": self.at,
            "line": self.line,
            "column": self.column,
            "label": self.label,
            "found": self.found,
            "expected": self.expected,
            "hint": self.hint,
            "note": self.note,
        })
    }
}

/// A problem that has no place yet.
#[derive(Debug, Clone)]
pub(crate) struct Diagnostic {
    severity: Severity,
    message: String,
    label: Option<String>,
    found: Option<String>,
    expected: Option<String>,
    hint: Option<String>,
    note: Option<String>,
}

impl Diagnostic {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        let message = message.into();
        let severity = Severity::Error;
        Self { severity, message, label: None, found: None, expected: None, hint: None, note: None }
    }

    pub(crate) fn severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    pub(crate) fn label(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    pub(crate) fn found(self, found: impl Into<String>) -> Self {
        Self { found: Some(found.into()), ..self }
    }

    pub(crate) fn expected(self, expected: impl Into<String>) -> Self {
        Self { expected: Some(expected.into()), ..self }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    pub fn place(
        self,
        at: &str,
        span: Range<usize>,
        source: &MaskedSource<'_>,
        known: &Visibility,
    ) -> Problem {
        let (line, column) = source.position(span.start);
        let excerpt = Some(source.excerpt(span, known));
        Problem { line, column, excerpt, ..self.unplaced(at) }
    }

    fn unplaced(self, at: &str) -> Problem {
        Problem {
            severity: self.severity,
            message: self.message,
            at: at.to_owned(),
            line: 0,
            column: 0,
            label: self.label,
            found: self.found,
            expected: self.expected,
            hint: self.hint,
            note: self.note,
            excerpt: None,
        }
    }
}
