//! Reads a parsed file section by section, and finds every problem at once.
//!
//! A [`Section`] is asked for each key that it may hold; what was never asked for is unknown. An
//! [`Item`] is one value with its place. Problems are noted in the [`Context`] and reading goes on
//! with a default, so that one mistake hides no other.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::expand::{ExpandError, expand};
use super::mask::{MaskedSource, Visibility};
use super::problem::{Diagnostic, Problem};
use super::units;
use crate::sensitive::looks_random;

/// Shorter random text is more likely an id.
const SHORTEST_SECRET: usize = 12;

/// What all sections of one file share.
pub(crate) struct Context<'c> {
    source: MaskedSource<'c>,
    env: &'c dyn Fn(&str) -> Option<String>,
    empty: DeTable<'c>,
    diagnostics: RefCell<Vec<(Diagnostic, String, Range<usize>)>>,
    values: RefCell<Vec<Range<usize>>>,
    open: RefCell<Vec<Range<usize>>>,
}

impl<'c> Context<'c> {
    pub(crate) fn new(
        source: MaskedSource<'c>,
        env: &'c dyn Fn(&str) -> Option<String>,
        root: &Spanned<DeTable<'_>>,
    ) -> Self {
        let mut values = Vec::new();
        root.get_ref().values().for_each(|value| leaves(value, &mut values));
        let (diagnostics, open) = (RefCell::default(), RefCell::default());
        let (empty, values) = (DeTable::new(), RefCell::new(values));
        Self { source, env, empty, diagnostics, values, open }
    }

    pub(crate) fn report(&self, at: &str, span: Range<usize>, diagnostic: Diagnostic) {
        self.diagnostics.borrow_mut().push((diagnostic, at.to_owned(), span));
    }

    /// All problems, with their lines masked now that it is known which values may be shown.
    pub(crate) fn finish(self) -> Vec<Problem> {
        let (mut all, open) = (self.values.into_inner(), self.open.into_inner());
        all.sort_by_key(|span| span.start);
        let known = Visibility::Values { all, open };
        let place = |(diagnostic, at, span): (Diagnostic, String, Range<usize>)| {
            diagnostic.place(&at, span, &self.source, &known)
        };
        self.diagnostics.into_inner().into_iter().map(place).collect()
    }
}

/// Spans of everything that is neither a table nor a list.
fn leaves(value: &Spanned<DeValue<'_>>, out: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => table.values().for_each(|value| leaves(value, out)),
        DeValue::Array(array) => array.iter().for_each(|value| leaves(value, out)),
        _ => out.push(value.span()),
    }
}

/// Keys of references.
pub(crate) const REFERENCES: [&str; 8] = [
    "aws_secrets_manager",
    "azure_key_vault",
    "env",
    "exec",
    "file",
    "keyring",
    "systemd",
    "value",
];
/// Keys of references to stores.
const STORES: [&str; 11] = [
    "account",
    "cache",
    "endpoint",
    "id",
    "identity",
    "key",
    "name",
    "region",
    "service",
    "vault",
    "version_stage",
];

/// Spans of all keys below a value, but those of references, which say nothing.
fn keys(value: &Spanned<DeValue<'_>>, out: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => table.iter().for_each(|(key, value)| {
            let name = key.get_ref().as_ref();
            if !REFERENCES.contains(&name) && !STORES.contains(&name) {
                out.push(key.span());
            }
            keys(value, out);
        }),
        DeValue::Array(array) => array.iter().for_each(|value| keys(value, out)),
        _ => {}
    }
}

/// One table.
pub(crate) struct Section<'c> {
    ctx: &'c Context<'c>,
    /// Its place, such as `upstreams.qbank`.
    pub(crate) at: String,
    /// Where problems of the table as a whole point.
    pub(crate) span: Range<usize>,
    table: &'c DeTable<'c>,
    /// What it is, in words: "a route".
    what: &'static str,
    /// Whether its values are never shown, since a secret may have been put among them.
    private: bool,
    /// Keys that others call differently, and what to write here.
    advice: &'static [(&'static str, &'static str)],
    asked: RefCell<Vec<&'static str>>,
}

impl<'c> Section<'c> {
    pub(crate) fn root(ctx: &'c Context<'c>, table: &'c DeTable<'c>) -> Self {
        let (at, span, asked) = (String::new(), 0..0, RefCell::default());
        Self { ctx, at, span, table, what: "the file", private: false, advice: &[], asked }
    }

    pub(crate) fn advise(self, advice: &'static [(&'static str, &'static str)]) -> Self {
        Self { advice, ..self }
    }

    pub(crate) fn private(self) -> Self {
        Self { private: true, ..self }
    }

    fn below(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { [&self.at, ".", key].concat() }
    }

    /// One value, where it is written.
    pub(crate) fn item(&self, key: &'static str) -> Option<Item<'c>> {
        self.asked.borrow_mut().push(key);
        let (name, value) = self.table.get_key_value(key)?;
        Some(self.wrap(name.span(), key, value))
    }

    fn wrap(&self, key_span: Range<usize>, key: &str, value: &'c Spanned<DeValue<'c>>) -> Item<'c> {
        let (at, key) = (self.below(key), key.to_owned());
        Item { ctx: self.ctx, at, key, key_span, value, private: self.private }
    }

    /// One value that must be there.
    pub(crate) fn required(&self, key: &'static str, hint: &str) -> Option<Item<'c>> {
        let item = self.item(key);
        if item.is_none() {
            self.missing(key, hint);
        }
        item
    }

    pub(crate) fn missing(&self, key: &str, hint: &str) {
        let diagnostic = Diagnostic::new(format!("`{key}` is missing"));
        self.fail(diagnostic.label(format!("{} needs it", self.what)).hint(hint));
    }

    /// A problem of the section as a whole.
    pub(crate) fn fail(&self, diagnostic: Diagnostic) {
        self.ctx.report(&self.at, self.span.clone(), diagnostic);
    }

    /// A variable of the environment, for the few settings that may come from there.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        (self.ctx.env)(name)
    }

    /// A table below; empty where it is not written.
    pub(crate) fn section(&self, key: &'static str, what: &'static str) -> Section<'c> {
        let item = self.item(key);
        if let Some(section) = item.as_ref().and_then(|item| item.section(what)) {
            return section;
        }
        let span = item.map_or_else(|| self.span.clone(), |item| item.span());
        let (ctx, at, private) = (self.ctx, self.below(key), self.private);
        let (table, asked) = (&self.ctx.empty, RefCell::default());
        Section { ctx, at, span, table, what, private, advice: &[], asked }
    }

    /// All entries of a table whose keys are names, in the order of the file.
    pub(crate) fn entries(&self) -> Vec<(String, Item<'c>)> {
        self.entries_except(&[])
    }

    fn entries_except(&self, known: &[&str]) -> Vec<(String, Item<'c>)> {
        let others = self.table.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref()));
        let mut entries: Vec<_> = others.collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entry = |(key, value): (&'c Spanned<_>, &'c Spanned<DeValue<'c>>)| {
            let name: &std::borrow::Cow<'c, str> = key.get_ref();
            (name.to_string(), self.wrap(key.span(), name, value))
        };
        entries.into_iter().map(entry).collect()
    }

    /// Names all keys that nobody asked for.
    pub(crate) fn finish(&self) {
        let asked = self.asked.borrow();
        for (key, item) in self.entries_except(&asked) {
            item.hide_inner_keys();
            let at = if is_plain(&key) { &item.at } else { &self.at };
            item.ctx.report(at, item.key_span.clone(), self.unknown(&key, &asked));
        }
    }

    fn unknown(&self, key: &str, asked: &[&'static str]) -> Diagnostic {
        let message =
            if is_plain(key) { format!("unknown key `{key}`") } else { "unknown key".to_owned() };
        let keys = format!("keys of {}: {}", self.what, asked.join(", "));
        let diagnostic = Diagnostic::new(message);
        let advice = self.advice.iter().find(|(wrong, _)| *wrong == key);
        match (advice, nearest(key, asked)) {
            (Some((_, advice)), _) => diagnostic.label(*advice).hint(keys),
            (None, Some(near)) => diagnostic.label(format!("did you mean `{near}`?")).hint(keys),
            (None, None) => diagnostic.label(format!("{} has no such key", self.what)).hint(keys),
        }
    }

    pub(crate) fn bool(&self, key: &'static str, default: bool) -> bool {
        self.item(key).and_then(|item| item.bool()).unwrap_or(default)
    }

    pub(crate) fn duration(&self, key: &'static str, default: Duration) -> Duration {
        self.item(key).and_then(|item| item.duration()).unwrap_or(default)
    }

    pub(crate) fn size(&self, key: &'static str, default: u64) -> u64 {
        self.item(key).and_then(|item| item.size()).unwrap_or(default)
    }

    /// A size within bounds.
    pub(crate) fn size_within(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
        default: usize,
    ) -> usize {
        let Some(item) = self.item(key) else { return default };
        let Some(size) = item.size() else { return default };
        if !range.contains(&size) {
            let (least, most) = (units::written(*range.start()), units::written(*range.end()));
            item.reject(format!("expected {least} to {most}"));
        }
        usize::try_from(size).unwrap_or(default)
    }

    pub(crate) fn count(&self, key: &'static str, range: Range<u64>, default: usize) -> usize {
        let read = |item: Item<'c>| usize::try_from(item.integer(range)?).ok();
        self.item(key).and_then(read).unwrap_or(default)
    }

    pub fn choice<T: Clone>(&self, key: &'static str, choices: &[(&str, T)], default: T) -> T {
        self.item(key).and_then(|item| item.choice(choices)).unwrap_or(default)
    }
}

/// Whether a key looks like one, and not like a secret in the wrong place.
fn is_plain(key: &str) -> bool {
    key.len() <= 40 && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// Whether a part of a value looks like a secret. Paths and URLs are made of words and ids that do
/// too; what must not stand in them is looked for where they are read.
fn holds_secret(text: &str) -> bool {
    let in_part = |c: char| c.is_ascii_alphanumeric() || "_-+=".contains(c);
    let part_is = |part: &str| part.len() >= SHORTEST_SECRET && looks_random(part);
    !text.starts_with('/') && !text.contains("://") && text.split(|c| !in_part(c)).any(part_is)
}

/// The key that is most like a misspelt one, where one is like it.
pub(crate) fn nearest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let found = found.to_ascii_lowercase();
    let scored = known.iter().map(|known| (strsim::jaro_winkler(&found, known), *known));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 > 0.8).then_some(best.1)
}

/// One value and its place.
#[derive(Clone)]
pub(crate) struct Item<'c> {
    ctx: &'c Context<'c>,
    pub(crate) at: String,
    key: String,
    pub(crate) key_span: Range<usize>,
    value: &'c Spanned<DeValue<'c>>,
    private: bool,
}

impl<'c> Item<'c> {
    /// Where problems point: the value, or the key of a table.
    pub(crate) fn span(&self) -> Range<usize> {
        match self.value.get_ref() {
            DeValue::Table(_) if !self.key_span.is_empty() => self.key_span.clone(),
            _ => self.value.span(),
        }
    }

    pub(crate) fn fail(&self, diagnostic: Diagnostic) {
        self.ctx.report(&self.at, self.span(), diagnostic);
    }

    /// A value of the right type that cannot be used.
    pub(crate) fn reject(&self, why: impl Into<String>) {
        self.fail(Diagnostic::new(format!("`{}` cannot be used", self.key)).label(why));
    }

    fn wrong_type(&self, expected: &str) {
        self.fail(self.of_wrong_type(expected));
    }

    fn of_wrong_type(&self, expected: &str) -> Diagnostic {
        self.hide_inner_keys();
        let found = self.value.get_ref().type_str();
        let diagnostic = Diagnostic::new(format!("`{}` has the wrong type", self.key));
        diagnostic.label(format!("expected {expected}, found {}", article(found)))
    }

    fn show(&self) {
        if self.may_be_shown() {
            self.ctx.open.borrow_mut().push(self.value.span());
        }
    }

    /// A secret may have been pasted into any key, also one that holds none.
    fn may_be_shown(&self) -> bool {
        !self.private && !self.value.get_ref().as_str().is_some_and(holds_secret)
    }

    pub(crate) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    pub(crate) fn is_list(&self) -> bool {
        self.value.get_ref().is_array()
    }

    pub(crate) fn is_text(&self) -> bool {
        self.value.get_ref().is_str()
    }

    /// Whether it is this word, for keys that take one beside values of another kind. What is no
    /// string is no problem here: whoever reads it as the other kind says what may be written.
    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.is_text() && self.hidden_text().is_some_and(|text| text.as_str() == word)
    }

    /// The string as it is written, shown nowhere.
    pub(crate) fn raw(&self) -> Option<&'c str> {
        let text = self.value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type("a string");
        }
        text
    }

    /// A string with its variables filled in.
    pub(crate) fn text(&self) -> Option<Text<'c>> {
        let text = self.filled()?;
        self.show();
        Some(text)
    }

    /// The same for text that may hold a password, such as a URL: shown nowhere.
    pub(crate) fn hidden_text(&self) -> Option<Text<'c>> {
        self.filled()
    }

    fn filled(&self) -> Option<Text<'c>> {
        let raw = self.raw()?;
        match expand(raw, self.ctx.env) {
            Ok(done) => Some(Text { text: done.text, filled: done.filled, item: self.clone() }),
            Err(ExpandError::Unset(name)) if !self.private => {
                let diagnostic = Diagnostic::new(format!("the variable `{name}` is not set"));
                self.fail(
                    diagnostic
                        .label("needs it")
                        .hint(format!("set it, or give a default: ${{{name}:-default}}")),
                );
                None
            }
            Err(ExpandError::Unset(_)) => {
                let diagnostic =
                    Diagnostic::new("a variable of this value is not set").label("needs it");
                self.fail(diagnostic.hint("set it, or give a default: ${NAME:-default}"));
                None
            }
            Err(ExpandError::Malformed) => {
                let diagnostic =
                    Diagnostic::new("a variable is not written as ${NAME} or ${NAME:-default}");
                self.fail(diagnostic.label("in here").hint("write $${ for the characters ${"));
                None
            }
        }
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        let value = self.value.get_ref().as_bool();
        match value {
            Some(_) => self.show(),
            None => self.wrong_type("true or false"),
        }
        value
    }

    /// A whole number within a range.
    pub(crate) fn integer(&self, range: Range<u64>) -> Option<u64> {
        let Some(number) = self.value.get_ref().as_integer() else {
            self.wrong_type("a whole number");
            return None;
        };
        self.show();
        let digits = number.as_str().replace('_', "");
        let read = u64::from_str_radix(digits.trim_start_matches('+'), number.radix()).ok();
        let value = read.filter(|number| range.contains(number));
        if value.is_none() {
            let last = range.end.saturating_sub(1);
            self.reject(format!("expected a number from {} to {last}", range.start));
        }
        value
    }

    pub(crate) fn duration(&self) -> Option<Duration> {
        self.measured(units::duration, "write a duration with a unit, such as \"30s\"")
    }

    pub(crate) fn size(&self) -> Option<u64> {
        self.measured(units::size, "write a size with a unit, such as \"16KiB\"")
    }

    pub(crate) fn share(&self) -> Option<f64> {
        self.measured(units::share, "write a share in percent, such as \"80%\"")
    }

    /// A string that holds a number and its unit. A bare number is what people write first, so that
    /// `hint` tells those who wrote no string how it is written.
    fn measured<T>(
        &self,
        parse: fn(&str) -> Result<T, units::UnitError>,
        hint: &'static str,
    ) -> Option<T> {
        if !self.is_text() {
            self.fail(self.of_wrong_type("a string").hint(hint));
            return None;
        }
        self.text()?.read(parse, units::UnitError::as_str)
    }

    pub(crate) fn path(&self) -> Option<PathBuf> {
        let text = self.text()?;
        if text.as_str().is_empty() {
            self.reject("the path of a file is empty");
            return None;
        }
        Some(PathBuf::from(text.as_str()))
    }

    /// One word of a few.
    pub(crate) fn choice<T: Clone>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let chosen = choices.iter().find(|(word, _)| *word == text.as_str());
        if chosen.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            text.no_choice(&words, None);
        }
        chosen.map(|(_, value)| value.clone())
    }

    /// The items of a list.
    pub(crate) fn list(&self) -> Option<Vec<Item<'c>>> {
        let Some(array) = self.value.get_ref().as_array() else {
            self.wrong_type("a list");
            return None;
        };
        let item = |(index, value): (usize, &'c Spanned<DeValue<'c>>)| {
            let (at, key) = (format!("{}[{index}]", self.at), self.key.clone());
            let key_span = 0..0;
            Item { ctx: self.ctx, at, key, key_span, value, private: self.private }
        };
        Some(array.iter().enumerate().map(item).collect())
    }

    /// The items of a list, or one that stands alone.
    pub(crate) fn one_or_many(&self) -> Option<Vec<Item<'c>>> {
        if self.is_text() { Some(vec![self.clone()]) } else { self.list() }
    }

    /// The strings of a list; those that cannot be used are left out.
    pub(crate) fn texts(&self) -> Vec<Text<'c>> {
        self.list().unwrap_or_default().iter().filter_map(Item::text).collect()
    }

    pub(crate) fn section(&self, what: &'static str) -> Option<Section<'c>> {
        let Some(table) = self.value.get_ref().as_table() else {
            self.wrong_type("a table");
            return None;
        };
        let (ctx, at, span, private) = (self.ctx, self.at.clone(), self.span(), self.private);
        let asked = RefCell::default();
        Some(Section { ctx, at, span, table, what, private, advice: &[], asked })
    }

    /// A problem of the key itself, which is masked and not named: it may be a secret that was
    /// written in the wrong place.
    pub(crate) fn fail_at_hidden_key(&self, diagnostic: Diagnostic) {
        self.ctx.values.borrow_mut().push(self.key_span.clone());
        let above = self.at.strip_suffix(&self.key).unwrap_or("").trim_end_matches('.');
        self.ctx.report(above, self.key_span.clone(), diagnostic);
    }

    /// Masks the keys of a table that was not expected: nobody knows what they are.
    pub(crate) fn hide_inner_keys(&self) {
        keys(self.value, &mut self.ctx.values.borrow_mut());
    }

    pub(crate) fn fail_at_key(&self, diagnostic: Diagnostic) {
        self.ctx.report(&self.at, self.key_span.clone(), diagnostic);
    }
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

/// A string with its variables filled in.
pub(crate) struct Text<'c> {
    text: String,
    filled: bool,
    pub(crate) item: Item<'c>,
}

impl Text<'_> {
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether messages may repeat it.
    fn may_be_shown(&self) -> bool {
        !self.filled && self.item.may_be_shown()
    }

    /// Lets the line be shown with it: for text that was found to hold no password.
    pub(crate) fn show(&self) {
        self.item.show();
    }

    /// Parses it; `why` tells in fixed words what is wrong, so that the value is not repeated.
    pub(crate) fn read<T, E: Copy>(
        &self,
        parse: impl Fn(&str) -> Result<T, E>,
        why: impl Fn(E) -> &'static str,
    ) -> Option<T> {
        parse(&self.text).map_err(|error| self.item.reject(why(error))).ok()
    }

    /// Rejects it for a reason that may repeat it.
    pub(crate) fn reject(&self, why: &str, fixed: &'static str) {
        self.item.reject(if self.may_be_shown() { why } else { fixed });
    }

    /// It is none of a few words.
    pub(crate) fn no_choice(&self, words: &[&str], advice: Option<&str>) {
        let list: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let list = list.join(", ");
        let mut diagnostic =
            Diagnostic::new(format!("`{}` has no such value", self.item.key)).expected(list);
        let near = nearest(&self.text, words).filter(|_| self.may_be_shown());
        diagnostic = match (advice, near) {
            (Some(advice), _) => diagnostic.label(advice),
            (None, Some(near)) => diagnostic.label(format!("did you mean \"{near}\"?")),
            (None, None) => diagnostic.label("not one of the values known here"),
        };
        if self.may_be_shown() {
            diagnostic = diagnostic.found(self.text.clone());
        }
        self.item.fail(diagnostic);
    }
}
