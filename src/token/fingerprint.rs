//! `Fingerprint`: a salted hash by which logs and comparisons identify a secret.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;

#[cfg(feature = "share")]
use aws_lc_rs::digest::{Context, SHA256};

/// A salted hash of a secret. Equal secrets have equal fingerprints within this process, and the
/// secret cannot be found from one, because the salt is random in each process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The fingerprint of a value.
    pub fn of(value: impl Hash) -> Self {
        static SALT: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(SALT.hash_one(value))
    }
}

/// The SHA-256 digest of what proves a client: equal in all processes, and as secret as its input.
#[cfg(feature = "share")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SecretDigest(pub(super) [u8; 32]);

#[cfg(feature = "share")]
impl SecretDigest {
    /// The digest of a value.
    pub(super) fn of(value: impl Hash) -> Self {
        let mut digest = Digest(Context::new(&SHA256));
        value.hash(&mut digest);
        let found = digest.0.finish();
        Self(std::array::from_fn(|at| found.as_ref().get(at).copied().unwrap_or_default()))
    }
}

/// Feeds what is hashed into a digest.
#[cfg(feature = "share")]
struct Digest(Context);

#[cfg(feature = "share")]
impl std::hash::Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

/// Eight hexadecimal digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 & 0xffff_ffff)
    }
}
