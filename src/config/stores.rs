//! References to stores that bring many crates: keyring, AWS Secrets Manager, Azure Key Vault.
//!
//! They are read alike in every build, so that a mistake is found wherever a file is checked; a
//! build without the source then says which feature brings it.

use std::time::Duration;

use crate::net::Origin;
use crate::secret::{
    self, AwsSecret, AzureIdentity, AzureSecret, KeyringSecret, Reference, StoreHttpSettings, Vault,
};

use super::name::{ROTATE, named};
use crate::diagnostics::{Diagnostic, Item, Section};

/// How long a value of a remote store is kept where nothing is written.
const CACHE: Duration = Duration::from_secs(300);
/// A rotated secret is not left unseen for longer.
const LONGEST_CACHE: Duration = Duration::from_secs(24 * 3600);

/// `.keyring = { service = "…", account = "…" }`, or the account alone.
pub(super) fn keyring(place: &Item<'_>) -> Option<Reference> {
    let (service, account) = if place.is_text() {
        (secret::SERVICE.to_owned(), account(place)?)
    } else {
        let table = Table::open(place, "a keyring entry", &["service", "account"])?;
        let service = table.text("service").unwrap_or_else(|| secret::SERVICE.to_owned());
        (service, account(&table.section.required("account", "write  account = \"NAME\"")?)?)
    };
    built(place, Reference::Keyring(KeyringSecret { service, account }))
}

fn account(item: &Item<'_>) -> Option<String> {
    let name = item.raw()?;
    let label = "expected the entry's name: `bearer-proxy keyring set NAME`";
    named(item, name, !name.is_empty(), "this names no entry of a keyring", label)
}

/// `.aws_secrets_manager = { id = "…", … }`.
pub(super) fn aws(place: &Item<'_>, http: &StoreHttpSettings) -> Option<Reference> {
    let keys = ["id", "key", "region", "version_stage", "profile", "endpoint", "cache"];
    let table = Table::open(place, "an AWS secret", &keys)?;
    let hint = "write  id = \"NAME\": the secret's name or ARN";
    let secret = AwsSecret {
        id: filled(&table.section.required("id", hint)?)?,
        endpoint: table.endpoint()?,
        key: table.text("key"),
        region: table.text("region"),
        version_stage: table.text("version_stage"),
        profile: table.text("profile"),
        cache: table.cache(),
        http: http.clone(),
    };
    built(place, Reference::AwsSecretsManager(Box::new(secret)))
}

/// `.azure_key_vault = { vault = "https://…", name = "…", … }`.
pub(super) fn azure(place: &Item<'_>, http: &StoreHttpSettings) -> Option<Reference> {
    let keys = ["vault", "name", "version", "identity", "cache"];
    let table = Table::open(place, "an Azure secret", &keys)?;
    let hint = "write  vault = \"https://NAME.vault.azure.net\"";
    let vault = table.section.required("vault", hint);
    let name = table.section.required("name", "write  name = \"NAME\": the secret's name");
    let identities = [
        ("auto", AzureIdentity::Auto),
        ("client_secret", AzureIdentity::ClientSecret),
        ("workload", AzureIdentity::Workload),
        ("managed", AzureIdentity::Managed),
        ("cli", AzureIdentity::Cli),
    ];
    let (vault, name) = (vault.and_then(self::vault), name.and_then(vault_name));
    let secret = AzureSecret {
        vault: vault?,
        name: name?,
        version: table.text("version"),
        identity: table.section.choice("identity", &identities, AzureIdentity::default()),
        cache: table.cache(),
        http: http.clone(),
    };
    built(place, Reference::AzureKeyVault(Box::new(secret)))
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
    let label = "expected 1 to 127 letters, digits and `-`: its name, not what it holds";
    let good = secret::is_vault_name(name);
    named(&item, name, good, "this names no secret of a vault", label)
}

/// The reference, where this build has its source.
fn built(place: &Item<'_>, reference: Reference) -> Option<Reference> {
    let Some(feature) = secret::missing_feature(reference.kind()) else { return Some(reference) };
    let kind = reference.kind();
    let diagnostic = Diagnostic::new(format!("this build cannot read secrets from `{kind}`"));
    let label = format!("it lacks the feature `{feature}`");
    let hint = format!("take the container image, or build with  cargo build --features {feature}");
    place.fail_at_key(diagnostic.label(label).hint(hint));
    None
}

/// The table of a reference. Unknown keys of it are masked: they may be the secret.
struct Table<'c> {
    section: Section<'c>,
}

impl<'c> Table<'c> {
    fn open(place: &Item<'c>, what: &'static str, keys: &[&str]) -> Option<Self> {
        let (section, mut known) = (place.section(what)?, true);
        for (key, item) in section.entries() {
            if !keys.contains(&key.as_str()) {
                let diagnostic =
                    Diagnostic::new("unknown key").label(format!("{what} has no such key"));
                item.hide_inner_keys();
                item.fail_at_hidden_key(diagnostic.expected(keys.join(", ")).note(ROTATE));
                known = false;
            }
        }
        known.then_some(Self { section })
    }

    /// A text that may be there.
    fn text(&self, key: &'static str) -> Option<String> {
        self.section.item(key).and_then(|item| filled(&item))
    }

    /// An endpoint that may be there; none at all where it is no endpoint.
    fn endpoint(&self) -> Option<Option<String>> {
        let Some(item) = self.section.item("endpoint") else { return Some(None) };
        let url = item.raw()?;
        if !url.parse().is_ok_and(|uri| Origin::of(&uri).is_ok()) {
            item.reject("expected https://host (http:// is for loopback only)");
            return None;
        }
        Some(Some(url.to_owned()))
    }

    fn cache(&self) -> Duration {
        let Some(item) = self.section.item("cache") else { return CACHE };
        let cache = item.duration().unwrap_or(CACHE);
        if cache > LONGEST_CACHE {
            item.reject("expected at most \"24h\"");
        }
        cache
    }
}

/// A text that is not empty.
fn filled(item: &Item<'_>) -> Option<String> {
    let text = item.raw()?;
    if text.is_empty() {
        item.reject("it is empty");
        return None;
    }
    Some(text.to_owned())
}
