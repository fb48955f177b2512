//! One table of a file.

use std::ops::{Range, RangeBounds};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::context::{Context, described};
use super::diagnostic::Diagnostic;
use super::item::{Item, Place, Privacy};

/// One table. It is asked for each key that it may hold; unknown keys are found by the [`Context`].
pub(crate) struct Section<'c> {
    place: Place<'c>,
    /// The span that problems of the table as a whole point to.
    span: Range<usize>,
    table: &'c DeTable<'c>,
}

impl<'c> Section<'c> {
    /// The file itself.
    pub(crate) fn root(ctx: &'c Context<'c>) -> Self {
        let (at, path, privacy) = (String::new(), String::new(), Privacy::Open);
        Self { place: Place { ctx, at, path, privacy }, span: 0..0, table: ctx.root }
    }

    /// Masks free text in this table and below it.
    pub(crate) fn without_text(mut self) -> Self {
        self.place.privacy = Privacy::NoText;
        self
    }

    /// The keys that lead to the table, as the author wrote them.
    pub(crate) fn at(&self) -> &str {
        &self.place.at
    }

    /// One value, if it is written.
    pub(crate) fn item(&self, key: &str) -> Option<Item<'c>> {
        let (name, value) = self.table.get_key_value(key)?;
        Some(self.wrap(name.span(), key, value))
    }

    fn wrap(&self, key_span: Range<usize>, key: &str, value: &'c Spanned<DeValue<'c>>) -> Item<'c> {
        Item { place: self.place.below(key), key: key.to_owned(), key_span, value }
    }

    /// One value that must be there.
    pub(crate) fn required(&self, key: &str, hint: &str) -> Option<Item<'c>> {
        let item = self.item(key);
        if item.is_none() {
            self.missing(key, hint);
        }
        item
    }

    /// Reports that a key is missing, unless it is there and misspelt, which is reported already.
    pub(crate) fn missing(&self, key: &str, hint: &str) {
        if !self.is_misspelt(key) {
            let diagnostic = Diagnostic::error(format!("`{key}` is missing"));
            let label = format!("{} needs it", described(&self.place.path));
            self.fail(diagnostic.label(label).hint(hint));
        }
    }

    /// Returns whether the table holds an unknown key that was most likely meant to be this one.
    pub(crate) fn is_misspelt(&self, key: &str) -> bool {
        let (vocabulary, path) = (self.place.ctx.vocabulary, &self.place.path);
        let known = vocabulary.keys(path).unwrap_or_default();
        let mut unknown =
            self.table.keys().map(|key| key.get_ref().as_ref()).filter(|key| !known.contains(key));
        unknown.any(|wrong| {
            vocabulary.correction(path, wrong).is_some_and(|correction| correction.leads_to(key))
        })
    }

    /// Reports a problem of the section as a whole.
    pub(crate) fn fail(&self, diagnostic: Diagnostic) {
        self.place.ctx.report(&self.place.at, self.span.clone(), diagnostic);
    }

    /// A variable of the environment, for the few settings that may come from there.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        (self.place.ctx.env)(name)
    }

    /// A table below; empty if it is not written.
    pub(crate) fn section(&self, key: &str) -> Section<'c> {
        let item = self.item(key);
        if let Some(section) = item.as_ref().and_then(Item::section) {
            return section;
        }
        let span = item.map_or_else(|| self.span.clone(), |item| item.span());
        Section { place: self.place.below(key), span, table: &self.place.ctx.empty }
    }

    /// All entries of a table whose keys are names, in the order of the file.
    pub(crate) fn entries(&self) -> Vec<(String, Item<'c>)> {
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| key.span().start);
        let entry = |(key, value): (&'c Spanned<_>, &'c Spanned<DeValue<'c>>)| {
            let name: &std::borrow::Cow<'c, str> = key.get_ref();
            (name.to_string(), self.wrap(key.span(), name, value))
        };
        entries.into_iter().map(entry).collect()
    }

    /// The items of a list; empty if it is not written.
    pub(crate) fn list(&self, key: &str) -> Vec<Item<'c>> {
        self.item(key).and_then(|item| item.list()).unwrap_or_default()
    }

    /// The items of a list, or one that stands alone; empty if the key is not written.
    pub(crate) fn one_or_many(&self, key: &str) -> Vec<Item<'c>> {
        self.item(key).map(|item| item.one_or_many()).unwrap_or_default()
    }

    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.item(key)?.text()
    }

    /// See [`Item::parse`].
    pub(crate) fn parse<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Option<T> {
        self.item(key)?.parse(parse)
    }

    pub(crate) fn bool(&self, key: &str, default: bool) -> bool {
        self.item(key).and_then(|item| item.bool()).unwrap_or(default)
    }

    pub(crate) fn duration(
        &self,
        key: &str,
        range: impl RangeBounds<Duration>,
        default: Duration,
    ) -> Duration {
        self.item(key).and_then(|item| item.duration(range)).unwrap_or(default)
    }

    pub(crate) fn size<T: TryFrom<u64>>(
        &self,
        key: &str,
        range: impl RangeBounds<u64>,
        default: T,
    ) -> T {
        let read = |item: Item<'c>| item.size(range)?.try_into().ok();
        self.item(key).and_then(read).unwrap_or(default)
    }

    pub(crate) fn count<T: TryFrom<u64>>(
        &self,
        key: &str,
        range: impl RangeBounds<u64>,
        default: T,
    ) -> T {
        self.item(key).and_then(|item| item.integer(range)).unwrap_or(default)
    }

    pub(crate) fn choice<T: Clone>(&self, key: &str, choices: &[(&str, T)], default: T) -> T {
        self.item(key).and_then(|item| item.choice(choices)).unwrap_or(default)
    }
}

impl<'c> Item<'c> {
    /// The value as a table.
    pub(crate) fn section(&self) -> Option<Section<'c>> {
        let Some(table) = self.value.get_ref().as_table() else {
            self.expected_type("a table");
            return None;
        };
        Some(Section { place: self.place.clone(), span: self.span(), table })
    }

    /// The table of a reference to a secret: none of its values is ever shown.
    pub(crate) fn secret_section(&self) -> Option<Section<'c>> {
        let mut section = self.section()?;
        section.place.privacy = Privacy::Secret;
        Some(section)
    }
}
