//! `[tls]`, and the `tls` tables of credentials and upstreams, which add to it.

use super::client_certificate;
use crate::diagnostics::{Item, Section};
use crate::net::tls::{ClientCertificate, MinVersion, Roots, TlsSettings};
use crate::x509::verify::Pin;

const ROOTS: [(&str, Roots); 3] =
    [("system", Roots::System), ("bundled", Roots::Bundled), ("only-extra", Roots::OnlyExtra)];

pub(super) const VERSIONS: [(&str, MinVersion); 2] =
    [("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)];

/// `[tls]`, for all servers.
pub(super) fn root(section: &Section<'_>) -> TlsSettings {
    settings(section, &TlsSettings::default())
}

/// The table of one credential or upstream, which adds to the settings for all.
pub(super) fn read(section: &Section<'_>, base: &TlsSettings) -> TlsSettings {
    let expected = "expected 44 characters of base64: SHA-256 of the server's key";
    let pin = |item: &Item<'_>| item.parse(|text| Pin::parse(text).ok_or(expected));
    let pins = section.one_or_many("pin_sha256").iter().filter_map(pin).collect();
    TlsSettings { pins, ..settings(section, base) }
}

/// Extra CA files add up: trust is only ever extended.
fn settings(section: &Section<'_>, base: &TlsSettings) -> TlsSettings {
    let mut extra_ca_files = base.extra_ca_files.clone();
    for file in section.one_or_many("extra_ca_file").iter().filter_map(Item::path) {
        if !extra_ca_files.contains(&file) {
            extra_ca_files.push(file);
        }
    }
    let settings = TlsSettings {
        roots: section.choice("roots", &ROOTS, base.roots),
        extra_ca_files,
        min_version: section.choice("min_version", &VERSIONS, base.min_version),
        client_certificate: client(section).or_else(|| base.client_certificate.clone()),
        pins: Vec::new(),
    };
    if settings.roots == Roots::OnlyExtra && settings.extra_ca_files.is_empty() {
        section.missing("extra_ca_file", "roots = \"only-extra\" trusts no server without it");
    }
    settings
}

fn client(section: &Section<'_>) -> Option<ClientCertificate> {
    let certificate = section.item("client_certificate_file");
    let key = section.item("client_key_file");
    let container = section.item("client_pkcs12_file");
    let password = section.item("client_pkcs12_password_file");
    if let Some(container) = container {
        for other in certificate.into_iter().chain(key) {
            other.reject("the PKCS#12 container holds it already; remove one of the two");
        }
        client_certificate::needs_pkcs12(&container);
        let password_file = password.and_then(|item| item.path());
        return Some(ClientCertificate::Pkcs12 { file: container.path()?, password_file });
    }
    if let Some(password) = password {
        password.reject("it is the password of client_pkcs12_file, which is missing");
    }
    match (&certificate, &key) {
        (Some(_), None) => {
            section.missing("client_key_file", "a certificate is of no use without its key");
        }
        (None, Some(_)) => {
            section
                .missing("client_certificate_file", "a key is of no use without its certificate");
        }
        _ => {}
    }
    let path = |item: Option<Item<'_>>| item.and_then(|item| item.path());
    let (certificate_file, key_file) = (path(certificate), path(key));
    Some(ClientCertificate::Pem { certificate_file: certificate_file?, key_file: key_file? })
}
