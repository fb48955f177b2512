//! Sealed values and names: what opens where, and that nothing of a token shows.

use std::collections::BTreeMap;

use super::keys::KeyError;
use super::names::{NameKey, TokenIdentity, TokenName};
use super::sealing::{SealedPlace, SharingKeys, Unreadable};
use super::shared_token::SharedToken;
use super::testing::canary_token as token;
use crate::sensitive::Sensitive;

/// 32 bytes each.
const NAMES: &str = "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8=";
const OLD: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

fn keys(keys: &[(&str, &str)]) -> Result<SharingKeys, KeyError> {
    let keys: Vec<_> = keys.iter().map(|(id, key)| (*id, Sensitive::new(*key))).collect();
    SharingKeys::new(keys.iter().map(|(id, key)| (*id, key)))
}

fn name_of(identity: &TokenIdentity<'_>, key: &str) -> TokenName {
    TokenName::new(&NameKey::new(&Sensitive::new(key)).unwrap(), identity).unwrap()
}

fn identity() -> TokenIdentity<'static> {
    TokenIdentity {
        token_url: "https://canary-host.example/token",
        client_id: "canary-client",
        client_auth: "client_secret_post",
        grant: "client_credentials",
        scopes: vec!["canary.write", "canary.read"],
        parameters: BTreeMap::from([("audience", vec!["https://canary-api.example"])]),
    }
}

fn place(name: &TokenName) -> SealedPlace<'_> {
    SealedPlace { prefix: "bearer-proxy", name, generation: 7, owner: "r1" }
}

#[test]
fn a_value_opens_in_its_place_and_in_no_other() {
    let all = keys(&[("2026-11", NEW), ("2026-05", OLD)]).unwrap();
    let name = name_of(&identity(), NAMES);
    let other = name_of(&TokenIdentity { client_id: "another", ..identity() }, NAMES);
    let sealed = all.seal(&token(), place(&name)).unwrap();
    assert_eq!(all.open(&sealed, place(&name)), Ok(token()));
    for swapped in [
        SealedPlace { prefix: "bearer-prox", ..place(&name) },
        SealedPlace { name: &other, ..place(&name) },
        SealedPlace { generation: 8, ..place(&name) },
        SealedPlace { generation: 6, ..place(&name) },
        SealedPlace { owner: "r2", ..place(&name) },
    ] {
        assert_eq!(all.open(&sealed, swapped), Err(Unreadable::Tag), "{swapped:?}");
    }
}

#[test]
fn each_changed_bit_is_noticed() {
    let all = keys(&[("k", NEW)]).unwrap();
    let name = name_of(&identity(), NAMES);
    let sealed = all.seal(&token(), place(&name)).unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(all.open(&changed, place(&name)).is_err(), "bit {bit}");
    }
    for length in 0..sealed.len() {
        assert!(all.open(&sealed[..length], place(&name)).is_err(), "{length} bytes");
    }
}

#[test]
fn two_keys_open_while_one_replaces_the_other() {
    let steps = [
        keys(&[("old", OLD)]).unwrap(),
        keys(&[("old", OLD), ("new", NEW)]).unwrap(),
        keys(&[("new", NEW), ("old", OLD)]).unwrap(),
        keys(&[("new", NEW)]).unwrap(),
    ];
    let name = name_of(&identity(), NAMES);
    for neighbours in steps.windows(2) {
        for (seals, opens) in [(0, 1), (1, 0)] {
            let sealed = neighbours[seals].seal(&token(), place(&name)).unwrap();
            assert_eq!(neighbours[opens].open(&sealed, place(&name)), Ok(token()));
        }
    }
    let sealed = steps[3].seal(&token(), place(&name)).unwrap();
    assert_eq!(steps[0].open(&sealed, place(&name)), Err(Unreadable::Key));
}

#[test]
fn nothing_of_a_token_shows() {
    let all = keys(&[("2026-11", NEW)]).unwrap();
    let name = name_of(&identity(), NAMES);
    let sealed = all.seal(&token(), place(&name)).unwrap();
    let again = all.seal(&token(), place(&name)).unwrap();
    assert_ne!(sealed, again, "a nonce is used once");
    let shown = [
        sealed,
        name.token_key("bearer-proxy").into(),
        name.state_key("bearer-proxy").into(),
        name.channel("bearer-proxy").into(),
        format!("{:?}", token().access_token).into(),
    ]
    .concat();
    for canary in ["canary", NEW, "example"] {
        let found = shown.windows(canary.len()).any(|window| window == canary.as_bytes());
        assert!(!found, "{canary}");
    }
}

#[test]
fn a_name_tells_tokens_apart_by_all_that_determines_them() {
    let name = |identity: &TokenIdentity<'_>| name_of(identity, NAMES);
    let base = name(&identity());
    assert_eq!(base.to_string().len(), 32);
    let mut reordered = identity();
    reordered.scopes = vec!["canary.read", "canary.write", "canary.read"];
    assert_eq!(name(&reordered), base);
    for other in [
        TokenIdentity { token_url: "https://other.example/token", ..identity() },
        TokenIdentity { client_id: "other", ..identity() },
        TokenIdentity { client_auth: "client_secret_basic", ..identity() },
        TokenIdentity { grant: "password", ..identity() },
        TokenIdentity { scopes: vec!["canary.read"], ..identity() },
        TokenIdentity { scopes: vec!["canary.read canary.write"], ..identity() },
        TokenIdentity { parameters: BTreeMap::new(), ..identity() },
    ] {
        assert_ne!(name(&other), base, "{other:?}");
    }
    assert_ne!(name_of(&identity(), OLD), base, "the key makes the name");
}

#[test]
fn keys_are_32_bytes_with_ids_of_their_own() {
    for (given, error) in [
        (&[][..], KeyError::None),
        (&[("k", "AAEC")], KeyError::Key),
        (&[("k", "not base64!")], KeyError::Key),
        (&[("", NEW)], KeyError::Id),
        (&[("k", NEW), ("k", OLD)], KeyError::Id),
    ] {
        assert_eq!(keys(given).err(), Some(error), "{given:?}");
    }
}

#[test]
fn a_newer_form_is_told_from_a_broken_one() {
    let bytes = token().to_bytes().unwrap();
    let text = std::str::from_utf8(&bytes).unwrap();
    assert_eq!(SharedToken::from_bytes(&bytes), Ok(token()));
    let newer = text.replace("\"format\":1", "\"format\":2,\"more\":true");
    let found = SharedToken::from_bytes(newer.as_bytes()).unwrap_err();
    assert_eq!(found, super::shared_token::FormError::Newer);
    let found = SharedToken::from_bytes(b"{}").unwrap_err();
    assert_eq!(found, super::shared_token::FormError::Malformed);
}

#[test]
fn a_fingerprint_tells_secrets_apart_for_one_token() {
    let key = NameKey::new(&Sensitive::new(NAMES)).unwrap();
    let (name, other) = (name_of(&identity(), NAMES), name_of(&identity(), OLD));
    let base = key.secret_fingerprint(&name, b"digest");
    assert_eq!(key.secret_fingerprint(&name, b"digest"), base);
    assert_ne!(key.secret_fingerprint(&name, b"another"), base);
    assert_ne!(
        key.secret_fingerprint(&other, b"digest"),
        base,
        "tokens tell nothing of each other"
    );
    assert!(NameKey::new(&Sensitive::new("AAEC")).is_err());
}
