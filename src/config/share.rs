//! `[share]`: the store through which replicas share tokens (feature `share`).

use super::credentials::ParsedCredential;
use super::missing_feature;
use crate::diagnostics::{Diagnostic, Item, Section};
use crate::token::Credential;

/// The section, if it is there and not empty.
pub(super) fn written<'c>(root: &Section<'c>) -> Option<Item<'c>> {
    root.item("share").filter(is_filled)
}

/// The section, if this build has the store that it names; else that is reported.
pub(super) fn supported<'c>(root: &Section<'c>) -> Option<Item<'c>> {
    let item = written(root)?;
    let store = item.section().and_then(|section| section.item("store")?.hidden_text());
    let (title, feature) = match store.as_deref() {
        Some("kubernetes") if cfg!(not(feature = "kubernetes")) => {
            ("this build cannot share tokens through a Kubernetes Secret", "kubernetes")
        }
        Some("redis") if cfg!(not(feature = "redis")) => {
            ("this build cannot share tokens", "redis")
        }
        _ if cfg!(not(feature = "share")) => ("this build cannot share tokens", "redis"),
        _ => return Some(item),
    };
    missing_feature::refuse(&item, title, feature);
    None
}

/// True for a table that says something.
pub(super) fn is_filled(item: &Item<'_>) -> bool {
    item.section().is_some_and(|section| !section.entries().is_empty())
}

/// Calls `check` with each credential that shares its tokens, and the place that says so.
fn each_shared(credentials: &[ParsedCredential<'_>], check: impl Fn(&Credential, &Item<'_>)) {
    for found in credentials {
        let section = found.item.section().map(Section::without_text);
        if let Some(credential) = found.credential.as_ref().filter(|one| one.policy.share)
            && let Some(item) = section.and_then(|section| section.item("share"))
        {
            check(credential, &item);
        }
    }
}

/// Reports credentials that share their tokens through a store that the file does not name.
pub(super) fn check(root: &Section<'_>, credentials: &[ParsedCredential<'_>]) {
    if written(root).is_some() || root.is_misspelt("share") {
        return;
    }
    each_shared(credentials, |_, item| {
        let problem = Diagnostic::error("there is no store to share tokens through");
        let hint = "add a section [share]; see the guide: replicas that share a token";
        item.fail(problem.label("[share] is missing").hint(hint));
    });
}

#[cfg(feature = "share")]
pub(super) use with_store::{check_shared, read};

#[cfg(feature = "share")]
mod with_store {
    use std::time::Duration;

    use super::{Diagnostic, Item, ParsedCredential, Section, each_shared};
    #[cfg(feature = "kubernetes")]
    use crate::config::share_kubernetes;
    #[cfg(feature = "redis")]
    use crate::config::share_redis;
    use crate::config::{references, tls};
    use crate::diagnostics::units::POSITIVE;
    use crate::net::tls::TlsSettings;
    use crate::oauth::dialect::Grant;
    use crate::secret::{Reference, StoreHttpSettings};
    use crate::share::settings::StoreSettings;
    use crate::token::sharing::settings::{EncryptionKey, ShareSettings, WhenUnreachable};

    /// The kind of a store.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum StoreKind {
        #[cfg(feature = "redis")]
        Redis,
        #[cfg(feature = "kubernetes")]
        Kubernetes,
    }

    const STORES: &[(&str, StoreKind)] = &[
        #[cfg(feature = "redis")]
        ("redis", StoreKind::Redis),
        #[cfg(feature = "kubernetes")]
        ("kubernetes", StoreKind::Kubernetes),
    ];

    /// The keys that one store has, and the value of `store` for it.
    const OWN_KEYS: [(&str, &str); 8] = [
        ("sentinel", "redis"),
        ("cluster", "redis"),
        ("username", "redis"),
        ("password", "redis"),
        ("key_prefix", "redis"),
        ("secret", "kubernetes"),
        ("namespace", "kubernetes"),
        ("token", "kubernetes"),
    ];

    const WHEN_UNREACHABLE: [(&str, WhenUnreachable); 2] =
        [("last_leader", WhenUnreachable::LastLeader), ("own", WhenUnreachable::Own)];

    /// Longest time for one operation: the renewal of a token waits for it.
    const LONGEST: Duration = Duration::from_secs(10);

    /// The settings; `None` if they cannot be used.
    pub(in crate::config) fn read(
        item: &Item<'_>,
        base: &TlsSettings,
        http: &StoreHttpSettings,
    ) -> Option<ShareSettings> {
        let section = item.section()?.without_text();
        let store = section.required(
            "store",
            "write  store = \"redis\", for Valkey too, or  store = \"kubernetes\"",
        );
        let store = store.and_then(|item| item.choice(STORES));
        let reference = |item: Option<Item<'_>>| references::read(&item?, http);
        let name_key = section.required(
            "name_key",
            "write  name_key.file = \"/path\": 32 bytes in base64, the same for all replicas",
        );
        let (name_key, encryption) = (reference(name_key), encryption(&section, http));
        let store = self::store(store, &section, base, http);
        let when_unreachable =
            section.choice("when_unreachable", &WHEN_UNREACHABLE, WhenUnreachable::default());
        let takeover_after = section.duration("takeover_after", POSITIVE, Duration::from_secs(30));
        let poll = section.duration("poll", Duration::from_secs(1).., Duration::from_secs(5));
        Some(ShareSettings {
            store: store?,
            encryption: encryption?,
            name_key: name_key?,
            when_unreachable,
            takeover_after,
            poll,
        })
    }

    /// The settings of the store itself.
    fn store(
        kind: Option<StoreKind>,
        section: &Section<'_>,
        base: &TlsSettings,
        http: &StoreHttpSettings,
    ) -> Option<StoreSettings> {
        let limits = section.section("timeouts");
        let connect = limits.duration("connect", ..=LONGEST, Duration::from_secs(1));
        let least = Duration::from_millis(10);
        let operation = limits.duration("operation", least..=LONGEST, Duration::from_millis(500));
        let tls = section.item("tls").map(|_| tls::read(&section.section("tls"), base));
        // Without a store the keys are read all the same, so that their problems are found at once.
        let (name, assumed) =
            STORES.iter().find(|(_, store)| Some(*store) == kind).or(STORES.first())?;
        reject_keys_of_other_stores(section, name);
        let settings = match assumed {
            #[cfg(feature = "redis")]
            StoreKind::Redis => {
                let mut options = share_redis::read(section, http)?;
                options.tls = tls.unwrap_or_else(|| base.clone());
                (options.connect_timeout, options.operation_timeout) = (connect, operation);
                Some(StoreSettings::Redis(options))
            }
            #[cfg(feature = "kubernetes")]
            StoreKind::Kubernetes => {
                let mut options = share_kubernetes::read(section, http)?;
                options.tls = tls.unwrap_or(options.tls);
                (options.connect_timeout, options.operation_timeout) = (connect, operation);
                Some(StoreSettings::Kubernetes(options))
            }
        };
        kind.and(settings)
    }

    fn reject_keys_of_other_stores(section: &Section<'_>, kind: &str) {
        for (key, of) in OWN_KEYS.into_iter().filter(|(_, of)| *of != kind) {
            if let Some(item) = section.item(key) {
                item.reject(format!("it goes with  store = \"{of}\"  only"));
            }
        }
    }

    /// Reports tokens that cannot be shared, and settings that would make replicas revoke each other's.
    pub(in crate::config) fn check_shared(
        share: &Item<'_>,
        settings: Option<&ShareSettings>,
        credentials: &[ParsedCredential<'_>],
    ) {
        let own = settings.is_some_and(|share| share.when_unreachable == WhenUnreachable::Own);
        let own =
            share.section().and_then(|section| section.item("when_unreachable")).filter(|_| own);
        each_shared(credentials, |credential, item| {
            if credential.dpop.as_ref().is_some_and(|dpop| dpop.key.is_none()) {
                let problem = Diagnostic::error("these tokens are bound to a key of this process");
                let hint = "write  dpop.key.file = \"/path\": a key that all replicas have";
                item.fail(problem.label("another replica could not use them").hint(hint));
            }
            // A subject token is renewed by others, and each replica may have one of another subject.
            if matches!(credential.dialect.grant, Grant::TokenExchange(_)) {
                item.reject(
                    "the token is that of the subject token, which each replica has for itself",
                );
            }
            if credential.revokes() {
                item.reject(
                    "revocation_url would end the token of all replicas when one of them stops",
                );
            }
            if credential.policy.lazy.is_some() {
                let problem = Diagnostic::notice("each replica drops this token for itself");
                let hint =
                    "the store keeps it until it ends; it is renewed while one replica uses it";
                item.fail(problem.label("lazy is about the use by one replica").hint(hint));
            }
            if credential.policy.one_live_token
                && let Some(own) = &own
            {
                let problem = Diagnostic::error("replicas would revoke each other's tokens");
                let label = format!("credential `{}` has one_live_token", credential.name);
                own.fail(problem.label(label).hint("write  when_unreachable = \"last_leader\""));
            }
        });
    }

    /// `encryption`: the first key seals, all of them open.
    fn encryption(section: &Section<'_>, http: &StoreHttpSettings) -> Option<Vec<EncryptionKey>> {
        let hint = "write  encryption = [{ id = \"2026-11\", key.file = \"/path\" }]: shared tokens are \
                    never stored in the clear";
        let item = section.required("encryption", hint)?;
        let mut keys: Vec<EncryptionKey> = Vec::new();
        let mut good = true;
        for one in item.list()? {
            let key = key(&one, http);
            let known = |new: &EncryptionKey| keys.iter().any(|known| known.id == new.id);
            match key {
                Some(key) if known(&key) => {
                    one.reject("another key has this id");
                    good = false;
                }
                Some(key) => keys.push(key),
                None => good = false,
            }
        }
        if good && keys.is_empty() {
            item.fail(
                Diagnostic::error("`encryption` is empty").label("at least one key").hint(hint),
            );
        }
        (good && !keys.is_empty()).then_some(keys)
    }

    fn key(item: &Item<'_>, http: &StoreHttpSettings) -> Option<EncryptionKey> {
        let table = item.section()?;
        for (name, other) in table.entries() {
            if !["id", "key"].contains(&name.as_str()) {
                other.mask_keys();
                let problem = Diagnostic::error("unknown key").label("a key has id and key");
                other.fail_at_hidden_key(problem);
            }
        }
        let id =
            table.required("id", "write  id = \"2026-11\": it stands beside what the key sealed");
        let key = table.required("key", "write  key.file = \"/path\": 32 bytes in base64");
        let key: Option<Reference> = key.and_then(|item| references::read(&item, http));
        let id = id?.parse(|text| match (1..=64).contains(&text.len()) {
            true => Ok(text.to_owned()),
            false => Err("an id is a text of 1 to 64 bytes"),
        });
        Some(EncryptionKey { id: id?, key: key? })
    }
}
