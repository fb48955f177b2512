//! Private keys as JSON Web Keys (RFC 7517): EC and RSA keys (RFC 7518 section 6), Ed25519 (RFC 8037).

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::key_der::{KeyDer, KeyForm};
use crate::sensitive::Sensitive;

/// The members of a JWK; their values are read in place, so that no copy of a private one is left behind.
type Members<'a> = HashMap<String, &'a RawValue>;

/// The curves of EC keys: name, kind of key, content of the object identifier (RFC 5480 section 2.1.1.1).
const CURVES: [(&str, &str, &[u8]); 3] = [
    ("P-256", "an EC key on P-256", b"\x2a\x86\x48\xce\x3d\x03\x01\x07"),
    ("P-384", "an EC key on P-384", b"\x2b\x81\x04\x00\x22"),
    ("P-521", "an EC key on P-521", b"\x2b\x81\x04\x00\x23"),
];

/// The members of an RSA key, in the order of RFC 8017 appendix A.1.2.
const RSA: [&str; 8] = ["n", "e", "d", "p", "q", "dp", "dq", "qi"];

/// Tells whether a text is meant as a JWK.
pub(super) fn is_jwk(text: &Sensitive) -> bool {
    text.expose().trim_start().starts_with('{')
}

/// The `kid` of a JWK, if it has one.
pub(super) fn key_id(text: &Sensitive) -> Option<String> {
    if !is_jwk(text) {
        return None;
    }
    string(&members(text).ok()?, "kid")
}

/// The private key of a JWK, in the DER form of its type, for an algorithm with this name that needs this
/// kind of key.
pub(super) fn private_key(
    text: &Sensitive,
    expected: &'static str,
    algorithm: &str,
) -> Result<KeyDer, JwkError> {
    let members = members(text)?;
    let is = |name: &str, text: &str| string(&members, name).is_some_and(|found| found == text);
    if members.contains_key("keys") {
        return Err(JwkError::Set);
    }
    let curve = CURVES.into_iter().find(|(name, ..)| is("kty", "EC") && is("crv", name));
    let found = match curve {
        Some((_, found, _)) => found,
        None if is("kty", "RSA") => "an RSA key",
        None if is("kty", "OKP") && is("crv", "Ed25519") => "an Ed25519 key",
        None => return Err(JwkError::Kind),
    };
    if !expected.starts_with(found) {
        return Err(JwkError::OtherKind { found, expected });
    }
    // RFC 9864 gave a key on this curve a second name.
    let names: &[&str] =
        if found == "an Ed25519 key" { &["EdDSA", "Ed25519"] } else { &[algorithm] };
    if members.contains_key("alg") && !names.iter().any(|name| is("alg", name)) {
        return Err(JwkError::OtherAlgorithm);
    }
    if members.contains_key("use") && !is("use", "sig") {
        return Err(JwkError::OtherUse);
    }
    if !members.contains_key("d") {
        return Err(JwkError::Public);
    }
    // No value grows beyond this room, which would leave a copy of the key behind.
    let mut der = Zeroizing::new(Vec::with_capacity(text.len() + 64));
    let form = match curve {
        Some((_, _, curve)) => {
            ec(&members, curve, &mut der)?;
            KeyForm::Sec1
        }
        None if found == "an RSA key" => {
            push(&mut der, 0x02, &[&[0]]);
            for name in RSA {
                push_integer(&mut der, &member(&members, name)?);
            }
            KeyForm::Pkcs1
        }
        None => {
            ed25519(&members, &mut der)?;
            KeyForm::Pkcs8
        }
    };
    let mut whole = Zeroizing::new(Vec::with_capacity(der.len() + 8));
    push(&mut whole, 0x30, &[&der]);
    Ok(KeyDer { form, der: whole })
}

/// The content of an `ECPrivateKey` (RFC 5915 section 3).
fn ec(members: &Members<'_>, curve: &[u8], der: &mut Vec<u8>) -> Result<(), JwkError> {
    let [d, x, y] = ["d", "x", "y"].map(|name| member(members, name));
    push(der, 0x02, &[&[1]]);
    push(der, 0x04, &[&d?]);
    let mut oid = Vec::new();
    push(&mut oid, 0x06, &[curve]);
    push(der, 0xa0, &[&oid]);
    // No unused bits, and a point that is not compressed.
    let mut point = Vec::new();
    push(&mut point, 0x03, &[&[0, 4], &x?, &y?]);
    push(der, 0xa1, &[&point]);
    Ok(())
}

/// The content of a `OneAsymmetricKey` with both keys (RFC 8410 section 7).
fn ed25519(members: &Members<'_>, der: &mut Vec<u8>) -> Result<(), JwkError> {
    let [d, x] = ["d", "x"].map(|name| member(members, name));
    push(der, 0x02, &[&[1]]);
    push(der, 0x30, &[b"\x06\x03\x2b\x65\x70"]);
    let mut seed = Zeroizing::new(Vec::with_capacity(64));
    push(&mut seed, 0x04, &[&d?]);
    push(der, 0x04, &[&seed]);
    push(der, 0x81, &[&[0], &x?]);
    Ok(())
}

fn members(text: &Sensitive) -> Result<Members<'_>, JwkError> {
    // The parser's own error is dropped, because it could repeat a part of the key.
    serde_json::from_str(text.expose()).map_err(|_| JwkError::NotAnObject)
}

fn string(members: &Members<'_>, name: &str) -> Option<String> {
    serde_json::from_str(members.get(name)?.get()).ok()
}

/// The bytes of a member that is base64url.
fn member(members: &Members<'_>, name: &'static str) -> Result<Zeroizing<Vec<u8>>, JwkError> {
    let text = members.get(name).and_then(|value| value.get().strip_prefix('"')?.strip_suffix('"'));
    let bytes = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).map(Zeroizing::new);
    bytes.filter(|bytes| !bytes.is_empty()).ok_or(JwkError::Member(name))
}

/// Appends an INTEGER, which begins with a zero where its first bit would be a sign.
fn push_integer(der: &mut Vec<u8>, number: &[u8]) {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let number = &number[zeros..];
    let sign: &[u8] = if number.first().is_none_or(|byte| *byte > 0x7f) { &[0] } else { &[] };
    push(der, 0x02, &[sign, number]);
}

/// Appends a DER value whose content is these parts; keys are shorter than 64 KiB.
fn push(der: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let [.., high, low] = length.to_be_bytes();
    der.push(tag);
    match length {
        0..=0x7f => der.push(low),
        0x80..=0xff => der.extend([0x81, low]),
        _ => der.extend([0x82, high, low]),
    }
    parts.iter().for_each(|part| der.extend(*part));
}

/// The reason why a JWK cannot sign; never holds a part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    /// The text is no JSON object.
    #[error("the private key is a JWK that is cut or is no JSON object")]
    NotAnObject,
    /// A JWK Set (RFC 7517 section 5).
    #[error("the private key is a set of JWKs (keys); write one of them alone")]
    Set,
    /// Another type of key, or another curve.
    #[error(
        "the private key is a JWK whose kty and crv name no key that signs: EC on P-256, P-384 or P-521, \
         RSA, or OKP with Ed25519"
    )]
    Kind,
    /// The key does not fit the algorithm.
    #[error("the private key is a JWK with {found}, and the algorithm needs {expected}")]
    OtherKind {
        /// The kind of key that it is.
        found: &'static str,
        /// The kind of key that the algorithm needs.
        expected: &'static str,
    },
    /// `alg` is not the algorithm of the settings (RFC 7517 section 4.4).
    #[error("the private key is a JWK whose alg is not the configured algorithm")]
    OtherAlgorithm,
    /// `use` is not `sig` (RFC 7517 section 4.2).
    #[error("the private key is a JWK whose use is not sig")]
    OtherUse,
    /// The private members are absent.
    #[error("the private key is a public JWK: it has no d")]
    Public,
    /// A member is absent, or is no base64url.
    #[error("the private key is a JWK whose member {0} is missing or is no base64url")]
    Member(&'static str),
    /// The members do not belong together, or an RSA key has fewer than 2048 or more than 8192 bits.
    #[error("the private key is a JWK whose members belong to no key that the algorithm takes")]
    Inconsistent,
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::oauth::jws::{self, AssertionError, Signer, SigningAlgorithm, SigningKey};
    use crate::x509::der::Der;

    fn jwk(value: &Value) -> Sensitive {
        Sensitive::new(format!("\n {value:#}\n"))
    }

    fn signer(algorithm: SigningAlgorithm, text: &Sensitive) -> Result<Signer, AssertionError> {
        Signer::new(SigningKey::Private(algorithm, text))
    }

    /// The same key as PEM and as a JWK.
    fn pair(kind: &'static rcgen::SignatureAlgorithm) -> (Sensitive, Value) {
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let pkcs8 = pair.serialize_der();
        let mut outer = Der::new(&pkcs8).enter(Der::SEQUENCE).unwrap();
        outer.take(Der::INTEGER).unwrap();
        outer.take(Der::SEQUENCE).unwrap();
        let mut inner = outer.enter(Der::OCTETS).unwrap();
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let public = pair.public_key_raw();
        let jwk = if kind == &rcgen::PKCS_RSA_SHA256 {
            let mut numbers = inner.enter(Der::SEQUENCE).unwrap();
            numbers.take(Der::INTEGER).unwrap();
            let mut jwk = Map::new();
            jwk.insert("kty".into(), "RSA".into());
            for name in RSA {
                let number = numbers.take(Der::INTEGER).unwrap();
                // A JWK has no sign (RFC 7518 section 2).
                let bare = number.strip_prefix(&[0]).unwrap_or(number);
                jwk.insert(name.into(), encoded(bare).into());
            }
            jwk.into()
        } else if kind == &rcgen::PKCS_ED25519 {
            let seed = inner.take(Der::OCTETS).unwrap();
            json!({ "kty": "OKP", "crv": "Ed25519", "d": encoded(seed), "x": encoded(public) })
        } else {
            let mut key = inner.enter(Der::SEQUENCE).unwrap();
            key.take(Der::INTEGER).unwrap();
            let d = key.take(Der::OCTETS).unwrap();
            let (x, y) = public[1..].split_at(public.len() / 2);
            let curve = match x.len() {
                32 => "P-256",
                48 => "P-384",
                _ => "P-521",
            };
            json!({
                "kty": "EC", "crv": curve, "d": encoded(d), "x": encoded(x), "y": encoded(y)
            })
        };
        (Sensitive::new(pair.serialize_pem()), jwk)
    }

    #[test]
    fn a_jwk_is_the_same_key_as_pem() {
        use SigningAlgorithm::{EdDsa, Es256, Es384, Es512, Ps256, Rs256};
        for (kind, algorithm) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Es256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Es384),
            (&rcgen::PKCS_ECDSA_P521_SHA512, Es512),
            (&rcgen::PKCS_ED25519, EdDsa),
            (&rcgen::PKCS_RSA_SHA256, Rs256),
            (&rcgen::PKCS_RSA_SHA256, Ps256),
        ] {
            let (pem, value) = pair(kind);
            let (mine, other) = (signer(algorithm, &jwk(&value)), signer(algorithm, &pem));
            let (mine, other) = (mine.unwrap(), other.unwrap());
            assert_eq!(mine.public_key(), other.public_key());
            // The two algorithms that sign the same text alike each time.
            if matches!(algorithm, EdDsa | Rs256) {
                assert_eq!(mine.sign(b"text").unwrap(), other.sign(b"text").unwrap());
            }
        }
    }

    /// The key, the text and the signature of RFC 8037 appendix A.
    #[test]
    fn the_key_of_the_rfc_signs_as_there() {
        let key = json!({
            "kty": "OKP", "crv": "Ed25519", "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        });
        let text = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = signer(SigningAlgorithm::EdDsa, &jwk(&key)).unwrap().sign(text).unwrap();
        let expected = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert_eq!(URL_SAFE_NO_PAD.encode(signature), expected);
    }

    #[test]
    fn its_key_id_is_sent_unless_another_one_is_configured() {
        let (pem, mut value) = pair(&rcgen::PKCS_ED25519);
        value["kid"] = "k \" 1".into();
        let kid = |text: &Sensitive, configured| {
            let key = SigningKey::Private(SigningAlgorithm::EdDsa, text);
            let token = jws::sign(&Map::new(), key, configured, None).unwrap();
            let header = token.expose().split('.').next().unwrap().to_owned();
            let header: Value =
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
            header.get("kid").and_then(Value::as_str).map(str::to_owned)
        };
        assert_eq!(kid(&jwk(&value), None).as_deref(), Some("k \" 1"));
        assert_eq!(kid(&jwk(&value), Some("other")).as_deref(), Some("other"));
        assert_eq!(kid(&pem, None), None);
    }

    #[test]
    fn what_cannot_sign_is_named() {
        let (_, ec) = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let with = |name: &str, value: Value| {
            let mut changed = ec.clone();
            changed[name] = value;
            changed
        };
        let without = |name: &str| {
            let mut changed = ec.clone();
            changed.as_object_mut().unwrap().remove(name);
            changed
        };
        let other = pair(&rcgen::PKCS_ECDSA_P256_SHA256).1["x"].clone();
        for (value, expected) in [
            (without("d"), "is a public JWK: it has no d"),
            (json!({ "keys": [ec.clone()] }), "is a set of JWKs"),
            (with("kty", "oct".into()), "kty and crv name no key that signs"),
            (with("crv", "secp256k1".into()), "kty and crv name no key that signs"),
            (
                with("crv", "P-384".into()),
                "with an EC key on P-384, and the algorithm needs an EC key on P-256",
            ),
            (pair(&rcgen::PKCS_ED25519).1, "with an Ed25519 key, and the algorithm needs"),
            (with("alg", "ES512".into()), "whose alg is not the configured algorithm"),
            (with("use", "enc".into()), "whose use is not sig"),
            (without("x"), "whose member x is missing or is no base64url"),
            (with("y", "a+b/".into()), "whose member y is missing or is no base64url"),
            (with("d", 1.into()), "whose member d is missing or is no base64url"),
            (with("x", other), "whose members belong to no key"),
        ] {
            let error = signer(SigningAlgorithm::Es256, &jwk(&value)).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains(ec["d"].as_str().unwrap()));
        }
        let cut = Sensitive::new("{\"kty\": \"EC\", hunter2");
        let error = signer(SigningAlgorithm::Es256, &cut).err().unwrap().to_string();
        assert!(error.ends_with("no JSON object"), "{error}");
        let (_, ed) = pair(&rcgen::PKCS_ED25519);
        for name in ["EdDSA", "Ed25519"] {
            let mut named = ed.clone();
            named["alg"] = name.into();
            for algorithm in [SigningAlgorithm::EdDsa, SigningAlgorithm::Ed25519] {
                assert!(signer(algorithm, &jwk(&named)).is_ok(), "{name} for {algorithm:?}");
            }
        }
        for good in [with("alg", "ES256".into()), with("use", "sig".into())] {
            assert!(signer(SigningAlgorithm::Es256, &jwk(&good)).is_ok());
        }
    }

    #[test]
    fn lengths_and_signs_of_numbers() {
        let check = |number: &[u8], expected: &[u8]| {
            let mut der = Vec::new();
            push_integer(&mut der, number);
            assert_eq!(der, expected);
        };
        check(&[], &[2, 1, 0]);
        check(&[0, 0, 5], &[2, 1, 5]);
        check(&[0x80], &[2, 2, 0, 0x80]);
        check(&[1; 0x80], &[&[2, 0x81, 0x80][..], &[1; 0x80]].concat());
        check(&[1; 0x100], &[&[2, 0x82, 1, 0][..], &[1; 0x100]].concat());
    }
}
