//! The pages of `docs/src/reference/`, made from what the program says of itself.

use std::fs;
use std::path::Path;

use bearer_proxy::app::App;
use bearer_proxy::cli::args::Args;
use bearer_proxy::config::schema::{KeyDoc, ValueKind, keys};
use bearer_proxy::oauth::presets;
use bearer_proxy::oauth::vendors::{VENDORS, Vendor};
use bearer_proxy::proxy::code::{Code, Retryable};
use clap::CommandFactory;

use crate::log_events::{LogEvent, log_events};
use crate::root;

/// Compares the part of a page after its marker with what the program says, or writes it.
fn page(name: &str, made: &str) {
    const MARKER: &str = "<!-- Made by `BLESS=1 cargo test --test docs`. -->\n";
    let path = root().join("docs/src/reference").join(name);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let (head, found) = text.split_once(MARKER).unwrap_or((&text, ""));
    let made = format!("\n{}\n", made.trim_end());
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, format!("{head}{MARKER}{made}")).unwrap();
        return;
    }
    let differs = found.lines().zip(made.lines()).find(|(found, made)| found != made);
    assert!(
        found == made,
        "docs/src/reference/{name} is out of date; `BLESS=1 cargo test --test docs` writes it\n{differs:#?}"
    );
}

/// A table of Markdown.
fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&head.map(str::to_owned)) + &line(&head.map(|_| "---".to_owned()));
    for row in rows {
        text += &line(&row.map(|cell| cell.replace('|', "\\|")));
    }
    text
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

/// Text that Markdown would take for HTML.
fn plain(text: &str) -> String {
    text.replace('<', "&lt;").replace('*', "\\*")
}

#[test]
fn problem_codes() {
    let row = |code: Code| {
        let forwarded: Vec<_> = code.forwarded().iter().map(|word| word.as_str()).collect();
        let retry = match code.retryable() {
            Retryable::No => "no",
            Retryable::Later => "yes, later",
            Retryable::IfIdempotent => "if it is safe to",
        };
        [
            format!("`{}`", code.as_str()),
            code.status().as_u16().to_string(),
            code.title().to_owned(),
            retry.to_owned(),
            forwarded.join(", "),
            format!("`{}`", code.proxy_error()),
        ]
    };
    let head = ["code", "status", "title", "try again", "forwarded", "`Proxy-Status` error"];
    page("problem-codes.md", &table(head, Code::ALL.map(row)));
}

/// The gallery of the guide.
#[test]
fn vendors() {
    let mut text = String::new();
    for vendor in VENDORS {
        let Vendor { name, about, document, token_url, .. } = vendor;
        let preset = presets::preset(name).unwrap();
        let mut fill_in = vec![match preset.token_url {
            Some(_) => "the id and the secret".to_owned(),
            None => format!("`token_url = \"{token_url}\"`, the id and the secret"),
        }];
        let lines = [vendor.keys, vendor.request, vendor.upstream].map(str::lines);
        let lines = lines.into_iter().flatten().filter(|line| !line.starts_with('#'));
        fill_in.extend(lines.map(code));
        text += &format!("## {name}\n\n{}. [The vendor's document]({document}).\n\n", plain(about));
        text += &format!("- To fill in: {}.\n", fill_in.join(", "));
        if preset.token_url.is_some() {
            text += &format!("- Token endpoint: `{token_url}`\n");
        }
        text += &vendor.notes.iter().map(|note| format!("- {}\n", plain(note))).collect::<String>();
        text += "\n";
    }
    page("../guide/vendors.md", &text);
}

#[test]
fn configuration() {
    let mut text = String::new();
    let mut keys = keys().into_iter().peekable();
    while let Some(first) = keys.peek() {
        let section = section(&first.path);
        let mut rows = Vec::new();
        while let Some(key) = keys.next_if(|key| self::section(&key.path) == section) {
            rows.push(key_row(&key, &section));
        }
        let title = if section.is_empty() { "The file".to_owned() } else { code(&section) };
        let head = ["key", "default", "example", "meaning"];
        text += &format!("## {title}\n\n{}\n", table(head, rows));
    }
    page("configuration.md", &text);
}

/// The tables that a file is divided into: the first two or three names of a path.
fn section(path: &str) -> String {
    const DEEP: [&str; 4] = ["request", "response", "set_headers", "routes"];
    let names: Vec<&str> = path.split('.').collect();
    let depth = match names.as_slice() {
        ["credentials" | "upstreams", _, name, _, ..] if DEEP.contains(name) => 3,
        ["credentials" | "upstreams" | "clients", _, _, ..] => 2,
        [_, _, ..] => 1,
        _ => 0,
    };
    names[..depth].join(".")
}

fn key_row(key: &KeyDoc, section: &str) -> [String; 4] {
    let name = key.path.strip_prefix(section).unwrap().trim_start_matches('.');
    let value = key.setting.split_once('=').map(|(_, value)| value.trim()).unwrap_or_default();
    let (default, example) = match key.kind {
        ValueKind::Default => (code(value), String::new()),
        ValueKind::Example | ValueKind::Written => (String::new(), code(value)),
    };
    [code(name), default, example, plain(&key.about)]
}

#[tokio::test]
async fn metrics() {
    let minimal = fs::read_to_string(root().join("config/minimal.toml")).unwrap();
    let listeners = "[server]\nlisten = \"localhost:0\"\n[admin]\nlisten = \"localhost:0\"\n";
    let text = format!("{minimal}\n{listeners}");
    let loaded = bearer_proxy::config::parse(&text, Path::new("docs.toml"), &|_| None);
    let config = loaded.unwrap_or_else(|problems| panic!("{}", problems.render(false))).config;
    let app = App::build(config).await.unwrap();
    let row = |family: bearer_proxy::telemetry::metrics::MetricDescription| {
        let labels: Vec<_> = family.labels.iter().map(|label| code(label)).collect();
        [code(&family.name), family.kind.to_owned(), labels.join(", "), plain(&family.help)]
    };
    let rows = app.metrics().into_iter().map(row);
    page("metrics.md", &table(["name", "type", "labels", "meaning"], rows));
}

/// Fields of the access log, and what each says.
const ACCESS_FIELDS: [(&str, &str); 23] = [
    ("request_id", "`X-Request-Id` of the request, or a number made for it"),
    ("method", "Method of the request"),
    (
        "upstream",
        "Name of the upstream; empty if no route matched, or if the request was refused before (`overloaded`, `body_too_large`)",
    ),
    ("route", "Name of the route; empty like `upstream`"),
    ("path", "Path pattern of the route, mount included; absent if no route matched"),
    ("client", "Name of the client in `[clients]`; empty if it is not known"),
    ("status", "Status of the answer; that of `code` if none was sent (`delivered` is `no`)"),
    ("code", "Problem code, if the proxy answered itself; else empty"),
    ("forwarded", "`yes`, `no` or `unknown`: whether the upstream got the request"),
    ("delivered", "`yes`, `partly` or `no`: how much of the answer the app got"),
    (
        "complete",
        "Whether the upstream's answer was read to its end; absent if the proxy answered itself, or if it was not read \
         because the app had gone. Read to its end says nothing of the app: that is `delivered`",
    ),
    (
        "bytes_in",
        "Bytes of the request's body that came from the app, however often they were sent",
    ),
    (
        "bytes_out",
        "Bytes of the body of the answer that went to the app: the upstream's, or the proxy's own problem document",
    ),
    ("attempts", "Times that the request was sent to the upstream"),
    ("upstream_addr", "Address of the upstream's connection, if it is known"),
    ("token", "Fingerprint of the token that the request carried last; absent if it carried none"),
    (
        "upstream_ms",
        "Milliseconds for which the head of the upstream's answer was awaited, less waits for the app's body",
    ),
    (
        "app_ms",
        "Milliseconds until then for which more of the request's body was awaited from the app; absent without such a wait",
    ),
    (
        "token_ms",
        "Milliseconds until then for which a token was awaited; absent without such a wait",
    ),
    (
        "connect_ms",
        "Milliseconds until then for which a connection to the upstream, or a place on one, was awaited; absent without such a wait",
    ),
    (
        "proxy_ms",
        "Milliseconds from the request to the head of the answer, less the four above: the proxy's own time",
    ),
    ("duration_ms", "Milliseconds from the head of the request to the end of the exchange"),
    ("detail", "The reason for a refusal, or for an answer that was cut; else absent"),
];

#[test]
fn logs() {
    let (access, events): (Vec<_>, Vec<_>) =
        log_events(root()).into_iter().partition(|event| event.target.is_some());
    let logged: Vec<_> = access.iter().flat_map(|event| &event.fields).collect();
    let explained: Vec<_> = ACCESS_FIELDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(logged, explained, "fields of the access log, in their order");
    let rows = ACCESS_FIELDS.map(|(name, meaning)| [code(name), meaning.to_owned()]);
    let mut text = format!("## Access log\n\n{}", table(["field", "meaning"], rows));
    let mut events = events;
    // Whatever moves between files stays where it is here.
    events.sort_by_key(|event| (event.folder.clone(), event.severity(), event.message.clone()));
    events.dedup();
    let mut events = events.into_iter().peekable();
    while let Some(first) = events.peek() {
        let folder = first.folder.clone();
        let mut rows = Vec::new();
        while let Some(event) = events.next_if(|event| event.folder == folder) {
            rows.push(event_row(&event));
        }
        let head = ["level", "message", "fields"];
        text += &format!("\n## Target `bearer_proxy::{folder}`\n\n{}", table(head, rows));
    }
    page("logs.md", &text);
}

fn event_row(event: &LogEvent) -> [String; 3] {
    let fields: Vec<_> = event.fields.iter().map(|field| code(field)).collect();
    [event.level.to_uppercase(), plain(&event.message), fields.join(", ")]
}

#[test]
fn command_line() {
    let mut text = String::new();
    let mut command = Args::command().term_width(100);
    text += &help("bearer-proxy", command.render_long_help());
    command.build();
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        let name = format!("bearer-proxy {}", verb.get_name());
        text += &help(&name, verb.clone().term_width(100).render_long_help());
        for below in verb.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let name = format!("{name} {}", below.get_name());
            text += &help(&name, below.clone().term_width(100).render_long_help());
        }
    }
    page("command-line.md", &text);
}

fn help(name: &str, text: impl std::fmt::Display) -> String {
    let text = text.to_string();
    let lines: Vec<_> = text.trim_end().lines().map(str::trim_end).collect();
    format!("## `{name}`\n\n```text\n{}\n```\n\n", lines.join("\n"))
}
