//! References: where a secret is, never the secret itself.

use std::path::{Path, PathBuf};

use super::name::{ROTATE, secret_name};
use super::stores;
use crate::diagnostics::{Diagnostic, Item, is_variable_name};
use crate::secret::{self, Reference, StoreHttpSettings};

/// Sources of secrets, each a key of a reference.
const SOURCES: [&str; 8] = [
    "env",
    "file",
    "systemd",
    "exec",
    "keyring",
    "aws_secrets_manager",
    "azure_key_vault",
    "vault",
];

/// Sources that other programs have, and how to reach them from here.
const ELSEWHERE: [(&str, &str); 6] = [
    ("aws", "write  .aws_secrets_manager = { id = \"NAME\", region = \"…\" }"),
    ("azure", "write  .azure_key_vault = { vault = \"https://…\", name = \"NAME\" }"),
    ("command", "write  .exec = [\"/usr/bin/program\", \"argument\"]"),
    ("gcp_secret_manager", "the Secrets Store CSI driver mounts files, which .file reads"),
    ("kubernetes", "mount the Secret as a volume and name its file with .file"),
    ("openbao", "write  .vault = { path = \"NAME\", field = \"NAME\" }"),
];

/// Returns whether a key names the source of a secret, or is `value`, the text of a header that is not
/// secret.
pub(super) fn is_reference(key: &str) -> bool {
    SOURCES.contains(&key) || key == "value"
}

/// Reads `KEY.env = "NAME"`, `KEY.file = "/path"` and their like. None is expanded or ever shown: a
/// secret may have been put there by mistake.
pub(super) fn read(item: &Item<'_>, http: &StoreHttpSettings) -> Option<Reference> {
    if !item.is_table() {
        let label = format!("put the value in a file and write  {}.file = \"/path\"", item.key());
        let others: Vec<_> = SOURCES.iter().filter(|source| **source != "file").copied().collect();
        let diagnostic = Diagnostic::error("a secret may not be written into this file");
        let hint = format!("also: .{}", others.join(", ."));
        item.fail(diagnostic.label(label).hint(hint).note(ROTATE));
        return None;
    }
    let entries = item.secret_section()?.entries();
    let [(source, place)] = entries.as_slice() else {
        item.mask_keys();
        let diagnostic = Diagnostic::error("a reference names one source");
        let label = format!("found {}", entries.len());
        item.fail(diagnostic.label(label).expected(SOURCES.join(", ")));
        return None;
    };
    match source.as_str() {
        "env" => variable(place).map(Reference::Env),
        "file" => file(place).map(Reference::File),
        "systemd" => credential(place).map(Reference::Systemd),
        "exec" => command(place).map(Reference::Exec),
        "keyring" => stores::keyring(place),
        "aws_secrets_manager" => stores::aws(place, http),
        "azure_key_vault" => stores::azure(place, http),
        "vault" => stores::vault_secret(place, http),
        _ => {
            unknown_source(source, place);
            None
        }
    }
}

fn variable(place: &Item<'_>) -> Option<String> {
    let name = place.raw()?;
    let label = "expected letters, digits and `_`: the name of the variable, not its value";
    let message = "this names no environment variable";
    secret_name(place, name, is_variable_name(name), message, label)
}

fn credential(place: &Item<'_>) -> Option<String> {
    let name = place.raw()?;
    let label = "expected the name that LoadCredential= of the unit gives it";
    let good = secret::is_credential_name(name);
    secret_name(place, name, good, "this names no systemd credential", label)
}

fn file(place: &Item<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(place.raw()?);
    if !path.is_absolute() {
        let label = "expected an absolute path, such as \"/run/secrets/client_secret\"";
        place.fail(Diagnostic::error("this is no absolute path").label(label).note(ROTATE));
        return None;
    }
    Some(path)
}

/// A program and its arguments, each of them as it is: there is no shell.
fn command(place: &Item<'_>) -> Option<Vec<String>> {
    if place.is_text() {
        let diagnostic = Diagnostic::error("a program is a list: no shell takes it apart");
        place.fail(diagnostic.label("write  [\"/usr/bin/program\", \"argument\"]"));
        return None;
    }
    let words: Vec<_> = place.list()?.iter().map(Item::raw).collect();
    let words = words.into_iter().collect::<Option<Vec<_>>>()?;
    if !words.first().is_some_and(|program| Path::new(program).is_absolute()) {
        let label = "expected an absolute path first, such as \"/usr/bin/pass\"";
        place.fail(Diagnostic::error("this names no program").label(label));
        return None;
    }
    Some(words.into_iter().map(str::to_owned).collect())
}

fn unknown_source(source: &str, place: &Item<'_>) {
    let problem = |message: String| {
        Diagnostic::error(message).label("not known here").expected(SOURCES.join(", "))
    };
    place.mask_keys();
    match ELSEWHERE.iter().find(|(known, _)| *known == source) {
        Some((_, advice)) => {
            let message = format!("secrets cannot be read from `{source}` by this program");
            place.fail_at_key(problem(message).hint(*advice));
        }
        None => place.fail_at_hidden_key(problem("unknown source of a secret".into())),
    }
}
