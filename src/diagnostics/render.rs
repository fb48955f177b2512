//! How problems look to a person: like those of cargo, each with its line of the file.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::problem::{Problem, Problems, Severity};

impl Problems {
    /// Draws all problems, then a line that counts them.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let path = self.path().display().to_string();
        let mut out = String::new();
        for problem in self.iter() {
            let drawn = renderer.render(&[group(problem, &path)]);
            out.push_str(&true_column(drawn, problem, &path));
            out.push_str("\n\n");
        }
        out.push_str(&self.count_line());
        out
    }

    fn count_line(&self) -> String {
        match (self.errors(), self.warnings()) {
            (0, 0) => String::new(),
            (0, warnings) => format!("0 errors, {}\n", count(warnings, "warning")),
            (errors, warnings) => format!(
                "{}, {}: nothing was started\n",
                count(errors, "error"),
                count(warnings, "warning")
            ),
        }
    }
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn group<'a>(problem: &'a Problem, path: &'a str) -> Group<'a> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let mut group = Group::with_title(level.primary_title(problem.message.as_str()));
    group = match &problem.excerpt {
        None => group.element(Origin::path(path)),
        Some(excerpt) => {
            let mark =
                AnnotationKind::Primary.span(excerpt.mark.clone()).label(problem.label.as_deref());
            let snippet =
                Snippet::source(excerpt.line.as_str()).line_start(problem.line).path(path);
            group.element(snippet.annotation(mark))
        }
    };
    if let Some(expected) = &problem.expected {
        group = group.element(Level::HELP.message(format!("expected: {expected}")));
    }
    if let Some(hint) = &problem.hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    if let Some(note) = &problem.note {
        group = group.element(Level::NOTE.message(note.as_str()));
    }
    group
}

/// The column is counted on the masked line, where a mask in front of it may have moved it.
fn true_column(drawn: String, problem: &Problem, path: &str) -> String {
    let Some(excerpt) = &problem.excerpt else { return drawn };
    let before = excerpt.line.get(..excerpt.mark.start).unwrap_or("").chars().count();
    let place = |column: usize| format!("{path}:{}:{column}", problem.line);
    drawn.replacen(&place(before + 1), &place(problem.column), 1)
}
