//! Client authentication at the token endpoint, by the names registered for
//! `token_endpoint_auth_method` (RFC 7591 section 2, RFC 8705 section 2).

use super::jws::{MacAlgorithm, SigningAlgorithm};

/// The client authentication method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ClientAuth {
    /// Id and secret as parameters of the body.
    #[default]
    ClientSecretPost,
    /// Id and secret in HTTP Basic, each form-encoded first (RFC 6749 section 2.3.1).
    ClientSecretBasic(BasicEncoding),
    /// A JWT signed with the client secret (RFC 7523).
    ClientSecretJwt(MacAlgorithm),
    /// A JWT signed with a private key (RFC 7523).
    PrivateKeyJwt(SigningAlgorithm),
    /// A JWT of another issuer that names the client (RFC 7523 section 2.2), as workload identity
    /// federation hands it out.
    ClientAssertion,
    /// A client certificate issued by a CA (RFC 8705 section 2.1); `client_id` is still sent.
    TlsClientAuth,
    /// A self-signed client certificate that the server knows (RFC 8705 section 2.2).
    SelfSignedTlsClientAuth,
    /// No authentication: the id alone, in the body.
    None,
}

/// The encoding of id and secret in HTTP Basic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BasicEncoding {
    /// Form-encoded each, as RFC 6749 section 2.3.1 asks.
    #[default]
    Rfc6749,
    /// No encoding, for servers that do not decode them.
    Raw,
}

impl ClientAuth {
    /// The registered name; for the JWT of another issuer, that of the method whose parameters it is sent
    /// with.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientSecretPost => "client_secret_post",
            Self::ClientSecretBasic(_) => "client_secret_basic",
            Self::ClientSecretJwt(_) => "client_secret_jwt",
            Self::PrivateKeyJwt(_) | Self::ClientAssertion => "private_key_jwt",
            Self::TlsClientAuth => "tls_client_auth",
            Self::SelfSignedTlsClientAuth => "self_signed_tls_client_auth",
            Self::None => "none",
        }
    }

    /// The algorithm that signs client assertions (RFC 7518 section 3.1); `None` for methods without one.
    pub fn signing_algorithm(self) -> Option<&'static str> {
        match self {
            Self::ClientSecretJwt(algorithm) => Some(algorithm.name()),
            Self::PrivateKeyJwt(algorithm) => Some(algorithm.name()),
            _ => None,
        }
    }
}
