//! Thumbprints of public keys (RFC 7638), by which key servers and registrations name them.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::jws::{Signer, SigningKey};

/// The thumbprint of a private key's public half, in base64url; `None` for a secret, and for a key that
/// cannot be used.
pub fn thumbprint(key: SigningKey<'_>) -> Option<String> {
    of_signer(&Signer::new(key).ok()?)
}

/// As [`thumbprint`].
pub(super) fn of_signer(signer: &Signer) -> Option<String> {
    let public = signer.public_key();
    // The required members alone, in this order and without blanks (RFC 7638 section 3.2).
    let members = match signer {
        Signer::Mac(_) => return None,
        Signer::Ed(_) => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, base64(public)),
        Signer::Ec(_) => {
            // The first byte says that the point is not compressed.
            let (x, y) = public.get(1..)?.split_at_checked(public.len() / 2)?;
            let curve = match x.len() {
                32 => "P-256",
                48 => "P-384",
                _ => "P-521",
            };
            let (x, y) = (base64(x), base64(y));
            format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#)
        }
        Signer::Rsa(..) => {
            let (n, e) = rsa_numbers(public)?;
            format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, base64(e), base64(n))
        }
    };
    Some(base64(digest(&SHA256, members.as_bytes()).as_ref()))
}

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Modulus and exponent of an `RSAPublicKey` in DER (RFC 8017 appendix A.1.1). From 2048 bits on the lengths
/// of the sequence and of the modulus have two bytes; the exponent is short.
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x30, 0x82, _, _, 0x02, 0x82, high, low, rest @ ..] = der else { return None };
    let (modulus, rest) = rest.split_at_checked(usize::from(*high) << 8 | usize::from(*low))?;
    let [0x02, _, exponent @ ..] = rest else { return None };
    // The modulus begins with a zero in place of a sign.
    Some((modulus.strip_prefix(&[0]).unwrap_or(modulus), exponent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::jws::SigningAlgorithm;
    use crate::sensitive::Sensitive;

    /// The key of RFC 8037 appendix A.1, and its thumbprint of appendix A.3.
    #[test]
    fn the_thumbprint_of_the_rfc() {
        let jwk = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
            "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let found = thumbprint(SigningKey::Private(SigningAlgorithm::EdDsa, &Sensitive::new(jwk)));
        assert_eq!(found.as_deref(), Some("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"));
    }

    #[test]
    fn the_numbers_of_an_rsa_key() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let (modulus, exponent) = rsa_numbers(pair.public_key_raw()).unwrap();
        assert_eq!((modulus.len(), exponent), (256, &[1, 0, 1][..]));
        assert_eq!(rsa_numbers(&pair.public_key_raw()[..200]), None);
        assert_eq!(rsa_numbers(&[]), None);
    }
}
