//! `Credential`: one client registration, and how its tokens are kept.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::bearer::TokenHeader;
use super::dpop::DpopSettings;
use super::issuer::Issuer;
use crate::net::tls::TlsSettings;
use crate::oauth::dialect::GrantParameter;
use crate::oauth::{ClientAuth, Dialect, ScopeSet, TokenEndpoint};
use crate::secret::{CredentialPart, EgressProxy, Reference};
use crate::sensitive::Sensitive;

/// One client registration at one token endpoint, or one token of a source of secrets, and how its tokens
/// are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The name in the configuration, and the `credential` label of metrics.
    pub name: Arc<str>,
    /// The source of its tokens.
    pub source: TokenSource,
    /// The credential whose token authorizes the token requests of this one.
    pub via: Option<TokenVia>,
    /// The client id, or its source.
    pub client_id: ClientIdSource,
    /// The source of the client secret, of the private key of `private_key_jwt`, or of the assertion of
    /// another issuer.
    pub client_secret: Option<Reference>,
    /// The source of the certificates that belong to the private key of `private_key_jwt`.
    pub certificate: Option<Reference>,
    /// The source of the key that signs the assertion of the JWT bearer grant.
    pub grant_key: Option<Reference>,
    /// The sources of the parameters of the grant whose values are secret.
    pub grant_parameters: Vec<(GrantParameter, Reference)>,
    /// Headers of each token request whose values are secret, and their sources.
    pub secret_headers: Vec<(HeaderName, Reference)>,
    /// The place of its tokens in requests to upstreams.
    pub attach: TokenHeader,
    /// The client authentication method.
    pub auth: ClientAuth,
    /// The deviations of this token server from RFC 6749.
    pub dialect: Dialect,
    /// TLS towards the token endpoint.
    pub tls: TlsSettings,
    /// The source of its client certificate, in place of the files of `tls`.
    pub client_certificate: Option<CertificateSource>,
    /// The proof that a connection to an upstream gives beside a token.
    pub binding: Binding,
    /// The proof that each request gives beside a token (RFC 9449); `None`: no proof.
    pub dpop: Option<DpopSettings>,
    /// The egress proxy that leads to the token endpoint.
    pub egress: Option<EgressProxy>,
    /// The sharing of tokens among routes.
    pub grouping: Grouping,
    /// The endpoint at which tokens are revoked when the program ends (RFC 7009); `None`: they are not.
    pub revocation: Option<TokenEndpoint>,
    /// The times of renewal, and the limits of calls and waits.
    pub policy: RefreshPolicy,
}

impl Credential {
    /// The token endpoint; `None` for a token that is not requested.
    pub fn endpoint(&self) -> Option<&TokenEndpoint> {
        match &self.source {
            TokenSource::Endpoint(endpoint) => Some(endpoint),
            TokenSource::Issuer(_) | TokenSource::Static(_) => None,
        }
    }

    /// The sources of all that a token request needs, with what each of them holds.
    pub fn references(&self) -> impl Iterator<Item = (&Reference, CredentialPart)> {
        let token = match &self.source {
            TokenSource::Endpoint(_) | TokenSource::Issuer(_) => None,
            TokenSource::Static(token) => Some((token, CredentialPart::Secret)),
        };
        let id = self.client_id.reference().map(|id| (id, CredentialPart::Id));
        let secret = self.client_secret.as_ref().map(|secret| (secret, self.secret_kind()));
        let headers = self.secret_headers.iter().map(|(_, text)| (text, CredentialPart::Secret));
        let certificate = self.certificate.iter().map(|file| (file, CredentialPart::Certificate));
        let grant_key = self.grant_key.iter().map(|key| (key, CredentialPart::PrivateKey));
        let parameters = self.grant_parameters.iter();
        let parameters = parameters.map(|(_, source)| (source, CredentialPart::Secret));
        let dpop_key = self.dpop_key().map(|key| (key, CredentialPart::PrivateKey));
        token
            .into_iter()
            .chain(id)
            .chain(secret)
            .chain(certificate)
            .chain(grant_key)
            .chain(dpop_key)
            .chain(parameters)
            .chain(headers)
            .chain(self.client_certificate.iter().flat_map(CertificateSource::references))
    }

    /// The issuer whose metadata name the token endpoint; `None` where the configuration does.
    pub fn issuer(&self) -> Option<&Issuer> {
        match &self.source {
            TokenSource::Issuer(issuer) => Some(issuer),
            TokenSource::Endpoint(_) | TokenSource::Static(_) => None,
        }
    }

    /// Tells whether tokens are revoked when the program ends.
    pub fn revokes(&self) -> bool {
        self.revocation.is_some() || self.issuer().is_some_and(|issuer| issuer.settings.revokes)
    }

    /// Tells whether connections to its token endpoint present a client certificate.
    pub fn has_client_certificate(&self) -> bool {
        self.client_certificate.is_some() || self.tls.client_certificate.is_some()
    }

    /// The kind of value that `client_secret` is.
    pub fn secret_kind(&self) -> CredentialPart {
        match self.auth {
            ClientAuth::PrivateKeyJwt(_) => CredentialPart::PrivateKey,
            _ => CredentialPart::Secret,
        }
    }

    /// The source of the key that signs proofs; `None` without proofs, and for a key of this process.
    pub fn dpop_key(&self) -> Option<&Reference> {
        self.dpop.as_ref()?.key.as_ref()
    }

    /// Tells whether token requests are signed with a private key that is read from its source.
    pub(super) fn signs_with_private_key(&self) -> bool {
        matches!(self.auth, ClientAuth::PrivateKeyJwt(_))
            || self.grant_key.is_some()
            || self.dpop_key().is_some()
    }

    /// Tells whether another credential is the same client of the same source, as far as the
    /// configuration shows it.
    pub fn is_client_of(&self, other: &Self) -> bool {
        self.source == other.source && self.client_id == other.client_id
    }

    /// Tells whether another configuration has the same client at the same endpoint, so that the
    /// server's verdict on one holds for the other.
    pub(super) fn same_client(&self, other: &Self) -> bool {
        self.is_client_of(other)
            && self.via == other.via
            && self.client_secret == other.client_secret
            && self.certificate == other.certificate
            && self.grant_key == other.grant_key
            && self.grant_parameters == other.grant_parameters
            && self.dialect.grant == other.dialect.grant
            && self.dialect.assertion == other.dialect.assertion
            && self.secret_headers == other.secret_headers
            && self.dpop == other.dpop
            && self.auth == other.auth
    }
}

/// The source of a client certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// PEM texts.
    Pem {
        /// The chain, the client's own certificate first.
        certificate: Reference,
        /// The private key.
        key: Reference,
        /// The password of an encrypted key.
        password: Option<Reference>,
    },
    /// One PKCS#12 container (RFC 7292), or base64 of it.
    Pkcs12 {
        /// The container.
        container: Reference,
        /// Its password; `None` for the empty one.
        password: Option<Reference>,
    },
}

impl CertificateSource {
    /// The source of the password, if there is one.
    pub fn password(&self) -> Option<&Reference> {
        match self {
            Self::Pem { password, .. } | Self::Pkcs12 { password, .. } => password.as_ref(),
        }
    }

    /// All sources, with what each of them holds.
    pub fn references(&self) -> impl Iterator<Item = (&Reference, CredentialPart)> {
        let (first, second) = match self {
            Self::Pem { certificate, key, .. } => (
                (certificate, CredentialPart::Certificate),
                Some((key, CredentialPart::PrivateKey)),
            ),
            Self::Pkcs12 { container, .. } => ((container, CredentialPart::Pkcs12), None),
        };
        let password = self.password().map(|password| (password, CredentialPart::Secret));
        [Some(first), second, password].into_iter().flatten()
    }
}

/// The binding of tokens to a proof that whoever sends them may do so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Binding {
    /// None: whoever holds a token may send it (RFC 6750 section 1.2).
    #[default]
    None,
    /// The client certificate of the token request, which connections to upstreams must present too
    /// (RFC 8705 section 3).
    Certificate,
}

/// The credential whose token authorizes the token requests of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenVia {
    /// The credential, which in turn may need another; never the same again.
    pub credential: Arc<Credential>,
    /// The scopes of its token.
    pub scopes: ScopeSet,
}

/// The source of a credential's tokens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TokenSource {
    /// The token endpoint (RFC 6749 section 3.2), which issues them.
    Endpoint(TokenEndpoint),
    /// The issuer whose metadata name the token endpoint (RFC 8414).
    Issuer(Issuer),
    /// The source of a token that somebody else has obtained. It has no scopes and states no expiry.
    Static(Reference),
}

impl fmt::Display for TokenSource {
    /// The URL, or the source as messages name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(endpoint) => endpoint.fmt(f),
            Self::Issuer(issuer) => issuer.fmt(f),
            Self::Static(reference) => f.write_str(&reference.describe()),
        }
    }
}

/// A client id, which is no secret (RFC 6749 section 2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientIdSource {
    /// The id as the configuration states it.
    Text(Sensitive),
    /// The source of the id, for those who keep it apart.
    Referenced(Reference),
    /// The key file of the grant, which names the client.
    GrantKeyFile,
    /// There is none: the grant alone says enough (RFC 8693 section 2.1).
    Absent,
}

impl ClientIdSource {
    /// The source; `None` for an id that is stated.
    pub fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Text(_) | Self::GrantKeyFile | Self::Absent => None,
            Self::Referenced(reference) => Some(reference),
        }
    }
}

/// The sharing of tokens among routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Grouping {
    /// One token for each distinct set of scopes: least privilege.
    #[default]
    PerScopeSet,
    /// One token with all scopes that routes of this credential need, for servers with quotas.
    Union,
}

/// The times of renewal, and the limits of calls and waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RefreshPolicy {
    /// Share of a token's life after which it is renewed, between 0.1 and 0.95.
    pub refresh_at: f64,
    /// Largest share of life by which jitter renews earlier.
    pub jitter: f64,
    /// Time for DNS, TCP and TLS of one token call.
    pub connect_timeout: Duration,
    /// Time for one whole token call.
    pub timeout: Duration,
    /// Longest wait of a request for a first or next token.
    pub wait: Duration,
    /// The reaction to an answer that grants fewer scopes than were requested.
    pub missing_scopes: MissingScopes,
    /// Largest number of token calls in any hour, over all tokens of the credential; `None`: no limit.
    pub budget: Option<NonZeroU32>,
    /// `Some`: a token is fetched at its first use, and dropped after this time without one.
    pub lazy: Option<Duration>,
    /// Set where the server revokes a token when it issues the next one: a renewal hands over.
    pub one_live_token: bool,
    /// Set where replicas hold the same token, which one of them renews.
    pub share: bool,
}

impl Eq for RefreshPolicy {}

/// The reaction to an answer that grants fewer scopes than a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingScopes {
    /// A warning in the log, and a gauge.
    #[default]
    Warn,
    /// The token is not used for such a route.
    Refuse,
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        Self {
            refresh_at: 0.8,
            jitter: 0.05,
            connect_timeout: Duration::from_secs(2),
            timeout: Duration::from_secs(10),
            wait: Duration::from_secs(2),
            missing_scopes: MissingScopes::Warn,
            budget: None,
            lazy: None,
            one_live_token: false,
            share: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::dialect::Grant;
    use crate::token::testing::credential;

    #[test]
    fn a_verdict_holds_for_the_same_proof_only() {
        let base = credential(RefreshPolicy::default());
        let changed = |change: fn(&mut Credential)| {
            let mut other = base.clone();
            change(&mut other);
            !base.same_client(&other)
        };
        assert!(!changed(|other| other.policy.refresh_at = 0.5));
        assert!(changed(|other| other.dialect.assertion.key_id = Some("k2".into())));
        assert!(changed(|other| {
            other.dialect.grant = Grant::JwtBearer(Box::default());
        }));
        assert!(changed(|other| other.certificate = Some(Reference::File("/run/c.pem".into()))));
    }
}
