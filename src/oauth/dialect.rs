//! What known token servers do differently, as data: a [`Dialect`] says how a token request is
//! written and how the answer is read. Presets are constants of this type, not code.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::sensitive::Sensitive;

/// How one kind of token server is spoken to. [`Dialect::default`] is RFC 6749 as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// How the request body is encoded.
    pub encoding: BodyEncoding,
    /// Names of the request's parameters.
    pub request: RequestFields,
    /// Names of the answer's fields.
    pub response: ResponseFields,
    /// Whether `grant_type` is sent with the client-credentials grant.
    pub send_grant_type: bool,
    /// Whether `scope` is sent. Where it is not, scopes are no part of a token's identity.
    pub send_scope: bool,
    /// Further parameters of each request, in this order, after our own.
    pub extra_parameters: Vec<(String, String)>,
    /// Further headers of each request.
    pub extra_headers: Vec<(HeaderName, HeaderValue)>,
    /// RFC 8707 resource indicators, absolute URIs without fragment.
    pub resources: Vec<String>,
    /// `token_type` values that are accepted beside `Bearer`, compared without case.
    pub accept_token_types: Vec<String>,
    /// Whether an answer without `token_type` is refused; else it counts as `Bearer`.
    pub require_token_type: bool,
    /// Whether a refresh token of the answer is used for the next token.
    pub use_refresh_token: bool,
    /// Whether the refresh-token grant carries the client's credentials as well.
    pub authenticate_refresh: bool,
    /// Life of a token whose answer states none.
    pub default_lifetime: Duration,
    /// What a signed client assertion says; of use with the JWT ways of proof only.
    pub assertion: AssertionSettings,
}

/// What a signed client assertion says (RFC 7523 section 3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AssertionSettings {
    /// `aud`; the token URL unless set, since newer servers want their issuer here.
    pub audience: Option<String>,
    /// `kid` of the header, where the server needs it to find the public key.
    pub key_id: Option<String>,
    /// Time until `exp`; kept between 60 s and 300 s.
    pub lifetime: Duration,
}

impl Default for AssertionSettings {
    fn default() -> Self {
        Self { audience: None, key_id: None, lifetime: Duration::from_secs(60) }
    }
}

/// How the body of a token request is encoded.
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

/// Names of the fields of a token answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResponseFields {
    /// `access_token`
    pub access_token: String,
    /// `token_type`
    pub token_type: String,
    /// Life in seconds from now, a number or a numeric string.
    pub expires_in: String,
    /// End of life as seconds or milliseconds since 1970, where the server states it.
    pub expires_at: Option<String>,
    /// `refresh_token`
    pub refresh_token: String,
    /// `scope`
    pub scope: String,
    /// `error` of RFC 6749 section 5.2.
    pub error: String,
    /// `error_description` of RFC 6749 section 5.2.
    pub error_description: String,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            encoding: BodyEncoding::Form,
            request: RequestFields::default(),
            response: ResponseFields::default(),
            send_grant_type: true,
            send_scope: true,
            extra_parameters: Vec::new(),
            extra_headers: Vec::new(),
            resources: Vec::new(),
            accept_token_types: Vec::new(),
            require_token_type: false,
            use_refresh_token: false,
            authenticate_refresh: true,
            default_lifetime: Duration::from_secs(300),
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
            access_token: "access_token".into(),
            token_type: "token_type".into(),
            expires_in: "expires_in".into(),
            expires_at: None,
            refresh_token: "refresh_token".into(),
            scope: "scope".into(),
            error: "error".into(),
            error_description: "error_description".into(),
        }
    }
}

/// What a client shows to the token server, read from its references just before the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCredentials {
    /// The client id; shown nowhere, since some servers treat it as half a secret.
    pub id: Sensitive,
    /// The client secret, or the PEM private key with `private_key_jwt`.
    pub secret: Option<Sensitive>,
}
