//! Client assertions: JWTs that authenticate the client (RFC 7523), signed with the client secret or
//! with a private key.
//!
//! The time is an argument; only the `jti` is random, since RFC 7523 section 3 lets servers refuse an
//! assertion they have seen.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use aws_lc_rs::{error::KeyRejected, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use zeroize::Zeroizing;

use super::client_auth::SigningAlgorithm;
use super::dialect::AssertionSettings;
use super::endpoint::TokenEndpoint;
use crate::sensitive::Sensitive;

/// Shortest and longest time until `exp`.
const LIFETIME: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(300));
/// RFC 7518 section 3.3 asks for RSA keys of at least 2048 bits.
const MIN_RSA_BYTES: usize = 256;

/// The key that signs an assertion.
#[derive(Debug, Clone, Copy)]
pub enum SigningKey<'a> {
    /// The client secret, for HS256.
    Secret(&'a Sensitive),
    /// A private key as PKCS#8 PEM.
    Private(SigningAlgorithm, &'a Sensitive),
}

/// Makes a new assertion; each is good for one request.
///
/// # Errors
/// The key cannot be read or does not fit the algorithm.
pub fn sign(
    settings: &AssertionSettings,
    endpoint: &TokenEndpoint,
    client_id: &Sensitive,
    key: SigningKey<'_>,
    now: SystemTime,
) -> Result<Sensitive, AssertionError> {
    let random = SystemRandom::new();
    let header = header(settings, key);
    let claims = claims(settings, endpoint, client_id, now, &random)?;
    let mut token = URL_SAFE_NO_PAD.encode(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims.as_bytes(), &mut token);
    let signature = signature(key, token.as_bytes(), &random)?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(Sensitive::new(token))
}

fn header(settings: &AssertionSettings, key: SigningKey<'_>) -> String {
    let algorithm = match key {
        SigningKey::Secret(_) => "HS256",
        SigningKey::Private(SigningAlgorithm::Rs256, _) => "RS256",
        SigningKey::Private(SigningAlgorithm::Ps256, _) => "PS256",
        SigningKey::Private(SigningAlgorithm::Es256, _) => "ES256",
        SigningKey::Private(SigningAlgorithm::EdDsa, _) => "EdDSA",
    };
    match &settings.key_id {
        Some(id) => json!({ "alg": algorithm, "typ": "JWT", "kid": id }),
        None => json!({ "alg": algorithm, "typ": "JWT" }),
    }
    .to_string()
}

/// RFC 7523 section 3: issuer and subject are the client, the audience names the server.
fn claims(
    settings: &AssertionSettings,
    endpoint: &TokenEndpoint,
    client_id: &Sensitive,
    now: SystemTime,
    random: &SystemRandom,
) -> Result<String, AssertionError> {
    let mut jti = [0; 16];
    random.fill(&mut jti).map_err(|_| AssertionError::Signing)?;
    let issued = now.duration_since(UNIX_EPOCH).map_err(|_| AssertionError::Clock)?.as_secs();
    let life = settings.lifetime.clamp(LIFETIME.0, LIFETIME.1).as_secs();
    let audience = settings.audience.clone().unwrap_or_else(|| endpoint.uri().to_string());
    Ok(json!({
        "iss": client_id.expose(),
        "sub": client_id.expose(),
        "aud": audience,
        "iat": issued,
        "exp": issued.saturating_add(life),
        "jti": URL_SAFE_NO_PAD.encode(jti),
    })
    .to_string())
}

fn signature(
    key: SigningKey<'_>,
    message: &[u8],
    random: &SystemRandom,
) -> Result<Vec<u8>, AssertionError> {
    let (algorithm, pem) = match key {
        SigningKey::Secret(secret) => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
            return Ok(hmac::sign(&key, message).as_ref().to_vec());
        }
        SigningKey::Private(algorithm, pem) => (algorithm, pem),
    };
    let der = pkcs8(pem)?;
    match algorithm {
        SigningAlgorithm::Rs256 => rsa(&der, &RSA_PKCS1_SHA256, message, random),
        SigningAlgorithm::Ps256 => rsa(&der, &RSA_PSS_SHA256, message, random),
        SigningAlgorithm::Es256 => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
                .map_err(wrong_key("an EC key on P-256"))?;
            let signature = pair.sign(random, message).map_err(|_| AssertionError::Signing)?;
            Ok(signature.as_ref().to_vec())
        }
        SigningAlgorithm::EdDsa => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
                .map_err(wrong_key("an Ed25519 key"))?;
            Ok(pair.sign(message).as_ref().to_vec())
        }
    }
}

fn rsa(
    der: &[u8],
    encoding: &'static dyn RsaEncoding,
    message: &[u8],
    random: &SystemRandom,
) -> Result<Vec<u8>, AssertionError> {
    let expected = "an RSA key of 2048 to 8192 bits";
    let pair = RsaKeyPair::from_pkcs8(der).map_err(wrong_key(expected))?;
    let length = pair.public_modulus_len();
    if length < MIN_RSA_BYTES {
        return Err(AssertionError::Key { expected });
    }
    let mut signature = vec![0; length];
    pair.sign(encoding, random, message, &mut signature).map_err(|_| AssertionError::Signing)?;
    Ok(signature)
}

/// The rejection of a key; the library's reason is dropped, because it does not help to repair it.
fn wrong_key(expected: &'static str) -> impl FnOnce(KeyRejected) -> AssertionError {
    move |_| AssertionError::Key { expected }
}

/// The DER bytes of the first block `PRIVATE KEY` (RFC 7468 section 10).
fn pkcs8(pem: &Sensitive) -> Result<Zeroizing<Vec<u8>>, AssertionError> {
    let text = pem.expose();
    let start = text.find("-----BEGIN ").ok_or(AssertionError::NotPem)?;
    let (label, rest) =
        text[start + "-----BEGIN ".len()..].split_once("-----").ok_or(AssertionError::NotPem)?;
    match label {
        "PRIVATE KEY" => {}
        "RSA PRIVATE KEY" | "EC PRIVATE KEY" => return Err(AssertionError::OldPem),
        "ENCRYPTED PRIVATE KEY" => return Err(AssertionError::EncryptedPem),
        _ => return Err(AssertionError::NotPem),
    }
    let (body, _) = rest.split_once("-----END PRIVATE KEY-----").ok_or(AssertionError::NotPem)?;
    let mut packed = Zeroizing::new(String::with_capacity(body.len()));
    packed.extend(body.chars().filter(|c| !c.is_ascii_whitespace()));
    STANDARD.decode(packed.as_bytes()).map(Zeroizing::new).map_err(|_| AssertionError::NotPem)
}

/// The reason why no assertion can be signed; never holds a part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// No private key in PEM was found.
    #[error("the private key is no PKCS#8 PEM; it begins with -----BEGIN PRIVATE KEY-----")]
    NotPem,
    /// A key in the older format of one algorithm.
    #[error(
        "the private key is in an older PEM format; convert it with: \
         openssl pkcs8 -topk8 -nocrypt -in old.pem -out key.pem"
    )]
    OldPem,
    /// A key under a passphrase.
    #[error(
        "the private key is encrypted and no passphrase can be given; convert it with: \
         openssl pkcs8 -in old.pem -out key.pem"
    )]
    EncryptedPem,
    /// A key that does not fit the algorithm.
    #[error("the private key does not fit the algorithm, which needs {expected}")]
    Key {
        /// The kind of key that the algorithm needs.
        expected: &'static str,
    },
    /// The clock stands before 1970.
    #[error("the clock stands before 1970; set it")]
    Clock,
    /// The library failed to sign.
    #[error("the client assertion could not be signed")]
    Signing,
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, KeyPair, RSA_PKCS1_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
    };
    use serde_json::Value;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn pem(der: &[u8]) -> Sensitive {
        let text = STANDARD.encode(der);
        let lines: Vec<_> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        Sensitive::new(format!(
            "Bag Attributes\n-----BEGIN PRIVATE KEY-----\r\n{}\r\n-----END PRIVATE KEY-----\n",
            lines.join("\r\n")
        ))
    }

    fn signed(settings: &AssertionSettings, key: SigningKey<'_>) -> Result<String, AssertionError> {
        let endpoint = TokenEndpoint::parse("https://auth.example/token").unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        sign(settings, &endpoint, &Sensitive::new("me"), key, now)
            .map(|token| token.expose().to_owned())
    }

    fn part(token: &str, index: usize) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap()
    }

    fn value(token: &str, index: usize) -> Value {
        serde_json::from_slice(&part(token, index)).unwrap()
    }

    fn verify(token: &str, algorithm: &'static dyn VerificationAlgorithm, public: &[u8]) {
        let (message, _) = token.rsplit_once('.').unwrap();
        UnparsedPublicKey::new(algorithm, public)
            .verify(message.as_bytes(), &part(token, 2))
            .unwrap();
    }

    #[test]
    fn claims_and_header() {
        let secret = Sensitive::new("hunter2");
        for (settings, audience, life) in [
            (AssertionSettings::default(), "https://auth.example/token", 60),
            (
                AssertionSettings {
                    audience: Some("https://auth.example".into()),
                    key_id: Some("k1".into()),
                    lifetime: Duration::from_secs(3600),
                },
                "https://auth.example",
                300,
            ),
            (
                AssertionSettings { lifetime: Duration::ZERO, ..AssertionSettings::default() },
                "https://auth.example/token",
                60,
            ),
        ] {
            let token = signed(&settings, SigningKey::Secret(&secret)).unwrap();
            let (header, claims) = (value(&token, 0), value(&token, 1));
            assert_eq!(header["alg"], "HS256");
            assert_eq!(header["kid"].as_str(), settings.key_id.as_deref());
            assert_eq!((&claims["iss"], &claims["sub"]), (&json!("me"), &json!("me")));
            assert_eq!(claims["aud"], audience);
            assert_eq!((&claims["iat"], &claims["exp"]), (&json!(NOW), &json!(NOW + life)));
            let other = signed(&settings, SigningKey::Secret(&secret)).unwrap();
            assert_ne!(claims["jti"], value(&other, 1)["jti"]);
        }
    }

    #[test]
    fn signatures_verify() {
        let settings = AssertionSettings::default();
        let secret = Sensitive::new("hunter2");
        let token = signed(&settings, SigningKey::Secret(&secret)).unwrap();
        let (message, _) = token.rsplit_once('.').unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"hunter2");
        hmac::verify(&key, message.as_bytes(), &part(&token, 2)).unwrap();

        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let rsa_pem = pem(AsDer::<aws_lc_rs::encoding::Pkcs8V1Der>::as_der(&rsa).unwrap().as_ref());
        let token =
            signed(&settings, SigningKey::Private(SigningAlgorithm::Rs256, &rsa_pem)).unwrap();
        verify(&token, &RSA_PKCS1_2048_8192_SHA256, rsa.public_key().as_ref());
        let token =
            signed(&settings, SigningKey::Private(SigningAlgorithm::Ps256, &rsa_pem)).unwrap();
        assert_eq!(value(&token, 0)["alg"], "PS256");
        verify(&token, &RSA_PSS_2048_8192_SHA256, rsa.public_key().as_ref());

        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let ec_pem = pem(ec.to_pkcs8v1().unwrap().as_ref());
        let token =
            signed(&settings, SigningKey::Private(SigningAlgorithm::Es256, &ec_pem)).unwrap();
        verify(&token, &ECDSA_P256_SHA256_FIXED, ec.public_key().as_ref());

        let ed = Ed25519KeyPair::generate().unwrap();
        let ed_pem = pem(ed.to_pkcs8v1().unwrap().as_ref());
        let token =
            signed(&settings, SigningKey::Private(SigningAlgorithm::EdDsa, &ed_pem)).unwrap();
        verify(&token, &ED25519, ed.public_key().as_ref());

        for (algorithm, wrong) in [
            (SigningAlgorithm::Rs256, &ec_pem),
            (SigningAlgorithm::Es256, &rsa_pem),
            (SigningAlgorithm::EdDsa, &ec_pem),
        ] {
            let found = signed(&settings, SigningKey::Private(algorithm, wrong));
            assert!(matches!(found, Err(AssertionError::Key { .. })), "{found:?}");
        }
    }

    #[test]
    fn keys_that_cannot_be_read() {
        for (text, expected) in [
            ("", AssertionError::NotPem),
            ("hunter2", AssertionError::NotPem),
            ("-----BEGIN PRIVATE KEY-----", AssertionError::NotPem),
            ("-----BEGIN PRIVATE KEY-----\n?\n-----END PRIVATE KEY-----", AssertionError::NotPem),
            ("-----BEGIN CERTIFICATE-----\n", AssertionError::NotPem),
            ("-----BEGIN RSA PRIVATE KEY-----\n", AssertionError::OldPem),
            ("-----BEGIN EC PRIVATE KEY-----\n", AssertionError::OldPem),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\n", AssertionError::EncryptedPem),
        ] {
            let pem = Sensitive::new(text);
            let key = SigningKey::Private(SigningAlgorithm::Es256, &pem);
            let error = signed(&AssertionSettings::default(), key).unwrap_err();
            assert_eq!(error, expected);
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
