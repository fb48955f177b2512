//! House rules as tests: what a reviewer would otherwise have to look for by eye.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say what they expect by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The arrows of `src/lib.rs`: a folder imports only folders of a later line, never a neighbour.
const RANKS: [&[&str]; 9] = [
    &["cli"],
    &["app"],
    &["config"],
    &["proxy", "admin"],
    &["token", "upstream", "server"],
    &["secret"],
    &["net"],
    &["route", "oauth", "telemetry"],
    &["body", "clock", "sensitive"],
];

/// One source file.
struct Source {
    /// Its path from the root of the repository.
    path: String,
    text: String,
}

impl Source {
    /// The folder of `src/` it belongs to, or its name for a file that stands there alone.
    fn part(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
    }

    /// How many `super::` lead from its module to the crate's root.
    fn depth(&self) -> usize {
        let named = self.path.split('/').skip(1).filter(|name| *name != "mod.rs");
        named.count()
    }

    /// Numbered lines of code: without comments, and of shipped files only those before the tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let shipped = self.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let lines = shipped.lines().map(str::trim_start).enumerate();
        lines.filter(|(_, line)| !line.starts_with("//")).map(|(index, line)| (index + 1, line))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder, in the order of their paths.
fn sources(folder: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    gather(&root().join(folder), &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        Source { path, text }
    };
    paths.into_iter().map(read).collect()
}

fn gather(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Fails with all findings at once.
fn none(findings: &[String], rule: &str) {
    assert!(findings.is_empty(), "{rule}\n  {}\n", findings.join("\n  "));
}

fn rank(part: &str) -> Option<usize> {
    RANKS.iter().position(|parts| parts.contains(&part))
}

/// Whether `from` may import `to`.
fn may_import(from: &str, to: &str) -> bool {
    match (from, to) {
        _ if from == to => true,
        // `demo` shows the fakes, which know nothing of the program.
        ("cli", "sandbox") => true,
        ("sandbox", _) | (_, "sandbox") => false,
        // The root may name every part, as the map that it is.
        ("lib" | "main", _) => true,
        _ => match (rank(from), rank(to)) {
            (Some(from), Some(to)) => from < to,
            _ => false,
        },
    }
}

/// The names after each `crate::` of a line.
fn imports(line: &str) -> BTreeSet<&str> {
    let mut found: BTreeSet<&str> = line.split("crate::").skip(1).map(word).collect();
    found.remove("");
    found
}

/// The identifier that a text begins with.
fn word(text: &str) -> &str {
    let text = text.trim_start();
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

#[test]
fn imports_are_found_however_they_are_written() {
    let check = |line: &str, expected: &[&str]| {
        assert_eq!(imports(line), expected.iter().copied().collect(), "{line}");
    };
    check("use crate::route::Table;", &["route"]);
    check("pub use crate::token::{Reader, Writer};", &["token"]);
    check("let x = crate::net::f(crate::oauth::g());", &["net", "oauth"]);
    check("pub(crate) use super::x;", &[]);
}

#[test]
fn arrows_point_down() {
    let mut findings = Vec::new();
    for source in sources("src") {
        let from = source.part();
        if !matches!(from, "lib" | "main" | "sandbox") && rank(from).is_none() {
            findings.push(format!("{}: `{from}` has no place in the map", source.path));
        }
        for (number, line) in source.code() {
            let climbs = "super::".repeat(source.depth());
            if line.contains("crate::{") || line.contains(&climbs) {
                let hidden = "one module per `use crate::` line keeps arrows visible";
                findings.push(format!("{}:{number}: {hidden}", source.path));
            }
            let wrong = imports(line).into_iter().filter(|to| !may_import(from, to));
            findings.extend(wrong.map(|to| format!("{}:{number}: {from} → {to}", source.path)));
        }
    }
    none(&findings, "a folder imports only folders further right in the map of src/lib.rs:");
}

#[test]
fn the_map_in_the_crate_docs_is_the_map_that_is_checked() {
    let docs = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let line = |parts: &&[&str]| match parts {
        [one] => (*one).to_owned(),
        many => format!("{{{}}}", many.join(", ")),
    };
    // `secret` and `net` stand in braces of their own there.
    let plain = |text: &str| text.replace(['{', '}', '\n', '/', '!', ' '], "");
    let map = RANKS.iter().map(line).collect::<Vec<_>>().join(" → ");
    assert!(plain(&docs).contains(&plain(&map)), "src/lib.rs does not say: {map}");
}

#[test]
fn shipped_code_does_not_give_up() {
    const NEVER: [&str; 9] = [
        ".unwrap()",
        ".expect(",
        ".unwrap_err()",
        "panic!(",
        "todo!(",
        "unimplemented!(",
        "dbg!(",
        // Without a provider it takes the process default, which another crate may have set.
        "ClientConfig::builder()",
        "ServerConfig::builder()",
    ];
    let mut findings = Vec::new();
    // `tests.rs` and what tests share in `testing.rs` are compiled for tests alone.
    let for_tests = |path: &str| path.ends_with("/tests.rs") || path.ends_with("/testing.rs");
    for source in sources("src").into_iter().filter(|source| !for_tests(&source.path)) {
        for (number, line) in source.code() {
            let found = NEVER.iter().filter(|never| line.contains(**never));
            findings.extend(found.map(|never| format!("{}:{number}: {never}", source.path)));
        }
    }
    none(&findings, "shipped code does without these:");
}

#[test]
fn every_file_opens_with_its_purpose() {
    let files = ["src", "tests", "benches"].into_iter().flat_map(sources);
    // A file of one line says all there is to say.
    let files = files.filter(|source| source.text.lines().count() > 1);
    let bare = files.filter(|source| !source.text.starts_with("//! "));
    let findings: Vec<String> = bare.map(|source| source.path).collect();
    none(&findings, "a file opens with `//!` and a sentence on what it is for:");
}

#[test]
fn tests_wait_for_events() {
    // Split, so that this line is not found itself.
    let sleep = ["thread::sl", "eep("].concat();
    let files = ["src", "tests"].into_iter().flat_map(sources);
    let sleeping = files.filter(|source| source.text.contains(&sleep));
    let findings: Vec<String> = sleeping.map(|source| source.path).collect();
    none(&findings, "nothing sleeps on a thread, least of all a test:");
}
