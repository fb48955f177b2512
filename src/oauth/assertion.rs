//! Assertions (RFC 7523): JWTs that authenticate the client, signed with the client secret or with a
//! private key, and JWTs that are the grant, signed with a private key.
//!
//! The time is an argument; only the `jti` is random, since RFC 7523 section 3 lets servers refuse an
//! assertion they have seen.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::dialect::{AssertionSettings, ClientCredentials, GrantAssertion};
use super::endpoint::TokenEndpoint;
use super::jws::{self, AssertionError, KeyCertificate, SigningKey};
use crate::sensitive::Sensitive;

/// Shortest and longest time until `exp`.
const LIFETIME: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(300));

/// Makes a new client assertion; each is good for one request. RFC 7523 section 3: issuer and subject
/// are the client, the audience names the server.
///
/// # Errors
/// The key cannot be read, does not fit the algorithm or is not that of the certificate.
pub fn sign(
    settings: &AssertionSettings,
    endpoint: &TokenEndpoint,
    client: &ClientCredentials,
    key: SigningKey<'_>,
    now: SystemTime,
) -> Result<Sensitive, AssertionError> {
    let audience = settings.audience.clone().unwrap_or_else(|| endpoint.uri().to_string());
    let mut claims = Map::new();
    claims.insert("iss".into(), json!(client.id.expose()));
    claims.insert("sub".into(), json!(client.id.expose()));
    claims.insert("aud".into(), json!(audience));
    stamp(&mut claims, settings.lifetime.clamp(LIFETIME.0, LIFETIME.1), now)?;
    let headers = settings.certificate_headers;
    let certificate = client.certificate.as_ref().map(|pem| KeyCertificate { pem, headers });
    jws::sign(&claims, key, settings.key_id.as_deref(), certificate)
}

/// Makes a new assertion that is the grant (RFC 7523 section 2.1); each is good for one request. `scope`
/// is the claim of that name.
///
/// # Errors
/// There is no key, it cannot be read or does not fit the algorithm, or it is for another token server.
pub fn sign_grant(
    settings: &GrantAssertion,
    endpoint: &TokenEndpoint,
    client: &ClientCredentials,
    scope: Option<&str>,
    now: SystemTime,
) -> Result<Sensitive, AssertionError> {
    let key = client.grant_key.as_ref().ok_or(AssertionError::NotPem)?;
    let url = endpoint.uri().to_string();
    // A key file that names another server than the settings is a mistake, unless they say who is meant.
    let foreign = key.token_uri.as_ref().is_some_and(|uri| *uri != url);
    if foreign && settings.audience.is_none() {
        return Err(AssertionError::OtherTokenUri);
    }
    let issuer = settings.issuer.as_deref().unwrap_or_else(|| client.id.expose());
    let mut claims: Map<String, Value> = settings.claims.iter().cloned().collect();
    claims.insert("iss".into(), json!(issuer));
    if let Some(subject) = &settings.subject {
        claims.insert("sub".into(), json!(subject));
    }
    claims.insert("aud".into(), json!(settings.audience.as_ref().unwrap_or(&url)));
    if let Some(scope) = scope {
        claims.insert("scope".into(), json!(scope));
    }
    stamp(&mut claims, settings.lifetime, now)?;
    let key_id = settings.key_id.as_deref().or(key.key_id.as_deref());
    jws::sign(&claims, SigningKey::Private(settings.algorithm, &key.private_key), key_id, None)
}

/// Adds the times and a `jti` that no other assertion has.
fn stamp(
    claims: &mut Map<String, Value>,
    life: Duration,
    now: SystemTime,
) -> Result<(), AssertionError> {
    let jti = jws::random_id()?;
    let issued = now.duration_since(UNIX_EPOCH).map_err(|_| AssertionError::Clock)?.as_secs();
    claims.insert("iat".into(), json!(issued));
    claims.insert("exp".into(), json!(issued.saturating_add(life.as_secs())));
    claims.insert("jti".into(), json!(jti));
    Ok(())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
        ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING,
        ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaKeyPair, UnparsedPublicKey,
        VerificationAlgorithm,
    };
    use aws_lc_rs::{digest, hmac};
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use serde_json::Value;

    use super::*;
    use crate::oauth::dialect::GrantKey;
    use crate::oauth::jws::{CertificateHeaders, MacAlgorithm, SigningAlgorithm};

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

    fn client(certificate: Option<&str>) -> ClientCredentials {
        let certificate = certificate.map(Sensitive::new);
        ClientCredentials {
            id: Sensitive::new("me"),
            secret: None,
            certificate,
            grant_key: None,
            grant_parameters: vec![],
            headers: vec![],
        }
    }

    fn signed(settings: &AssertionSettings, key: SigningKey<'_>) -> Result<String, AssertionError> {
        let endpoint = TokenEndpoint::parse("https://auth.example/token").unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        sign(settings, &endpoint, &client(None), key, now).map(|token| token.expose().to_owned())
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
                    ..AssertionSettings::default()
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
            let token =
                signed(&settings, SigningKey::Secret(MacAlgorithm::Hs256, &secret)).unwrap();
            let (header, claims) = (value(&token, 0), value(&token, 1));
            assert_eq!(header["alg"], "HS256");
            assert_eq!(header["kid"].as_str(), settings.key_id.as_deref());
            assert_eq!((&claims["iss"], &claims["sub"]), (&json!("me"), &json!("me")));
            assert_eq!(claims["aud"], audience);
            assert_eq!((&claims["iat"], &claims["exp"]), (&json!(NOW), &json!(NOW + life)));
            let other =
                signed(&settings, SigningKey::Secret(MacAlgorithm::Hs256, &secret)).unwrap();
            assert_ne!(claims["jti"], value(&other, 1)["jti"]);
        }
    }

    #[test]
    fn signatures_verify() {
        let settings = AssertionSettings::default();
        let secret = Sensitive::new("hunter2");
        for (name, algorithm, mac) in [
            ("HS256", MacAlgorithm::Hs256, hmac::HMAC_SHA256),
            ("HS384", MacAlgorithm::Hs384, hmac::HMAC_SHA384),
            ("HS512", MacAlgorithm::Hs512, hmac::HMAC_SHA512),
        ] {
            let token = signed(&settings, SigningKey::Secret(algorithm, &secret)).unwrap();
            assert_eq!(value(&token, 0)["alg"], name);
            let (message, _) = token.rsplit_once('.').unwrap();
            let key = hmac::Key::new(mac, b"hunter2");
            hmac::verify(&key, message.as_bytes(), &part(&token, 2)).unwrap();
        }
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let rsa_pem = pem(AsDer::<aws_lc_rs::encoding::Pkcs8V1Der>::as_der(&rsa).unwrap().as_ref());
        let rsa = rsa.public_key().as_ref().to_vec();
        let ec = |algorithm| {
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            (pem(pair.to_pkcs8v1().unwrap().as_ref()), pair.public_key().as_ref().to_vec())
        };
        let (p256_pem, p256) = ec(&ECDSA_P256_SHA256_FIXED_SIGNING);
        let (p384_pem, p384) = ec(&ECDSA_P384_SHA384_FIXED_SIGNING);
        let (p521_pem, p521) = ec(&ECDSA_P521_SHA512_FIXED_SIGNING);
        let ed = Ed25519KeyPair::generate().unwrap();
        let ed_pem = pem(ed.to_pkcs8v1().unwrap().as_ref());
        let ed = ed.public_key().as_ref().to_vec();
        use SigningAlgorithm::{
            Ed25519, EdDsa, Es256, Es384, Es512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512,
        };
        let rows: [(_, _, _, _, &'static dyn VerificationAlgorithm); 11] = [
            ("RS256", Rs256, &rsa_pem, &rsa, &RSA_PKCS1_2048_8192_SHA256),
            ("RS384", Rs384, &rsa_pem, &rsa, &RSA_PKCS1_2048_8192_SHA384),
            ("RS512", Rs512, &rsa_pem, &rsa, &RSA_PKCS1_2048_8192_SHA512),
            ("PS256", Ps256, &rsa_pem, &rsa, &RSA_PSS_2048_8192_SHA256),
            ("PS384", Ps384, &rsa_pem, &rsa, &RSA_PSS_2048_8192_SHA384),
            ("PS512", Ps512, &rsa_pem, &rsa, &RSA_PSS_2048_8192_SHA512),
            ("ES256", Es256, &p256_pem, &p256, &ECDSA_P256_SHA256_FIXED),
            ("ES384", Es384, &p384_pem, &p384, &ECDSA_P384_SHA384_FIXED),
            ("ES512", Es512, &p521_pem, &p521, &ECDSA_P521_SHA512_FIXED),
            ("EdDSA", EdDsa, &ed_pem, &ed, &ED25519),
            ("Ed25519", Ed25519, &ed_pem, &ed, &ED25519),
        ];
        for (name, algorithm, key, public, verification) in rows {
            let token = signed(&settings, SigningKey::Private(algorithm, key)).unwrap();
            assert_eq!(value(&token, 0)["alg"], name);
            verify(&token, verification, public);
        }
        for (algorithm, wrong) in [
            (Rs256, &p256_pem),
            (Ps512, &ed_pem),
            (Es256, &rsa_pem),
            (Es256, &p384_pem),
            (Es384, &p256_pem),
            (Es512, &p384_pem),
            (EdDsa, &p256_pem),
        ] {
            let found = signed(&settings, SigningKey::Private(algorithm, wrong));
            assert!(matches!(found, Err(AssertionError::Key { .. })), "{found:?}");
        }
    }

    #[test]
    fn certificates_are_named_in_the_header_and_must_be_those_of_the_key() {
        let issue = |kind| {
            let pair = rcgen::KeyPair::generate_for(kind).unwrap();
            let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
            (Sensitive::new(pair.serialize_pem()), certificate)
        };
        let endpoint = TokenEndpoint::parse("https://auth.example/token").unwrap();
        let sign = |certificate: &str, headers, algorithm, key: &Sensitive| {
            let settings =
                AssertionSettings { certificate_headers: headers, ..AssertionSettings::default() };
            let key = SigningKey::Private(algorithm, key);
            super::sign(&settings, &endpoint, &client(Some(certificate)), key, SystemTime::now())
                .map(|token| value(token.expose(), 0))
        };
        let both = CertificateHeaders { x5t_s256: true, x5c: true };
        let (_, other) = issue(&rcgen::PKCS_ED25519);
        for (kind, algorithm) in [
            (&rcgen::PKCS_RSA_SHA256, SigningAlgorithm::Ps256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, SigningAlgorithm::Es384),
            (&rcgen::PKCS_ED25519, SigningAlgorithm::EdDsa),
        ] {
            let (key, certificate) = issue(kind);
            let chain = format!("{}{}", certificate.pem(), other.pem());
            let header = sign(&chain, both, algorithm, &key).unwrap();
            let hash = digest::digest(&digest::SHA256, certificate.der());
            assert_eq!(header["x5t#S256"], URL_SAFE_NO_PAD.encode(hash));
            let chain_of = [certificate.der(), other.der()].map(|der| STANDARD.encode(der));
            assert_eq!(header["x5c"], json!(chain_of));
            let header = sign(&chain, CertificateHeaders::default(), algorithm, &key).unwrap();
            assert!(header.get("x5t#S256").is_some() && header.get("x5c").is_none());
            let wrong = sign(&other.pem(), both, algorithm, &key);
            assert_eq!(wrong, Err(AssertionError::OtherCertificate));
            let none = sign("no certificate", both, algorithm, &key);
            assert_eq!(none, Err(AssertionError::Certificate));
        }
    }

    #[test]
    fn a_grant_has_the_claims_of_its_settings() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let endpoint = TokenEndpoint::parse("https://auth.example/token").unwrap();
        let key = |token_uri: Option<&str>| GrantKey {
            private_key: Sensitive::new(pair.serialize_pem()),
            key_id: Some("from-file".into()),
            token_uri: token_uri.map(str::to_owned),
        };
        let sign = |settings: &GrantAssertion, key: GrantKey, scope| {
            let client = ClientCredentials { grant_key: Some(key), ..client(None) };
            let now = UNIX_EPOCH + Duration::from_secs(NOW);
            sign_grant(settings, &endpoint, &client, scope, now)
                .map(|token| (value(token.expose(), 0), value(token.expose(), 1)))
        };
        let settings = GrantAssertion::default();
        let (header, claims) = sign(&settings, key(None), None).unwrap();
        assert_eq!((&header["alg"], &header["kid"]), (&json!("RS256"), &json!("from-file")));
        assert_eq!(
            (&claims["iss"], &claims["aud"]),
            (&json!("me"), &json!("https://auth.example/token"))
        );
        assert_eq!((&claims["iat"], &claims["exp"]), (&json!(NOW), &json!(NOW + 60)));
        assert!(claims.get("sub").is_none() && claims.get("scope").is_none());
        let settings = GrantAssertion {
            issuer: Some("them".into()),
            subject: Some("user".into()),
            audience: Some("aud".into()),
            key_id: Some("kid".into()),
            lifetime: Duration::from_secs(3600),
            claims: vec![("box_sub_type".into(), json!("enterprise"))],
            ..settings
        };
        let (header, claims) =
            sign(&settings, key(Some("https://other.example")), Some("a b")).unwrap();
        assert_eq!(header["kid"], "kid");
        assert_ne!(claims["jti"], Value::Null);
        let mut rest = claims.as_object().unwrap().clone();
        rest.remove("jti");
        let expected = json!({ "iss": "them", "sub": "user", "aud": "aud", "scope": "a b",
            "iat": NOW, "exp": NOW + 3600, "box_sub_type": "enterprise" });
        assert_eq!(Value::Object(rest), expected);
        let foreign = sign(&GrantAssertion::default(), key(Some("https://other.example")), None);
        assert_eq!(foreign, Err(AssertionError::OtherTokenUri));
        let same = key(Some("https://auth.example/token"));
        assert!(sign(&GrantAssertion::default(), same, None).is_ok());
    }

    /// PKCS#8 holds the older form of a key in its last OCTET STRING, which begins at `at`.
    fn older(pkcs8: &str, at: usize, label: &str, before: &str) -> Sensitive {
        let lines: String = pkcs8.lines().filter(|line| !line.starts_with("-----")).collect();
        let inner = STANDARD.encode(&STANDARD.decode(lines).unwrap()[at..]);
        Sensitive::new(format!(
            "{before}-----BEGIN {label} PRIVATE KEY-----\n{inner}\n-----END {label} PRIVATE KEY-----\n"
        ))
    }

    #[test]
    fn keys_in_the_older_forms_of_their_algorithm() {
        let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let ec = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let inside = |pair: &rcgen::KeyPair, start: &[u8]| {
            let der = pair.serialize_der();
            (8..64).find(|at| der[*at..].starts_with(start)).unwrap()
        };
        let at = inside(&rsa, &[0x30, 0x82]);
        let pkcs1 = older(&rsa.serialize_pem(), at, "RSA", "");
        let at = ec
            .serialize_der()
            .windows(5)
            .position(|found| found[0] == 0x30 && found[2..] == [2, 1, 1]);
        let parameters =
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        let sec1 = older(&ec.serialize_pem(), at.unwrap(), "EC", parameters);
        let sign = |algorithm, pem| {
            signed(&AssertionSettings::default(), SigningKey::Private(algorithm, pem))
        };
        let (rsa, ec) = (rsa.public_key_raw(), ec.public_key_raw());
        let token = sign(SigningAlgorithm::Rs256, &pkcs1).unwrap();
        verify(&token, &RSA_PKCS1_2048_8192_SHA256, rsa);
        let token = sign(SigningAlgorithm::Es256, &sec1).unwrap();
        verify(&token, &ECDSA_P256_SHA256_FIXED, ec);
        for (algorithm, pem) in [
            (SigningAlgorithm::Es256, &pkcs1),
            (SigningAlgorithm::Rs256, &sec1),
            (SigningAlgorithm::Es384, &sec1),
            (SigningAlgorithm::EdDsa, &sec1),
        ] {
            assert!(matches!(sign(algorithm, pem), Err(AssertionError::Key { .. })));
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
            ("-----BEGIN RSA PRIVATE KEY-----\n", AssertionError::NotPem),
            ("-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA", AssertionError::NotPem),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0\n",
                AssertionError::EncryptedPem,
            ),
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
