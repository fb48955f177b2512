//! `SharedToken`: a token as replicas exchange it, before it is sealed.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::sensitive::Sensitive;

/// The version of the form that this program writes. It reads this one only.
const FORMAT: u8 = 1;

/// A token with all that another replica needs to use and to renew it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedToken {
    /// The access token.
    pub access_token: Sensitive,
    /// The `token_type` of the answer.
    pub token_type: String,
    /// The granted scopes, separated by spaces; `None` where the answer did not name them.
    pub scope: Option<String>,
    /// The whole life of the token in milliseconds. The store says what is left of it.
    pub life_ms: u64,
    /// The refresh token of the answer.
    pub refresh_token: Option<Sensitive>,
    /// The SHA-256 thumbprint of the certificate that the token is bound to (RFC 8705 section 3.1).
    pub certificate_thumbprint: Option<String>,
}

/// The JSON form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<T> {
    format: u8,
    access_token: T,
    token_type: T,
    scope: Option<T>,
    life_ms: u64,
    refresh_token: Option<T>,
    certificate_thumbprint: Option<T>,
}

/// Any version of the form.
#[derive(Deserialize)]
struct Version {
    format: u8,
}

/// The reason why a form cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// A newer program wrote it: this replica must not renew the token in its place.
    #[error("a newer version of the program wrote it")]
    Newer,
    /// It is no form of any version.
    #[error("it is not the form of a token")]
    Malformed,
}

impl SharedToken {
    /// The form, which is wiped when it is dropped.
    ///
    /// # Errors
    /// It cannot be written as JSON, which does not happen with text.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        // With room for all of it: a buffer that grows leaves copies behind, which nothing wipes.
        let texts = [&self.access_token].into_iter().chain(&self.refresh_token);
        let secret: usize = texts.map(Sensitive::len).sum();
        let open = self.scope.as_ref().map_or(0, String::len) + self.token_type.len();
        // JSON writes a byte in six at most.
        let mut bytes = Zeroizing::new(Vec::with_capacity(6 * (secret + open) + 512));
        let written = Written {
            format: FORMAT,
            access_token: self.access_token.expose(),
            token_type: &self.token_type,
            scope: self.scope.as_deref(),
            life_ms: self.life_ms,
            refresh_token: self.refresh_token.as_ref().map(Sensitive::expose),
            certificate_thumbprint: self.certificate_thumbprint.as_deref(),
        };
        serde_json::to_writer(&mut *bytes, &written)?;
        Ok(bytes)
    }

    /// Reads a form.
    ///
    /// # Errors
    /// See [`FormError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormError> {
        let version: Version = serde_json::from_slice(bytes).map_err(|_| FormError::Malformed)?;
        if version.format > FORMAT {
            return Err(FormError::Newer);
        }
        let written: Written<String> =
            serde_json::from_slice(bytes).map_err(|_| FormError::Malformed)?;
        Ok(Self {
            access_token: Sensitive::new(written.access_token),
            token_type: written.token_type,
            scope: written.scope,
            life_ms: written.life_ms,
            refresh_token: written.refresh_token.map(Sensitive::new),
            certificate_thumbprint: written.certificate_thumbprint,
        })
    }
}
