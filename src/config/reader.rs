//! Reads one table at a time, notes which keys it knows, and gathers every problem instead of
//! ending at the first.

use std::cell::RefCell;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;
use super::units;
use crate::secret::Reference;

/// What all sections of one file share.
pub(super) struct Reader<'e> {
    pub(super) problems: RefCell<Vec<Problem>>,
    env: &'e dyn Fn(&str) -> Option<String>,
}

/// One table of the file.
pub(super) struct Section<'r, 'e, 't> {
    reader: &'r Reader<'e>,
    at: String,
    table: &'t DeTable<'t>,
    pub(super) span: Range<usize>,
    known: RefCell<Vec<&'static str>>,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
    pub(super) at: String,
}

/// Keys that people know from elsewhere, and what they are called here.
const FAMILIAR: [(&str, &str); 9] = [
    ("allow_remote_clients", "write `clients = \"anyone\"` to serve beyond loopback"),
    ("scope", "did you mean `scopes`?"),
    ("secret", "did you mean `client_secret`?"),
    ("client_secret_env", "write `client_secret.env = \"NAME\"`"),
    ("client_secret_file", "write `client_secret.file = \"/path\"`"),
    ("client_id_env", "write `client_id.env = \"NAME\"`"),
    (
        "insecure_skip_verify",
        "verification cannot be switched off; write `tls = { extra_ca_file = \"/path\" }`",
    ),
    ("verify", "verification cannot be switched off; write `tls = { extra_ca_file = \"/path\" }`"),
    ("token_endpoint", "did you mean `token_url`?"),
];

impl<'e> Reader<'e> {
    pub(super) fn new(env: &'e dyn Fn(&str) -> Option<String>) -> Self {
        Self { problems: RefCell::default(), env }
    }

    pub(super) fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// `${VAR}` and `${VAR:-default}`, expanded after parsing: a value can never become structure.
    fn expand(&self, text: &str) -> Result<String, String> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            expanded += &rest[..start];
            let Some(end) = rest[start..].find('}') else {
                return Err("`${` is not closed by `}`".into());
            };
            let inner = &rest[start + 2..start + end];
            let (name, default) = match inner.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inner, None),
            };
            match (self.env)(name).filter(|value| !value.is_empty()).or(default.map(str::to_owned)) {
                Some(value) => expanded += &value,
                None => return Err("an environment variable named here is not set; `${VAR:-default}` gives it a default".into()),
            }
            rest = &rest[start + end + 1..];
        }
        Ok(expanded + rest)
    }
}

impl<'r, 'e, 't> Section<'r, 'e, 't> {
    pub(super) fn new(
        reader: &'r Reader<'e>,
        at: String,
        table: &'t DeTable<'t>,
        span: Range<usize>,
    ) -> Self {
        Self { reader, at, table, span, known: RefCell::default() }
    }

    fn path(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    /// A value; its key counts as known from now on.
    fn get(&self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.known.borrow_mut().push(key);
        self.table.get(key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where a key stands, or the section where it does not.
    pub(super) fn key_span(&self, key: &str) -> Range<usize> {
        let found = self.table.iter().find(|(name, _)| name.get_ref() == key);
        found.map_or_else(|| self.span.clone(), |(name, _)| name.span())
    }

    /// Reports a problem of a value; it is shown only where its kind is never secret.
    pub(super) fn wrong(
        &self,
        at: &str,
        span: Range<usize>,
        title: impl Into<String>,
        label: impl Into<String>,
        visible: bool,
    ) {
        self.reader.report(Problem {
            note: false,
            title: title.into(),
            at: at.to_owned(),
            span,
            label: label.into(),
            help: None,
            visible,
        });
    }

    /// Reports what is worth a note.
    pub(super) fn note(&self, problem: Problem) {
        self.reader.report(problem);
    }

    pub(super) fn missing(&self, key: &str, label: impl Into<String>) {
        let within =
            if self.at.is_empty() { "the file".to_owned() } else { format!("`{}`", self.at) };
        self.wrong(
            &self.path(key),
            self.span.clone(),
            format!("`{key}` is missing in {within}"),
            label,
            false,
        );
    }

    fn mistyped(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        let title = format!("`{key}` is {}, not {expected}", article(value.get_ref().type_str()));
        self.wrong(&self.path(key), value.span(), title, format!("expected {expected}"), false);
    }

    /// A string, its variables expanded.
    pub(super) fn text(&self, key: &'static str) -> Option<At<String>> {
        let value = self.get(key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.mistyped(key, value, "a string");
            return None;
        };
        match self.reader.expand(text) {
            Ok(text) => Some(At { value: text, span: value.span(), at: self.path(key) }),
            Err(message) => {
                self.wrong(
                    &self.path(key),
                    value.span(),
                    format!("`{key}` cannot be expanded"),
                    message,
                    false,
                );
                None
            }
        }
    }

    /// A string that a function reads.
    pub(super) fn parsed<T, E: std::fmt::Display>(
        &self,
        key: &'static str,
        visible: bool,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<At<T>> {
        let text = self.text(key)?;
        match read(&text.value) {
            Ok(value) => Some(At { value, span: text.span, at: text.at }),
            Err(error) => {
                self.wrong(
                    &text.at,
                    text.span,
                    format!("`{key}` cannot be used"),
                    error.to_string(),
                    visible,
                );
                None
            }
        }
    }

    pub(super) fn duration(&self, key: &'static str) -> Option<Duration> {
        let read = self.parsed(key, true, units::duration)?;
        if read.value.is_zero() {
            self.wrong(
                &read.at,
                read.span,
                format!("`{key}` is zero"),
                "expected a duration above zero",
                true,
            );
            return None;
        }
        Some(read.value)
    }

    pub(super) fn size(&self, key: &'static str) -> Option<u64> {
        self.parsed(key, true, units::size).map(|size| size.value)
    }

    pub(super) fn boolean(&self, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.mistyped(key, value, "true or false");
        }
        found
    }

    pub(super) fn count(&self, key: &'static str) -> Option<usize> {
        let value = self.get(key)?;
        let number = value.get_ref().as_integer();
        let found =
            number.and_then(|number| usize::from_str_radix(number.as_str(), number.radix()).ok());
        let found = found.filter(|count| *count > 0);
        if found.is_none() {
            self.mistyped(key, value, "a whole number above zero");
        }
        found
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text.value) {
            return Some(*value);
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let label = match closest(&text.value, &names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("expected one of: {}", names.join(", ")),
        };
        self.wrong(&text.at, text.span, format!("`{key}` has no such choice"), label, true);
        None
    }

    /// A list of strings, or one string.
    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<At<String>>> {
        let value = self.get(key)?;
        let items: Vec<_> = match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            DeValue::String(_) => vec![value],
            _ => {
                self.mistyped(key, value, "a list of strings");
                return None;
            }
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item.get_ref().as_str().map(|text| self.reader.expand(text)) {
                Some(Ok(value)) => {
                    let at = format!("{}[{index}]", self.path(key));
                    texts.push(At { value, span: item.span(), at });
                }
                Some(Err(message)) => {
                    self.wrong(
                        &self.path(key),
                        item.span(),
                        format!("`{key}` cannot be expanded"),
                        message,
                        false,
                    );
                }
                None => self.mistyped(key, item, "a string"),
            }
        }
        Some(texts)
    }

    /// A list of strings, each read by a function.
    pub(super) fn list<T, E: std::fmt::Display>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let texts = self.texts(key)?;
        let mut values = Vec::with_capacity(texts.len());
        for text in texts {
            match read(&text.value) {
                Ok(value) => values.push(value),
                Err(error) => {
                    self.wrong(
                        &text.at,
                        text.span,
                        format!("an item of `{key}` cannot be used"),
                        error.to_string(),
                        true,
                    );
                }
            }
        }
        Some(values)
    }

    /// A table within this one.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'r, 'e, 't>> {
        let value = self.get(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some(Section::new(self.reader, self.path(key), table, value.span())),
            None => {
                self.mistyped(key, value, "a table");
                None
            }
        }
    }

    /// The tables within a table of names.
    pub(super) fn named(&self, key: &'static str) -> Vec<(String, Section<'r, 'e, 't>)> {
        let Some(all) = self.section(key) else { return Vec::new() };
        let mut named = Vec::new();
        for (name, value) in all.table {
            let at = format!("{key}.{}", name.get_ref());
            let valid = !name.get_ref().is_empty()
                && name
                    .get_ref()
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            if !valid {
                self.wrong(
                    &at,
                    name.span(),
                    "a name cannot be used",
                    "names are of letters, digits, `-` and `_`",
                    false,
                );
            }
            match value.get_ref().as_table() {
                Some(table) => {
                    named.push((
                        name.get_ref().to_string(),
                        Section::new(self.reader, at, table, name.span()),
                    ));
                }
                None => self.wrong(
                    &at,
                    value.span(),
                    format!("`{at}` is no table"),
                    "expected a table",
                    false,
                ),
            }
        }
        named
    }

    /// The tables of an array.
    pub(super) fn array(&self, key: &'static str) -> Option<Vec<Section<'r, 'e, 't>>> {
        let value = self.get(key)?;
        let Some(items) = value.get_ref().as_array() else {
            self.mistyped(key, value, "an array of tables");
            return None;
        };
        let mut sections = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match item.get_ref().as_table() {
                Some(table) => {
                    let at = format!("{}[{index}]", self.path(key));
                    sections.push(Section::new(self.reader, at, table, item.span()));
                }
                None => self.mistyped(key, item, "a table"),
            }
        }
        Some(sections)
    }

    /// Pairs of free names and strings.
    pub(super) fn pairs(&self, key: &'static str) -> Vec<(String, At<String>)> {
        let Some(section) = self.section(key) else { return Vec::new() };
        let mut pairs = Vec::new();
        for (name, value) in section.table {
            let at = section.path(name.get_ref());
            match value.get_ref().as_str().map(|text| self.reader.expand(text)) {
                Some(Ok(text)) => {
                    pairs.push((
                        name.get_ref().to_string(),
                        At { value: text, span: value.span(), at },
                    ));
                }
                _ => self.wrong(
                    &at,
                    value.span(),
                    format!("`{at}` is no usable string"),
                    "expected a string",
                    false,
                ),
            }
        }
        pairs
    }

    /// The tables within this one under free names.
    pub(super) fn tables(&self, key: &'static str) -> Vec<(String, Section<'r, 'e, 't>)> {
        let Some(section) = self.section(key) else { return Vec::new() };
        let mut tables = Vec::new();
        for (name, value) in section.table {
            let at = section.path(name.get_ref());
            match value.get_ref().as_table() {
                Some(table) => {
                    tables.push((
                        name.get_ref().to_string(),
                        Section::new(self.reader, at, table, value.span()),
                    ));
                }
                None => self.wrong(
                    &at,
                    value.span(),
                    "a header needs a source",
                    "write { value = \"…\" }, { env = \"NAME\" } or { file = \"/path\" }",
                    false,
                ),
            }
        }
        tables
    }

    /// Where a secret or an id is read from. A value written here is refused, and never shown.
    pub(super) fn reference(&self, key: &'static str) -> Option<Reference> {
        let value = self.get(key)?;
        let at = self.path(key);
        let Some(table) = value.get_ref().as_table() else {
            self.reader.report(Problem {
                note: false,
                title: format!("`{key}` may not be written into this file"),
                at,
                span: value.span(),
                label: format!("write `{key}.file = \"/path\"` or `{key}.env = \"NAME\"`"),
                help: Some(
                    "what stands there is not shown; if this file was shared, have it changed"
                        .into(),
                ),
                visible: false,
            });
            return None;
        };
        let section = Section::new(self.reader, at.clone(), table, value.span());
        let source = section.source();
        section.finish();
        source
    }

    /// The one source of a reference.
    pub(super) fn source(&self) -> Option<Reference> {
        let env = self.raw("env").and_then(|name| {
            let valid = !name.value.is_empty() && !name.value.contains(['=', '\0', ' ', '$']);
            if !valid {
                self.wrong(
                    &name.at,
                    name.span,
                    "`env` is no name of a variable",
                    "expected a name such as QBANK_SECRET",
                    false,
                );
            }
            valid.then_some(Reference::Env(name.value))
        });
        let file = self.raw("file").and_then(|path| {
            let valid = !path.value.is_empty();
            if !valid {
                self.wrong(&path.at, path.span, "`file` is empty", "expected a path", false);
            }
            valid.then(|| Reference::File(PathBuf::from(path.value)))
        });
        match (self.has("env"), self.has("file")) {
            (true, true) => {
                self.wrong(
                    &self.at,
                    self.span.clone(),
                    "two sources for one value",
                    "keep one of `env` and `file`",
                    false,
                );
                None
            }
            (false, false) => {
                self.wrong(
                    &self.at,
                    self.span.clone(),
                    format!("`{}` names no source", self.at),
                    "write `.file = \"/path\"` or `.env = \"NAME\"`",
                    false,
                );
                None
            }
            _ => env.or(file),
        }
    }

    /// A string that is taken as it is.
    fn raw(&self, key: &'static str) -> Option<At<String>> {
        let value = self.get(key)?;
        match value.get_ref().as_str() {
            Some(text) => {
                Some(At { value: text.to_owned(), span: value.span(), at: self.path(key) })
            }
            None => {
                self.mistyped(key, value, "a string");
                None
            }
        }
    }

    /// Reports keys that nobody asked for.
    pub(super) fn finish(self) {
        let known = self.known.borrow();
        for name in self.table.keys() {
            let key = name.get_ref().as_ref();
            if known.contains(&key) {
                continue;
            }
            let familiar = FAMILIAR
                .iter()
                .find(|(other, _)| *other == key)
                .map(|(_, hint)| (*hint).to_owned());
            let near = || closest(key, &known).map(|near| format!("did you mean `{near}`?"));
            let title = format!("unknown key `{key}`");
            let within =
                if self.at.is_empty() { "the file".to_owned() } else { format!("`{}`", self.at) };
            self.reader.report(Problem {
                note: false,
                title,
                at: self.path(key),
                span: name.span(),
                label: familiar.or_else(near).unwrap_or_else(|| "not known here".into()),
                help: Some(format!("keys of {within}: {}", known.join(", "))),
                visible: true,
            });
        }
    }
}

/// The known name nearest to a mistyped one.
pub(super) fn closest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(found, name), *name))
        .filter(|(nearness, _)| *nearness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

fn article(kind: &str) -> String {
    match kind.chars().next() {
        Some('a' | 'i') => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}
