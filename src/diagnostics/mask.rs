//! Lines of a configuration as they may be shown.
//!
//! A line is shown only after everything on it that could be a secret has been replaced by a mask of
//! fixed length: every value but those that were read for a key which is known to hold none, every
//! quoted key, every comment. On a syntax error nothing is known, and only known keys remain.

use std::ops::Range;

/// Stands for a value, whatever its length.
const MASK: &str = "••••••••";

/// First words of keys and headers that may be shown on a line that is no TOML.
const SAFE_KEYS: [&str; 45] = [
    "access",
    "admin",
    "allowed_hosts",
    "allowed_origins",
    "audience",
    "base_url",
    "client_auth",
    "client_id",
    "client_id_field",
    "client_secret",
    "clients",
    "credential",
    "credentials",
    "drain_timeout",
    "env",
    "file",
    "format",
    "host",
    "http",
    "lame_duck",
    "level",
    "listen",
    "log",
    "methods",
    "mount",
    "name",
    "path",
    "pool",
    "preset",
    "refresh_at",
    "reload",
    "request",
    "response",
    "retry",
    "routes",
    "scopes",
    "server",
    "set_headers",
    "shutdown",
    "timeouts",
    "tls",
    "token_url",
    "upstreams",
    "url",
    "version",
];

/// The text of a file, by lines.
pub(crate) struct MaskedSource<'t> {
    text: &'t str,
}

/// Which parts of a line may be shown.
pub(crate) enum Visibility {
    /// The file is not TOML, so only keys that the configuration knows are shown.
    KnownKeys,
    /// Where values are, and which of them may be shown.
    Values {
        /// Spans of all values, in order.
        all: Vec<Range<usize>>,
        /// Spans of those that may be shown.
        open: Vec<Range<usize>>,
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
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let start = self.text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let end = self.text[offset..].find('\n').map_or(self.text.len(), |at| offset + at);
        start..end
    }

    /// The masked line that a span begins on.
    pub(crate) fn excerpt(&self, span: Range<usize>, known: &Visibility) -> Excerpt {
        let line = self.line(span.start);
        let pieces = match known {
            Visibility::KnownKeys => self.unknown_line(line.clone()),
            Visibility::Values { all, open } => self.known_line(line.clone(), all, open),
        };
        draw(self.text, &line, &pieces, span)
    }

    /// The key of a line that is no TOML, where it is one of ours; all else is masked. A line that
    /// may be inside a string of several lines is masked whole.
    fn unknown_line(&self, line: Range<usize>) -> Vec<Piece> {
        let before = &self.text[..line.start];
        let text = &self.text[line.clone()];
        let in_string = ["\"\"\"", "'''"].iter().any(|quote| before.contains(quote));
        let shown = if in_string { 0 } else { safe_prefix(text) };
        let cut = line.start + shown;
        let mut pieces = vec![Piece { bytes: line.start..cut, masked: false }];
        let rest = &self.text[cut..line.end];
        if !rest.trim().is_empty() {
            let lead = rest.len() - rest.trim_start().len();
            pieces.push(Piece { bytes: cut..cut + lead, masked: false });
            pieces.push(Piece { bytes: cut + lead..line.end, masked: true });
        }
        pieces
    }

    fn known_line(
        &self,
        line: Range<usize>,
        all: &[Range<usize>],
        open: &[Range<usize>],
    ) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut done = line.start;
        for value in all.iter().filter(|value| value.start < line.end && value.end > line.start) {
            let bytes = value.start.max(done)..value.end.min(line.end);
            if bytes.start >= bytes.end {
                continue;
            }
            if self.gap(done..bytes.start, &mut pieces) {
                return pieces;
            }
            done = bytes.end;
            let masked =
                !open.iter().any(|open| open.start <= value.start && open.end >= value.end);
            pieces.push(Piece { bytes, masked });
        }
        self.gap(done..line.end, &mut pieces);
        pieces
    }

    /// What stands between values: keys and punctuation. Tells whether a comment began.
    fn gap(&self, bytes: Range<usize>, pieces: &mut Vec<Piece>) -> bool {
        let mut at = bytes.start;
        let mut quoted: Option<(char, usize)> = None;
        for (index, found) in self.text[bytes.clone()].char_indices() {
            let here = bytes.start + index;
            match (quoted, found) {
                (Some((quote, start)), _) if found == quote => {
                    pieces.push(Piece { bytes: start..here + 1, masked: true });
                    (quoted, at) = (None, here + 1);
                }
                (None, '"' | '\'') => {
                    pieces.push(Piece { bytes: at..here, masked: false });
                    quoted = Some((found, here));
                }
                (None, '#') => {
                    let end = at + self.text[at..here].trim_end().len();
                    pieces.push(Piece { bytes: at..end, masked: false });
                    return true;
                }
                _ => {}
            }
        }
        match quoted {
            Some((_, start)) => pieces.push(Piece { bytes: start..bytes.end, masked: true }),
            None => pieces.push(Piece { bytes: at..bytes.end, masked: false }),
        }
        false
    }
}

/// Some bytes of a line.
struct Piece {
    bytes: Range<usize>,
    masked: bool,
}

fn draw(text: &str, line: &Range<usize>, pieces: &[Piece], span: Range<usize>) -> Excerpt {
    let mut out = String::new();
    let mut mark: Option<Range<usize>> = None;
    let span = span.start.max(line.start)..span.end.min(line.end).max(span.start);
    for piece in pieces {
        let from = out.len();
        out.push_str(if piece.masked { MASK } else { &text[piece.bytes.clone()] });
        let (start, end) = (span.start.max(piece.bytes.start), span.end.min(piece.bytes.end));
        let touches = start < end || (span.is_empty() && start == end);
        if touches {
            let here = match piece.masked {
                true => from..out.len(),
                false => from + start - piece.bytes.start..from + end - piece.bytes.start,
            };
            mark = Some(mark.map_or(here.start, |mark| mark.start)..here.end);
        }
    }
    let mark = mark.unwrap_or(out.len()..out.len());
    Excerpt { line: out, mark }
}

/// How many bytes of a line that is no TOML are a key or a header of ours.
fn safe_prefix(text: &str) -> usize {
    let body = text.trim_start();
    let lead = text.len() - body.len();
    let open = body.len() - body.trim_start_matches('[').len();
    let inner = &body[open..];
    let words = inner
        .find(|c: char| !(c.is_ascii_alphanumeric() || "_-.".contains(c)))
        .unwrap_or(inner.len());
    // A table's second word is a name that its author chose, which a header may show.
    let mut parts = inner[..words].split('.');
    let safe = match open {
        0 => {
            inner[words..].trim_start().starts_with('=')
                && parts.all(|part| SAFE_KEYS.contains(&part))
        }
        _ => parts.next().is_some_and(|part| {
            ["credentials", "upstreams", "server", "admin", "log", "tls", "reload", "shutdown"]
                .contains(&part)
        }),
    };
    match (safe, open) {
        (false, _) => 0,
        (true, 0) => lead + words + inner[words..].find('=').map_or(0, |at| at + 1),
        (true, _) => lead + open + words,
    }
}
