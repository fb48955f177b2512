//! `init`, `presets`, `schema` and `completions`: what a newcomer asks first.

use std::io::Write;

use anyhow::{Context, bail};
use clap::CommandFactory;

use super::args::{Args, Completions, Init, Presets, Schema};
use super::exit::Exit;
use super::output::{errln, out, outln};
use crate::config::schema::{self, KeyDoc, ValueKind};
use crate::oauth::presets::{self, Preset};

/// The examples of `config/`, by preset: what `init` writes is what the tests load.
const EXAMPLES: [(&str, &str); 5] = [
    ("rfc6749", include_str!("../../config/minimal.toml")),
    ("qbank", include_str!("../../config/qbank.toml")),
    ("sqr", include_str!("../../config/sqr.toml")),
    ("core-banking", include_str!("../../config/core-banking.toml")),
    ("datacrunch", include_str!("../../config/datacrunch.toml")),
];

/// Writes a first configuration.
pub fn init(flags: &Init) -> anyhow::Result<Exit> {
    let Some((_, text)) = EXAMPLES.iter().find(|(name, _)| *name == flags.preset) else {
        let names: Vec<_> = EXAMPLES.iter().map(|(name, _)| *name).collect();
        errln!(
            "error: there is no example for preset `{}`\n  known: {}",
            flags.preset,
            names.join(", ")
        );
        return Ok(Exit::Usage);
    };
    let shown = flags.output.display();
    let mut file = match std::fs::File::create_new(&flags.output) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!(
                "{shown} exists already and is not overwritten; choose another name with --output"
            )
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write {shown}")),
    };
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {shown}"))?;
    outln!("wrote {shown}")?;
    outln!("next: put your client id and secret where it says, then")?;
    outln!("  bearer-proxy check --config {shown} --live")?;
    outln!("  bearer-proxy run --config {shown}")?;
    Ok(Exit::Done)
}

/// Lists the presets, or prints one.
pub fn presets(flags: &Presets) -> anyhow::Result<Exit> {
    let Some(name) = &flags.name else {
        for preset in presets::all() {
            outln!("{:14} {}", preset.name, preset.about)?;
        }
        return Ok(Exit::Done);
    };
    let Some(preset) = presets::preset(name) else {
        errln!("error: there is no preset `{name}`; `bearer-proxy presets` lists them");
        return Ok(Exit::Usage);
    };
    out!("{}", described(&preset))?;
    Ok(Exit::Done)
}

/// Tells what keys mean, or prints the JSON Schema of all.
pub fn schema(flags: &Schema) -> anyhow::Result<Exit> {
    let Some(path) = &flags.key else {
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

/// What a preset stands for, as the keys that would say the same.
fn described(preset: &Preset) -> String {
    let dialect = &preset.dialect;
    let mut text = format!("# {}: {}\n", preset.name, preset.about);
    if let Some(url) = &preset.token_url {
        text += &format!("token_url = {url:?}\n");
    }
    text += &format!("send_scope = {}\n", dialect.send_scope);
    text += &format!("use_refresh_token = {}\n", dialect.use_refresh_token);
    text += &format!(
        "\n[request]\nencoding = {:?}\n",
        format!("{:?}", dialect.encoding).to_lowercase()
    );
    let request = &dialect.request;
    text += &format!(
        "fields = {{ client_id = {:?}, client_secret = {:?} }}\n",
        request.client_id, request.client_secret
    );
    if !dialect.send_grant_type {
        text += "omit = [\"grant_type\"]\n";
    }
    let response = &dialect.response;
    text += &format!(
        "\n[response]\naccess_token = {:?}\ntoken_type = {:?}\nexpires_in = {:?}\n",
        response.access_token, response.token_type, response.expires_in
    );
    if let Some(expires_at) = &response.expires_at {
        text += &format!("expires_at = {expires_at:?}\n");
    }
    text
}

/// Prints a completion script.
pub fn completions(flags: &Completions) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut Args::command(), "bearer-proxy", &mut script);
    out!("{}", String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
