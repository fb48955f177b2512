//! Draws diagnostics for a person, each with its masked line of the file.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::diagnostic::{Diagnostic, Severity};

/// All diagnostics of the file at a path, with a blank line after each.
pub(super) fn drawn(list: &[Diagnostic], path: &str, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let draw = |diagnostic| {
        let drawn = renderer.render(&[group(diagnostic, path)]);
        with_true_column(drawn, diagnostic, path) + "\n\n"
    };
    list.iter().map(draw).collect()
}

fn group<'a>(diagnostic: &'a Diagnostic, path: &'a str) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()));
    group = match &diagnostic.excerpt {
        None => group.element(Origin::path(path)),
        Some(excerpt) => {
            let mark = AnnotationKind::Primary.span(excerpt.mark.clone());
            let snippet = Snippet::source(&excerpt.line).line_start(diagnostic.line).path(path);
            group.element(snippet.annotation(mark.label(diagnostic.label.as_deref())))
        }
    };
    if let Some(expected) = &diagnostic.expected {
        group = group.element(Level::HELP.message(format!("expected: {expected}")));
    }
    if let Some(hint) = &diagnostic.hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    if let Some(note) = &diagnostic.note {
        group = group.element(Level::NOTE.message(note.as_str()));
    }
    group
}

/// The renderer counts columns on the masked line, where a mask in front may have moved the value.
fn with_true_column(drawn: String, diagnostic: &Diagnostic, path: &str) -> String {
    let Some(excerpt) = &diagnostic.excerpt else { return drawn };
    let before = excerpt.line.get(..excerpt.mark.start).unwrap_or("").chars().count();
    let place = |column: usize| format!("{path}:{}:{column}", diagnostic.line);
    drawn.replacen(&place(before + 1), &place(diagnostic.column), 1)
}
