//! What we ask of a server beyond a chain that the roots of trust vouch for.
//!
//! `dangerous` in rustls only means that the verifier is chosen here: it always verifies.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use super::certificate::Certificate;

/// A server's key that is expected: SHA-256 of its SubjectPublicKeyInfo (RFC 7469 section 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

/// Base64 of 32 bytes.
const BASE64_CHARACTERS: usize = 44;

impl Pin {
    /// Reads 32 bytes in base64; `sha256/` or, as curl writes it, `sha256//` may stand before them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Base64 may itself begin with a slash, so that the length decides.
        let at = text.len().checked_sub(BASE64_CHARACTERS)?;
        let (before, pin) = text.split_at_checked(at)?;
        if !matches!(before, "" | "sha256/" | "sha256//") {
            return None;
        }
        STANDARD.decode(pin).ok()?.try_into().ok().map(Self)
    }

    /// The pin of a certificate's key.
    fn of(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        let mut pin = [0; 32];
        pin.copy_from_slice(digest(&SHA256, &key).as_ref());
        Ok(Self(pin))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

/// A server whose chain is in order and whose key is none of those that are pinned.
#[derive(Debug)]
pub(crate) struct UnpinnedKey {
    /// The key it has.
    pub(crate) found: Pin,
}

impl fmt::Display for UnpinnedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server's key is none of those in tls.pin_sha256: it is {}", self.found)
    }
}

impl std::error::Error for UnpinnedKey {}

/// A verifier, and what is done beside it. The chain is always verified by `inner`.
#[derive(Debug)]
struct PinnedVerifier {
    inner: Arc<dyn ServerCertVerifier>,
    pins: Vec<Pin>,
    recorder: Option<ChainRecorder>,
}

/// Asks for one of these keys too, where there are any.
pub fn pinned(inner: Arc<dyn ServerCertVerifier>, pins: &[Pin]) -> Arc<dyn ServerCertVerifier> {
    match pins {
        [] => inner,
        pins => Arc::new(PinnedVerifier { inner, pins: pins.to_vec(), recorder: None }),
    }
}

/// Sees the chain that one server shows, whether it is trusted or not.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChainRecorder(Arc<Mutex<Vec<Certificate>>>);

impl ChainRecorder {
    /// Lets it see what this verifier is given.
    pub fn wrap(&self, inner: Arc<dyn ServerCertVerifier>) -> Arc<dyn ServerCertVerifier> {
        Arc::new(PinnedVerifier { inner, pins: Vec::new(), recorder: Some(self.clone()) })
    }

    /// What was seen, the server's own certificate first.
    pub(crate) fn chain(&self) -> Vec<Certificate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn record(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) {
        let chain = std::iter::once(leaf).chain(others).filter_map(|der| Certificate::read(der));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = chain.collect();
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(recorder) = &self.recorder {
            recorder.record(leaf, others);
        }
        let verified = self.inner.verify_server_cert(leaf, others, name, ocsp, now)?;
        if !self.pins.is_empty() {
            let found = Pin::of(leaf)?;
            if !self.pins.contains(&found) {
                let other = OtherError(Arc::new(UnpinnedKey { found }));
                return Err(CertificateError::Other(other).into());
            }
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_as_curl_and_openssl_write_them() {
        let text = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let pin = Pin::parse(text).unwrap();
        assert_eq!((pin.0[31], pin.to_string().as_str()), (31, text));
        assert_eq!(Pin::parse(&format!("sha256//{text}")), Some(pin));
        assert_eq!(Pin::parse(&format!("sha256/{text}")), Some(pin));
        let slash = format!("/{}", &text[1..]);
        assert_eq!(Pin::parse(&slash).unwrap().to_string(), slash);
        for wrong in ["", "sha256//", &text[..40], "AAECAw==", "md5/AAECAw==", "sha1//AAAA"] {
            assert_eq!(Pin::parse(wrong), None, "{wrong}");
        }
    }
}
