//! The deviations of known token servers from RFC 6749, as data: a [`Dialect`] controls the writing of
//! token requests and the reading of answers. Presets are values of this type, not code.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::error::ErrorCode;
use super::field_path::FieldPath;
use super::jws::{CertificateHeaders, SigningAlgorithm};
use super::token_exchange::TokenExchange;
use crate::sensitive::Sensitive;

/// The deviations of one kind of token server. [`Dialect::default`] is RFC 6749 as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// The encoding of the request body.
    pub encoding: BodyEncoding,
    /// Set to send token requests as GET, which have no body and no parameters.
    pub get: bool,
    /// The names of the request's parameters.
    pub request: RequestFields,
    /// The places of the answer's fields.
    pub response: ResponseFields,
    /// Set to send `grant_type` with the client-credentials grant.
    pub send_grant_type: bool,
    /// Set to send `client_id` in the body, where the authentication method has it there.
    pub send_client_id: bool,
    /// Set to send `scope`. Without it, all routes of a credential share one token.
    pub send_scope: bool,
    /// Extra parameters of each request, in this order, after the standard ones.
    pub extra_parameters: Vec<(String, String)>,
    /// Extra headers of each request.
    pub extra_headers: Vec<(HeaderName, HeaderValue)>,
    /// RFC 8707 resource indicators, absolute URIs without fragment.
    pub resources: Vec<String>,
    /// The `token_type` that is demanded.
    pub token_type: TokenType,
    /// `token_type` values that are accepted beside `Bearer`, compared without case.
    pub accept_token_types: Vec<String>,
    /// Longest access or refresh token that is accepted, in bytes.
    pub max_token_bytes: usize,
    /// Set to refuse an answer without `token_type`; otherwise the type is taken to be `Bearer`.
    pub require_token_type: bool,
    /// Set to use the refresh token of an answer for the next token request.
    pub use_refresh_token: bool,
    /// Set to authenticate the client in the refresh-token grant too.
    pub authenticate_refresh: bool,
    /// The life of a token whose answer states none.
    pub default_lifetime: Duration,
    /// The grant of the client's own token requests.
    pub grant: Grant,
    /// The claims of client assertions, for the two JWT authentication methods.
    pub assertion: AssertionSettings,
}

/// The type of the tokens of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TokenType {
    /// `Bearer` (RFC 6750).
    #[default]
    Bearer,
    /// `DPoP`: bound to the key that proved itself in the token request (RFC 9449 section 5).
    Dpop,
}

/// The configurable claims of a client assertion (RFC 7523 section 3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AssertionSettings {
    /// `aud`; `None` means the token URL. Newer servers want their issuer (RFC 8414) here.
    pub audience: Option<String>,
    /// `kid` of the header, for servers that find the public key by it.
    pub key_id: Option<String>,
    /// Time until `exp`; kept between 60 s and 300 s.
    pub lifetime: Duration,
    /// Header parameters that are made of the client's certificate, if there is one.
    pub certificate_headers: CertificateHeaders,
}

impl Default for AssertionSettings {
    fn default() -> Self {
        Self {
            audience: None,
            key_id: None,
            lifetime: Duration::from_secs(60),
            certificate_headers: CertificateHeaders::default(),
        }
    }
}

/// The grant of the client's own token requests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Grant {
    /// Client credentials (RFC 6749 section 4.4).
    #[default]
    ClientCredentials,
    /// A signed assertion (RFC 7523 section 2.1).
    JwtBearer(Box<GrantAssertion>),
    /// A token of another issuer (RFC 8693).
    TokenExchange(Box<TokenExchange>),
    /// The user name and password of a user (RFC 6749 section 4.3).
    Password,
}

impl Grant {
    /// The kind of grant, without its settings.
    pub fn kind(&self) -> GrantKind {
        match self {
            Self::ClientCredentials => GrantKind::ClientCredentials,
            Self::JwtBearer(_) => GrantKind::JwtBearer,
            Self::TokenExchange(_) => GrantKind::TokenExchange,
            Self::Password => GrantKind::Password,
        }
    }

    /// The names of the parameters that are the grant.
    pub fn parameters(&self) -> &'static [&'static str] {
        match self {
            Self::ClientCredentials => &[],
            Self::JwtBearer(_) => &["assertion"],
            Self::TokenExchange(_) => &[
                "subject_token",
                "actor_token",
                "subject_token_type",
                "actor_token_type",
                "requested_token_type",
            ],
            Self::Password => &["username", "password"],
        }
    }
}

/// The kind of grant of a token request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantKind {
    /// [`Grant::ClientCredentials`].
    ClientCredentials,
    /// [`Grant::JwtBearer`].
    JwtBearer,
    /// [`Grant::TokenExchange`].
    TokenExchange,
    /// [`Grant::Password`].
    Password,
    /// A refresh token of an earlier answer.
    RefreshToken,
}

impl GrantKind {
    /// Tells whether an error code refuses what was presented as the grant, and not the client.
    pub fn is_refused_by(self, code: ErrorCode) -> bool {
        match (self, code) {
            (Self::ClientCredentials | Self::RefreshToken, _) => false,
            (_, ErrorCode::InvalidGrant) => true,
            // RFC 8693 section 2.2.2 has this code for a subject or actor token that is refused.
            (Self::TokenExchange, ErrorCode::InvalidRequest) => true,
            _ => false,
        }
    }

    /// The remedy where the grant itself was refused.
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Self::ClientCredentials | Self::RefreshToken => None,
            Self::JwtBearer => Some(
                "the server does not accept the assertion: its key, issuer, subject or audience, or \
                 this machine's clock; `check --live` tells more",
            ),
            Self::TokenExchange => Some(
                "the server does not accept the subject token or the actor token: it may have \
                 expired, be of an issuer or for an audience that the server does not trust, or \
                 have another type than subject_token_type says",
            ),
            Self::Password => {
                Some("the server does not accept the user; check username and password")
            }
        }
    }
}

/// A parameter that is a grant, or a part of it, and whose value is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GrantParameter {
    /// The token that is exchanged.
    SubjectToken,
    /// The token of the party that acts for the subject.
    ActorToken,
    /// The name of the user.
    Username,
    /// The password of the user.
    Password,
}

impl GrantParameter {
    /// The name of the parameter, and of the key in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SubjectToken => "subject_token",
            Self::ActorToken => "actor_token",
            Self::Username => "username",
            Self::Password => "password",
        }
    }
}

/// The settings of an assertion that is the grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantAssertion {
    /// The signature algorithm of the key.
    pub algorithm: SigningAlgorithm,
    /// The format of the key's source.
    pub key_format: KeyFormat,
    /// `iss`; `None` means the client id.
    pub issuer: Option<String>,
    /// `sub`. RFC 7523 section 3 requires it; Google alone does without.
    pub subject: Option<String>,
    /// `aud`; `None` means the token URL.
    pub audience: Option<String>,
    /// `kid` of the header; `None` means that of the key file, if it has one.
    pub key_id: Option<String>,
    /// Time until `exp`.
    pub lifetime: Duration,
    /// Set to send the scopes as the claim `scope` in place of the parameter.
    pub scope_claim: bool,
    /// Further claims.
    pub claims: Vec<(String, Value)>,
}

impl Default for GrantAssertion {
    fn default() -> Self {
        Self {
            algorithm: SigningAlgorithm::Rs256,
            key_format: KeyFormat::PrivateKey,
            issuer: None,
            subject: None,
            audience: None,
            key_id: None,
            lifetime: Duration::from_secs(60),
            scope_claim: false,
            claims: Vec::new(),
        }
    }
}

/// The format in which the source of a grant's key holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyFormat {
    /// The private key alone: PEM (PKCS#8, PKCS#1 or SEC1) or a JWK.
    PrivateKey,
    /// The JSON key file of a Google service account, which holds the issuer too.
    GoogleServiceAccount,
}

/// The key that signs the assertion of a grant, and what its file says beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantKey {
    /// The private key as PEM or a JWK.
    pub private_key: Sensitive,
    /// The id of the key.
    pub key_id: Option<String>,
    /// The token endpoint that the key is for.
    pub token_uri: Option<String>,
}

/// The encoding of the body of a token request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BodyEncoding {
    /// `application/x-www-form-urlencoded`, as RFC 6749 section 4.4.2 asks.
    #[default]
    Form,
    /// A flat JSON object of strings.
    Json,
}

/// Names of the parameters of a token request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestFields {
    /// `grant_type`
    pub grant_type: String,
    /// `client_id`
    pub client_id: String,
    /// `client_secret`
    pub client_secret: String,
    /// `scope`
    pub scope: String,
    /// `refresh_token`
    pub refresh_token: String,
}

/// Places of the fields of a token answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResponseFields {
    /// `access_token`
    pub access_token: FieldPath,
    /// `token_type`
    pub token_type: FieldPath,
    /// Life in seconds from now, a number or a numeric string.
    pub expires_in: FieldPath,
    /// End of life as seconds or milliseconds since 1970, or as a date, where the server states it.
    pub expires_at: Option<FieldPath>,
    /// `refresh_token`
    pub refresh_token: FieldPath,
    /// `scope`
    pub scope: FieldPath,
    /// `error` of RFC 6749 section 5.2.
    pub error: FieldPath,
    /// `error_description` of RFC 6749 section 5.2.
    pub error_description: FieldPath,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            encoding: BodyEncoding::Form,
            get: false,
            request: RequestFields::default(),
            response: ResponseFields::default(),
            send_grant_type: true,
            send_client_id: true,
            send_scope: true,
            extra_parameters: Vec::new(),
            extra_headers: Vec::new(),
            resources: Vec::new(),
            token_type: TokenType::Bearer,
            accept_token_types: Vec::new(),
            max_token_bytes: 16 * 1024,
            require_token_type: false,
            use_refresh_token: false,
            authenticate_refresh: true,
            default_lifetime: Duration::from_secs(300),
            grant: Grant::ClientCredentials,
            assertion: AssertionSettings::default(),
        }
    }
}

impl Default for RequestFields {
    fn default() -> Self {
        Self {
            grant_type: "grant_type".into(),
            client_id: "client_id".into(),
            client_secret: "client_secret".into(),
            scope: "scope".into(),
            refresh_token: "refresh_token".into(),
        }
    }
}

impl Default for ResponseFields {
    fn default() -> Self {
        Self {
            access_token: FieldPath::name("access_token"),
            token_type: FieldPath::name("token_type"),
            expires_in: FieldPath::name("expires_in"),
            expires_at: None,
            refresh_token: FieldPath::name("refresh_token"),
            scope: FieldPath::name("scope"),
            error: FieldPath::name("error"),
            error_description: FieldPath::name("error_description"),
        }
    }
}

/// The id and the secrets of a client, read from their references just before a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCredentials {
    /// The client id; redacted too, because some servers treat it as half a secret.
    pub id: Sensitive,
    /// The client secret, the private key with `private_key_jwt`, or the assertion of another issuer.
    pub secret: Option<Sensitive>,
    /// The certificates of the private key as PEM, its own first.
    pub certificate: Option<Sensitive>,
    /// The key of the JWT bearer grant.
    pub grant_key: Option<GrantKey>,
    /// The parameters of the grant whose values are secret.
    pub grant_parameters: Vec<(GrantParameter, Sensitive)>,
    /// Headers of each request whose values are secret.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}
