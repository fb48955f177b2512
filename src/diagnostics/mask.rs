//! Lines of a file as they may be shown.
//!
//! A line is shown only after everything on it that could be a secret has been replaced by a mask of
//! fixed length: every value except those that may be shown, every quoted key, every comment. If the
//! file is not TOML, only words of the file format remain.

use std::ops::Range;

use super::vocabulary::Vocabulary;

/// Stands for a value, whatever its length.
const MASK: &str = "••••••••";

/// The text of a file, by lines.
pub(crate) struct MaskedSource<'t> {
    text: &'t str,
}

/// The parts of a line that may be shown.
pub(crate) enum Visibility<'v> {
    /// The file is not TOML: words of the file format at the start of the line.
    Words(&'v Vocabulary),
    /// Everything but comments, quoted keys, and the masked values that are not shown.
    Values {
        /// Spans of all values, and of keys that may be secrets, in order.
        masked: Vec<Range<usize>>,
        /// Spans of values that may be shown.
        shown: Vec<Range<usize>>,
    },
}

/// One masked line, and the bytes of it that a problem is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Excerpt {
    pub(crate) line: String,
    pub(crate) mark: Range<usize>,
}

impl<'t> MaskedSource<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text }
    }

    /// Line and column in characters, both from 1.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let before = self.text.get(line.start..offset).unwrap_or("");
        let number = self.text[..line.start].matches('\n').count() + 1;
        (number, before.chars().count() + 1)
    }

    /// The bytes of the line that an offset is on, without its end.
    fn line(&self, offset: usize) -> Range<usize> {
        let offset = self.text.floor_char_boundary(offset);
        let start = self.text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let end = self.text[offset..].find('\n').map_or(self.text.len(), |at| offset + at);
        start..end
    }

    /// The masked line that a span begins on.
    pub(crate) fn excerpt(&self, span: Range<usize>, visibility: &Visibility<'_>) -> Excerpt {
        let line = self.line(span.start);
        let (hidden, end) = match visibility {
            Visibility::Words(words) => (self.after_words(line.clone(), words), line.end),
            Visibility::Values { masked, shown } => self.hidden(line.clone(), masked, shown),
        };
        self.draw(line.start..end, &hidden, span)
    }

    /// All lines, masked.
    pub(crate) fn whole(&self, visibility: &Visibility<'_>) -> String {
        let mut start = 0;
        let mut masked = String::new();
        for line in self.text.split_inclusive('\n') {
            masked += self.excerpt(start..start, visibility).line.trim_end();
            masked.push('\n');
            start += line.len();
        }
        masked
    }

    /// The part of a line after the words of the file format. A line that may be inside a string of
    /// several lines is hidden whole.
    fn after_words(&self, line: Range<usize>, words: &Vocabulary) -> Vec<Range<usize>> {
        let (before, text) = (&self.text[..line.start], &self.text[line.clone()]);
        let in_string = ["\"\"\"", "'''"].iter().any(|quote| before.contains(quote));
        let shown = if in_string { 0 } else { leading_words(text, words) };
        let rest = &text[shown..];
        let start = line.end - rest.trim_start().len();
        Vec::from_iter((start < line.end).then_some(start..line.end))
    }

    /// The parts of a line that are hidden, in order, and its end without a comment.
    fn hidden(
        &self,
        line: Range<usize>,
        masked: &[Range<usize>],
        shown: &[Range<usize>],
    ) -> (Vec<Range<usize>>, usize) {
        let mut hidden = Vec::new();
        let mut at = line.start;
        let on_line = |span: &&Range<usize>| span.start < line.end && span.end > line.start;
        for span in masked.iter().filter(on_line) {
            let bytes = span.start.max(at)..span.end.min(line.end);
            if bytes.is_empty() {
                continue;
            }
            if let Some(comment) = self.hide_quoted(at..bytes.start, &mut hidden) {
                return (hidden, comment);
            }
            at = bytes.end;
            if !shown.iter().any(|shown| shown.start <= span.start && shown.end >= span.end) {
                hidden.push(bytes);
            }
        }
        let comment = self.hide_quoted(at..line.end, &mut hidden);
        (hidden, comment.unwrap_or(line.end))
    }

    /// Hides quoted keys between values, and returns where a comment begins.
    fn hide_quoted(&self, gap: Range<usize>, hidden: &mut Vec<Range<usize>>) -> Option<usize> {
        let mut quoted: Option<(char, usize)> = None;
        for (index, found) in self.text[gap.clone()].char_indices() {
            let here = gap.start + index;
            match (quoted, found) {
                (Some((quote, start)), _) if found == quote => {
                    hidden.push(start..here + 1);
                    quoted = None;
                }
                (None, '"' | '\'') => quoted = Some((found, here)),
                (None, '#') => {
                    return Some(gap.start + self.text[gap.start..here].trim_end().len());
                }
                _ => {}
            }
        }
        hidden.extend(quoted.map(|(_, start)| start..gap.end));
        None
    }

    /// Draws a line with masks, and moves a span of the text to where it is in the drawing.
    fn draw(&self, line: Range<usize>, hidden: &[Range<usize>], span: Range<usize>) -> Excerpt {
        let end = span.end.min(line.end).max(span.start);
        let (mut out, mut mark) = (String::new(), None::<Range<usize>>);
        let mut piece = |bytes: Range<usize>, masked: bool| {
            let from = out.len();
            out.push_str(if masked { MASK } else { &self.text[bytes.clone()] });
            let (start, end) = (span.start.max(bytes.start), end.min(bytes.end));
            if start < end || (span.is_empty() && start == end) {
                let here = match masked {
                    true => from..out.len(),
                    false => from + start - bytes.start..from + end - bytes.start,
                };
                mark = Some(mark.as_ref().map_or(here.start, |mark| mark.start)..here.end);
            }
        };
        let mut at = line.start;
        for bytes in hidden {
            piece(at..bytes.start, false);
            piece(bytes.clone(), true);
            at = bytes.end;
        }
        piece(at..line.end.max(at), false);
        let mark = mark.unwrap_or(out.len()..out.len());
        Excerpt { line: out, mark }
    }
}

/// The number of bytes at the start of a line that is not TOML which are words of the file format: a key
/// with its `=`, or the header of a table, whose second word is a name that the author chose.
fn leading_words(text: &str, words: &Vocabulary) -> usize {
    let inner = text.trim_start().trim_start_matches('[');
    let open = text.len() - inner.len();
    let is_header = text[..open].contains('[');
    let in_word = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let end = inner.find(|c| !in_word(c)).unwrap_or(inner.len());
    let mut parts = inner[..end].split('.');
    if is_header {
        return if parts.next().is_some_and(|part| words.is_table(part)) { open + end } else { 0 };
    }
    let rest = inner[end..].trim_start();
    let known = rest.starts_with('=') && parts.all(|part| words.words.contains(part));
    if known { text.len() - rest.len() + 1 } else { 0 }
}
