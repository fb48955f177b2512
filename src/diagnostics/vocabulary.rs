//! The words of one kind of file: its keys, and what people write in their place.

use std::collections::{BTreeMap, BTreeSet};

/// Stands for a key that the author of a file chooses, in the path of a table.
pub(crate) const NAME: &str = "NAME";

/// The words of one kind of file, given by the code that reads it.
#[derive(Debug, Default)]
pub(crate) struct Vocabulary {
    /// The keys of each table, by its path: `upstreams.NAME.timeouts`; `""` is the file itself. A
    /// table that is not listed is read in its own way, and its keys are not checked here.
    pub(crate) tables: BTreeMap<String, Vec<String>>,
    /// Every word of the file format, whatever its table: these may be shown.
    pub(crate) words: BTreeSet<String>,
    /// Words that people write by mistake, and the remedy, by the end of the path where they stand.
    pub(crate) advice: BTreeMap<String, BTreeMap<String, String>>,
}

/// The remedy for an unknown key.
pub(super) struct Correction<'v> {
    pub(super) text: String,
    /// The key that was most likely meant, if it is known.
    nearest: Option<&'v str>,
}

impl Correction<'_> {
    /// Returns whether it leads to this key.
    pub(super) fn leads_to(&self, key: &str) -> bool {
        match self.nearest {
            Some(nearest) => nearest == key,
            None => self.text.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|w| w == key),
        }
    }
}

impl Vocabulary {
    /// The keys of a table; `None` if they are not checked.
    pub(super) fn keys(&self, table: &str) -> Option<Vec<&str>> {
        Some(self.tables.get(table)?.iter().map(String::as_str).collect())
    }

    /// The remedy for a word that stands at a path: advice for the longest end of the path counts.
    pub(super) fn advice(&self, path: &str, word: &str) -> Option<&str> {
        let mut ends = std::iter::successors(Some(path), |path| Some(path.split_once('.')?.1));
        let words = ends.find_map(|end| self.advice.get(end))?;
        words.get(word).map(String::as_str)
    }

    /// The remedy for a key that a table does not have.
    pub(super) fn correction(&self, table: &str, wrong: &str) -> Option<Correction<'_>> {
        if let Some(advice) = self.advice(table, wrong) {
            return Some(Correction { text: advice.to_owned(), nearest: None });
        }
        let near = nearest(wrong, &self.keys(table)?)?;
        Some(Correction { text: format!("did you mean `{near}`?"), nearest: Some(near) })
    }

    /// Returns whether a top-level table has this name.
    pub(super) fn is_table(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }
}

/// The known word that is most like a misspelt one, if any is like it: most letters agree, or one is
/// wrong, missing, added, or swapped with its neighbour.
pub(crate) fn nearest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let found = found.to_ascii_lowercase();
    let likeness = |word: &str| {
        let word = word.to_ascii_lowercase();
        let one_slip = word.len() > 2 && strsim::osa_distance(&found, &word) <= 1;
        strsim::jaro_winkler(&found, &word).max(if one_slip { 0.9 } else { 0.0 })
    };
    let scored = known.iter().map(|known| (likeness(known), *known));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 > 0.8).then_some(best.1)
}
