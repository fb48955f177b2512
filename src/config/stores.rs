//! References to stores that are behind a cargo feature: keyring, AWS Secrets Manager, Azure Key Vault,
//! HashiCorp Vault.
//!
//! Every build reads the first three alike and finds the same mistakes; a build without the source then
//! names the feature that has it.

use std::time::Duration;

use super::missing_feature;
use super::name::{ROTATE, secret_name};
use crate::diagnostics::{Diagnostic, Item, Section};
use crate::net::Origin;
use crate::secret::{
    self, AwsSecret, AzureIdentity, AzureSecret, KeyringSecret, Reference, StoreHttpSettings, Vault,
};
#[cfg(feature = "vault")]
use crate::secret::{KvEngine, VaultSecret};

/// The default time for which a value of a remote store is kept.
const CACHE: Duration = Duration::from_secs(300);
/// A rotated secret is not left unseen for longer.
const LONGEST_CACHE: Duration = Duration::from_secs(24 * 3600);

const IDENTITIES: [(&str, AzureIdentity); 5] = [
    ("auto", AzureIdentity::Auto),
    ("client_secret", AzureIdentity::ClientSecret),
    ("workload", AzureIdentity::Workload),
    ("managed", AzureIdentity::Managed),
    ("cli", AzureIdentity::Cli),
];

/// `.keyring = { service = "…", account = "…" }`, or the account alone.
pub(super) fn keyring(place: &Item<'_>) -> Option<Reference> {
    let (service, account) = if place.is_text() {
        (None, account(place)?)
    } else {
        let table = open(place, &["service", "account"])?;
        let service = text(&table, "service");
        (service, account(&table.required("account", "write  account = \"NAME\"")?)?)
    };
    let service = service.unwrap_or_else(|| secret::SERVICE.to_owned());
    built(place, Reference::Keyring(KeyringSecret { service, account }))
}

fn account(item: &Item<'_>) -> Option<String> {
    let name = item.raw()?;
    let label = "expected the entry's name: `bearer-proxy keyring set NAME`";
    secret_name(item, name, !name.is_empty(), "this names no entry of a keyring", label)
}

/// `.aws_secrets_manager = { id = "…", … }`.
pub(super) fn aws(place: &Item<'_>, http: &StoreHttpSettings) -> Option<Reference> {
    let keys = ["id", "key", "region", "version_stage", "profile", "endpoint", "cache"];
    let table = open(place, &keys)?;
    let id = table.required("id", "write  id = \"NAME\": the secret's name or ARN");
    let (id, endpoint) = (id.and_then(|item| filled(&item)), endpoint(&table));
    let secret = AwsSecret {
        key: text(&table, "key"),
        region: text(&table, "region"),
        version_stage: text(&table, "version_stage"),
        profile: text(&table, "profile"),
        cache: table.duration("cache", ..=LONGEST_CACHE, CACHE),
        id: id?,
        endpoint: endpoint?,
    };
    let (secret, http) = (Box::new(secret), Box::new(http.clone()));
    built(place, Reference::AwsSecretsManager { secret, http })
}

/// `.azure_key_vault = { vault = "https://…", name = "…", … }`.
pub(super) fn azure(place: &Item<'_>, http: &StoreHttpSettings) -> Option<Reference> {
    let table = open(place, &["vault", "name", "version", "identity", "cache"])?;
    let vault = table.required("vault", "write  vault = \"https://NAME.vault.azure.net\"");
    let name = table.required("name", "write  name = \"NAME\": the secret's name");
    let (vault, name) = (vault.and_then(self::vault), name.and_then(vault_name));
    let secret = AzureSecret {
        version: text(&table, "version"),
        identity: table.choice("identity", &IDENTITIES, AzureIdentity::default()),
        cache: table.duration("cache", ..=LONGEST_CACHE, CACHE),
        vault: vault?,
        name: name?,
    };
    let (secret, http) = (Box::new(secret), Box::new(http.clone()));
    built(place, Reference::AzureKeyVault { secret, http })
}

fn vault(item: Item<'_>) -> Option<Vault> {
    let vault = Vault::parse(item.raw()?);
    if vault.is_none() {
        item.reject("expected https://NAME.vault.azure.net, or its like of a sovereign cloud");
    }
    vault
}

fn vault_name(item: Item<'_>) -> Option<String> {
    let name = item.raw()?;
    let label = "expected 1 to 127 letters, digits and `-`: its name, not its value";
    let good = secret::is_vault_name(name);
    secret_name(&item, name, good, "this names no secret of a vault", label)
}

/// `.vault = { path = "…", field = "…", … }`.
#[cfg(feature = "vault")]
pub(super) fn vault_secret(place: &Item<'_>, http: &StoreHttpSettings) -> Option<Reference> {
    let table = open(place, &["mount", "path", "field", "version", "kv_version", "cache"])?;
    let path = table.required("path", "write  path = \"NAME\": the secret's path below its mount");
    let field = table.required("field", "write  field = \"NAME\": the field of the secret");
    let (path, field) = (path.and_then(vault_path), field.and_then(|item| filled(&item)));
    let mount = table.item("mount").map_or_else(|| Some("secret".to_owned()), vault_path);
    let engine = match table.count("kv_version", 1..=2, 2) {
        1_u8 => KvEngine::V1,
        _ => KvEngine::V2,
    };
    let version = table.item("version");
    if let (Some(item), KvEngine::V1) = (&version, engine) {
        let problem = Diagnostic::error("a secret of KV version 1 has no versions");
        item.fail(problem.label("remove it, or remove kv_version"));
    }
    let secret = VaultSecret {
        version: version.and_then(|item| item.integer(1..)),
        cache: table.duration("cache", ..=LONGEST_CACHE, CACHE),
        mount: mount?,
        path: path?,
        field: field?,
        engine,
    };
    let Some(server) = http.vault.clone() else {
        let label = "write  [vault] address = \"https://vault.example:8200\"  and a login";
        let note = "the logins of Vault itself and of the egress proxy in [egress] cannot be there";
        let problem = Diagnostic::error("no Vault server is configured for this reference");
        place.fail_at_key(problem.label(label).note(note));
        return None;
    };
    Some(Reference::Vault { secret: Box::new(secret), server })
}

/// A path of Vault: segments between slashes.
#[cfg(feature = "vault")]
fn vault_path(item: Item<'_>) -> Option<String> {
    let path = item.raw()?;
    let named = |segment: &str| !matches!(segment, "" | "." | "..");
    if !path.split('/').all(named) || path.chars().any(char::is_control) {
        item.reject("expected names between slashes, with none at either end");
        return None;
    }
    Some(path.to_owned())
}

/// This build has no source of this kind, and reads neither the reference nor `[vault]`.
#[cfg(not(feature = "vault"))]
pub(super) fn vault_secret(place: &Item<'_>, _: &StoreHttpSettings) -> Option<Reference> {
    refuse(place, "vault", "vault");
    None
}

/// The reference, if this build has its source.
fn built(place: &Item<'_>, reference: Reference) -> Option<Reference> {
    let kind = reference.kind().as_str();
    match secret::missing_feature(kind) {
        Some(feature) => refuse(place, kind, feature),
        None => return Some(reference),
    }
    None
}

fn refuse(place: &Item<'_>, kind: &str, feature: &str) {
    missing_feature::refuse(
        place,
        format!("this build cannot read secrets from `{kind}`"),
        feature,
    );
}

/// The table of a store. Unknown keys of it are masked: they may be the secret.
fn open<'c>(place: &Item<'c>, keys: &[&str]) -> Option<Section<'c>> {
    let (section, mut known) = (place.section()?, true);
    for (key, item) in section.entries() {
        if !keys.contains(&key.as_str()) {
            let label = format!("{} has no such key", place.key());
            let problem = Diagnostic::error("unknown key").label(label).expected(keys.join(", "));
            item.mask_keys();
            item.fail_at_hidden_key(problem.note(ROTATE));
            known = false;
        }
    }
    known.then_some(section)
}

/// An endpoint that may be there; `None` if it cannot be used.
fn endpoint(table: &Section<'_>) -> Option<Option<String>> {
    let Some(item) = table.item("endpoint") else { return Some(None) };
    let url = item.raw()?;
    if !url.parse().is_ok_and(|uri| Origin::of(&uri).is_ok()) {
        item.reject("expected https://host (http:// is for loopback only)");
        return None;
    }
    Some(Some(url.to_owned()))
}

/// A text that may be there.
fn text(table: &Section<'_>, key: &str) -> Option<String> {
    table.item(key).and_then(|item| filled(&item))
}

/// A text that is not empty.
fn filled(item: &Item<'_>) -> Option<String> {
    let text = item.raw()?;
    if text.is_empty() {
        item.reject("it is empty");
    }
    Some(text.to_owned()).filter(|text| !text.is_empty())
}
