//! Keys for one purpose each, derived from those of a configuration.

use aws_lc_rs::hkdf;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::sensitive::Sensitive;

/// Length of a configured key.
const KEY_LEN: usize = 32;
/// The salt of the keys that are derived from a configured one.
const SALT: &[u8] = b"bearer-proxy share 1";

/// The reason why keys cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key is not base64 of 32 bytes.
    #[error("a key is 32 random bytes in base64, such as `openssl rand -base64 32` writes")]
    Key,
    /// An id is empty, too long, or there twice.
    #[error("the id of a key is a text of 1 to 64 bytes that no other key has")]
    Id,
    /// There is no key.
    #[error("at least one key is needed")]
    None,
}

/// The key for a purpose, derived from a configured one.
pub(super) fn derived(
    key: &Sensitive,
    purpose: &'static [u8],
) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    // With room for all: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(key.len()));
    STANDARD.decode_vec(key.expose().trim(), &mut bytes).map_err(|_| KeyError::Key)?;
    if bytes.len() != KEY_LEN {
        return Err(KeyError::Key);
    }
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(&bytes);
    let (mut derived, info) = (Zeroizing::new([0; KEY_LEN]), [purpose]);
    let expanded = secret.expand(&info, hkdf::HKDF_SHA256).ok();
    expanded.and_then(|okm| okm.fill(&mut *derived).ok()).ok_or(KeyError::Key)?;
    Ok(derived)
}
