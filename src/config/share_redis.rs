//! `[share]` with `store = "redis"`: the servers and the login there.

use super::references;
use crate::diagnostics::{Item, Section};
use crate::secret::StoreHttpSettings;
use crate::share::redis_store::{Login, Sentinels, ServerAddress, Servers, StoreOptions};

/// The port of Sentinels.
const SENTINEL_PORT: u16 = 26379;

/// The settings but for TLS and time-outs; `None` if they cannot be used.
pub(super) fn read(section: &Section<'_>, http: &StoreHttpSettings) -> Option<StoreOptions> {
    let password = section.item("password").and_then(|item| references::read(&item, http));
    let username = section.item("username").and_then(|item| item.hidden_text());
    let key_prefix = section.parse("key_prefix", prefix);
    let (servers, database) = servers(section, http)?;
    Some(StoreOptions {
        database,
        login: Login { username, password },
        key_prefix: key_prefix.unwrap_or_else(|| "bearer-proxy".to_owned()),
        ..StoreOptions::new(servers)
    })
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
        false => ServerAddress::parse(&format!("{text}:{SENTINEL_PORT}")).ok().map(|found| found.0),
    }
}
