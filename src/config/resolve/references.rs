//! References: where a secret is, never what it is.

use std::path::PathBuf;

use crate::secret::Reference;

use super::super::expand::is_variable_name;
use super::super::problem::Fault;
use super::super::read::Item;

/// Sources that others know and this program does not.
const ELSEWHERE: [&str; 8] = [
    "aws_secrets_manager",
    "azure_key_vault",
    "exec",
    "gcp_secret_manager",
    "keyring",
    "kubernetes",
    "systemd",
    "vault",
];

const ROTATE: &str = "the value shown above was masked; if this file was shared, rotate the secret";

/// Reads `KEY.env = "NAME"` or `KEY.file = "/path"`. Neither is expanded or ever shown: a secret may
/// have been put there by mistake.
pub(super) fn read(item: &Item<'_>, key: &str) -> Option<Reference> {
    if !item.is_table() {
        let fault = Fault::new("a secret may not be written into this file");
        let label = format!("put the value in a file and write  {key}.file = \"/path\"");
        item.fail(
            fault
                .label(label)
                .hint("also: .env = \"NAME\" of an environment variable")
                .note(ROTATE),
        );
        return None;
    }
    let section = item.section("a reference")?;
    let entries = section.entries();
    let [(source, place)] = entries.as_slice() else {
        item.hide_inner_keys();
        let fault = Fault::new("a reference names one source");
        section.fail(fault.label(format!("found {}", entries.len())).expected("env or file"));
        return None;
    };
    match source.as_str() {
        "env" => variable(place).map(Reference::Env),
        "file" => file(place).map(Reference::File),
        _ => {
            unknown_source(source, place);
            None
        }
    }
}

fn variable(place: &Item<'_>) -> Option<String> {
    let name = place.raw()?;
    if !is_variable_name(name) {
        let fault = Fault::new("this names no environment variable");
        let label = "expected letters, digits and `_`: the variable's name, not what it holds";
        place.fail(fault.label(label).note(ROTATE));
        return None;
    }
    Some(name.to_owned())
}

fn file(place: &Item<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(place.raw()?);
    if !path.is_absolute() {
        let fault = Fault::new("this names no file")
            .label("expected an absolute path, such as \"/run/secrets/client_secret\"");
        place.fail(fault.note(ROTATE));
        return None;
    }
    Some(path)
}

fn unknown_source(source: &str, place: &Item<'_>) {
    let finish = |fault: Fault| fault.label("not known here").expected("env or file");
    match ELSEWHERE.contains(&source) {
        true => place
            .fail_at_key(finish(Fault::new(format!("secrets cannot be read from `{source}` yet")))),
        false => place.fail_at_hidden_key(finish(Fault::new("unknown source of a secret"))),
    }
}
