//! References: where a secret is, never what it is.

use std::path::{Path, PathBuf};

use crate::secret::{self, Reference, StoreHttpSettings};

use super::name::{ROTATE, named};
use super::stores;
use crate::diagnostics::{Diagnostic, Item, is_variable_name};

/// What may stand after `client_secret.`, in words.
const SOURCES: &str = "env, file, systemd, exec, keyring, aws_secrets_manager or azure_key_vault";

/// Sources that others know and this program does not, and how they are reached all the same.
const ELSEWHERE: [(&str, &str); 6] = [
    ("aws", "write  .aws_secrets_manager = { id = \"NAME\", region = \"…\" }"),
    ("azure", "write  .azure_key_vault = { vault = \"https://…\", name = \"NAME\" }"),
    ("command", "write  .exec = [\"/usr/bin/program\", \"argument\"]"),
    ("gcp_secret_manager", "the Secrets Store CSI driver mounts files, which .file reads"),
    ("kubernetes", "mount the Secret as a volume and name its file with .file"),
    ("vault", "Vault Agent renders files, which .file reads"),
];

/// Reads `KEY.env = "NAME"`, `KEY.file = "/path"` and the like. None is expanded or ever shown: a
/// secret may have been put there by mistake.
pub(super) fn read(item: &Item<'_>, key: &str, http: &StoreHttpSettings) -> Option<Reference> {
    if !item.is_table() {
        let diagnostic = Diagnostic::new("a secret may not be written into this file");
        let label = format!("put the value in a file and write  {key}.file = \"/path\"");
        let hint = "also: .env = \"NAME\" of an environment variable, .systemd, .exec, .keyring, \
                    .aws_secrets_manager, .azure_key_vault";
        item.fail(diagnostic.label(label).hint(hint).note(ROTATE));
        return None;
    }
    let section = item.section("a reference")?;
    let entries = section.entries();
    let [(source, place)] = entries.as_slice() else {
        item.hide_inner_keys();
        let diagnostic = Diagnostic::new("a reference names one source");
        section.fail(diagnostic.label(format!("found {}", entries.len())).expected(SOURCES));
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
        _ => {
            unknown_source(source, place);
            None
        }
    }
}

fn variable(place: &Item<'_>) -> Option<String> {
    let name = place.raw()?;
    let label = "expected letters, digits and `_`: the variable's name, not what it holds";
    named(place, name, is_variable_name(name), "this names no environment variable", label)
}

fn credential(place: &Item<'_>) -> Option<String> {
    let name = place.raw()?;
    let label = "expected the name that LoadCredential= of the unit gives it";
    let good = secret::is_credential_name(name);
    named(place, name, good, "this names no systemd credential", label)
}

fn file(place: &Item<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(place.raw()?);
    if !path.is_absolute() {
        let diagnostic = Diagnostic::new("this names no file")
            .label("expected an absolute path, such as \"/run/secrets/client_secret\"");
        place.fail(diagnostic.note(ROTATE));
        return None;
    }
    Some(path)
}

/// A program and its arguments, each of them as it is: there is no shell.
fn command(place: &Item<'_>) -> Option<Vec<String>> {
    if place.is_text() {
        let diagnostic = Diagnostic::new("a program is a list: no shell takes it apart");
        place.fail(diagnostic.label("write  [\"/usr/bin/program\", \"argument\"]"));
        return None;
    }
    let mut words = Vec::new();
    for word in place.list()? {
        words.push(word.raw()?.to_owned());
    }
    if !words.first().is_some_and(|program| Path::new(program).is_absolute()) {
        let diagnostic = Diagnostic::new("this names no program");
        place.fail(diagnostic.label("expected an absolute path first, such as \"/usr/bin/pass\""));
        return None;
    }
    Some(words)
}

fn unknown_source(source: &str, place: &Item<'_>) {
    let diagnostic =
        |message: String| Diagnostic::new(message).label("not known here").expected(SOURCES);
    place.hide_inner_keys();
    match ELSEWHERE.iter().find(|(known, _)| *known == source) {
        Some((_, advice)) => {
            let message = format!("secrets cannot be read from `{source}` by this program");
            place.fail_at_key(diagnostic(message).hint(*advice));
        }
        None => place.fail_at_hidden_key(diagnostic("unknown source of a secret".into())),
    }
}
