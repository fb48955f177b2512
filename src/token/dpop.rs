//! The DPoP keys of credentials (RFC 9449), and the nonces that servers give for proofs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Method};

use super::fingerprint::Fingerprint;
use crate::oauth::dpop::{
    DPOP_NONCE, DpopAlgorithm, ProofKey, ProvenRequest, is_nonce, token_hash,
};
use crate::oauth::jws::AssertionError;
use crate::secret::Reference;
use crate::sensitive::Sensitive;

/// `dpop` of a credential: its tokens are bound to a key, and each request that carries one proves that
/// its sender has the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DpopSettings {
    /// The signature algorithm of the proofs.
    pub algorithm: DpopAlgorithm,
    /// The source of the key; `None` for a key that this process makes.
    pub key: Option<Reference>,
}

/// The DPoP state of one credential, which its tokens share: the key, and the nonces of the servers.
pub(super) struct Dpop {
    settings: DpopSettings,
    key: Mutex<Option<HeldKey>>,
    nonces: Arc<Nonces>,
}

/// A key with the fingerprint of the text that it was read from; `None` for a key that was made here.
type HeldKey = (Option<Fingerprint>, Arc<ProofKey>);

impl Dpop {
    /// The state for these settings, without a key yet.
    pub(super) fn new(settings: DpopSettings) -> Self {
        Self { settings, key: Mutex::default(), nonces: Arc::default() }
    }

    /// Signs with the key of this text, or without a text with the key that this process has made.
    ///
    /// # Errors
    /// The key cannot be read or does not fit the algorithm.
    pub(super) fn prover(&self, text: Option<&Sensitive>) -> Result<Prover, AssertionError> {
        let found = text.map(|text| Fingerprint::of(text.expose()));
        let mut held = lock(&self.key);
        let key = match &*held {
            Some((known, key)) if *known == found => Arc::clone(key),
            _ => {
                let algorithm = self.settings.algorithm;
                let read = |text| ProofKey::from_text(algorithm, text);
                let key = Arc::new(text.map_or_else(|| ProofKey::generate(algorithm), read)?);
                *held = Some((found, Arc::clone(&key)));
                key
            }
        };
        Ok(Prover { key, nonces: Arc::clone(&self.nonces) })
    }
}

/// The DPoP state of each credential that has a token in this process.
#[derive(Default)]
pub(super) struct DpopStates(HashMap<Arc<str>, Weak<Dpop>>);

impl DpopStates {
    /// The state of a credential. It outlives a reload that keeps a token of the credential and the
    /// settings of DPoP.
    pub(super) fn of(&mut self, credential: &Arc<str>, settings: &DpopSettings) -> Arc<Dpop> {
        self.0.retain(|_, state| state.strong_count() > 0);
        let known = self.0.get(credential).and_then(Weak::upgrade);
        known.filter(|state| state.settings == *settings).unwrap_or_else(|| {
            let state = Arc::new(Dpop::new(settings.clone()));
            self.0.insert(Arc::clone(credential), Arc::downgrade(&state));
            state
        })
    }
}

/// A key, and the nonces of the servers to which it proves itself.
#[derive(Debug, Clone)]
pub struct Prover {
    key: Arc<ProofKey>,
    nonces: Arc<Nonces>,
}

impl Prover {
    /// Signs a proof for a request to a server, whose origin is written like `https://host:8443`, with
    /// the last nonce of that server. Each call makes another proof.
    ///
    /// # Errors
    /// The clock stands before 1970, or the library failed to sign.
    pub fn prove(
        &self,
        method: &Method,
        origin: &str,
        path: &str,
        token_hash: Option<&str>,
    ) -> Result<HeaderValue, AssertionError> {
        let (url, nonce) = ([origin, path].concat(), self.nonces.of(origin));
        let nonce = nonce.as_ref().and_then(|nonce| nonce.to_str().ok());
        let request = ProvenRequest { method, url: &url, token_hash, nonce };
        self.key.prove(request, SystemTime::now())
    }

    /// The thumbprint of the key (RFC 7638).
    pub(super) fn thumbprint(&self) -> Option<String> {
        self.key.thumbprint()
    }

    /// Keeps the nonce of a server's response for the next proofs, whatever its status (RFC 9449 section
    /// 8.2). Returns true if the response had one.
    pub fn learn_nonce(&self, origin: &str, headers: &HeaderMap) -> bool {
        let mut lines = headers.get_all(DPOP_NONCE).iter();
        match (lines.next(), lines.next()) {
            (Some(nonce), None) if is_nonce(nonce) => {
                self.nonces.set(origin, nonce);
                true
            }
            _ => false,
        }
    }
}

/// The key to which a token is bound.
#[derive(Debug)]
pub struct BoundKey {
    prover: Prover,
    /// The claim `ath`: the hash of the token.
    token_hash: String,
}

impl BoundKey {
    pub(super) fn new(prover: Prover, token: &[u8]) -> Self {
        Self { prover, token_hash: token_hash(token) }
    }

    /// Signs a proof for a request that carries the token.
    ///
    /// # Errors
    /// As [`Prover::prove`].
    pub fn prove(
        &self,
        method: &Method,
        origin: &str,
        path: &str,
    ) -> Result<HeaderValue, AssertionError> {
        self.prover.prove(method, origin, path, Some(&self.token_hash))
    }

    /// As [`Prover::learn_nonce`].
    pub fn learn_nonce(&self, origin: &str, headers: &HeaderMap) -> bool {
        self.prover.learn_nonce(origin, headers)
    }
}

/// The last nonce of each server, by its origin. A token server and a resource server have nonces of
/// their own (RFC 9449 section 9). There are as many as origins that the configuration names.
#[derive(Debug, Default)]
struct Nonces(Mutex<HashMap<Box<str>, HeaderValue>>);

impl Nonces {
    fn of(&self, origin: &str) -> Option<HeaderValue> {
        lock(&self.0).get(origin).cloned()
    }

    fn set(&self, origin: &str, nonce: &HeaderValue) {
        let mut nonces = lock(&self.0);
        match nonces.get_mut(origin) {
            // Most responses repeat the nonce.
            Some(known) if known == nonce => {}
            Some(known) => *known = nonce.clone(),
            None => drop(nonces.insert(origin.into(), nonce.clone())),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::Value;

    use super::*;

    const MADE: DpopSettings = DpopSettings { algorithm: DpopAlgorithm::Es256, key: None };
    const AUTH: &str = "https://auth.example";
    const API: &str = "https://api.example:8443";

    fn part(proof: &HeaderValue, index: usize) -> Value {
        let part = proof.to_str().unwrap().split('.').nth(index).unwrap().to_owned();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    fn response(nonces: &[&'static str]) -> HeaderMap {
        nonces.iter().map(|nonce| (DPOP_NONCE, HeaderValue::from_static(nonce))).collect()
    }

    #[test]
    fn each_server_has_its_own_nonce_and_the_last_one_counts() {
        let prover = Dpop::new(MADE).prover(None).unwrap();
        let nonce = |origin| {
            let proof = prover.prove(&Method::GET, origin, "/a", None).unwrap();
            part(&proof, 1)["nonce"].as_str().map(str::to_owned)
        };
        assert_eq!(nonce(AUTH), None);
        assert!(prover.learn_nonce(AUTH, &response(&["n1"])));
        assert!(prover.learn_nonce(API, &response(&["n2"])));
        assert!(prover.learn_nonce(API, &response(&["n3"])));
        for unusable in [&[][..], &["a b"], &["n4", "n5"]] {
            assert!(!prover.learn_nonce(API, &response(unusable)), "{unusable:?}");
        }
        assert_eq!((nonce(AUTH), nonce(API)), (Some("n1".into()), Some("n3".into())));
    }

    #[test]
    fn a_bound_token_is_named_in_each_proof() {
        let prover = Dpop::new(MADE).prover(None).unwrap();
        let bound = BoundKey::new(prover, b"Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU");
        let claims = part(&bound.prove(&Method::GET, API, "/a").unwrap(), 1);
        assert_eq!(claims["ath"], "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
        assert_eq!(claims["htu"], "https://api.example:8443/a");
    }

    #[test]
    fn a_key_stays_until_its_source_holds_another() {
        let pem = || {
            let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
            Sensitive::new(pair.serialize_pem())
        };
        let state = Dpop::new(MADE);
        let jwk = |pem: Option<&Sensitive>| {
            let proof = state.prover(pem).unwrap().prove(&Method::GET, API, "/", None).unwrap();
            part(&proof, 0)["jwk"].clone()
        };
        let (first, second) = (pem(), pem());
        assert_eq!(jwk(Some(&first)), jwk(Some(&first)));
        assert_ne!(jwk(Some(&first)), jwk(Some(&second)));
        assert_eq!(jwk(None), jwk(None));
        let held = state.prover(None).unwrap();
        state.prover(Some(&Sensitive::new("hunter2"))).unwrap_err();
        assert!(Arc::ptr_eq(&held.key, &state.prover(None).unwrap().key), "nothing was lost");
    }

    #[test]
    fn the_tokens_of_a_credential_share_its_state() {
        let (mut states, bank) = (DpopStates::default(), Arc::from("bank"));
        let one = states.of(&bank, &MADE);
        assert!(Arc::ptr_eq(&one, &states.of(&bank, &MADE)));
        let other = DpopSettings { algorithm: DpopAlgorithm::EdDsa, ..MADE };
        assert!(!Arc::ptr_eq(&one, &states.of(&bank, &other)));
        drop(one);
        states.of(&Arc::from("other"), &MADE);
        assert!(!states.0.contains_key("bank"));
    }
}
