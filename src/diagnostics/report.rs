//! All diagnostics of one file.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Severity};
use super::render;

/// All diagnostics of one file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    path: PathBuf,
    list: Vec<Diagnostic>,
    /// What an error means for the program.
    outcome: &'static str,
}

impl Report {
    pub(crate) fn new(path: &Path, mut list: Vec<Diagnostic>) -> Self {
        list.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        list.dedup();
        Self { path: path.to_owned(), list, outcome: "nothing was started" }
    }

    /// The same for a program that runs already, with the errors before the warnings and notes: some readers
    /// see its beginning alone.
    pub fn of_reload(mut self) -> Self {
        self.outcome = "nothing was changed";
        let is_error = |diagnostic: &Diagnostic| diagnostic.severity == Severity::Error;
        let (errors, others): (Vec<_>, Vec<_>) = self.list.into_iter().partition(is_error);
        self.list = errors;
        self.list.extend(others);
        self
    }

    /// The number of errors.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// The number of warnings.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }

    /// As JSON, for `check -o json`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "file": self.path.display().to_string(),
            "errors": self.errors(),
            "warnings": self.warnings(),
            "problems": self.list,
        })
    }

    /// Drawn as cargo draws its own, each with its line of the file, and a line that counts them.
    pub fn render(&self, color: bool) -> String {
        let mut out = render::drawn(&self.list, &self.path.display().to_string(), color);
        out.push_str(&match (self.errors(), self.warnings()) {
            (0, 0) => String::new(),
            (0, warnings) => format!("0 errors, {}\n", counted(warnings, "warning")),
            (errors, warnings) => format!(
                "{}, {}: {}\n",
                counted(errors, "error"),
                counted(warnings, "warning"),
                self.outcome,
            ),
        });
        out
    }
}

fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

impl Deref for Report {
    type Target = [Diagnostic];

    fn deref(&self) -> &[Diagnostic] {
        &self.list
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}
