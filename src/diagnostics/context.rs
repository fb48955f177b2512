//! One file while it is read: its problems so far, and which of its values may be shown.

use std::cell::RefCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::mask::{MaskedSource, Visibility};
use super::units;
use super::vocabulary::{NAME, Vocabulary};

/// One file while it is read. After a problem reading goes on with a default, and one mistake hides no
/// other.
pub(crate) struct Context<'c> {
    source: MaskedSource<'c>,
    pub(super) env: &'c dyn Fn(&str) -> Option<String>,
    pub(super) vocabulary: &'c Vocabulary,
    pub(super) root: &'c DeTable<'c>,
    pub(super) empty: DeTable<'c>,
    problems: RefCell<Vec<(Diagnostic, String, Range<usize>)>>,
    masked: RefCell<Vec<Range<usize>>>,
    shown: RefCell<Vec<Range<usize>>>,
}

impl<'c> Context<'c> {
    pub(crate) fn new(
        source: MaskedSource<'c>,
        env: &'c dyn Fn(&str) -> Option<String>,
        vocabulary: &'c Vocabulary,
        root: &'c DeTable<'c>,
    ) -> Self {
        let mut spans = Spans::default();
        spans.add_table(root, false);
        let (masked, shown) = (RefCell::new(spans.masked), RefCell::new(spans.shown));
        let (problems, empty) = (RefCell::default(), DeTable::new());
        Self { source, env, vocabulary, root, empty, problems, masked, shown }
    }

    pub(super) fn report(&self, at: &str, span: Range<usize>, diagnostic: Diagnostic) {
        self.problems.borrow_mut().push((diagnostic, at.to_owned(), span));
    }

    /// Lets lines be drawn with the value of this span.
    pub(super) fn show(&self, span: Range<usize>) {
        self.shown.borrow_mut().push(span);
    }

    /// Masks a span that is not a value, such as a key that may be a secret.
    pub(super) fn mask(&self, span: Range<usize>) {
        self.masked.borrow_mut().push(span);
    }

    /// Masks the keys below a value that was not expected, except the words of the file format.
    pub(super) fn mask_keys(&self, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => table.iter().for_each(|(key, value)| {
                if !self.vocabulary.words.contains(key.get_ref().as_ref()) {
                    self.mask(key.span());
                }
                self.mask_keys(value);
            }),
            DeValue::Array(array) => array.iter().for_each(|value| self.mask_keys(value)),
            _ => {}
        }
    }

    /// All diagnostics. Their lines are masked only now that it is known which values may be shown.
    pub(crate) fn finish(self) -> Vec<Diagnostic> {
        self.find_unknown_keys("", "", self.root);
        let visibility = visibility(self.masked, self.shown);
        let place = |(diagnostic, at, span): (Diagnostic, String, Range<usize>)| {
            diagnostic.place(at, span, &self.source, &visibility)
        };
        self.problems.into_inner().into_iter().map(place).collect()
    }

    /// The whole file, masked; the problems are given up.
    pub(crate) fn finish_masked(self) -> String {
        self.find_unknown_keys("", "", self.root);
        self.source.whole(&visibility(self.masked, self.shown))
    }

    /// Reports each key of a table, and of those below it, that the vocabulary does not have.
    fn find_unknown_keys(&self, above: &str, path: &str, table: &DeTable<'_>) {
        let Some(known) = self.vocabulary.keys(path) else { return };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let at = joined(above, name);
            if known.contains(&name) || known == [NAME] {
                self.find_unknown_keys_below(&at, &below(path, name, &known), value);
                continue;
            }
            let (at, message) = match is_plain(name) {
                true => (at.as_str(), format!("unknown key `{name}`")),
                false => (above, "unknown key".to_owned()),
            };
            let correction = self.vocabulary.correction(path, name).map(|found| found.text);
            let what = described(path);
            let diagnostic = Diagnostic::error(message)
                .label(correction.unwrap_or_else(|| format!("{what} has no such key")))
                .hint(format!("keys of {what}: {}", known.join(", ")));
            self.mask_keys(value);
            self.report(at, key.span(), diagnostic);
        }
    }

    fn find_unknown_keys_below(&self, at: &str, path: &str, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.find_unknown_keys(at, path, table),
            DeValue::Array(array) => array.iter().enumerate().for_each(|(index, value)| {
                self.find_unknown_keys_below(&format!("{at}[{index}]"), path, value);
            }),
            _ => {}
        }
    }
}

/// The spans of values that are masked, in their order, and of those that may be shown.
fn visibility(
    masked: RefCell<Vec<Range<usize>>>,
    shown: RefCell<Vec<Range<usize>>>,
) -> Visibility<'static> {
    let mut masked = masked.into_inner();
    masked.sort_unstable_by_key(|span| span.start);
    Visibility::Values { masked, shown: shown.into_inner() }
}

/// Spans of everything that is neither a table nor a list, and of those that may be shown whatever reads
/// them.
#[derive(Default)]
struct Spans {
    masked: Vec<Range<usize>>,
    shown: Vec<Range<usize>>,
}

impl Spans {
    /// Adds what is below a table. `secret` is true below a key of credentials, headers and the like, which
    /// may be misspelt.
    fn add_table(&mut self, table: &DeTable<'_>, secret: bool) {
        const SECRETS: [&str; 7] = ["cred", "secret", "pass", "pin", "key", "token", "header"];
        for (key, value) in table {
            let key = key.get_ref().to_ascii_lowercase();
            self.add(value, secret || SECRETS.iter().any(|word| key.contains(word)));
        }
    }

    fn add(&mut self, value: &Spanned<DeValue<'_>>, secret: bool) {
        match value.get_ref() {
            DeValue::Table(table) => self.add_table(table, secret),
            DeValue::Array(array) => array.iter().for_each(|value| self.add(value, secret)),
            leaf => {
                self.masked.push(value.span());
                if is_harmless(leaf, secret) {
                    self.shown.push(value.span());
                }
            }
        }
    }
}

/// Returns whether a value can be no secret, whatever reads it: a boolean, a duration, a size, or a short
/// number where secrets are not expected.
fn is_harmless(value: &DeValue<'_>, secret: bool) -> bool {
    let is_short = |text: &str| text.len() <= 6;
    match value {
        DeValue::Boolean(_) => true,
        DeValue::Integer(number) => !secret && is_short(number.as_str()),
        DeValue::String(text) => {
            is_short(text) && (units::duration(text).is_ok() || units::size(text).is_ok())
        }
        _ => false,
    }
}

/// A dotted path with one key more.
pub(super) fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { [path, ".", key].concat() }
}

/// The path of a key in the vocabulary, where [`NAME`] stands for what the author chose.
pub(super) fn below(table: &str, key: &str, known: &[&str]) -> String {
    joined(table, if known == [NAME] { NAME } else { key })
}

/// A table in words.
pub(super) fn described(path: &str) -> String {
    if path.is_empty() { "the file".to_owned() } else { format!("[{path}]") }
}

/// Returns whether a key looks like one, and not like a secret in the wrong place.
fn is_plain(key: &str) -> bool {
    key.len() <= 40 && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}
