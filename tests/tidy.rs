//! House rules as tests: what a reviewer would otherwise have to look for by eye.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say what they expect by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The arrows of `src/lib.rs`: a folder imports only folders of a later line, never a neighbour.
const RANKS: [&[&str]; 10] = [
    &["cli"],
    &["app"],
    &["config"],
    &["proxy", "admin"],
    &["token", "upstream", "server"],
    &["share"],
    &["listen", "secret"],
    &["net"],
    &["x509", "route", "oauth", "telemetry", "diagnostics"],
    &["body", "cleartext", "clock", "sensitive", "shortage", "task"],
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

    /// Its module's path: `["proxy", "headers", "via"]`; none for the crate's root.
    fn module(&self) -> Vec<String> {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let below = below.trim_end_matches(".rs").trim_end_matches("/mod");
        let parts = below.split('/').filter(|part| !matches!(*part, "lib" | "main"));
        parts.map(ToOwned::to_owned).collect()
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

/// Whether a file is compiled for tests alone.
fn for_tests(path: &str) -> bool {
    ["tests", "testing", "simulation"].iter().any(|name| path.ends_with(&format!("/{name}.rs")))
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
fn the_crate_docs_name_only_what_exists() {
    let root = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let docs: Vec<&str> = root.lines().filter_map(|line| line.strip_prefix("//!")).collect();
    let docs = docs.join("\n");
    let sources = sources("src");
    let modules: BTreeMap<Vec<String>, &Source> =
        sources.iter().map(|source| (source.module(), source)).collect();
    let exists = |path: &[String]| {
        let known = |length: &usize| modules.contains_key(&path[..*length]);
        let length = (0..=path.len()).rev().find(known).unwrap_or(0);
        // The rest is a name in that module, defined or exported.
        let source = modules[&path[..length]].text.as_str();
        match &path[length..] {
            [] => true,
            [name] if length > 0 => {
                source.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
            }
            _ => false,
        }
    };
    let named = paths(&docs).into_iter().filter(|path| !exists(path)).map(|path| path.join("::"));
    let files = docs.split(|c: char| !c.is_alphanumeric() && !"_/.".contains(c));
    let files = files.filter(|word| word.ends_with(".rs") && word.contains('/'));
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let absent = |file: &&str| !here.join("src").join(file).exists() && !here.join(file).exists();
    let findings: Vec<String> = named.chain(files.filter(absent).map(str::to_owned)).collect();
    none(&findings, "src/lib.rs names what does not exist:");
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
    for source in sources("src").into_iter().filter(|source| !for_tests(&source.path)) {
        for (number, line) in source.code() {
            let found = NEVER.iter().filter(|never| line.contains(**never));
            findings.extend(found.map(|never| format!("{}:{number}: {never}", source.path)));
        }
    }
    none(&findings, "shipped code does without these:");
}

/// The `Debug` of a type is for programmers. A log line, an error and a report are read by operators, and
/// say `drained` for `Drained`.
#[test]
fn log_lines_hold_no_debug_text() {
    let mut findings = Vec::new();
    for source in sources("src").into_iter().filter(|source| !for_tests(&source.path)) {
        let mut depth = 0_isize;
        for (number, line) in source.code() {
            let begins = line.contains("tracing::") && line.contains("!(");
            if depth <= 0 && !begins {
                continue;
            }
            let call =
                if depth <= 0 { line.split("tracing::").nth(1).unwrap_or(line) } else { line };
            depth = depth.max(0);
            depth += call.matches('(').count() as isize - call.matches(')').count() as isize;
            let is_debug = ["(?", " ?", ":?}"].iter().any(|debug| call.contains(debug));
            findings.extend(is_debug.then(|| format!("{}:{number}: {}", source.path, call.trim())));
        }
    }
    none(&findings, "log lines say these in words:");
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

/// The modules that a file imports, by the paths in its code: `crate::…`, `super::…`, `self::…`, and
/// those that begin with the name of a child module.
fn imported(source: &Source, modules: &BTreeMap<Vec<String>, &Source>) -> BTreeSet<Vec<String>> {
    let own = source.module();
    // A re-export makes no dependency: it only gives a definition a shorter path.
    let mut code = String::new();
    for statement in source.code().map(|(_, line)| line).collect::<Vec<_>>().join("\n").split(';') {
        let is_reexport = statement.trim_start().starts_with("pub use ")
            || statement.trim_start().starts_with("pub(crate) use ");
        if !is_reexport {
            code.push_str(statement);
            code.push(';');
        }
    }
    let mut found = BTreeSet::new();
    for path in paths(&code) {
        let absolute = match path.first().map(String::as_str) {
            Some("crate") => path[1..].to_vec(),
            Some("super") => {
                let climbs = path.iter().take_while(|part| *part == "super").count();
                let Some(kept) = own.len().checked_sub(climbs) else { continue };
                [&own[..kept], &path[climbs..]].concat()
            }
            Some("self") => [&own[..], &path[1..]].concat(),
            Some(first) => {
                let child = [&own[..], &[first.to_owned()]].concat();
                if !modules.contains_key(&child) {
                    continue;
                }
                [&own[..], &path[..]].concat()
            }
            None => continue,
        };
        found.insert(defining(&absolute, modules));
    }
    found.remove(&own);
    found
}

/// The module that defines what a path names: re-exports are followed.
fn defining(path: &[String], modules: &BTreeMap<Vec<String>, &Source>) -> Vec<String> {
    let known = |length: &usize| modules.contains_key(&path[..*length]);
    let Some(length) = (0..=path.len()).rev().find(known) else { return Vec::new() };
    let (module, rest) = path.split_at(length);
    let Some((name, source)) = rest.first().zip(modules.get(module)) else {
        return module.to_vec();
    };
    for statement in source.text.split(';') {
        let statement = statement.trim_start().trim_start_matches("pub(crate) use ");
        let statement = statement.rsplit("pub use ").next().unwrap_or_default();
        for reexport in paths(statement) {
            let child = [module, &reexport[..reexport.len() - 1]].concat();
            if reexport.last() == Some(name) && modules.contains_key(&child) && child != module {
                return child;
            }
        }
    }
    module.to_vec()
}

/// Every path of a text, with groups in braces written out.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = text;
    while let Some(at) = rest.find("::") {
        let start = rest[..at].rfind(|c| !is_part(c)).map_or(0, |before| before + 1);
        let first = rest[start..at].to_owned();
        let end = path_end(&rest[at..]);
        expand(&[first], &rest[at + 2..at + end], &mut found);
        rest = &rest[at + end..];
    }
    found
}

/// Where the path that goes on with `::` ends.
fn path_end(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' if depth > 0 || text[..at].ends_with("::") => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' if depth > 1 => depth -= 1,
            _ if depth > 0 || letter.is_alphanumeric() || letter == '_' || letter == ':' => {}
            _ => return at,
        }
    }
    text.len()
}

fn expand(before: &[String], text: &str, found: &mut Vec<Vec<String>>) {
    let text = text.trim();
    if let Some(group) = text.strip_prefix('{') {
        let (mut depth, mut start) = (0_usize, 0);
        let group = group.strip_suffix('}').unwrap_or(group);
        for (at, letter) in group.char_indices().chain([(group.len(), ',')]) {
            match letter {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    let part = group[start..at].trim();
                    if !part.is_empty() {
                        expand(before, part, found);
                    }
                    start = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let (first, rest) = match text.split_once("::") {
        Some((first, rest)) => (first, Some(rest)),
        None => (word(text), None),
    };
    let path = match first {
        "self" => before.to_vec(),
        first => [before, &[first.to_owned()]].concat(),
    };
    match rest {
        Some(rest) => expand(&path, rest, found),
        None => found.push(path),
    }
}

#[test]
fn paths_are_found_in_groups_too() {
    let check = |text: &str, expected: &[&str]| {
        let found: Vec<String> = paths(text).iter().map(|path| path.join("::")).collect();
        assert_eq!(found, expected, "{text}");
    };
    check("use super::{a, b::C};", &["super::a", "super::b::C"]);
    check("use crate::x::{self, y::{Z, W}};", &["crate::x", "crate::x::y::Z", "crate::x::y::W"]);
    check("let x = super::f(crate::a::B::new());", &["super::f", "crate::a::B::new"]);
}

#[test]
fn no_files_of_a_folder_import_each_other_in_a_circle() {
    let sources = sources("src");
    let for_tests = |path: &str| {
        ["tests", "testing", "simulation"].iter().any(|name| path.ends_with(&format!("/{name}.rs")))
    };
    let shipped: Vec<&Source> = sources.iter().filter(|source| !for_tests(&source.path)).collect();
    let modules: BTreeMap<Vec<String>, &Source> =
        shipped.iter().map(|source| (source.module(), *source)).collect();
    let mut edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for (module, source) in &modules {
        let inside = imported(source, &modules).into_iter();
        let inside = inside.filter(|to| to.first() == module.first() && to != module);
        edges.insert(module.clone(), inside.collect());
    }
    let reaches = |from: &Vec<String>, to: &Vec<String>| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = next.pop() {
            for onward in edges.get(&module).into_iter().flatten() {
                if onward == to {
                    return true;
                }
                if seen.insert(onward.clone()) {
                    next.push(onward.clone());
                }
            }
        }
        false
    };
    let mut findings = Vec::new();
    for (module, inside) in &edges {
        for to in inside.iter().filter(|to| reaches(to, module)) {
            findings.push(format!("{} ⇄ {}", module.join("/"), to.join("/")));
        }
    }
    none(
        &findings,
        "these imports are part of a circle of files; move the definition that both need:",
    );
}

#[test]
fn a_type_name_stands_for_one_type() {
    let mut homes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources("src").iter().filter(|source| !for_tests(&source.path)) {
        // A type that only its own file can name may be called as is best there.
        for line in source.code().map(|(_, line)| line).filter(|line| line.starts_with("pub")) {
            let rest = line.trim_start_matches(|c: char| c.is_alphanumeric() || "()".contains(c));
            let mut words = rest.split_whitespace();
            let kind = words.next().unwrap_or_default();
            if let ("struct" | "enum" | "trait" | "union", Some(name)) = (kind, words.next()) {
                homes.entry(word(name).to_owned()).or_default().insert(source.path.clone());
            }
        }
    }
    let twice = homes.iter().filter(|(_, homes)| homes.len() > 1);
    let findings: Vec<String> = twice.map(|(name, homes)| format!("{name}: {homes:?}")).collect();
    none(&findings, "one name, one thing; these types share theirs:");
}

#[test]
fn a_poll_function_says_why_it_is_right() {
    let mut findings = Vec::new();
    for source in sources("src").iter().filter(|source| !for_tests(&source.path)) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let Some(name) = line.trim_start().split_once("fn poll").map(|(_, name)| name) else {
                continue;
            };
            let indent = line.len() - line.trim_start().len();
            let end = |line: &&str| line.starts_with(&format!("{}}}", " ".repeat(indent)));
            let body: Vec<&str> =
                lines[start..].iter().copied().take_while(|line| !end(line)).collect();
            let explained = body.iter().any(|line| line.trim_start().starts_with("// "));
            if body.len() > 15 && !explained {
                findings.push(format!("{}:{}: poll{}", source.path, start + 1, word(name)));
            }
        }
    }
    none(&findings, "a poll function of more than 15 lines needs a comment on why it is right:");
}
