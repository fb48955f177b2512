//! `[clients.NAME]`: who may ask, and how each proves who it is.

use std::sync::Arc;

use http::HeaderName;
use http::header::{CONTENT_TYPE, COOKIE};

use crate::proxy::headers::FieldClass;
use crate::proxy::policy::settings::{
    CertificateName, ClientCredential, ClientSettings, ListenerSettings,
};

use super::name::check_name;
use super::references;
use crate::diagnostics::{Diagnostic, Item, Section, Severity};
use crate::secret::StoreHttpSettings;

/// A client that the file names, and its settings where they can be used.
pub(super) struct ParsedClient<'c> {
    pub(super) name: String,
    pub(super) item: Item<'c>,
    pub(super) settings: Option<ClientSettings>,
}

const ADVICE: &[(&str, &str)] = &[
    ("key", "write  local_key = { header = \"X-Local-Key\", value.file = \"/path\" }"),
    ("api_key", "write  local_key = { header = \"X-Local-Key\", value.file = \"/path\" }"),
    ("header", "it belongs to local_key"),
    ("uid", "write  peer_uids = [1000]"),
    ("uids", "write  peer_uids = [1000]"),
    ("peer_uid", "write  peer_uids = [1000]"),
    ("gid", "write  peer_gids = [1000]"),
    ("gids", "write  peer_gids = [1000]"),
    ("peer_gid", "write  peer_gids = [1000]"),
    ("subject", "write  certificate = { subject = \"CN=erp,O=Example Bank\" }"),
    ("certificate_subject", "write  certificate = { subject = \"CN=erp,O=Example Bank\" }"),
    ("routes", "routes name their clients, not clients their routes"),
];

const WAYS: &str = "local_key, certificate, or peer_uids and peer_gids";

pub(super) fn read<'c>(root: &Section<'c>, http: &StoreHttpSettings) -> Vec<ParsedClient<'c>> {
    let mut clients: Vec<ParsedClient<'c>> = Vec::new();
    for (name, item) in root.section("clients", "[clients]").entries() {
        check_name(&name, &item, "a client");
        let Some(section) = item.section("a client") else { continue };
        let settings = credential(&section.advise(ADVICE), http)
            .map(|credential| ClientSettings { name: Arc::from(name.as_str()), credential });
        if let Some(other) =
            settings.as_ref().and_then(|settings| same_credential(settings, &clients))
        {
            let diagnostic = Diagnostic::new("two clients cannot be told apart");
            item.fail(diagnostic.label(format!("clients.{other} is known by the same")));
        }
        clients.push(ParsedClient { name, item, settings });
    }
    clients
}

/// Each client proves itself in one way: of two, nobody could say whether both are needed.
fn credential(section: &Section<'_>, http: &StoreHttpSettings) -> Option<ClientCredential> {
    let ways = [
        section.item("local_key").map(|item| local_key(&item, http)),
        section.item("certificate").map(|item| certificate(&item)),
        process(section),
    ];
    section.finish();
    let mut ways = ways.into_iter().flatten();
    match (ways.next(), ways.next()) {
        (Some(credential), None) => credential,
        (Some(_), Some(_)) => {
            let diagnostic = Diagnostic::new("a client proves who it is in one way").expected(WAYS);
            section.fail(diagnostic.hint("write a [clients.NAME] for each way"));
            None
        }
        (None, _) => {
            let diagnostic = Diagnostic::new("how this client proves who it is, is missing");
            section.fail(diagnostic.label("anybody could be it").expected(WAYS));
            None
        }
    }
}

fn local_key(item: &Item<'_>, http: &StoreHttpSettings) -> Option<ClientCredential> {
    let section = item.section("a local key")?;
    let header = section.required("header", "write  header = \"X-Local-Key\"");
    let value = section.required("value", "write  value.file = \"/path\", or value.env = \"NAME\"");
    section.finish();
    let header = header.and_then(|item| header_name(&item));
    let value = value.and_then(|item| references::read(&item, "value", http));
    header.zip(value).map(|(header, value)| ClientCredential::LocalKey { header, value })
}

/// A header that nobody else reads on the way.
fn header_name(item: &Item<'_>) -> Option<HeaderName> {
    let text = item.text()?;
    let Ok(name) = HeaderName::from_bytes(text.as_str().as_bytes()) else {
        item.reject("expected the name of a header: letters, digits and `-`");
        return None;
    };
    if FieldClass::classify(name.as_str()) != FieldClass::empty()
        || matches!(name, COOKIE | CONTENT_TYPE)
    {
        item.reject("this header has a meaning of its own; take another, such as \"X-Local-Key\"");
        return None;
    }
    Some(name)
}

fn certificate(item: &Item<'_>) -> Option<ClientCredential> {
    let section = item.section("a certificate")?;
    let (subject, dns, uri) = (section.item("subject"), section.item("dns"), section.item("uri"));
    section.finish();
    let found: Vec<_> = [
        subject.map(|item| subject_name(&item)),
        dns.map(|item| dns_name(&item)),
        uri.map(|item| uri_name(&item)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let [name] = <[_; 1]>::try_from(found)
        .map_err(|_| {
            let diagnostic = Diagnostic::new("a certificate is known by one name");
            section.fail(diagnostic.expected("one of subject, dns, uri"));
        })
        .ok()?;
    name.map(ClientCredential::Certificate)
}

/// Written as RFC 4514 does; what OpenSSL prints has spaces and another order.
fn subject_name(item: &Item<'_>) -> Option<CertificateName> {
    let text = item.text()?;
    let subject = text.as_str();
    let attribute = |part: &str| part.split_once('=').is_some_and(|(kind, _)| !kind.contains(' '));
    if !attribute(subject) || subject.contains(", ") || subject.contains("= ") {
        item.reject("expected RFC 4514: most specific part first, no spaces around `,` and `=`, such as \"CN=erp,O=Example Bank\" (openssl x509 -subject -nameopt rfc2253)");
        return None;
    }
    Some(CertificateName::Subject(subject.to_owned()))
}

fn dns_name(item: &Item<'_>) -> Option<CertificateName> {
    let text = item.text()?;
    let name = text.as_str();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte);
    if name.is_empty() || !name.bytes().all(good) {
        item.reject("expected a DNS name of the certificate, such as \"erp.bank.example\"");
        return None;
    }
    Some(CertificateName::Dns(name.to_owned()))
}

fn uri_name(item: &Item<'_>) -> Option<CertificateName> {
    let text = item.text()?;
    if !text.as_str().contains(':') {
        item.reject("expected a URI of the certificate, such as \"spiffe://bank.example/erp\"");
        return None;
    }
    Some(CertificateName::Uri(text.as_str().to_owned()))
}

/// Process credentials, where any are written.
fn process(section: &Section<'_>) -> Option<Option<ClientCredential>> {
    let (uids, gids) = (section.item("peer_uids"), section.item("peer_gids"));
    if uids.is_none() && gids.is_none() {
        return None;
    }
    let numbers = |item: Option<Item<'_>>| item.map_or(Some(Vec::new()), |item| ids(&item));
    let found = numbers(uids).zip(numbers(gids));
    Some(found.map(|(uids, gids)| ClientCredential::Process { uids, gids }))
}

/// At least one number; the last of all means "nobody in particular" to the kernel.
pub(super) fn ids(item: &Item<'_>) -> Option<Vec<u32>> {
    let list = item.list()?;
    if list.is_empty() {
        item.reject("no number is named");
        return None;
    }
    let number = |item: &Item<'_>| u32::try_from(item.integer(0..u64::from(u32::MAX))?).ok();
    list.iter().map(number).collect()
}

/// A key that leaves this machine in the clear belongs to whoever listens on its way.
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
        let diagnostic = Diagnostic::new("this client's key travels in the clear");
        let diagnostic =
            diagnostic.severity(Severity::Warning).label(format!("over {}", open.listen));
        found.item.fail(diagnostic.hint("give the listener tls, or an address of this machine"));
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
        (one, other) => one == other,
    };
    let found = earlier.iter().find(|found| found.settings.as_ref().is_some_and(same))?;
    Some(&found.name)
}
