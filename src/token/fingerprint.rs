//! `Fingerprint`: a salted hash by which logs and comparisons identify a secret.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;

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

/// Eight hexadecimal digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 & 0xffff_ffff)
    }
}
