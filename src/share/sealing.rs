//! `SharingKeys`: shared tokens are sealed with AES-256-GCM, so that neither the store nor who reads its
//! files or its wire has a token.
//!
//! The associated data of a value are its name, its generation and its owner: a value that was put in the
//! place of another, or that was put back after a newer one, does not open.

use std::cmp::Ordering;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use super::keys::{KeyError, derived};
use super::names::TokenName;
use super::shared_token::{FormError, SharedToken};
use crate::sensitive::Sensitive;

/// Longest id of a key.
const MAX_ID_LEN: usize = 64;
/// The first byte of a sealed value.
const SEALED: u8 = 1;
/// The keys of a configuration: the first one seals, all of them open.
pub struct SharingKeys {
    first: SharingKey,
    others: Vec<SharingKey>,
}

struct SharingKey {
    id: String,
    seal: RandomizedNonceKey,
}

/// The place of a sealed value. It opens in this place only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedPlace<'a> {
    /// The prefix of the store's keys.
    pub prefix: &'a str,
    /// The name of the token.
    pub name: &'a TokenName,
    /// The generation of the token.
    pub generation: u64,
    /// The replica that published it.
    pub owner: &'a str,
}

/// The reason why a sealed value cannot be used, by the label of its metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It was sealed with a key that this replica does not have.
    Key,
    /// It was changed, or does not belong in this place.
    Tag,
    /// It is older than the token that this replica holds.
    Rollback,
    /// A newer version of the program wrote it.
    Newer,
    /// It is not a sealed value.
    Malformed,
    /// It is bound to a client certificate that this replica does not have.
    Certificate,
}

impl Unreadable {
    /// The values of the `reason` label.
    pub const LABELS: [&'static str; 5] = ["key", "tag", "rollback", "format", "certificate"];

    /// The `reason` label of the metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Tag => "tag",
            Self::Rollback => "rollback",
            Self::Newer | Self::Malformed => "format",
            Self::Certificate => "certificate",
        }
    }
}

impl SharingKeys {
    /// Keys in the order of the configuration, each with its id.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn new<'a>(
        keys: impl IntoIterator<Item = (&'a str, &'a Sensitive)>,
    ) -> Result<Self, KeyError> {
        let mut made: Vec<SharingKey> = Vec::new();
        for (id, key) in keys {
            if id.is_empty() || id.len() > MAX_ID_LEN || made.iter().any(|other| other.id == id) {
                return Err(KeyError::Id);
            }
            made.push(SharingKey::new(id, key)?);
        }
        let mut made = made.into_iter();
        let first = made.next().ok_or(KeyError::None)?;
        Ok(Self { first, others: made.collect() })
    }

    /// Seals a token for its place with the first key. `None` if that fails, as it does where the system has
    /// no randomness.
    pub fn seal(&self, token: &SharedToken, place: SealedPlace<'_>) -> Option<Vec<u8>> {
        let mut bytes = token.to_bytes().ok()?;
        // With room for the tag, so that no copy of the plain text is left behind.
        bytes.reserve_exact(AES_256_GCM.tag_len());
        let aad = Aad::from(place.associated_data());
        let nonce = self.first.seal.seal_in_place_append_tag(aad, &mut *bytes).ok()?;
        let id = self.first.id.as_bytes();
        let header = [SEALED, u8::try_from(id.len()).ok()?];
        Some([&header, id, nonce.as_ref(), &bytes].concat())
    }

    /// The id of the key that a value names; `None` if it is not one of these keys.
    pub fn key_id(&self, sealed: &[u8]) -> Option<&str> {
        let (id, _) = sealed.get(2..)?.split_at_checked(usize::from(*sealed.get(1)?))?;
        self.all().find(|key| key.id.as_bytes() == id).map(|key| &*key.id)
    }

    fn all(&self) -> impl Iterator<Item = &SharingKey> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Opens a sealed value of a place.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn open(&self, sealed: &[u8], place: SealedPlace<'_>) -> Result<SharedToken, Unreadable> {
        let (version, rest) = sealed.split_first().ok_or(Unreadable::Malformed)?;
        match version.cmp(&SEALED) {
            Ordering::Less => return Err(Unreadable::Malformed),
            Ordering::Equal => {}
            Ordering::Greater => return Err(Unreadable::Newer),
        }
        let (id_len, rest) = rest.split_first().ok_or(Unreadable::Malformed)?;
        let (id, rest) =
            rest.split_at_checked(usize::from(*id_len)).ok_or(Unreadable::Malformed)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or(Unreadable::Malformed)?;
        let key = self.all().find(|key| key.id.as_bytes() == id).ok_or(Unreadable::Key)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unreadable::Malformed)?;
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let aad = Aad::from(place.associated_data());
        let plain = key.seal.open_in_place(nonce, aad, &mut bytes).map_err(|_| Unreadable::Tag)?;
        SharedToken::from_bytes(plain).map_err(|error| match error {
            FormError::Newer => Unreadable::Newer,
            FormError::Malformed => Unreadable::Malformed,
        })
    }
}

impl SharingKey {
    fn new(id: &str, key: &Sensitive) -> Result<Self, KeyError> {
        let seal = RandomizedNonceKey::new(&AES_256_GCM, &*derived(key, b"seal")?)
            .map_err(|_| KeyError::Key)?;
        Ok(Self { id: id.to_owned(), seal })
    }
}

impl SealedPlace<'_> {
    /// Each part with its length, so that no two places have the same bytes.
    fn associated_data(&self) -> Vec<u8> {
        let name = self.name.to_string();
        let mut data = self.generation.to_be_bytes().to_vec();
        for part in [self.prefix, &name, self.owner] {
            data.extend((part.len() as u64).to_be_bytes());
            data.extend(part.as_bytes());
        }
        data
    }
}
