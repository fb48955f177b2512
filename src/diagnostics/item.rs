//! One value of a file and its place. Each way to read a value reports its own mistakes and then
//! returns `None`; the caller goes on with a default.

use std::fmt::Display;
use std::ops::{Bound, Range, RangeBounds};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::context::{Context, below, joined};
use super::diagnostic::Diagnostic;
use super::expand::{ExpandError, expand};
use super::units;
use super::vocabulary::nearest;
use crate::sensitive::looks_random;

/// Shorter random text is more likely an id.
const SHORTEST_SECRET: usize = 12;

/// The values that may be drawn with their lines. Text that looks random is masked everywhere, since a
/// secret may have been pasted into any key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Privacy {
    /// All values.
    Open,
    /// Values of a fixed form, such as numbers, durations and listed words; no free text.
    NoText,
    /// None: this is where secrets are.
    Secret,
}

/// The place of a table or a value.
#[derive(Clone)]
pub(super) struct Place<'c> {
    pub(super) ctx: &'c Context<'c>,
    /// The keys that lead there, as the author wrote them: `upstreams.qbank.routes[0]`.
    pub(super) at: String,
    /// The same path in the vocabulary: `upstreams.NAME.routes`.
    pub(super) path: String,
    pub(super) privacy: Privacy,
}

impl<'c> Place<'c> {
    pub(super) fn below(&self, key: &str) -> Self {
        let known = self.ctx.vocabulary.keys(&self.path).unwrap_or_default();
        let (at, path) = (joined(&self.at, key), below(&self.path, key, &known));
        Self { at, path, ..*self }
    }
}

/// One value and its place.
#[derive(Clone)]
pub(crate) struct Item<'c> {
    pub(super) place: Place<'c>,
    pub(super) key: String,
    pub(super) key_span: Range<usize>,
    pub(super) value: &'c Spanned<DeValue<'c>>,
}

impl<'c> Item<'c> {
    /// The key of the value, or of the list that it is in.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The span that problems point to: the value, or the key of a table.
    pub(super) fn span(&self) -> Range<usize> {
        match self.value.get_ref() {
            DeValue::Table(_) if !self.key_span.is_empty() => self.key_span.clone(),
            _ => self.value.span(),
        }
    }

    pub(crate) fn fail(&self, diagnostic: Diagnostic) {
        self.place.ctx.report(&self.place.at, self.span(), diagnostic);
    }

    pub(crate) fn fail_at_key(&self, diagnostic: Diagnostic) {
        self.place.ctx.report(&self.place.at, self.key_span.clone(), diagnostic);
    }

    /// Reports a problem of the key itself, which is masked and not named: it may be a secret that
    /// was written in the wrong place.
    pub(crate) fn fail_at_hidden_key(&self, diagnostic: Diagnostic) {
        self.place.ctx.mask(self.key_span.clone());
        let above = self.place.at.strip_suffix(&self.key).unwrap_or("").trim_end_matches('.');
        self.place.ctx.report(above, self.key_span.clone(), diagnostic);
    }

    /// Rejects a value of the right type.
    #[inline(never)]
    pub(crate) fn reject(&self, why: impl Into<String>) {
        self.fail(Diagnostic::error(format!("`{}` cannot be used", self.key)).label(why));
    }

    /// Warns of a value that is accepted and hardly what its author meant.
    #[inline(never)]
    pub(crate) fn warn(&self, message: &str, label: impl Into<String>, hint: &str) {
        self.fail(Diagnostic::warning(message).label(label).hint(hint));
    }

    /// Rejects a value of the wrong type. A number or a boolean is shown where values of a fixed form
    /// may be, text only where all values may be.
    #[inline(never)]
    fn wrong_type(&self, label: impl Into<String>) {
        self.mask_keys();
        // To show a list or a table would be to show all strings in it.
        let nested = self.is_list() || self.is_table();
        if !nested && (!self.is_text() || self.place.privacy == Privacy::Open) {
            self.show();
        }
        self.fail(Diagnostic::error(format!("`{}` has the wrong type", self.key)).label(label));
    }

    pub(super) fn expected_type(&self, expected: &str) {
        let found = self.value.get_ref().type_str();
        let article = if found.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
        self.wrong_type(format!("expected {expected}, found {article} {found}"));
    }

    /// Masks the keys of a table that was not expected.
    pub(crate) fn mask_keys(&self) {
        self.place.ctx.mask_keys(self.value);
    }

    /// Lets the line be drawn with the value, unless it looks like a secret.
    pub(crate) fn show(&self) {
        if self.may_be_shown() {
            self.place.ctx.show(self.value.span());
        }
    }

    fn may_be_shown(&self) -> bool {
        let text = self.value.get_ref().as_str();
        self.place.privacy != Privacy::Secret && !text.is_some_and(holds_secret)
    }

    /// Returns whether messages may repeat the value.
    fn may_be_repeated(&self) -> bool {
        let filled = self.value.get_ref().as_str().is_some_and(|text| text.contains("${"));
        self.may_be_shown() && !filled
    }

    pub(crate) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    pub(crate) fn is_text(&self) -> bool {
        self.value.get_ref().is_str()
    }

    pub(crate) fn is_list(&self) -> bool {
        self.value.get_ref().is_array()
    }

    /// Returns whether the value is this word, for keys that take it beside values of another kind. A
    /// value that is not a string is not reported here.
    pub(crate) fn is_word(&self, word: &str) -> bool {
        let found = self.is_text() && self.hidden_text().is_some_and(|text| text == word);
        if found {
            self.show();
        }
        found
    }

    /// The string as it is written, shown nowhere.
    pub(crate) fn raw(&self) -> Option<&'c str> {
        let text = self.value.get_ref().as_str();
        if text.is_none() {
            self.expected_type("a string");
        }
        text
    }

    /// A string with its variables filled in.
    pub(crate) fn text(&self) -> Option<String> {
        let text = self.hidden_text()?;
        if self.place.privacy == Privacy::Open {
            self.show();
        }
        Some(text)
    }

    /// The same for text that may hold a password, such as a URL: shown nowhere.
    pub(crate) fn hidden_text(&self) -> Option<String> {
        let error = match expand(self.raw()?, self.place.ctx.env) {
            Ok(text) => return Some(text),
            Err(error) => error,
        };
        self.fail(match error {
            ExpandError::Unset(name) if self.place.privacy == Privacy::Open => {
                Diagnostic::error(format!("the variable `{name}` is not set"))
                    .label("needs it")
                    .hint(format!("set it, or give a default: ${{{name}:-default}}"))
            }
            ExpandError::Unset(_) => Diagnostic::error("a variable of this value is not set")
                .label("needs it")
                .hint("set it, or give a default: ${NAME:-default}"),
            ExpandError::Malformed => {
                Diagnostic::error("a variable is not written as ${NAME} or ${NAME:-default}")
                    .label("in here")
                    .hint("write $${ for the characters ${")
            }
        });
        None
    }

    /// A string that is read as a value of its own type. `parse` says in fixed words what is wrong, so
    /// that the text, which may be a secret, is not repeated.
    pub(crate) fn parse<T>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Option<T> {
        parse(&self.text()?).map_err(|why| self.reject(why)).ok()
    }

    /// The same for an error that may repeat the text; `fixed` is said where that may be a secret.
    pub(crate) fn parse_or<T, E: Display>(
        &self,
        fixed: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let repeat = self.may_be_repeated();
        let why = |error: E| if repeat { error.to_string() } else { fixed.to_owned() };
        parse(&self.text()?).map_err(|error| self.reject(why(error))).ok()
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        let value = self.value.get_ref().as_bool();
        match value {
            Some(_) => self.show(),
            None => self.expected_type("true or false"),
        }
        value
    }

    /// A whole number within a range.
    pub(crate) fn integer<T: TryFrom<u64>>(&self, range: impl RangeBounds<u64>) -> Option<T> {
        let Some(number) = self.value.get_ref().as_integer() else {
            self.expected_type("a whole number");
            return None;
        };
        self.show();
        let digits = number.as_str().replace('_', "");
        let read = u64::from_str_radix(digits.trim_start_matches('+'), number.radix()).ok();
        // A number that does not fit into `u64` is out of range for every key.
        self.within(read.unwrap_or(u64::MAX), range, |number| number.to_string())?.try_into().ok()
    }

    pub(crate) fn duration(&self, range: impl RangeBounds<Duration>) -> Option<Duration> {
        let time = self.measured("a duration with a unit", ("30", "s"), units::duration)?;
        self.within(time, range, |time| format!("\"{}\"", units::written_duration(*time)))
    }

    /// A duration, or the word `off`.
    pub(crate) fn duration_or_off(
        &self,
        range: impl RangeBounds<Duration>,
    ) -> Option<Option<Duration>> {
        if self.is_word("off") {
            return Some(None);
        }
        let time =
            self.measured("\"off\", or a duration with a unit", ("30", "s"), units::duration)?;
        self.within(time, range, |time| format!("\"{}\"", units::written_duration(*time))).map(Some)
    }

    pub(crate) fn size(&self, range: impl RangeBounds<u64>) -> Option<u64> {
        let size = self.measured("a size with a unit", ("16", "B"), units::size)?;
        self.within(size, range, |size| format!("\"{}\"", units::written_size(*size)))
    }

    pub(crate) fn share(&self, range: impl RangeBounds<f64>) -> Option<f64> {
        let share = self.measured("a share in percent", ("80", "%"), units::share)?;
        self.within(share, range, |share| format!("\"{}%\"", share * 100.0))
    }

    /// A string that holds a number and its unit. A bare number is what people write first, so its
    /// rejection shows the number with a unit.
    fn measured<T>(
        &self,
        what: &str,
        (example, unit): (&str, &str),
        parse: fn(&str) -> Result<T, &'static str>,
    ) -> Option<T> {
        if !self.is_text() {
            let number =
                self.value.get_ref().as_integer().map_or(example, |number| number.as_str());
            self.wrong_type(format!("write {what}, such as \"{number}{unit}\""));
            return None;
        }
        let text = self.hidden_text()?;
        self.show();
        parse(&text).map_err(|why| self.reject(why)).ok()
    }

    fn within<T: PartialOrd>(
        &self,
        value: T,
        range: impl RangeBounds<T>,
        written: impl Fn(&T) -> String,
    ) -> Option<T> {
        if range.contains(&value) {
            return Some(value);
        }
        self.reject(match (range.start_bound(), range.end_bound()) {
            (Bound::Included(least), Bound::Included(most)) => {
                format!("expected {} to {}", written(least), written(most))
            }
            (_, Bound::Included(most)) => format!("expected at most {}", written(most)),
            (Bound::Included(least), _) => format!("expected at least {}", written(least)),
            _ => "zero lets nothing succeed, and there is no \"unlimited\"".to_owned(),
        });
        None
    }

    /// A text, a whole number, a boolean or a list of them.
    pub(crate) fn json(&self) -> Option<serde_json::Value> {
        match self.value.get_ref() {
            DeValue::String(_) => self.text().map(Into::into),
            DeValue::Boolean(_) => self.bool().map(Into::into),
            DeValue::Integer(_) => self.integer::<u64>(..=u64::MAX).map(Into::into),
            DeValue::Array(_) => self.list()?.iter().map(Self::json).collect(),
            _ => {
                self.expected_type("a text, a whole number, a boolean or a list of them");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.parse(|path| match path {
            "" => Err("the path of a file is empty"),
            path => Ok(PathBuf::from(path)),
        })
    }

    /// One word of a few.
    pub(crate) fn choice<T: Clone>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.hidden_text()?;
        self.show();
        let chosen = choices.iter().find(|(word, _)| *word == text);
        if chosen.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            self.no_choice(&text, &words);
        }
        chosen.map(|(_, value)| value.clone())
    }

    /// The advice for a word that people write in place of the right one.
    pub(crate) fn advice(&self, word: &str) -> Option<&'c str> {
        self.place.ctx.vocabulary.advice(&self.place.path, word)
    }

    /// Rejects a text that is none of a few words.
    pub(crate) fn no_choice(&self, text: &str, words: &[&str]) {
        let list: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let advice = self.advice(text).map(str::to_owned);
        let near = nearest(text, words).filter(|_| self.may_be_repeated());
        let near = near.map(|near| format!("did you mean \"{near}\"?"));
        let label = advice.or(near).unwrap_or_else(|| "not one of the words known here".to_owned());
        let diagnostic = Diagnostic::error(format!("`{}` has no such value", self.key));
        let diagnostic = diagnostic.expected(list.join(", ")).label(label);
        self.fail(match self.may_be_repeated() {
            true => diagnostic.found(text),
            false => diagnostic,
        });
    }

    /// The items of a list.
    pub(crate) fn list(&self) -> Option<Vec<Item<'c>>> {
        let Some(array) = self.value.get_ref().as_array() else {
            // The usual slip is one pair of brackets where TOML wants two.
            match self.is_table() {
                true => self.wrong_type(format!(
                    "expected a list of tables: write [[…{}]] with two brackets",
                    self.key
                )),
                false => self.expected_type("a list"),
            }
            return None;
        };
        let item = |(index, value): (usize, &'c Spanned<DeValue<'c>>)| {
            let place = Place { at: format!("{}[{index}]", self.place.at), ..self.place.clone() };
            Item { place, key: self.key.clone(), key_span: 0..0, value }
        };
        Some(array.iter().enumerate().map(item).collect())
    }

    /// The items of a list, or one that stands alone.
    pub(crate) fn one_or_many(&self) -> Vec<Item<'c>> {
        if self.is_list() { self.list().unwrap_or_default() } else { vec![self.clone()] }
    }
}

/// Returns whether a part of a value looks like a secret. Words and ids in paths and URLs may look so
/// too; they are left to the code that reads paths and URLs.
fn holds_secret(text: &str) -> bool {
    let in_part = |c: char| c.is_ascii_alphanumeric() || "_-+=".contains(c);
    let part_is = |part: &str| part.len() >= SHORTEST_SECRET && looks_random(part);
    !text.starts_with('/') && !text.contains("://") && text.split(|c| !in_part(c)).any(part_is)
}
