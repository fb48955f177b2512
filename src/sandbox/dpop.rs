//! The check of DPoP proofs (RFC 9449 section 4.3), at token servers and APIs.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;

/// Seconds by which `iat` of a proof may differ from the clock.
const MAX_AGE: u64 = 60;

/// The rules of one server for proofs; it demands none at first.
#[derive(Debug, Default)]
pub struct DpopPolicy(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    demanded: bool,
    nonce: Option<String>,
    /// The `jti` of each proof that was accepted.
    seen: HashSet<String>,
}

/// The reason why a proof is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofFault {
    /// It lacks the nonce that is demanded now.
    Nonce,
    /// It is missing or wrong, in these words.
    Invalid(&'static str),
}

impl ProofFault {
    /// The `error` code.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Nonce => "use_dpop_nonce",
            Self::Invalid(_) => "invalid_dpop_proof",
        }
    }
}

impl DpopPolicy {
    /// From now on each request needs a proof, with this nonce if there is one.
    pub fn demand(&self, nonce: Option<&str>) {
        let mut state = self.lock();
        (state.demanded, state.nonce) = (true, nonce.map(str::to_owned));
    }

    pub(super) fn is_demanded(&self) -> bool {
        self.lock().demanded
    }

    /// Adds the nonce that is demanded now to an answer.
    pub(super) fn state_nonce(&self, headers: &mut HeaderMap) {
        let nonce =
            self.lock().nonce.as_deref().and_then(|nonce| HeaderValue::from_str(nonce).ok());
        if let Some(nonce) = nonce {
            headers.insert("dpop-nonce", nonce);
        }
    }

    /// Checks the proof of a request, and returns the thumbprint of its key (RFC 7638).
    pub(super) fn check(
        &self,
        headers: &HeaderMap,
        method: &Method,
        url: &str,
        token: Option<&str>,
    ) -> Result<String, ProofFault> {
        let invalid = ProofFault::Invalid;
        let mut lines = headers.get_all("dpop").iter();
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return Err(invalid("one DPoP header was expected"));
        };
        let text = line.to_str().map_err(|_| invalid("it is no text"))?;
        let (header, claims, thumbprint) = verified(text).ok_or(invalid("it does not verify"))?;
        let hash = token.map(|token| URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes())));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut state = self.lock();
        match () {
            () if header["typ"] != "dpop+jwt" => Err(invalid("typ")),
            () if claims["htm"] != method.as_str() => Err(invalid("htm")),
            () if claims["htu"] != url => Err(invalid("htu")),
            () if claims["ath"].as_str() != hash.as_deref() => Err(invalid("ath")),
            () if claims["iat"].as_u64().is_none_or(|iat| iat.abs_diff(now) > MAX_AGE) => {
                Err(invalid("iat"))
            }
            () if state.nonce.is_some() && claims["nonce"].as_str() != state.nonce.as_deref() => {
                Err(ProofFault::Nonce)
            }
            () if !state.seen.insert(claims["jti"].to_string()) => Err(invalid("jti")),
            () => Ok(thumbprint),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The header, the claims and the thumbprint of a proof whose signature is that of its own key.
fn verified(proof: &str) -> Option<(Value, Value, String)> {
    let (signed, signature) = proof.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let json = |part: &str| serde_json::from_slice(&decode(part)?).ok();
    let (header, claims): (Value, Value) = (json(header)?, json(claims)?);
    let jwk = header.get("jwk")?;
    let member = |name: &str| jwk.get(name)?.as_str();
    if jwk.get("d").is_some() {
        return None;
    }
    let (key, members): (UnparsedPublicKey<Vec<u8>>, String) = match header["alg"].as_str()? {
        "ES256" => {
            let (x, y) = (member("x")?, member("y")?);
            let point = [vec![4], decode(x)?, decode(y)?].concat();
            let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
            (UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point), members)
        }
        "EdDSA" | "Ed25519" => {
            let x = member("x")?;
            let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
            (UnparsedPublicKey::new(&ED25519, decode(x)?), members)
        }
        _ => return None,
    };
    key.verify(signed.as_bytes(), &decode(signature)?).ok()?;
    Some((header, claims, URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()))))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
