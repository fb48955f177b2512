//! JSON Web Signatures in compact form (RFC 7515), signed with a client secret or a private key.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding,
    RsaKeyPair,
};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use memchr::memmem;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::jwk::{self, JwkError};
use super::key_der::{KeyDer, KeyForm};
use crate::sensitive::Sensitive;

/// RFC 7518 section 3.3 asks for RSA keys of at least 2048 bits.
const MIN_RSA_BYTES: usize = 256;

/// Signature algorithms of private keys (RFC 7518 section 3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// Ed25519, under the name of RFC 8037 section 3.1, which servers may no longer list.
    EdDsa,
    /// Ed25519, under the name of RFC 9864 section 2.2.
    Ed25519,
}

/// Algorithms of shared secrets (RFC 7518 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MacAlgorithm {
    /// HMAC with SHA-256.
    #[default]
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

/// The key that signs.
#[derive(Debug, Clone, Copy)]
pub enum SigningKey<'a> {
    /// The client secret.
    Secret(MacAlgorithm, &'a Sensitive),
    /// A private key as PEM (PKCS#8, PKCS#1 or SEC1) or as a JWK.
    Private(SigningAlgorithm, &'a Sensitive),
}

/// Header parameters by which a server finds the public key (RFC 7515 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CertificateHeaders {
    /// Set to send `x5t#S256`, the SHA-256 of the first certificate.
    pub x5t_s256: bool,
    /// Set to send `x5c`, all certificates.
    pub x5c: bool,
}

impl Default for CertificateHeaders {
    fn default() -> Self {
        Self { x5t_s256: true, x5c: false }
    }
}

/// The certificates of a private key, as PEM with the key's own certificate first.
#[derive(Debug, Clone, Copy)]
pub struct KeyCertificate<'a> {
    /// The PEM text.
    pub pem: &'a Sensitive,
    /// The header parameters that are made of it.
    pub headers: CertificateHeaders,
}

/// Signs claims. `kid` of the header is `key_id`, or else that of the key if it is a JWK.
///
/// # Errors
/// The key cannot be read, does not fit the algorithm or is not that of the certificate.
pub fn sign(
    claims: &Map<String, Value>,
    key: SigningKey<'_>,
    key_id: Option<&str>,
    certificate: Option<KeyCertificate<'_>>,
) -> Result<Sensitive, AssertionError> {
    let signer = Signer::new(key)?;
    let mut header = json!({ "alg": algorithm_name(key), "typ": "JWT" });
    let own = match key {
        SigningKey::Private(_, text) if key_id.is_none() => jwk::key_id(text),
        _ => None,
    };
    if let Some(id) = key_id.or(own.as_deref()) {
        header["kid"] = json!(id);
    }
    if let Some(certificate) = certificate {
        certificate.add_to(&mut header, signer.public_key())?;
    }
    let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
    token.push('.');
    let claims = serde_json::to_string(claims).map_err(|_| AssertionError::Signing)?;
    URL_SAFE_NO_PAD.encode_string(claims.as_bytes(), &mut token);
    let signature = signer.sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(Sensitive::new(token))
}

impl SigningAlgorithm {
    /// The registered name (RFC 7518 section 3.1, RFC 8037 section 3.1, RFC 9864 section 2.2).
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
            Self::Ed25519 => "Ed25519",
        }
    }

    /// The kind of key that it needs.
    pub(super) fn key_kind(self) -> &'static str {
        match self {
            Self::Es256 => "an EC key on P-256",
            Self::Es384 => "an EC key on P-384",
            Self::Es512 => "an EC key on P-521",
            Self::EdDsa | Self::Ed25519 => "an Ed25519 key",
            _ => "an RSA key of 2048 to 8192 bits",
        }
    }
}

impl MacAlgorithm {
    /// The registered name (RFC 7518 section 3.1).
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }
}

fn algorithm_name(key: SigningKey<'_>) -> &'static str {
    match key {
        SigningKey::Secret(algorithm, _) => algorithm.name(),
        SigningKey::Private(algorithm, _) => algorithm.name(),
    }
}

/// A `jti` that no other JWT has: 128 random bits.
pub(super) fn random_id() -> Result<String, AssertionError> {
    let mut id = [0; 16];
    SystemRandom::new().fill(&mut id).map_err(|_| AssertionError::Signing)?;
    Ok(URL_SAFE_NO_PAD.encode(id))
}

/// A key as the library holds it.
pub(super) enum Signer {
    Mac(Box<hmac::Key>),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub(super) fn new(key: SigningKey<'_>) -> Result<Self, AssertionError> {
        let (algorithm, text) = match key {
            SigningKey::Secret(algorithm, secret) => {
                let algorithm = match algorithm {
                    MacAlgorithm::Hs256 => hmac::HMAC_SHA256,
                    MacAlgorithm::Hs384 => hmac::HMAC_SHA384,
                    MacAlgorithm::Hs512 => hmac::HMAC_SHA512,
                };
                let key = hmac::Key::new(algorithm, secret.expose().as_bytes());
                return Ok(Self::Mac(Box::new(key)));
            }
            SigningKey::Private(algorithm, text) => (algorithm, text),
        };
        let is_jwk = jwk::is_jwk(text);
        let key = match is_jwk {
            true => jwk::private_key(text, algorithm.key_kind(), algorithm.name())?,
            false => private_key(text)?,
        };
        Self::of(&key, algorithm).ok_or(match is_jwk {
            // Its kind is the right one already.
            true => JwkError::Inconsistent.into(),
            false => AssertionError::Key { expected: algorithm.key_kind() },
        })
    }

    /// `None` for a key that the library rejects; its reason does not help to repair the key.
    fn of(key: &KeyDer, algorithm: SigningAlgorithm) -> Option<Self> {
        match algorithm {
            SigningAlgorithm::Rs256 => rsa(key, &signature::RSA_PKCS1_SHA256),
            SigningAlgorithm::Rs384 => rsa(key, &signature::RSA_PKCS1_SHA384),
            SigningAlgorithm::Rs512 => rsa(key, &signature::RSA_PKCS1_SHA512),
            SigningAlgorithm::Ps256 => rsa(key, &signature::RSA_PSS_SHA256),
            SigningAlgorithm::Ps384 => rsa(key, &signature::RSA_PSS_SHA384),
            SigningAlgorithm::Ps512 => rsa(key, &signature::RSA_PSS_SHA512),
            SigningAlgorithm::Es256 => ec(key, &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            SigningAlgorithm::Es384 => ec(key, &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            SigningAlgorithm::Es512 => ec(key, &signature::ECDSA_P521_SHA512_FIXED_SIGNING),
            SigningAlgorithm::EdDsa | SigningAlgorithm::Ed25519 => {
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key.der).map(Self::Ed).ok()
            }
        }
    }

    /// A new key pair on P-256.
    pub(super) fn generate_es256() -> Result<Self, AssertionError> {
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING);
        pair.map(Self::Ec).map_err(|_| AssertionError::Signing)
    }

    /// A new key pair of Ed25519.
    pub(super) fn generate_ed25519() -> Result<Self, AssertionError> {
        Ed25519KeyPair::generate().map(Self::Ed).map_err(|_| AssertionError::Signing)
    }

    /// The public key as a certificate holds it in its `subjectPublicKey`; empty for a secret.
    pub(super) fn public_key(&self) -> &[u8] {
        match self {
            Self::Mac(_) => &[],
            Self::Rsa(pair, _) => pair.public_key().as_ref(),
            Self::Ec(pair) => pair.public_key().as_ref(),
            Self::Ed(pair) => pair.public_key().as_ref(),
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, AssertionError> {
        let random = SystemRandom::new();
        Ok(match self {
            Self::Mac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Self::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature)
                    .map_err(|_| AssertionError::Signing)?;
                signature
            }
            Self::Ec(pair) => {
                let signature = pair.sign(&random, message);
                signature.map_err(|_| AssertionError::Signing)?.as_ref().to_vec()
            }
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }
}

fn rsa(key: &KeyDer, encoding: &'static dyn RsaEncoding) -> Option<Signer> {
    let pair = match key.form {
        KeyForm::Pkcs1 => RsaKeyPair::from_der(&key.der),
        KeyForm::Pkcs8 | KeyForm::Sec1 => RsaKeyPair::from_pkcs8(&key.der),
    };
    let pair = pair.ok().filter(|pair| pair.public_modulus_len() >= MIN_RSA_BYTES)?;
    Some(Signer::Rsa(pair, encoding))
}

fn ec(key: &KeyDer, algorithm: &'static EcdsaSigningAlgorithm) -> Option<Signer> {
    let pair = match key.form {
        KeyForm::Sec1 => EcdsaKeyPair::from_private_key_der(algorithm, &key.der),
        KeyForm::Pkcs8 | KeyForm::Pkcs1 => EcdsaKeyPair::from_pkcs8(algorithm, &key.der),
    };
    pair.ok().map(Signer::Ec)
}

/// The first private key of a PEM text (RFC 7468 section 10, RFC 5915 section 4). Other blocks may stand
/// before it: OpenSSL writes the parameters of a curve there.
fn private_key(pem: &Sensitive) -> Result<KeyDer, AssertionError> {
    let mut blocks = pem.expose().split("-----BEGIN ").skip(1);
    let block = blocks.find_map(|block| {
        let (label, rest) = block.split_once("-----")?;
        label.ends_with("PRIVATE KEY").then_some((label, rest))
    });
    let (label, rest) = block.ok_or(AssertionError::NotPem)?;
    let form = match label {
        "PRIVATE KEY" => KeyForm::Pkcs8,
        // The older formats name their cipher in a header of the block.
        _ if rest.contains("Proc-Type:") => return Err(AssertionError::EncryptedPem),
        "RSA PRIVATE KEY" => KeyForm::Pkcs1,
        "EC PRIVATE KEY" => KeyForm::Sec1,
        "ENCRYPTED PRIVATE KEY" => return Err(AssertionError::EncryptedPem),
        _ => return Err(AssertionError::NotPem),
    };
    let (body, _) = rest.split_once("-----END ").ok_or(AssertionError::NotPem)?;
    let mut packed = Zeroizing::new(String::with_capacity(body.len()));
    packed.extend(body.chars().filter(|c| !c.is_ascii_whitespace()));
    let der = STANDARD.decode(packed.as_bytes()).map_err(|_| AssertionError::NotPem)?;
    Ok(KeyDer { form, der: Zeroizing::new(der) })
}

impl KeyCertificate<'_> {
    fn add_to(&self, header: &mut Value, public_key: &[u8]) -> Result<(), AssertionError> {
        let certificates: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(self.pem.expose().as_bytes()).collect();
        let certificates = certificates.map_err(|_| AssertionError::Certificate)?;
        let first = certificates.first().ok_or(AssertionError::Certificate)?;
        // A certificate holds its public key byte for byte. One of another key means that only one of
        // two files has been replaced yet; the server would refuse such an assertion.
        if memmem::find(first, public_key).is_none() {
            return Err(AssertionError::OtherCertificate);
        }
        if self.headers.x5t_s256 {
            let hash = digest::digest(&digest::SHA256, first);
            header["x5t#S256"] = json!(URL_SAFE_NO_PAD.encode(hash));
        }
        if self.headers.x5c {
            // RFC 7515 section 4.1.6: base64, not base64url.
            let chain: Vec<_> = certificates.iter().map(|der| STANDARD.encode(der)).collect();
            header["x5c"] = json!(chain);
        }
        Ok(())
    }
}

/// The reason why no assertion can be signed; never holds a part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// No private key in PEM was found, and the text is no JWK either.
    #[error(
        "the private key is no PEM; it begins with -----BEGIN PRIVATE KEY-----, or as a JWK with {{"
    )]
    NotPem,
    /// A JWK that cannot sign.
    #[error(transparent)]
    Jwk(#[from] JwkError),
    /// A key under a passphrase.
    #[error(
        "the private key is encrypted and no passphrase can be given; convert it with: \
         openssl pkey -in old.pem -out key.pem"
    )]
    EncryptedPem,
    /// A key that does not fit the algorithm.
    #[error("the private key does not fit the algorithm, which needs {expected}")]
    Key {
        /// The kind of key that the algorithm needs.
        expected: &'static str,
    },
    /// No certificate in PEM was found.
    #[error("assertion.certificate_file holds no PEM certificate (-----BEGIN CERTIFICATE-----)")]
    Certificate,
    /// The certificate is not that of the private key.
    #[error(
        "the first certificate of assertion.certificate_file is not that of the private key; \
         replace both files together"
    )]
    OtherCertificate,
    /// The key file is for another token server.
    #[error(
        "the key file names another token_uri than this token endpoint; set token_url to it, or \
         grant_assertion.audience"
    )]
    OtherTokenUri,
    /// The clock stands before 1970.
    #[error("the clock stands before 1970; set it")]
    Clock,
    /// The library failed to sign.
    #[error("the assertion could not be signed")]
    Signing,
}
