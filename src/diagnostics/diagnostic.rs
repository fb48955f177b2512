//! One problem of a file: its message, its place, and the remedy. It is plain data, to be drawn for
//! people or printed as JSON, and never holds the text of a secret: excerpts are masked before they
//! get here.

use std::ops::Range;

use serde::Serialize;

use super::mask::{Excerpt, MaskedSource, Visibility};

/// The weight of a diagnostic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but is hardly what its author meant.
    Warning,
    /// A fact that the author may not expect.
    Note,
}

/// One problem of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Only errors keep a file from being used.
    pub severity: Severity,
    /// The problem in one line.
    pub message: String,
    /// The key, such as `upstreams.qbank.routes[2].scopes`; empty for the file as a whole.
    pub at: String,
    /// Line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 for the file as a whole.
    pub column: usize,
    /// The text under the caret.
    pub label: Option<String>,
    /// The value, unless it may be a secret.
    pub found: Option<String>,
    /// The values that the key takes.
    pub expected: Option<String>,
    /// The remedy.
    pub hint: Option<String>,
    /// Background, such as a rule that the value breaks.
    pub note: Option<String>,
    #[serde(skip)]
    pub(super) excerpt: Option<Excerpt>,
}

// No method is inlined: there are hundreds of calls, none of which is hot.
impl Diagnostic {
    /// An error without a place.
    #[inline(never)]
    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            at: String::new(),
            line: 0,
            column: 0,
            label: None,
            found: None,
            expected: None,
            hint: None,
            note: None,
            excerpt: None,
        }
    }

    #[inline(never)]
    pub(crate) fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    #[inline(never)]
    pub(crate) fn notice(message: impl Into<String>) -> Self {
        Self { severity: Severity::Note, ..Self::error(message) }
    }

    #[inline(never)]
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    #[inline(never)]
    pub(crate) fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    #[inline(never)]
    pub(crate) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    #[inline(never)]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[inline(never)]
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// The same at a key, with the line that a span begins on.
    pub(crate) fn place(
        self,
        at: String,
        span: Range<usize>,
        source: &MaskedSource<'_>,
        visibility: &Visibility,
    ) -> Self {
        let (line, column) = source.position(span.start);
        let excerpt = Some(source.excerpt(span, visibility));
        Self { at, line, column, excerpt, ..self }
    }
}
