//! `[share]`: the store through which replicas share tokens (feature `redis`).

use super::credentials::ParsedCredential;
use crate::diagnostics::{Diagnostic, Item, Section};
use crate::token::Credential;

/// The section, if it is there and not empty.
pub(super) fn written<'c>(root: &Section<'c>) -> Option<Item<'c>> {
    root.item("share").filter(is_filled)
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

#[cfg(feature = "redis")]
pub(super) use with_store::{check_shared, read};

#[cfg(feature = "redis")]
mod with_store {
    use std::time::Duration;

    use super::{Diagnostic, Item, ParsedCredential, Section, each_shared};
    use crate::config::{references, tls};
    use crate::diagnostics::units::POSITIVE;
    use crate::net::tls::TlsSettings;
    use crate::oauth::dialect::Grant;
    use crate::secret::{Reference, StoreHttpSettings};
    use crate::share::redis_store::{Login, Sentinels, ServerAddress, Servers, StoreOptions};
    use crate::token::sharing::settings::{EncryptionKey, ShareSettings, WhenUnreachable};

    const STORES: [(&str, ()); 1] = [("redis", ())];

    const WHEN_UNREACHABLE: [(&str, WhenUnreachable); 2] =
        [("last_leader", WhenUnreachable::LastLeader), ("own", WhenUnreachable::Own)];

    /// The port of Sentinels.
    const SENTINEL_PORT: u16 = 26379;

    /// Longest time for one operation: the renewal of a token waits for it.
    const LONGEST: Duration = Duration::from_secs(10);

    /// The settings; `None` if they cannot be used.
    pub(in crate::config) fn read(
        item: &Item<'_>,
        base: &TlsSettings,
        http: &StoreHttpSettings,
    ) -> Option<ShareSettings> {
        let section = item.section()?.without_text();
        let store = section.required("store", "write  store = \"redis\", for Valkey too");
        let store = store.and_then(|item| item.choice(&STORES));
        let reference = |item: Option<Item<'_>>| references::read(&item?, http);
        let (servers, password) = (servers(&section, http), reference(section.item("password")));
        let timeouts = section.section("timeouts");
        let tls = tls::read(&section.section("tls"), base);
        let name_key = section.required(
            "name_key",
            "write  name_key.file = \"/path\": 32 bytes in base64, the same for all replicas",
        );
        let (name_key, encryption) = (reference(name_key), encryption(&section, http));
        let username = section.item("username").and_then(|item| item.hidden_text());
        let connect_timeout = timeouts.duration("connect", ..=LONGEST, Duration::from_secs(1));
        let least = Duration::from_millis(10);
        let operation_timeout =
            timeouts.duration("operation", least..=LONGEST, Duration::from_millis(500));
        let key_prefix = section.parse("key_prefix", prefix);
        let when_unreachable =
            section.choice("when_unreachable", &WHEN_UNREACHABLE, WhenUnreachable::default());
        let takeover_after = section.duration("takeover_after", POSITIVE, Duration::from_secs(30));
        let poll = section.duration("poll", Duration::from_secs(1).., Duration::from_secs(5));
        // Only now, so that the problems of all keys are found at once.
        store?;
        let (servers, database) = servers?;
        let store = StoreOptions {
            database,
            login: Login { username, password },
            key_prefix: key_prefix.unwrap_or_else(|| "bearer-proxy".to_owned()),
            tls,
            connect_timeout,
            operation_timeout,
            ..StoreOptions::new(servers)
        };
        Some(ShareSettings {
            store,
            encryption: encryption?,
            name_key: name_key?,
            when_unreachable,
            takeover_after,
            poll,
        })
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

    /// Braces mark the part of a key that chooses the node of a cluster, and belong to the token's name.
    fn prefix(text: &str) -> Result<String, &'static str> {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        match !text.is_empty() && text.len() <= 64 && text.chars().all(plain) {
            true => Ok(text.to_owned()),
            false => Err("expected 1 to 64 letters, digits, -, _ and ."),
        }
    }

    /// The servers, and the number of the database.
    fn servers(section: &Section<'_>, http: &StoreHttpSettings) -> Option<(Servers, u32)> {
        let (url, sentinel) = (section.item("url"), section.item("sentinel"));
        let cluster = section.bool("cluster", false);
        match (url, sentinel) {
            (Some(url), None) => {
                let (address, database) = address(&url)?;
                if cluster && database > 0 {
                    url.reject("a cluster has no other database than 0");
                    return None;
                }
                let servers = match cluster {
                    true => Servers::Cluster(vec![address]),
                    false => Servers::Standalone(address),
                };
                Some((servers, database))
            }
            (Some(_), Some(sentinel)) => {
                sentinel.reject("url names the server already; remove one of the two");
                None
            }
            (None, Some(item)) => {
                if cluster && let Some(cluster) = section.item("cluster") {
                    cluster.reject("Sentinels lead to one server; a cluster is found by url");
                }
                Some((Servers::Sentinel(self::sentinel(&item, http)?), 0))
            }
            (None, None) => {
                section.missing("url", "write  url = \"rediss://HOST:6379\", or sentinel = { … }");
                None
            }
        }
    }

    fn address(item: &Item<'_>) -> Option<(ServerAddress, u32)> {
        match ServerAddress::parse(&item.hidden_text()?) {
            Ok((address, database)) => Some((address, database.unwrap_or_default())),
            Err(why) => {
                item.reject(why);
                None
            }
        }
    }

    fn sentinel(item: &Item<'_>, http: &StoreHttpSettings) -> Option<Sentinels> {
        let table = item.section()?;
        let service = table.required("service", "write  service = \"NAME\": the master's name");
        let service = service.and_then(|item| item.text());
        let password = table.item("password").and_then(|item| references::read(&item, http));
        let urls = table.required("urls", "write  urls = [\"rediss://HOST:26379\"]");
        let urls = urls?.list()?;
        let addresses = urls.iter().map(sentinel_address).collect::<Option<Vec<_>>>()?;
        if addresses.is_empty() {
            item.reject("urls is empty: it names at least one Sentinel");
            return None;
        }
        let login = Login { username: None, password };
        Some(Sentinels { addresses, service: service?, login })
    }

    fn sentinel_address(item: &Item<'_>) -> Option<ServerAddress> {
        let (address, _) = address(item)?;
        let text = item.hidden_text()?;
        let text = text.trim_end_matches('/');
        // Without a port it is that of Redis.
        let stated = match &address {
            ServerAddress::Tcp(origin) => text.ends_with(&format!(":{}", origin.port())),
            ServerAddress::Unix(_) => true,
        };
        match stated {
            true => Some(address),
            false => {
                ServerAddress::parse(&format!("{text}:{SENTINEL_PORT}")).ok().map(|found| found.0)
            }
        }
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
