//! Other interpretations of a path, by servers that decode, merge or strip more than others.

use std::borrow::Cow;
use std::iter;

/// A change that servers are known to make before they look for a resource.
type Step = fn(&str) -> String;

const DECODING: [Step; 4] =
    [decode_delimiters, decode_semicolons, strip_parameters, decode_percent];
const ALL: [Step; 5] =
    [decode_delimiters, decode_semicolons, strip_parameters, decode_percent, merge_slashes];

/// Other interpretations of a canonical path, by servers that decode slashes, semicolons or a second
/// time, strip parameters, merge slashes, or do several of these in any order. Empty if all of them are
/// the path itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::route) struct Interpretations {
    /// Those of servers that merge only slashes that were sent as such.
    pub decoded: Vec<String>,
    /// Those of servers that also merge slashes that they have decoded.
    pub merged: Vec<String>,
}

/// The other interpretations of a canonical path.
pub(in crate::route) fn lenient_interpretations(path: &str) -> Interpretations {
    let empty = path.as_bytes().windows(2).any(|pair| pair == b"//");
    if is_plain(path) && !empty {
        return Interpretations::default();
    }
    let decoded = interpretations(vec![path.to_owned(), merge_slashes(path)], &DECODING);
    let mut merged = interpretations(decoded.clone(), &ALL);
    merged.retain(|reading| !decoded.contains(reading));
    let others = decoded.into_iter().filter(|reading| reading != path);
    Interpretations { decoded: others.collect(), merged }
}

/// All that these steps make of some paths, in any order; sorted.
fn interpretations(mut all: Vec<String>, steps: &[Step]) -> Vec<String> {
    let mut next = 0;
    // Each step shortens the text that it changes, and a canonical path is encoded twice at most, so that
    // there is an end, and soon.
    while let Some(reading) = all.get(next).cloned() {
        for step in steps {
            let changed = step(&reading);
            if !all.contains(&changed) {
                all.push(changed);
            }
        }
        next += 1;
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// True if a lenient server could take a canonical path for that of a resource: a server that decodes it,
/// strips parameters, and ignores case, empty segments, and dots and spaces at the end of names.
pub fn could_alias(path: &str, resource: &str) -> bool {
    fn plain(text: &str) -> Cow<'_, str> {
        percent_encoding::percent_decode_str(text).decode_utf8_lossy()
    }
    if is_plain(path) && is_plain(resource) {
        return same_alphanumerics(path, resource) && fold(path).eq(fold(resource));
    }
    let resource = plain(resource);
    let matches = |path: &str| fold(&plain(path)).eq(fold(&resource));
    let Interpretations { decoded, merged } = lenient_interpretations(path);
    matches(path) || decoded.iter().chain(&merged).any(|path| matches(path))
}

/// True if a path is ASCII and holds nothing that servers decode or strip.
fn is_plain(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii() && !matches!(byte, b'%' | b';'))
}

/// A path with encoded slashes and semicolons decoded.
fn decode_delimiters(text: &str) -> String {
    decode_semicolons(text).replace("%2F", "/").replace("%2f", "/")
}

fn decode_semicolons(text: &str) -> String {
    text.replace("%3B", ";").replace("%3b", ";")
}

/// A path without the parameters of its segments.
fn strip_parameters(text: &str) -> String {
    let names = text.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    names.collect::<Vec<_>>().join("/")
}

/// A path without empty segments; a slash at its end stays.
fn merge_slashes(text: &str) -> String {
    let mut merged = String::with_capacity(text.len());
    for character in text.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    merged
}

/// A path that was encoded twice, decoded once.
fn decode_percent(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("%25") {
        decoded.push_str(before);
        let escape = after
            .as_bytes()
            .first_chunk()
            .is_some_and(|[high, low]| high.is_ascii_hexdigit() && low.is_ascii_hexdigit());
        decoded.push_str(if escape { "%" } else { "%25" });
        rest = after;
    }
    decoded + rest
}

/// True if both hold the same ASCII letters and digits. It is a cheap first test: paths that differ in
/// these are different to every server, and nearly all do.
fn same_alphanumerics(path: &str, other: &str) -> bool {
    let counts = |byte: &u8| byte.is_ascii_alphanumeric();
    let (path, other) = (path.bytes().filter(counts), other.bytes().filter(counts));
    path.map(|byte| byte.to_ascii_lowercase()).eq(other.map(|byte| byte.to_ascii_lowercase()))
}

/// The names in a path, each after a slash, as the most lenient server compares them.
fn fold(path: &str) -> impl Iterator<Item = char> {
    let names = path
        .split(['/', '\\'])
        .map(|segment| segment.split(';').next().unwrap_or_default().trim_end_matches(['.', ' ']));
    names
        .filter(|name| !name.is_empty())
        .flat_map(|name| iter::once('/').chain(name.chars().flat_map(char::to_lowercase)))
}
