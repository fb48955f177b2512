//! `Credential`: one client registration, as the token river needs to know it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::net::tls::TlsSettings;
use crate::oauth::{ClientAuth, Dialect, TokenEndpoint};
use crate::secret::{EgressProxy, Reference};

/// One client registration at one token endpoint, and how its tokens are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its name in the configuration, and the `credential` label of metrics.
    pub name: Arc<str>,
    /// Where tokens are asked from.
    pub endpoint: TokenEndpoint,
    /// Where the client id is read from.
    pub client_id: Reference,
    /// Where the client secret, or the private key of `private_key_jwt`, is read from.
    pub client_secret: Option<Reference>,
    /// How the client proves itself.
    pub auth: ClientAuth,
    /// How this token server is spoken to.
    pub dialect: Dialect,
    /// TLS towards the token endpoint.
    pub tls: TlsSettings,
    /// The egress proxy on the way to the token endpoint.
    pub egress: Option<EgressProxy>,
    /// One token for each distinct set of scopes, or one with all of them.
    pub grouping: Grouping,
    /// Where tokens are revoked when the program ends (RFC 7009); `None`: they are not.
    pub revocation: Option<TokenEndpoint>,
    /// When tokens are renewed and how long anybody waits.
    pub policy: RefreshPolicy,
}

impl Credential {
    /// Whether another configuration of it shows the same login at the same endpoint, so that what
    /// the server thinks of the one holds for the other.
    pub(super) fn same_login(&self, other: &Self) -> bool {
        let login = |one: &Self| {
            (one.endpoint.clone(), one.client_id.clone(), one.client_secret.clone(), one.auth)
        };
        login(self) == login(other)
    }
}

/// How scopes are gathered into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Grouping {
    /// One token for each distinct set of scopes: least privilege.
    #[default]
    PerScopeSet,
    /// One token with all scopes that routes of this credential need, for servers with quotas.
    Union,
}

/// When tokens are renewed and how long anybody waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RefreshPolicy {
    /// Share of a token's life after which it is renewed, between 0.1 and 0.95.
    pub refresh_at: f64,
    /// How much earlier jitter may renew, as a share of life.
    pub jitter: f64,
    /// Time for DNS, TCP and TLS of one token call.
    pub connect_timeout: Duration,
    /// Time for one token call altogether.
    pub timeout: Duration,
    /// How long a request waits for a first or next token.
    pub wait: Duration,
    /// What happens when fewer scopes are granted than were asked for.
    pub missing_scopes: MissingScopes,
    /// Token calls in any hour, over all tokens of the credential; `None`: as many as are needed.
    pub budget: Option<NonZeroU32>,
    /// `Some`: a token is fetched at its first use, and let go after so long without one.
    pub lazy: Option<Duration>,
}

impl Eq for RefreshPolicy {}

/// What happens when fewer scopes are granted than a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingScopes {
    /// Said in the log and as a gauge.
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
        }
    }
}
