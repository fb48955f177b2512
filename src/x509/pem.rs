//! PEM files (RFC 7468), and hints for files in another format.

use std::fmt;
use std::io;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::TlsSetupError;
use crate::shortage::{io_words, lacks_descriptor};

/// The expected content of a PEM file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PemKind {
    /// One or more certificates.
    Certificates,
    /// A private key without a passphrase.
    PrivateKey,
}

/// All certificates of a file in file order; at least one.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    let bytes = read(file, PemKind::Certificates)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        found => Err(wrong(file, PemKind::Certificates, &bytes, found.err().as_ref())),
    }
}

/// The first private key of a file.
pub(crate) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsSetupError> {
    let bytes = read(file, PemKind::PrivateKey)?;
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|error| wrong(file, PemKind::PrivateKey, &bytes, Some(&error)))
}

fn read(file: &Path, expected: PemKind) -> Result<Zeroizing<Vec<u8>>, TlsSetupError> {
    std::fs::read(file).map(Zeroizing::new).map_err(|error: io::Error| {
        // What was expected is no help where the file was not looked at.
        let expected = match lacks_descriptor(&error) {
            true => String::new(),
            false => format!("; expected {expected}"),
        };
        let why = io_words(&error);
        TlsSetupError::new(format!("{}: cannot be read: {why}{expected}", file.display()))
    })
}

fn wrong(
    file: &Path,
    expected: PemKind,
    bytes: &[u8],
    error: Option<&pem::Error>,
) -> TlsSetupError {
    let shown = file.display();
    TlsSetupError::new(match (conversion_hint(file, bytes, expected), error) {
        (Some(instead), _) => format!("{shown}: {instead}"),
        (None, None | Some(pem::Error::NoItemsFound)) => {
            format!("{shown}: holds none; expected {expected}")
        }
        (None, Some(error)) => {
            format!("{shown}: is damaged ({}); expected {expected}", damage(error))
        }
    })
}

/// The damage in words, without anything of the file: it may be a key.
fn damage(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "its END line is missing",
        pem::Error::IllegalSectionStart { .. } => "its BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "it is not base64 between BEGIN and END",
        _ => "it cannot be read as PEM",
    }
}

/// The format of a file that is not the expected PEM, and the command that converts it; `None` if the
/// format is unknown.
#[must_use]
pub fn conversion_hint(file: &Path, bytes: &[u8], expected: PemKind) -> Option<String> {
    let (found, remedy) = match file_format(bytes)? {
        FileFormat::Pkcs12 => ("holds a PKCS#12 container (.p12, .pfx)", pkcs12(expected)),
        FileFormat::Encrypted if expected == PemKind::PrivateKey => (
            "holds a private key under a passphrase, which nobody is there to type",
            "openssl pkey -in FILE -out key.pem",
        ),
        FileFormat::Pkcs7 => {
            ("holds a PKCS#7 bundle", "openssl pkcs7 -print_certs -in FILE -out ca.pem")
        }
        FileFormat::Der => ("holds DER, the binary form", der(expected)),
        FileFormat::JavaKeystore => (
            "holds a Java keystore",
            "keytool -importkeystore -srckeystore FILE -destkeystore store.p12 -deststoretype pkcs12",
        ),
        FileFormat::Encrypted => return None,
    };
    let name = file.display().to_string();
    Some(format!("{found}, expected {expected}; convert it: {}", remedy.replace("FILE", &name)))
}

fn pkcs12(expected: PemKind) -> &'static str {
    match expected {
        PemKind::Certificates => {
            "openssl pkcs12 -in FILE -nokeys -out certificates.pem (with -legacy for an old one)"
        }
        PemKind::PrivateKey => {
            "openssl pkcs12 -in FILE -nocerts -nodes -out key.pem (with -legacy for an old one)"
        }
    }
}

fn der(expected: PemKind) -> &'static str {
    match expected {
        PemKind::Certificates => "openssl x509 -inform DER -in FILE -out certificate.pem",
        PemKind::PrivateKey => "openssl pkey -inform DER -in FILE -out key.pem",
    }
}

enum FileFormat {
    Pkcs12,
    Pkcs7,
    Der,
    JavaKeystore,
    Encrypted,
}

fn file_format(bytes: &[u8]) -> Option<FileFormat> {
    match bytes {
        // RFC 7292 section 4: a SEQUENCE that begins with version 3, its length in any form.
        [0x30, 0x80, 2, 1, 3, ..]
        | [0x30, 0x81, _, 2, 1, 3, ..]
        | [0x30, 0x82, _, _, 2, 1, 3, ..]
        | [0x30, 0x83, _, _, _, 2, 1, 3, ..] => return Some(FileFormat::Pkcs12),
        [0x30, 0x80..=0x84, ..] => return Some(FileFormat::Der),
        [0xfe, 0xed, 0xfe, 0xed, ..] => return Some(FileFormat::JavaKeystore),
        _ => {}
    }
    let text = std::str::from_utf8(bytes).ok()?;
    if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENC") {
        return Some(FileFormat::Encrypted);
    }
    text.contains("-----BEGIN PKCS7-----").then_some(FileFormat::Pkcs7)
}

impl fmt::Display for PemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificates => "PEM certificates (-----BEGIN CERTIFICATE-----)",
            Self::PrivateKey => "an unencrypted PEM private key (-----BEGIN PRIVATE KEY-----)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_place_of_pem_is_told_with_the_command_that_converts_it() {
        let check = |bytes: &[u8], expected, text: &str| {
            let said = conversion_hint(Path::new("/run/it"), bytes, expected).unwrap_or_default();
            assert!(said.contains(text) && said.is_empty() == text.is_empty(), "{said}");
        };
        let (key, certificates) = (PemKind::PrivateKey, PemKind::Certificates);
        let pkcs12 = b"\x30\x82\x0a\x00\x02\x01\x03\x30";
        check(pkcs12, key, "openssl pkcs12 -in /run/it -nocerts -nodes -out key.pem");
        check(pkcs12, certificates, "openssl pkcs12 -in /run/it -nokeys");
        check(b"\x30\x80\x02\x01\x03", key, "PKCS#12");
        check(b"\x30\x82\x03\x00\x30\x82", certificates, "openssl x509 -inform DER -in /run/it");
        check(b"\x30\x81\x87\x02\x01\x00", key, "openssl pkey -inform DER -in /run/it");
        check(b"\xfe\xed\xfe\xed\0\0\0\x02", key, "keytool -importkeystore -srckeystore /run/it");
        let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMII\n";
        check(encrypted, key, "openssl pkey -in /run/it -out key.pem");
        check(encrypted, certificates, "");
        let old =
            b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC\n";
        check(old, key, "under a passphrase");
        check(b"-----BEGIN PKCS7-----\nMII\n", certificates, "openssl pkcs7 -print_certs");
        check(b"-----BEGIN PRIVATE KEY-----\nMII\n", key, "");
        check(b"", key, "");
        check(b"\xff\xfe", key, "");
    }
}
