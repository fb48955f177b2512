//! `[tls]`, and the `tls` tables of credentials and upstreams, which add to it.

use crate::net::tls::{ClientCertificate, MinVersion, Roots, TlsSettings};
use crate::x509::verify::Pin;

use crate::diagnostics::{Item, Section};

/// The settings that a table adds to.
pub(super) type Base = TlsSettings;

/// `[tls]`, for all servers.
pub(super) fn root(section: &Section<'_>) -> TlsSettings {
    let all = settings(section, &TlsSettings::default());
    section.finish();
    all
}

/// The table of one credential or upstream.
pub(super) fn read(section: &Section<'_>, base: &Base) -> TlsSettings {
    let all = settings(section, base);
    let one = TlsSettings { pins: pins(section), ..all };
    section.finish();
    one
}

/// Extra CA files add up: trust is only ever extended.
fn settings(section: &Section<'_>, base: &Base) -> TlsSettings {
    let settings = TlsSettings {
        roots: section.choice("roots", &ROOTS, base.roots),
        extra_ca_files: extra(section, base),
        min_version: section.choice("min_version", &VERSIONS, base.min_version),
        client_certificate: client(section).or_else(|| base.client_certificate.clone()),
        pins: Vec::new(),
    };
    if settings.roots == Roots::OnlyExtra && settings.extra_ca_files.is_empty() {
        section.missing("extra_ca_file", "roots = \"only-extra\" trusts nobody without it");
    }
    settings
}

fn pins(section: &Section<'_>) -> Vec<Pin> {
    let items = section.item("pin_sha256").and_then(|item| item.one_or_many()).unwrap_or_default();
    let mut pins = Vec::new();
    for item in &items {
        let Some(text) = item.text() else { continue };
        match Pin::parse(text.as_str()) {
            Some(pin) => pins.push(pin),
            None => item.reject("expected 44 characters of base64: SHA-256 of the server's key"),
        }
    }
    pins
}

/// What people write who look for a switch that is not there.
pub(super) const ADVICE: &[(&str, &str)] = &[
    ("verify", "verification cannot be switched off; extend trust with extra_ca_file"),
    ("insecure", "verification cannot be switched off; extend trust with extra_ca_file"),
    (
        "insecure_skip_verify",
        "verification cannot be switched off; extend trust with extra_ca_file",
    ),
    ("ca_file", "write extra_ca_file"),
    ("cert_file", "write client_certificate_file"),
    ("key_file", "write client_key_file"),
    ("pin", "write pin_sha256"),
    ("pins", "write pin_sha256"),
    ("pinned_keys", "write pin_sha256"),
    (
        "pin_sha256",
        "a key belongs to one server: write it in the tls table of its upstream or credential",
    ),
];

const ROOTS: [(&str, Roots); 3] =
    [("system", Roots::System), ("bundled", Roots::Bundled), ("only-extra", Roots::OnlyExtra)];

const VERSIONS: [(&str, MinVersion); 2] = [("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)];

fn extra(section: &Section<'_>, base: &Base) -> Vec<std::path::PathBuf> {
    let mut files = base.extra_ca_files.clone();
    let written =
        section.item("extra_ca_file").and_then(|item| item.one_or_many()).unwrap_or_default();
    for file in written.iter().filter_map(Item::path) {
        if !files.contains(&file) {
            files.push(file);
        }
    }
    files
}

fn client(section: &Section<'_>) -> Option<ClientCertificate> {
    let certificate = section.item("client_certificate_file");
    let key = section.item("client_key_file");
    match (&certificate, &key) {
        (Some(_), None) => {
            section.missing("client_key_file", "a certificate is of no use without its key")
        }
        (None, Some(_)) => {
            section.missing("client_certificate_file", "a key is of no use without its certificate")
        }
        _ => {}
    }
    Some(ClientCertificate { certificate_file: certificate?.path()?, key_file: key?.path()? })
}
