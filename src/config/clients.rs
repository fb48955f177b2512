//! `[clients.NAME]`: who may use the proxy, and how each client proves who it is.

use std::sync::Arc;

use http::HeaderName;
use http::header::{CONTENT_TYPE, COOKIE};

use super::name::check_name;
use super::references;
use crate::diagnostics::{Diagnostic, Item, Section};
use crate::proxy::headers::FieldClass;
use crate::proxy::policy::settings::{
    CertificateName, ClientCredential, ClientSettings, ListenerSettings,
};
use crate::secret::StoreHttpSettings;

/// A client that the file names, and its settings if they can be used.
pub(super) struct ParsedClient<'c> {
    pub(super) name: String,
    pub(super) item: Item<'c>,
    pub(super) settings: Option<ClientSettings>,
}

/// The keys that prove who a client is.
const WAYS: [&str; 4] = ["local_key", "certificate", "peer_uids", "peer_gids"];

const EXPECTED: &str = "local_key, certificate, or peer_uids and peer_gids";

pub(super) fn read<'c>(root: &Section<'c>, http: &StoreHttpSettings) -> Vec<ParsedClient<'c>> {
    let mut clients: Vec<ParsedClient<'c>> = Vec::new();
    for (name, item) in root.section("clients").entries() {
        check_name(&name, &item, "a client");
        let Some(section) = item.section() else { continue };
        let settings = credential(&section, http)
            .map(|credential| ClientSettings { name: Arc::from(name.as_str()), credential });
        if let Some(other) =
            settings.as_ref().and_then(|settings| same_credential(settings, &clients))
        {
            let problem = Diagnostic::error("two clients cannot be told apart");
            item.fail(problem.label(format!("clients.{other} is known by the same")));
        }
        clients.push(ParsedClient { name, item, settings });
    }
    clients
}

/// Each client proves itself in one way: of two, it would be open whether both are needed.
fn credential(section: &Section<'_>, http: &StoreHttpSettings) -> Option<ClientCredential> {
    let ways = [
        section.item("local_key").map(|item| local_key(&item, http)),
        section.item("certificate").map(|item| certificate(&item)),
        process(section),
    ];
    let mut ways = ways.into_iter().flatten();
    match (ways.next(), ways.next()) {
        (Some(credential), None) => credential,
        (Some(_), Some(_)) => {
            let problem =
                Diagnostic::error("a client proves who it is in one way").expected(EXPECTED);
            section.fail(problem.hint("write a [clients.NAME] for each way"));
            None
        }
        (None, _) if WAYS.iter().any(|key| section.is_misspelt(key)) => None,
        (None, _) => {
            let problem = Diagnostic::error("how this client proves who it is, is missing");
            section.fail(problem.label("any client could be it").expected(EXPECTED));
            None
        }
    }
}

fn local_key(item: &Item<'_>, http: &StoreHttpSettings) -> Option<ClientCredential> {
    let section = item.section()?;
    let header = section.required("header", "write  header = \"X-Local-Key\"");
    let value = section.required("value", "write  value.file = \"/path\", or value.env = \"NAME\"");
    let header = header.and_then(|item| item.parse(header_name));
    let value = value.and_then(|item| references::read(&item, http));
    header.zip(value).map(|(header, value)| ClientCredential::LocalKey { header, value })
}

/// The name of a header without a meaning of its own.
fn header_name(text: &str) -> Result<HeaderName, &'static str> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| "expected the name of a header: letters, digits and `-`")?;
    if FieldClass::classify(name.as_str()) != FieldClass::empty()
        || matches!(name, COOKIE | CONTENT_TYPE)
    {
        return Err("this header has a meaning of its own; take another, such as \"X-Local-Key\"");
    }
    Ok(name)
}

fn certificate(item: &Item<'_>) -> Option<ClientCredential> {
    let section = item.section()?;
    let found = [
        section.item("subject").map(|item| item.parse(subject_name)),
        section.item("dns").map(|item| item.parse(dns_name)),
        section.item("uri").map(|item| item.parse(uri_name)),
    ];
    let found: Vec<_> = found.into_iter().flatten().collect();
    let [name] = found.as_slice() else {
        let problem = Diagnostic::error("a certificate is known by one name");
        section.fail(problem.expected("one of subject, dns, uri"));
        return None;
    };
    name.clone().map(ClientCredential::Certificate)
}

/// A subject as RFC 4514 writes it; OpenSSL prints spaces and another order by default.
fn subject_name(text: &str) -> Result<CertificateName, &'static str> {
    let attribute = |part: &str| part.split_once('=').is_some_and(|(kind, _)| !kind.contains(' '));
    if !attribute(text) || text.contains(", ") || text.contains("= ") {
        return Err(
            "expected RFC 4514: most specific part first, no spaces around `,` and `=`, such as \"CN=erp,O=Example Bank\" (openssl x509 -subject -nameopt rfc2253)",
        );
    }
    Ok(CertificateName::Subject(text.to_owned()))
}

fn dns_name(text: &str) -> Result<CertificateName, &'static str> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte);
    match !text.is_empty() && text.bytes().all(good) {
        true => Ok(CertificateName::Dns(text.to_owned())),
        false => Err("expected a DNS name of the certificate, such as \"erp.bank.example\""),
    }
}

fn uri_name(text: &str) -> Result<CertificateName, &'static str> {
    match text.contains(':') {
        true => Ok(CertificateName::Uri(text.to_owned())),
        false => Err("expected a URI of the certificate, such as \"spiffe://bank.example/erp\""),
    }
}

/// Process credentials, if any are written.
fn process(section: &Section<'_>) -> Option<Option<ClientCredential>> {
    let (uids, gids) = (section.item("peer_uids"), section.item("peer_gids"));
    if uids.is_none() && gids.is_none() {
        return None;
    }
    let numbers = |item: Option<Item<'_>>| item.map_or(Some(Vec::new()), |item| ids(&item));
    let (uids, gids) = (numbers(uids), numbers(gids));
    Some(uids.zip(gids).map(|(uids, gids)| ClientCredential::Process { uids, gids }))
}

/// The numbers of users or groups. The largest number means "unknown" to the kernel.
pub(super) const IDS: std::ops::Range<u64> = 0..u32::MAX as u64;

/// At least one number.
pub(super) fn ids(item: &Item<'_>) -> Option<Vec<u32>> {
    let list = item.list()?;
    if list.is_empty() {
        item.reject("the list is empty");
        return None;
    }
    list.iter().map(|item| item.integer(IDS)).collect::<Vec<_>>().into_iter().collect()
}

/// Warns of keys that leave this machine in the clear, where others can read them.
pub(super) fn in_the_clear(clients: &[ParsedClient<'_>], listeners: &[ListenerSettings]) {
    let open =
        |listener: &&ListenerSettings| !listener.listen.is_loopback() && listener.tls.is_none();
    let Some(open) = listeners.iter().find(open) else { return };
    let by_key = |found: &&ParsedClient<'_>| {
        let settings = found.settings.as_ref();
        settings.is_some_and(|settings| {
            matches!(settings.credential, ClientCredential::LocalKey { .. })
        })
    };
    for found in clients.iter().filter(by_key) {
        let label = format!("over {}", open.listen);
        let hint = "give the listener tls, or an address of this machine";
        found.item.warn("this client's key travels in the clear", label, hint);
    }
}

/// An earlier client that the same request could come from.
fn same_credential<'a>(
    settings: &ClientSettings,
    earlier: &'a [ParsedClient<'_>],
) -> Option<&'a str> {
    let same = |other: &ClientSettings| match (&settings.credential, &other.credential) {
        (
            ClientCredential::Process { uids, gids },
            ClientCredential::Process { uids: others, gids: groups },
        ) => {
            uids.iter().any(|uid| others.contains(uid))
                || gids.iter().any(|gid| groups.contains(gid))
        }
        (credential, other) => credential == other,
    };
    let found = earlier.iter().find(|found| found.settings.as_ref().is_some_and(same))?;
    Some(&found.name)
}
