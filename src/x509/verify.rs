//! Pins, checked in addition to the chain of trust, and a recorder of the chain for diagnostics.
//!
//! `dangerous` in rustls only means that this program chooses the verifier. The chain is always
//! verified.

use std::fmt;
use std::iter;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use super::certificate::Certificate;
use super::der::Der;

/// A pinned server key: SHA-256 of its SubjectPublicKeyInfo (RFC 7469 section 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

/// Base64 of 32 bytes.
const BASE64_CHARACTERS: usize = 44;

impl Pin {
    /// Reads 32 bytes in base64, with the optional prefix `sha256/` or, as curl writes it, `sha256//`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Base64 may itself begin with a slash, so the length decides where the prefix ends.
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

/// The chain of a server is trusted, but its key is not pinned.
#[derive(Debug, thiserror::Error)]
#[error("the server's key is none of those in tls.pin_sha256: it is {found}")]
pub(crate) struct UnpinnedKey {
    /// Pin of the server's key.
    pub(crate) found: Pin,
}

/// A key of the server's chain is too short for its signatures to count.
#[derive(Debug, thiserror::Error)]
#[error(
    "the server's certificate, or one of its chain, has a weak key: RSA of {bits} bits, and the least \
     that is accepted is {LEAST_RSA_BITS}"
)]
pub(crate) struct WeakKey {
    /// Length of its modulus.
    pub(crate) bits: usize,
}

/// Bits of the shortest RSA key whose signatures rustls accepts.
const LEAST_RSA_BITS: usize = 2048;

/// The error of a signature that does not count, with the reason where it is a weak key: webpki says only
/// that the signature is bad.
fn explained<'c>(error: Error, chain: impl IntoIterator<Item = &'c CertificateDer<'c>>) -> Error {
    if !matches!(error, Error::InvalidCertificate(CertificateError::BadSignature)) {
        return error;
    }
    let mut lengths = chain.into_iter().filter_map(|certificate| rsa_bits(certificate));
    match lengths.find(|bits| *bits < LEAST_RSA_BITS) {
        Some(bits) => CertificateError::Other(OtherError(Arc::new(WeakKey { bits }))).into(),
        None => error,
    }
}

/// The length of a certificate's RSA key (RFC 8017 appendix A.1.1); `None` for other keys.
fn rsa_bits(certificate: &CertificateDer<'_>) -> Option<usize> {
    let info = ParsedCertificate::try_from(certificate).ok()?.subject_public_key_info();
    let mut fields = Der::new(&info).enter(Der::SEQUENCE)?;
    let algorithm = Der::new(fields.take(Der::SEQUENCE)?).take(Der::OID)?;
    if !algorithm.starts_with(RSA) {
        return None;
    }
    // The first byte of a bit string counts the bits that are left over: none here.
    let (_, key) = fields.take(Der::BITS)?.split_first()?;
    let modulus = Der::new(key).enter(Der::SEQUENCE)?.take(Der::INTEGER)?;
    let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    Some(modulus.len() * 8 - usize::try_from(modulus.first()?.leading_zeros()).ok()?)
}

/// Object identifiers of RSA keys begin with this: 1.2.840.113549.1.1.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];

/// Verifies the chain with `inner`, then compares the key with `pins` if there are any.
#[derive(Debug)]
struct PinnedVerifier {
    inner: Arc<dyn ServerCertVerifier>,
    pins: Vec<Pin>,
    recorder: Option<ChainRecorder>,
}

/// A verifier that says more of a weak key, and requires one of the pinned keys if there are any.
pub fn pinned(inner: Arc<dyn ServerCertVerifier>, pins: &[Pin]) -> Arc<dyn ServerCertVerifier> {
    Arc::new(PinnedVerifier { inner, pins: pins.to_vec(), recorder: None })
}

/// Records the chain that one server presents, trusted or not. Clones share the record.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChainRecorder(Arc<Mutex<Vec<Certificate>>>);

impl ChainRecorder {
    /// A verifier that records each chain and then decides as `inner` does.
    pub fn wrap(&self, inner: Arc<dyn ServerCertVerifier>) -> Arc<dyn ServerCertVerifier> {
        Arc::new(PinnedVerifier { inner, pins: Vec::new(), recorder: Some(self.clone()) })
    }

    /// The recorded chain, the server's own certificate first; empty before a handshake.
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
        // Before the verdict: a chain that is refused is the one that a person wants to see.
        if let Some(recorder) = &self.recorder {
            recorder.record(leaf, others);
        }
        let verified = self.inner.verify_server_cert(leaf, others, name, ocsp, now);
        let verified =
            verified.map_err(|error| explained(error, iter::once(leaf).chain(others)))?;
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
        let verified = self.inner.verify_tls12_signature(message, certificate, signed);
        verified.map_err(|error| explained(error, [certificate]))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.inner.verify_tls13_signature(message, certificate, signed);
        verified.map_err(|error| explained(error, [certificate]))
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

    #[test]
    fn a_weak_key_is_named_where_a_signature_does_not_count() {
        use rustls::pki_types::pem::PemObject as _;
        let pem = include_bytes!("../../tests/fixtures/tls/rsa-1024.pem");
        let weak = CertificateDer::from_pem_slice(pem).unwrap();
        assert_eq!(rsa_bits(&weak), Some(1024));
        let check = |error: CertificateError, expected: &str| {
            let text = format!("{:?}", explained(error.into(), [&weak]));
            assert!(text.contains(expected), "{text}");
        };
        check(CertificateError::BadSignature, "WeakKey { bits: 1024 }");
        check(CertificateError::Revoked, "Revoked");
        let key = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        assert_eq!(rsa_bits(key.cert.der()), None);
    }
}
