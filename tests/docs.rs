//! The documents are true: links and paths lead somewhere, configurations load, commands parse, and
//! the reference in `docs/src/reference/` is what the program says of itself.
//!
//! `BLESS=1 cargo test --test docs` writes the reference; read the difference before committing it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say what they expect by panicking"
)]

#[path = "docs/log_events.rs"]
mod log_events;
#[path = "docs/markdown.rs"]
mod markdown;
#[path = "docs/reference.rs"]
mod reference;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bearer_proxy::cli::args::Args;
use clap::Parser;

use markdown::Document;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All documents, in the order of their paths.
fn documents() -> Vec<Document> {
    let mut paths: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "benches/README.md"]
            .map(|name| root().join(name))
            .into();
    collect("md", &root().join("docs/src"), &mut paths);
    paths.sort();
    paths.iter().map(|path| Document::read(root(), path)).collect()
}

/// Adds all files below a folder that have this extension.
fn collect(extension: &str, folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(extension, &path, paths);
        } else if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
}

/// Fails with all findings at once.
fn none(findings: &[String], rule: &str) {
    assert!(findings.is_empty(), "{rule}\n  {}\n", findings.join("\n  "));
}

#[test]
fn links_lead_somewhere() {
    let documents = documents();
    let mut findings = Vec::new();
    for document in &documents {
        for link in document.links().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => document.path.clone(),
                path => markdown::joined(&document.path, path),
            };
            let found = documents.iter().find(|other| other.path == target);
            let book = "docs/src/";
            let resolves = match (anchor, found) {
                // A page is read in the book too, where nothing else is.
                _ if document.path.starts_with(book) && !target.starts_with(book) => false,
                ("", _) => root().join(&target).exists(),
                (anchor, Some(found)) => found.anchors().any(|known| known == anchor),
                (_, None) => false,
            };
            if !resolves {
                findings.push(format!("{}: {link}", document.path));
            }
        }
    }
    none(&findings, "these links lead nowhere:");
}

#[test]
fn paths_that_are_named_exist() {
    const FOLDERS: [&str; 9] =
        ["src/", "tests/", "benches/", "config/", "deploy/", "docs/", "fuzz/", ".ci/", ".github/"];
    let mut findings = Vec::new();
    // The changelog names files as they were called then.
    for document in documents().iter().filter(|document| document.path != "CHANGELOG.md") {
        for path in document.code_spans() {
            let is_path = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
            let named = FOLDERS.iter().any(|folder| path.starts_with(folder));
            if named && path.chars().all(is_path) && !root().join(&path).exists() {
                findings.push(format!("{}: {path}", document.path));
            }
        }
    }
    none(&findings, "these files do not exist:");
}

/// Names of types, functions and constants that guides for contributors lead to.
#[test]
fn names_that_are_named_exist() {
    const GUIDES: [&str; 2] = ["CONTRIBUTING.md", "docs/src/design/architecture.md"];
    let mut paths = vec![root().join("Cargo.toml")];
    ["src", "tests"].iter().for_each(|folder| collect("rs", &root().join(folder), &mut paths));
    let code: String = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let is_name = |span: &str| {
        let letters = span.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
        let capitals = span.chars().filter(char::is_ascii_uppercase).count();
        letters && (span.contains('_') || capitals > 0 && span != "NAME")
    };
    let mut findings = Vec::new();
    for document in documents().iter().filter(|one| GUIDES.contains(&one.path.as_str())) {
        let last = |span: &str| span.rsplit("::").next().unwrap_or_default().to_owned();
        let missing =
            document.code_spans().filter(|span| is_name(span) && !code.contains(&last(span)));
        findings.extend(missing.map(|span| format!("{}: {span}", document.path)));
    }
    none(&findings, "these names are not in the code:");
}

#[test]
fn every_page_is_in_the_summary() {
    let documents = documents();
    let summary = documents.iter().find(|one| one.path == "docs/src/SUMMARY.md").unwrap();
    let listed: Vec<_> =
        summary.links().map(|link| markdown::joined(&summary.path, &link)).collect();
    let pages = documents.iter().filter(|one| one.path.starts_with("docs/src/"));
    let missing = pages.filter(|one| one.path != summary.path && !listed.contains(&one.path));
    let findings: Vec<_> = missing.map(|one| one.path.clone()).collect();
    none(&findings, "docs/src/SUMMARY.md does not list:");
}

#[test]
fn configurations_load() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bearer-proxy.toml");
    let (mut loaded, mut findings) = (0, Vec::new());
    for document in documents() {
        for block in document.blocks("toml") {
            if !block.text.lines().any(|line| line.starts_with("version = 1")) {
                if let Err(error) = toml::from_str::<toml::Table>(&block.text) {
                    findings.push(format!("{}:{}: {error}", document.path, block.line));
                }
                continue;
            }
            fs::write(&file, &block.text).unwrap();
            let mut check = Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
            let output = check.arg("check").arg("--config").arg(&file).output().unwrap();
            loaded += 1;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                findings.push(format!("{}:{}: {said}", document.path, block.line));
            }
        }
    }
    none(&findings, "these configurations do not load:");
    assert!(loaded >= 2, "the README shows whole configurations");
}

#[test]
fn the_readme_shows_what_init_writes() {
    let readme = Document::read(root(), &root().join("README.md"));
    let shown: toml::Table = toml::from_str(&readme.blocks("toml")[0].text).unwrap();
    let written = fs::read_to_string(root().join("config/qbank.toml")).unwrap();
    assert_eq!(shown, toml::from_str(&written).unwrap());
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(
        lines <= 150,
        "README.md has {lines} lines; what a newcomer can do without is in docs/"
    );
}

#[test]
fn exit_codes_are_those_of_the_manual() {
    let man = Command::new(env!("CARGO_BIN_EXE_bearer-proxy")).arg("man").output().unwrap();
    let man = String::from_utf8(man.stdout).unwrap();
    let (_, section) = man.split_once("EXIT STATUS").unwrap();
    let terms = section.lines().filter_map(|line| line.strip_prefix("\\fB"));
    let codes = terms.filter_map(|term| term.strip_suffix("\\fR")?.parse::<u8>().ok());
    let page = fs::read_to_string(root().join("docs/src/guide/operating.md")).unwrap();
    let (_, table) = page.split_once("## Exit codes").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    let listed: Vec<u8> = rows.filter_map(|code| code.parse().ok()).collect();
    assert_eq!(listed, codes.collect::<Vec<_>>(), "docs/src/guide/operating.md, Exit codes");
}

#[test]
fn commands_parse() {
    let (mut parsed, mut findings) = (0, Vec::new());
    for document in documents() {
        for command in document.blocks("sh").iter().flat_map(|block| block.text.lines()) {
            let words = markdown::words(command);
            if words.first().is_none_or(|word| word != "bearer-proxy") {
                continue;
            }
            parsed += 1;
            if let Err(error) = Args::try_parse_from(&words)
                && error.use_stderr()
            {
                findings.push(format!("{}: {command}\n{error}", document.path));
            }
        }
    }
    none(&findings, "these commands are not understood:");
    assert!(parsed > 5, "{parsed} commands were found");
}
