//! `init`, `presets` and `schema`: what a newcomer asks first.

use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

use super::args::Init;
use super::exit::Exit;
use super::output::{errln, out, outln};
use super::setup::{program, quoted};
use crate::config::schema::{self, KeyDoc, ValueKind};
use crate::oauth::FieldPath;
use crate::oauth::dialect::BodyEncoding;
use crate::oauth::presets::{self, Preset};

/// Examples of `config/`, which tests load, by the preset that they use.
const EXAMPLES: [(&str, &str); 4] = [
    ("qbank", include_str!("../../config/qbank.toml")),
    ("sqr", include_str!("../../config/sqr.toml")),
    ("core-banking", include_str!("../../config/core-banking.toml")),
    ("datacrunch", include_str!("../../config/datacrunch.toml")),
];
/// The example for a token server that has no preset of its own; it uses `rfc6749`.
const ANY_BANK: &str = include_str!("../../config/rfc6749.toml");

/// Writes a first configuration.
pub(super) fn init(config: Option<&Path>, flags: &Init) -> anyhow::Result<Exit> {
    let to_stdout = flags.output.as_deref() == Some(Path::new("-"));
    let named = flags.output.as_deref().filter(|_| !to_stdout).or(config);
    let path = named.unwrap_or(Path::new("bearer-proxy.toml"));
    let text = first_config(&flags.preset, &quoted(path));
    if to_stdout {
        out!("{text}")?;
        return Ok(Exit::Done);
    }
    let shown = path.display();
    let created =
        std::fs::File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
    match created {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!(
                "{shown} exists already and is not overwritten; choose another name with --output"
            )
        }
        created => created.with_context(|| format!("cannot write {shown}"))?,
    }
    let (program, path) = (quoted(&program()), quoted(path));
    outln!("wrote {shown}\nnext: put your client id and secret where it says, then")?;
    outln!("  {program} check --config {path} --live\n  {program} run --config {path}")?;
    Ok(Exit::Done)
}

/// The example for a preset, whose comments speak of the file that it is written to.
fn first_config(preset: &str, file: &str) -> String {
    let text = match EXAMPLES.iter().find(|(name, _)| *name == preset) {
        Some((_, text)) => (*text).to_owned(),
        None => ANY_BANK.replace("\"rfc6749\"", &format!("{:9}", Value::from(preset).to_string())),
    };
    text.replace(&format!("--config {preset}.toml"), &format!("--config {file}"))
        .replace("--config rfc6749.toml", &format!("--config {file}"))
}

/// Lists the presets, or prints one.
pub(super) fn presets(name: Option<&str>) -> anyhow::Result<Exit> {
    match name.and_then(presets::preset) {
        Some(preset) => out!("{}", keys_of(&preset))?,
        None => {
            for preset in presets::all() {
                outln!("{:14} {}", preset.name, preset.about)?;
            }
        }
    }
    Ok(Exit::Done)
}

/// Tells what keys mean, or prints the JSON Schema of all.
pub(super) fn schema(key: Option<&str>) -> anyhow::Result<Exit> {
    let Some(path) = key else {
        outln!("{:#}", schema::schema())?;
        return Ok(Exit::Done);
    };
    match schema::keys_below(path) {
        Ok(keys) => {
            let texts: Vec<_> = keys.iter().map(explained).collect();
            out!("{}", texts.join("\n"))?;
            Ok(Exit::Done)
        }
        Err(near) => {
            let hint = near.map_or_else(
                || "`bearer-proxy schema server` shows the keys of a table".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            errln!("error: there is no key `{path}`\n  {hint}");
            Ok(Exit::Usage)
        }
    }
}

/// A key in three lines: where it stands, what it says, what that means.
fn explained(key: &KeyDoc) -> String {
    let kind = match key.kind {
        ValueKind::Written => "no default",
        ValueKind::Default => "the default",
        ValueKind::Example => "an example; no default",
    };
    format!("{}\n    {}    # {kind}\n    {}\n", key.path, key.setting, key.about)
}

/// The keys of the configuration that say the same as a preset, as TOML.
fn keys_of(preset: &Preset) -> String {
    let (dialect, request, response) =
        (&preset.dialect, &preset.dialect.request, &preset.dialect.response);
    // JSON strings are TOML strings, as long as no control character is in them.
    let text = |value: &str| Value::from(value).to_string();
    let line = |key: &str, value: Option<&str>| {
        value.map(|value| format!("{key} = {}\n", text(value))).unwrap_or_default()
    };
    let place =
        |key: &str, path: Option<&FieldPath>| line(key, path.map(FieldPath::to_string).as_deref());
    let encoding = match dialect.encoding {
        BodyEncoding::Form => "form",
        BodyEncoding::Json => "json",
    };
    let omit = if dialect.send_grant_type { "" } else { "omit = [\"grant_type\"]\n" };
    format!(
        "# {}: {}\n{}send_scope = {}\nuse_refresh_token = {}\n\n[request]\n{}\
         fields = {{ client_id = {}, client_secret = {} }}\n{omit}\n[response]\n{}{}{}{}",
        preset.name,
        preset.about,
        line("token_url", preset.token_url),
        dialect.send_scope,
        dialect.use_refresh_token,
        line("encoding", Some(encoding)),
        text(&request.client_id),
        text(&request.client_secret),
        place("access_token", Some(&response.access_token)),
        place("token_type", Some(&response.token_type)),
        place("expires_in", Some(&response.expires_in)),
        place("expires_at", response.expires_at.as_ref()),
    )
}
