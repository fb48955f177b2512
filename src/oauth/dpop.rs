//! Proofs of possession (RFC 9449, DPoP): JWTs that show, with each request, that its sender has the
//! private key to which the access token is bound.
//!
//! The time is an argument; only the `jti` is random, since a server refuses a proof that it has seen.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue, Method};
use serde::Serialize;
use serde_json::{Value, json};

use super::jws::{self, AssertionError, Signer, SigningAlgorithm, SigningKey};
use super::thumbprint;
use crate::sensitive::Sensitive;

/// The header of a request that carries a proof (RFC 9449 section 4.1).
pub const DPOP: HeaderName = HeaderName::from_static("dpop");

/// The header of a response that carries a nonce for the next proofs (RFC 9449 section 8).
pub const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Longest nonce that is sent back, in bytes. It becomes part of each proof, and servers bound the size
/// of a request's head.
const MAX_NONCE_BYTES: usize = 1024;

/// Signature algorithms of proofs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DpopAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    #[default]
    Es256,
    /// Ed25519, under the name of RFC 8037 section 3.1, which servers may no longer list.
    EdDsa,
    /// Ed25519, under the name of RFC 9864 section 2.2.
    Ed25519,
}

impl DpopAlgorithm {
    /// The registered name (RFC 7518 section 3.1, RFC 8037 section 3.1, RFC 9864 section 2.2).
    pub fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Ed25519 => "Ed25519",
        }
    }
}

/// A private key that signs proofs.
pub struct ProofKey {
    signer: Signer,
    /// The first part of each proof, which is the same for all: the encoded header with the public key.
    header: String,
}

/// The request that a proof is for.
#[derive(Debug, Clone, Copy)]
pub struct ProvenRequest<'a> {
    /// Its method: the claim `htm`.
    pub method: &'a Method,
    /// Its URL without query and fragment: the claim `htu`.
    pub url: &'a str,
    /// The [`token_hash`] of its access token, in a request that has one: the claim `ath`.
    pub token_hash: Option<&'a str>,
    /// The nonce of its server, if that gave one.
    pub nonce: Option<&'a str>,
}

/// The claims of a proof (RFC 9449 section 4.2).
#[derive(Serialize)]
struct Claims<'a> {
    jti: &'a str,
    htm: &'a str,
    htu: &'a str,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
}

impl ProofKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// The library failed to make one.
    pub fn generate(algorithm: DpopAlgorithm) -> Result<Self, AssertionError> {
        let signer = match algorithm {
            DpopAlgorithm::Es256 => Signer::generate_es256(),
            DpopAlgorithm::EdDsa | DpopAlgorithm::Ed25519 => Signer::generate_ed25519(),
        };
        Ok(Self::new(algorithm, signer?))
    }

    /// Reads a key from PEM or a JWK.
    ///
    /// # Errors
    /// The key cannot be read or does not fit the algorithm.
    pub fn from_text(algorithm: DpopAlgorithm, text: &Sensitive) -> Result<Self, AssertionError> {
        let signing = match algorithm {
            DpopAlgorithm::Es256 => SigningAlgorithm::Es256,
            DpopAlgorithm::EdDsa => SigningAlgorithm::EdDsa,
            DpopAlgorithm::Ed25519 => SigningAlgorithm::Ed25519,
        };
        Ok(Self::new(algorithm, Signer::new(SigningKey::Private(signing, text))?))
    }

    fn new(algorithm: DpopAlgorithm, signer: Signer) -> Self {
        let jwk = match algorithm {
            DpopAlgorithm::Es256 => p256_jwk(signer.public_key()),
            DpopAlgorithm::EdDsa | DpopAlgorithm::Ed25519 => ed25519_jwk(signer.public_key()),
        };
        let header = json!({ "typ": "dpop+jwt", "alg": algorithm.name(), "jwk": jwk }).to_string();
        Self { signer, header: URL_SAFE_NO_PAD.encode(header) }
    }

    /// The thumbprint of the public key, `jkt` (RFC 9449 section 6.1).
    pub fn thumbprint(&self) -> Option<String> {
        thumbprint::of_signer(&self.signer)
    }

    /// Signs a new proof for one request, as the value of its `DPoP` header, marked sensitive.
    ///
    /// # Errors
    /// The clock stands before 1970, or the library failed to sign.
    pub fn prove(
        &self,
        request: ProvenRequest<'_>,
        now: SystemTime,
    ) -> Result<HeaderValue, AssertionError> {
        let issued = now.duration_since(UNIX_EPOCH).map_err(|_| AssertionError::Clock)?;
        let claims = serde_json::to_vec(&Claims {
            jti: &jws::random_id()?,
            htm: request.method.as_str(),
            htu: request.url,
            iat: issued.as_secs(),
            ath: request.token_hash,
            nonce: request.nonce,
        });
        let claims = claims.map_err(|_| AssertionError::Signing)?;
        // Room for the claims in base64 and for a signature of 64 bytes.
        let mut proof = String::with_capacity(self.header.len() + claims.len() * 4 / 3 + 96);
        proof.push_str(&self.header);
        proof.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut proof);
        let signature = self.signer.sign(proof.as_bytes())?;
        proof.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut proof);
        Sensitive::new(proof).header("").ok_or(AssertionError::Signing)
    }
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey([redacted])")
    }
}

/// The public key of P-256 as a JWK (RFC 7518 section 6.2): the point without its first byte, which says
/// that it is not compressed, as two coordinates of 32 bytes.
fn p256_jwk(point: &[u8]) -> Value {
    let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
    json!({ "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) })
}

/// The public key of Ed25519 as a JWK (RFC 8037 section 2).
fn ed25519_jwk(key: &[u8]) -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(key) })
}

/// The claim `ath` of an access token: its SHA-256 in base64url (RFC 9449 section 4.2).
pub fn token_hash(token: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, token))
}

/// Checks a nonce: visible ASCII without `"` and `\` (RFC 9449 section 8.1), at most 1024 bytes.
pub fn is_nonce(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    let allowed = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    (1..=MAX_NONCE_BYTES).contains(&bytes.len()) && bytes.iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};

    use super::*;

    const REQUEST: ProvenRequest<'static> = ProvenRequest {
        method: &Method::POST,
        url: "https://server.example.com/token",
        token_hash: None,
        nonce: None,
    };

    fn part(proof: &HeaderValue, index: usize) -> Value {
        let part = proof.to_str().unwrap().split('.').nth(index).unwrap().to_owned();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    fn coordinate(jwk: &Value, name: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap()
    }

    fn prove(key: &ProofKey, request: ProvenRequest<'_>) -> HeaderValue {
        key.prove(request, UNIX_EPOCH + Duration::from_secs(1_562_262_616)).unwrap()
    }

    /// The token and its `ath` of RFC 9449 section 7.1.
    #[test]
    fn the_hash_of_a_token_is_that_of_the_rfc() {
        let token = b"Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
        assert_eq!(token_hash(token), "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
    }

    /// The public key and the header of RFC 9449 section 4.2.
    #[test]
    fn the_public_key_is_written_as_in_the_rfc() {
        let x = "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs";
        let y = "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA";
        let mut point = vec![4];
        for coordinate in [x, y] {
            point.extend(URL_SAFE_NO_PAD.decode(coordinate).unwrap());
        }
        let expected = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y });
        assert_eq!(p256_jwk(&point), expected);
        // The thumbprint of RFC 9449 section 6.1 (RFC 7638: the members in this order, no blanks).
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let thumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
        assert_eq!(token_hash(members.as_bytes()), thumbprint);
    }

    #[test]
    fn a_proof_has_the_claims_of_its_request_and_verifies_with_its_own_key() {
        for (algorithm, name) in [
            (DpopAlgorithm::Es256, "ES256"),
            (DpopAlgorithm::EdDsa, "EdDSA"),
            (DpopAlgorithm::Ed25519, "Ed25519"),
        ] {
            let key = ProofKey::generate(algorithm).unwrap();
            let proof = prove(&key, REQUEST);
            assert!(proof.is_sensitive());
            let (header, mut claims) = (part(&proof, 0), part(&proof, 1));
            assert_eq!((&header["typ"], &header["alg"]), (&json!("dpop+jwt"), &json!(name)));
            let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
            assert_eq!(jti.as_str().unwrap().len(), 22);
            let expected = json!({ "htm": "POST", "htu": REQUEST.url, "iat": 1_562_262_616 });
            assert_eq!(claims, expected);
            let jwk = &header["jwk"];
            assert!(jwk.get("d").is_none(), "the private part");
            let (signed, signature) = proof.to_str().unwrap().rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let verified = match algorithm {
                DpopAlgorithm::Es256 => {
                    let point = [vec![4], coordinate(jwk, "x"), coordinate(jwk, "y")].concat();
                    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                        .verify(signed.as_bytes(), &signature)
                }
                DpopAlgorithm::EdDsa | DpopAlgorithm::Ed25519 => {
                    UnparsedPublicKey::new(&ED25519, coordinate(jwk, "x"))
                        .verify(signed.as_bytes(), &signature)
                }
            };
            verified.unwrap();
        }
    }

    #[test]
    fn each_proof_is_another_and_has_what_its_server_asks_for() {
        let key = ProofKey::generate(DpopAlgorithm::EdDsa).unwrap();
        let request = ProvenRequest {
            method: &Method::GET,
            url: "https://resource.example.org/a%22b",
            token_hash: Some("hash"),
            nonce: Some("eyJ7S_zG"),
        };
        let (one, other) = (part(&prove(&key, request), 1), part(&prove(&key, request), 1));
        assert_ne!(one["jti"], other["jti"]);
        assert_eq!((&one["ath"], &one["nonce"]), (&json!("hash"), &json!("eyJ7S_zG")));
        let odd = ProvenRequest { url: "https://a/\"}", ..request };
        assert_eq!(part(&prove(&key, odd), 1)["htu"], "https://a/\"}");
    }

    #[test]
    fn a_key_is_read_from_pem_and_must_fit_its_algorithm() {
        let pem =
            |kind| Sensitive::new(rcgen::KeyPair::generate_for(kind).unwrap().serialize_pem());
        let (p256, ed) = (pem(&rcgen::PKCS_ECDSA_P256_SHA256), pem(&rcgen::PKCS_ED25519));
        let read =
            |algorithm, pem| ProofKey::from_text(algorithm, pem).map(|key| format!("{key:?}"));
        let shown = Ok("ProofKey([redacted])".to_owned());
        assert_eq!(read(DpopAlgorithm::Es256, &p256), shown);
        assert_eq!(read(DpopAlgorithm::EdDsa, &ed), shown);
        for (algorithm, pem) in [(DpopAlgorithm::Es256, &ed), (DpopAlgorithm::EdDsa, &p256)] {
            assert!(matches!(read(algorithm, pem), Err(AssertionError::Key { .. })));
        }
        let none = read(DpopAlgorithm::Es256, &Sensitive::new("hunter2"));
        assert_eq!(none, Err(AssertionError::NotPem));
    }

    #[test]
    fn nonces_are_bounded() {
        let check = |text: &str, expected| {
            assert_eq!(is_nonce(&HeaderValue::from_str(text).unwrap()), expected, "{text}");
        };
        check("eyJ7S_zG.eyJH0-Z.HX4w-7v", true);
        check("!#[]~", true);
        for bad in ["", "a b", "a\"", "a\\b", "a\tb"] {
            check(bad, false);
        }
        check(&"n".repeat(1024), true);
        check(&"n".repeat(1025), false);
    }
}
