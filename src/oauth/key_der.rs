//! A private key in DER, as PEM holds it and as a JWK is turned into.

use zeroize::Zeroizing;

/// The form of a private key in DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyForm {
    /// Of any algorithm (RFC 5208).
    Pkcs8,
    /// Of RSA alone (RFC 8017 appendix A.1.2).
    Pkcs1,
    /// Of elliptic curves alone (RFC 5915).
    Sec1,
}

/// A private key in DER.
pub(super) struct KeyDer {
    pub(super) form: KeyForm,
    pub(super) der: Zeroizing<Vec<u8>>,
}
