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
use crate::oauth::client_auth::{BasicEncoding, ClientAuth};
use crate::oauth::dialect::BodyEncoding;
use crate::oauth::presets::{self, Preset};
use crate::oauth::{
    FieldPath,
    vendors::{VENDORS, Vendor},
};

/// Examples of `config/`, which tests load, by the preset that they use.
const EXAMPLES: [(&str, &str); 10] = [
    ("qbank", include_str!("../../config/qbank.toml")),
    ("sqr", include_str!("../../config/sqr.toml")),
    ("core-banking", include_str!("../../config/core-banking.toml")),
    ("datacrunch", include_str!("../../config/datacrunch.toml")),
    ("google-service-account", include_str!("../../config/google-service-account.toml")),
    ("docusign", include_str!("../../config/docusign.toml")),
    ("box", include_str!("../../config/box.toml")),
    ("salesforce-jwt", include_str!("../../config/salesforce-jwt.toml")),
    ("salesforce-password", include_str!("../../config/salesforce-password.toml")),
    ("sap-destination", include_str!("../../config/sap-destination.toml")),
];
/// The example for a token server that has no preset of its own; it uses `rfc6749`.
const ANY_BANK: &str = include_str!("../../config/rfc6749.toml");

/// The JSON Schema that a first configuration names for editors: a file beside it, which needs no network.
const SCHEMA: &str = "bearer-proxy.schema.json";

/// Writes a first configuration, and the JSON Schema beside it.
pub(super) fn init(config: Option<&Path>, flags: &Init) -> anyhow::Result<Exit> {
    let to_stdout = flags.output.as_deref() == Some(Path::new("-"));
    let named = flags.output.as_deref().filter(|_| !to_stdout).or(config);
    let path = named.unwrap_or(Path::new("bearer-proxy.toml"));
    let text = first_config(&flags.preset, &quoted(path));
    if to_stdout {
        out!("{text}")?;
        return Ok(Exit::Done);
    }
    // Editors look for the schema where the first line says; nothing is beside stdout.
    let text = format!("#:schema ./{SCHEMA}\n{text}");
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
    outln!("wrote {shown}")?;
    write_schema(&path.with_file_name(SCHEMA))?;
    let (program, path) = (quoted(&program()), quoted(path));
    outln!("next: put your client id and secret where it says, then")?;
    outln!("  {program} check --config {path} --live\n  {program} run --config {path}")?;
    Ok(Exit::Done)
}

/// Writes the JSON Schema. One that is there stays, and a failure is no more than a warning.
fn write_schema(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let text = format!("{:#}\n", schema::schema());
    match std::fs::File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => outln!("wrote {shown}, for completion in editors")?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => errln!("warning: cannot write {shown}: {error}"),
    }
    Ok(())
}

/// The example for a preset, whose comments speak of the file that it is written to.
fn first_config(preset: &str, file: &str) -> String {
    let vendor = VENDORS.iter().find(|vendor| vendor.name == preset);
    let text = match (EXAMPLES.iter().find(|(name, _)| *name == preset), vendor) {
        (Some((_, text)), _) => (*text).to_owned(),
        (None, Some(vendor)) => of_vendor(vendor),
        (None, None) => {
            ANY_BANK.replace("\"rfc6749\"", &format!("{:9}", Value::from(preset).to_string()))
        }
    };
    text.replace(&format!("--config {preset}.toml"), &format!("--config {file}"))
        .replace("--config rfc6749.toml", &format!("--config {file}"))
}

/// The first configuration for a row of the table of vendors.
fn of_vendor(vendor: &Vendor) -> String {
    let Vendor { name, about, document, token_url, api: (api, path), method, .. } = *vendor;
    let (variable, file) = (name.to_uppercase().replace('-', "_"), name.replace('-', "_"));
    let fixed = presets::preset(name).is_some_and(|preset| preset.token_url.is_some());
    let token_url = if fixed { String::new() } else { format!("token_url = \"{token_url}\"\n") };
    let proof = match vendor.auth {
        ClientAuth::None => String::new(),
        _ => format!(
            "client_id.env = \"{variable}_CLIENT_ID\"\n\
             client_secret.file = \"/run/secrets/{file}_client_secret\"\n"
        ),
    };
    let lines = |text: &str| if text.is_empty() { String::new() } else { format!("{text}\n") };
    let request = match vendor.request {
        "" => String::new(),
        request => format!("\n[credentials.{name}.request]\n{request}\n"),
    };
    let scopes = match vendor.scope {
        "" => String::new(),
        scope => format!("scopes = [\"{scope}\"]\n"),
    };
    let notes: String = vendor.notes.iter().map(|note| format!("# - {note}\n")).collect();
    format!(
        "# {about}\n#\n#   bearer-proxy check --config {name}.toml\n\
         #   curl http://localhost:6750/{name}{path}\n#\n\
         # To replace: words in capitals, the places of the id and the secret, and the routes.\n\
         # The vendor's document: {document}\n{notes}version = 1\n\n\
         [credentials.{name}]\npreset = \"{name}\"\n{token_url}{proof}{}{request}\n\
         [upstreams.{name}]\nurl = \"{api}\"\ncredential = \"{name}\"\nmount = \"/{name}\"\n{}\n\
         [[upstreams.{name}.routes]]\nname = \"first\"\npath = \"{path}\"\n\
         methods = [\"{method}\"]\n{scopes}",
        lines(vendor.keys),
        lines(vendor.upstream),
    )
}

/// Lists the presets, or prints one.
pub(super) fn presets(name: Option<&str>) -> anyhow::Result<Exit> {
    match name.and_then(presets::preset) {
        Some(preset) => out!("{}", keys_of(&preset))?,
        None => {
            let all = presets::all();
            let width = all.iter().map(|preset| preset.name.len()).max().unwrap_or_default();
            for preset in all {
                outln!("{:width$}  {}", preset.name, preset.about)?;
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
    let omitted = [(dialect.send_grant_type, "grant_type"), (dialect.send_client_id, "client_id")];
    let omitted: Vec<_> =
        omitted.into_iter().filter(|(sent, _)| !sent).map(|(_, name)| name).collect();
    let list = |key: &str, items: Value| match items.as_array().is_some_and(Vec::is_empty) {
        true => String::new(),
        false => format!("{key} = {items}\n"),
    };
    let omit = list("omit", Value::from(omitted));
    let token_types = list("accept_token_types", Value::from(dialect.accept_token_types.clone()));
    let (auth, encoding_of_basic) = match preset.auth {
        ClientAuth::ClientSecretBasic(BasicEncoding::Raw) => ("client_secret_basic", Some("raw")),
        ClientAuth::ClientSecretBasic(BasicEncoding::Rfc6749) => ("client_secret_basic", None),
        ClientAuth::None => ("none", None),
        _ => ("client_secret_post", None),
    };
    let extra: Vec<_> = dialect.extra_parameters.iter().collect();
    let extra: String = extra.iter().map(|(k, v)| format!("extra.{k} = {}\n", text(v))).collect();
    let document =
        preset.vendor.map(|vendor| format!("# {}\n", vendor.document)).unwrap_or_default();
    let notes: String = preset.notes.iter().map(|note| format!("# - {note}\n")).collect();
    format!(
        "# {}: {}\n{document}{notes}{}{}{}{token_types}send_scope = {}\nuse_refresh_token = {}\n\
         default_lifetime = \"{}s\"\n\n[request]\n{}\
         fields = {{ client_id = {}, client_secret = {} }}\n{omit}{extra}\n[response]\n{}{}{}{}",
        preset.name,
        preset.about,
        line("token_url", preset.token_url),
        line("client_auth", Some(auth)),
        line("basic_encoding", encoding_of_basic),
        dialect.send_scope,
        dialect.use_refresh_token,
        dialect.default_lifetime.as_secs(),
        line("encoding", Some(encoding)),
        text(&request.client_id),
        text(&request.client_secret),
        place("access_token", Some(&response.access_token)),
        place("token_type", Some(&response.token_type)),
        place("expires_in", Some(&response.expires_in)),
        place("expires_at", response.expires_at.as_ref()),
    )
}
