//! Keys and certificates under a password: PKCS#12 containers (RFC 7292) and encrypted PKCS#8 keys (RFC
//! 5958 section 3). Needs the cargo feature `pkcs12`; without it both are refused by its name.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsSetupError;

/// The first line of an encrypted PKCS#8 key in PEM.
const ENCRYPTED_KEY: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";

/// Tells whether a text is an encrypted PKCS#8 key in PEM.
pub(crate) fn is_encrypted_key(pem: &str) -> bool {
    pem.contains(ENCRYPTED_KEY)
}

/// The key of a container with its certificate first, then those that vouch for it.
///
/// # Errors
/// The bytes are no container, the password is another one, or there is no key with its certificate.
#[cfg(feature = "pkcs12")]
pub(crate) fn container(
    bytes: &[u8],
    password: &str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsSetupError> {
    use p12_keystore::{KeyStore, Pkcs12ImportPolicy};

    let opened = KeyStore::from_pkcs12(bytes, password, Pkcs12ImportPolicy::Strict);
    // The library's words are about ASN.1; which of both it is cannot be told without the password.
    let store = opened.map_err(|_| {
        TlsSetupError::new("the PKCS#12 container is damaged, or its password is another one")
    })?;
    let (_, chain) = store.private_key_chain().ok_or_else(|| {
        TlsSetupError::new("the PKCS#12 container has no private key with its certificate")
    })?;
    let certificates = chain.certs().iter();
    let certificates = certificates.map(|one| CertificateDer::from(one.as_der().to_vec()));
    let key = PrivateKeyDer::try_from(chain.key().as_der().to_vec());
    let key = key.map_err(|_| TlsSetupError::new("the PKCS#12 container has an unknown key"))?;
    Ok((certificates.collect(), key))
}

/// The key in an encrypted PEM.
///
/// # Errors
/// The text is no such key, or the password is another one.
#[cfg(feature = "pkcs12")]
pub(crate) fn key(pem: &str, password: &str) -> Result<PrivateKeyDer<'static>, TlsSetupError> {
    use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};

    let damaged = || TlsSetupError::new("the encrypted key is damaged");
    let (_, document) = SecretDocument::from_pem(pem).map_err(|_| damaged())?;
    let encrypted =
        EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| damaged())?;
    let opened = encrypted.decrypt(password).map_err(|_| {
        TlsSetupError::new("the password of the key is another one, or its encryption is too old")
    })?;
    PrivateKeyDer::try_from(opened.as_bytes().to_vec()).map_err(|_| damaged())
}

#[cfg(not(feature = "pkcs12"))]
const NOT_BUILT: &str =
    "cannot be opened by this build; the container image can, or build with --features pkcs12";

/// Refuses a container, which this build cannot open.
#[cfg(not(feature = "pkcs12"))]
pub(crate) fn container(
    _: &[u8],
    _: &str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsSetupError> {
    Err(TlsSetupError::new(format!("a PKCS#12 container {NOT_BUILT}")))
}

/// Refuses an encrypted key, which this build cannot open.
#[cfg(not(feature = "pkcs12"))]
pub(crate) fn key(_: &str, _: &str) -> Result<PrivateKeyDer<'static>, TlsSetupError> {
    Err(TlsSetupError::new(format!("an encrypted key {NOT_BUILT}")))
}

#[cfg(feature = "pkcs12")]
#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What `openssl` makes of a key and its certificate, and the certificate.
    fn made_by_openssl(arguments: &str) -> Option<(Vec<u8>, Vec<u8>)> {
        let folder = tempfile::tempdir().unwrap();
        let pair = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["erp".to_owned()]).unwrap();
        let certificate = params.self_signed(&pair).unwrap();
        std::fs::write(folder.path().join("key.pem"), pair.serialize_pem()).unwrap();
        std::fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
        let words = arguments.split(' ');
        let ended = Command::new("openssl").args(words).current_dir(folder.path()).output();
        let made = ended.ok().filter(|ended| ended.status.success())?;
        drop(made);
        let bytes = std::fs::read(folder.path().join("out")).unwrap();
        Some((bytes, certificate.der().to_vec()))
    }

    #[test]
    fn containers_that_openssl_makes_are_opened_with_their_password_alone() {
        for (kind, password) in [
            ("", "s\u{fc}\u{df} w\u{f6}rter"),
            ("", "geheim"),
            ("", ""),
            (" -legacy", "geheim"),
            (" -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES", "geheim"),
            (" -keypbe AES-128-CBC -certpbe AES-256-CBC", "geheim"),
        ] {
            let without_blanks = password.replace(' ', "_");
            let made = made_by_openssl(&format!(
                "pkcs12 -export{kind} -inkey key.pem -in cert.pem -out out -passout pass:{without_blanks}"
            ));
            let Some((bytes, der)) = made else { continue };
            let (chain, _) = container(&bytes, &without_blanks).unwrap();
            assert_eq!(chain, [CertificateDer::from(der)], "{kind}");
            let refused = container(&bytes, "another").unwrap_err().to_string();
            assert!(refused.contains("password is another one"), "{kind}: {refused}");
        }
        assert!(container(b"text", "").is_err());
    }

    #[test]
    fn encrypted_keys_that_openssl_makes_are_opened() {
        let made = made_by_openssl("pkcs8 -topk8 -in key.pem -out out -passout pass:geheim");
        let Some((bytes, _)) = made else { return };
        let text = String::from_utf8(bytes).unwrap();
        assert!(is_encrypted_key(&text) && key(&text, "geheim").is_ok());
        assert!(key(&text, "another").is_err());
        assert!(key(&text.replace("MI", "MA"), "geheim").is_err());
    }
}
