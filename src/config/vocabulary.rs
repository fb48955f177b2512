//! The words of a configuration for the diagnostics: its keys as `config/annotated.toml` documents
//! them, and `advice.toml` for what people write in their place.

use std::sync::LazyLock;

use serde_json::Value;

use super::references::is_reference;
use super::schema::{self, KeyDoc};
use crate::diagnostics::{NAME, Vocabulary};

/// Words that people write by mistake, by the table where they write them.
const ADVICE: &str = include_str!("advice.toml");

/// The words of a configuration.
pub(super) static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(|| {
    let mut vocabulary =
        Vocabulary { advice: toml::from_str(ADVICE).unwrap_or_default(), ..Vocabulary::default() };
    for key in schema::keys() {
        document(&mut vocabulary, &key);
    }
    let tables = &mut vocabulary.tables;
    let listener = tables.get("upstreams.NAME.listen").cloned().unwrap_or_default();
    tables.extend(schema::LISTENERS.map(|path| (path.to_owned(), listener.clone())));
    for table in schema::INHERITED {
        let all = tables.get(table).cloned().unwrap_or_default();
        let above = ["credentials.NAME", "upstreams.NAME", "share"];
        // The store of shared tokens is reached directly.
        let here = above.into_iter().filter(|above| *above != "share" || table == "tls");
        for path in here.map(|above| format!("{above}.{table}")) {
            let own = tables.entry(path).or_default();
            own.extend(all.iter().filter(|key| !own.contains(key)).cloned().collect::<Vec<_>>());
        }
    }
    vocabulary
});

/// Adds a documented key, with the tables that lead to it and the keys that its value shows.
fn document(vocabulary: &mut Vocabulary, key: &KeyDoc) {
    let mut table = String::new();
    for part in key.path.split('.') {
        // `[vault]` is a section, and its name is that of a source too.
        if is_reference(part) && !table.is_empty() {
            vocabulary.words.insert(part.to_owned());
            return add_words(vocabulary, &key.value);
        }
        add(vocabulary, &table, part);
        table = join(&table, part);
    }
    add_value(vocabulary, &table, &key.value);
}

/// Adds the keys of an inline table; those of a reference only as words, since references are read in
/// their own way.
fn add_value(vocabulary: &mut Vocabulary, table: &str, value: &Value) {
    let Some(fields) = value.as_object() else { return };
    if fields.keys().any(|field| is_reference(field)) {
        return add_words(vocabulary, value);
    }
    for (field, inner) in fields {
        let name =
            if schema::NAMED.iter().any(|named| table.ends_with(named)) { NAME } else { field };
        add(vocabulary, table, name);
        add_value(vocabulary, &join(table, name), inner);
    }
}

fn add_words(vocabulary: &mut Vocabulary, value: &Value) {
    for (field, inner) in value.as_object().into_iter().flatten() {
        vocabulary.words.insert(field.clone());
        add_words(vocabulary, inner);
    }
}

fn add(vocabulary: &mut Vocabulary, table: &str, key: &str) {
    let keys = vocabulary.tables.entry(table.to_owned()).or_default();
    if !keys.iter().any(|known| known == key) {
        keys.push(key.to_owned());
    }
    if key != NAME {
        vocabulary.words.insert(key.to_owned());
    }
}

fn join(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    /// A file with one key, whose value is of no type that any key takes.
    fn with_wrong_value(table: &str, key: &str) -> String {
        let table = table.replace(NAME, "a");
        let header = match table.split_once(".routes") {
            Some((upstream, "")) => format!("[[{upstream}.routes]]"),
            Some((upstream, below)) => format!("[[{upstream}.routes]]\n[{table}]")
                .replace(&table, &format!("{upstream}.routes{below}")),
            None if table.is_empty() => String::new(),
            None => format!("[{table}]"),
        };
        format!("{header}\n{key} = [[]]\n")
    }

    #[test]
    fn every_documented_key_is_read() {
        let mut tried = 0;
        // A build without Vault does not read its section.
        let unread = |path: &str| cfg!(not(feature = "vault")) && path.starts_with("vault");
        for (table, keys) in &VOCABULARY.tables {
            // A build without the feature refuses the section as a whole.
            if cfg!(not(feature = "share")) && table.starts_with("share") {
                continue;
            }
            for key in keys.iter().filter(|key| *key != NAME) {
                if unread(&join(table, key)) {
                    continue;
                }
                let text = with_wrong_value(table, key);
                let report = parse(&text, Path::new("a.toml"), &|_| None).unwrap_err();
                let path = join(&table.replace(NAME, "a"), key);
                let read = report.iter().any(|problem| problem.at.replace("[0]", "") == path);
                assert!(read, "{path} is documented and not read\n{text}{report}");
                assert!(!report.render(false).contains("unknown key"), "{text}{report}");
                tried += 1;
            }
        }
        assert!(tried > 150, "{tried} keys were tried");
    }

    #[test]
    fn advice_is_for_tables_that_exist() {
        let paths: Vec<_> = VOCABULARY
            .tables
            .iter()
            .flat_map(|(table, keys)| keys.iter().map(move |key| join(table, key)))
            .chain([String::new()])
            .collect();
        let advice: BTreeMap<String, BTreeMap<String, String>> = toml::from_str(ADVICE).unwrap();
        for (end, words) in &advice {
            let here: Vec<_> = paths
                .iter()
                .filter(|path| *path == end || path.ends_with(&format!(".{end}")))
                .collect();
            assert!(!here.is_empty(), "no table ends with {end:?}");
            for word in words.keys() {
                let known = |path: &&&String| paths.contains(&join(path, word));
                assert!(!here.iter().all(|path| known(&path)), "{end}: {word} is a key");
            }
        }
    }
}
