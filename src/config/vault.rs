//! `[vault]`: the server of HashiCorp Vault or OpenBao, and the login to it.

use std::sync::Arc;

use super::references;
use crate::diagnostics::{Diagnostic, Item, Section};
use crate::net::Origin;
use crate::secret::{Reference, StoreHttpSettings, VaultLogin, VaultServer, VaultSettings};

/// The keys of logins, of which one is written.
const LOGINS: [&str; 4] = ["token", "approle", "kubernetes", "jwt"];

/// The token of a pod's service account.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The server; `None` if the section is empty. `http` is the way to it, and reaches the stores that hold
/// the secret of the login. Beside an error the settings are of no use, but references find a server.
pub(super) fn read(root: &Section<'_>, http: &StoreHttpSettings) -> Option<Arc<VaultServer>> {
    let section = root.section("vault").without_text();
    if section.entries().is_empty() {
        return None;
    }
    let address = section.required("address", "write  address = \"https://vault.example:8200\"");
    let written: Vec<_> = LOGINS.iter().filter_map(|key| section.item(key)).collect();
    if written.len() != 1 {
        let label = format!("found {}", written.len());
        let diagnostic = Diagnostic::error("[vault] has one login").label(label);
        section.fail(diagnostic.expected(LOGINS.join(", ")));
    }
    let login = written.iter().map(|item| login(item, http)).fold(None, Option::or);
    let (login, secret) = login.unwrap_or((VaultLogin::Token, Reference::Env(String::new())));
    let settings = VaultSettings {
        address: address.and_then(|item| address_of(&item)).unwrap_or_default(),
        namespace: section.parse("namespace", namespace),
        login,
    };
    Some(Arc::new(VaultServer::new(settings, secret, http.clone())))
}

fn address_of(item: &Item<'_>) -> Option<String> {
    item.parse(|text| {
        let expected = "expected https://host:port without a path (http:// is for loopback only)";
        let uri: http::Uri = text.parse().map_err(|_| expected)?;
        let origin = Origin::of(&uri).map_err(|_| expected)?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if bare { Ok(origin.to_string()) } else { Err(expected) }
    })
}

fn namespace(text: &str) -> Result<String, &'static str> {
    let name = text.trim_matches('/');
    match !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(name.to_owned()),
        false => Err("expected the path of a namespace, such as \"banking/erp\""),
    }
}

fn login(item: &Item<'_>, http: &StoreHttpSettings) -> Option<(VaultLogin, Reference)> {
    if item.key() == "token" {
        return Some((VaultLogin::Token, references::read(item, http)?));
    }
    let table = item.section()?;
    let mount = table.item("mount").map_or_else(|| Some(item.key().to_owned()), |it| mount(&it));
    let source = |key: &str| {
        let secret = table.required(key, "name its source, such as a file: .file = \"/path\"");
        secret.and_then(|secret| references::read(&secret, http))
    };
    if item.key() == "approle" {
        let role_id = table.required("role_id", "write  role_id = \"…\": the id of the role");
        let role_id = role_id.and_then(|item| item.parse(not_empty));
        let secret = source("secret_id");
        return Some((VaultLogin::AppRole { mount: mount?, role_id: role_id? }, secret?));
    }
    let role = table.required("role", "write  role = \"NAME\": the role of the method");
    let role = role.and_then(|item| item.parse(not_empty));
    let secret = match (item.key(), table.item("token")) {
        ("kubernetes", None) => Some(Reference::File(SERVICE_ACCOUNT_TOKEN.into())),
        _ => source("token"),
    };
    Some((VaultLogin::Jwt { mount: mount?, role: role? }, secret?))
}

/// The path at which an authentication method is mounted, without `auth/`.
fn mount(item: &Item<'_>) -> Option<String> {
    item.parse(|text| {
        let named = |segment: &str| !matches!(segment, "" | "." | "..");
        match text.split('/').all(named) && !text.starts_with("auth/") {
            true => Ok(text.to_owned()),
            false => Err("expected the path of the mount without auth/ and without slashes around"),
        }
    })
}

fn not_empty(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("it is empty") } else { Ok(text.to_owned()) }
}
