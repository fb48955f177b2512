//! One token request for `check --live` and `token`. Its errors keep the server's description, which
//! an operator may see and the log must not hold.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use super::client_identity::{LoadError, load_identity};
use super::client_secret::{read_client, read_dpop_key};
use super::clock_offset::ClockOffset;
use super::credential::{Binding, Credential, TokenSource, TokenVia};
use super::discovery;
use super::dpop::{Dpop, Prover};
use super::endpoint_call::EndpointCall;
use super::endpoint_client;
use super::fetch::FetchError;
use super::fingerprint::Fingerprint;
use super::issuer::Issuer;
use super::refusal::{self, Observation, ProofPart};
use super::static_token;
use crate::net::connect::Connector;
use crate::oauth::confirmation::names_other_certificate;
use crate::oauth::dialect::GrantKind;
use crate::oauth::error::{MalformedResponse, TokenError};
use crate::oauth::lifetime::lifetime;
use crate::oauth::metadata::ServerMetadata;
use crate::oauth::{ClientCredentials, GrantType, ScopeSet, TokenEndpoint};
use crate::sensitive::Sensitive;

/// Length in bytes at which a part of a secret counts as the secret itself.
const SECRET_PART: usize = 8;

/// Length of a SHA-256 in base64url, as thumbprints of keys and certificates are.
const SHA256_LENGTH: usize = 43;

/// A token that was obtained for an operator.
pub struct Probe {
    /// The token itself.
    pub token: Sensitive,
    /// The life of the token from the sending of the request; `None` for a static token.
    pub life: Option<Duration>,
    /// The scopes of the answer.
    pub granted: Option<ScopeSet>,
    /// The difference of the clocks, for an answer with a `Date`.
    pub offset: Option<ClockOffset>,
    /// Set if the server asked for a nonce in the proof of DPoP.
    pub nonce_required: bool,
}

/// A connector to one of the credential's endpoints, with its client certificate as it is now.
///
/// # Errors
/// The TLS settings or the certificate cannot be used.
pub async fn connector(
    credential: &Credential,
    endpoint: &TokenEndpoint,
) -> Result<Connector, FetchError> {
    let identity = load_identity(credential, None).await?;
    Ok(endpoint_client::connector(credential, endpoint, identity.as_deref())?)
}

/// Fetches the metadata of a credential's issuer.
///
/// # Errors
/// There are none, or none that can be used.
pub async fn metadata(
    credential: &Credential,
    issuer: &Issuer,
) -> Result<ServerMetadata, FetchError> {
    let identity = load_identity(credential, None).await?;
    Ok(discovery::fetch(issuer, credential, identity.as_deref()).await?)
}

/// Requests one token from a credential's endpoint, or reads a static one.
///
/// # Errors
/// The request failed; the error has a hint where a remedy is known.
pub async fn probe(credential: &Credential, scopes: &ScopeSet) -> Result<Probe, ProbeError> {
    let dialect = &credential.dialect;
    let (endpoint, auth, issuer) = match &credential.source {
        TokenSource::Endpoint(endpoint) => (endpoint.clone(), credential.auth, None),
        TokenSource::Issuer(issuer) => {
            let found = metadata(credential, issuer).await?;
            (found.token, found.auth, Some(&*issuer.settings.issuer))
        }
        TokenSource::Static(reference) => {
            let token = static_token::read_now(reference, dialect.max_token_bytes).await?;
            let (life, granted, offset) = (None, None, None);
            return Ok(Probe { token, life, granted, offset, nonce_required: false });
        }
    };
    let client = read_client(credential, None).await.map_err(LoadError::from);
    let client = client.map_err(FetchError::from)?;
    let prover = prover(credential).await?;
    let authorization = authorization(credential).await?;
    let identity = load_identity(credential, None).await.map_err(FetchError::from)?;
    let connector = endpoint_client::connector(credential, &endpoint, identity.as_deref())
        .map_err(FetchError::from)?
        .with_diagnostics();
    let call = EndpointCall {
        credential,
        endpoint: &endpoint,
        auth,
        client: &client,
        scopes,
        grant: GrantType::of(dialect),
        prover: prover.as_ref(),
        authorization,
        deadline: Instant::now() + credential.policy.timeout,
        connector: &connector,
    };
    let answer = call.make().await.map_err(FetchError::from)?;
    let (sent, nonce_required) = (answer.sent.wall, answer.nonce_required);
    let offset = ClockOffset::of(&answer.headers, SystemTime::now());
    let kind = dialect.grant.kind();
    let issued = answer.issued.map_err(|error| {
        let seen = Observation {
            call: &call,
            error: &error,
            identity: identity.as_deref(),
            issuer,
            offset,
        };
        let part = refusal::refused_part(&seen);
        let sent = part.map(|_| refusal::sent(&seen)).unwrap_or_default();
        ProbeError { part, sent, ..ProbeError::refused(error, &client, kind, offset) }
    })?;
    let mine = identity.filter(|_| credential.binding == Binding::Certificate);
    let token = issued.access_token.expose();
    if mine.is_some_and(|mine| names_other_certificate(token, mine.thumbprint())) {
        let error = TokenError::Malformed(MalformedResponse::OtherCertificate);
        return Err(ProbeError::refused(error, &client, kind, offset));
    }
    let life = Some(lifetime(&issued, sent, SystemTime::now(), dialect.default_lifetime).life);
    Ok(Probe { token: issued.access_token, life, granted: issued.scope, offset, nonce_required })
}

/// Signs the proofs of a credential with its key, or with one that is made for this call.
async fn prover(credential: &Credential) -> Result<Option<Prover>, FetchError> {
    let Some(settings) = &credential.dpop else { return Ok(None) };
    let key = read_dpop_key(credential, None).await.map_err(LoadError::from)?;
    let prover = Dpop::new(settings.clone()).prover(key.as_ref());
    prover.map(Some).map_err(FetchError::Dpop)
}

/// The header with the token that authorizes a token request, for a credential that needs one.
async fn authorization(credential: &Credential) -> Result<HeaderMap, ProbeError> {
    let mut headers = HeaderMap::new();
    if let Some(TokenVia { credential, scopes }) = &credential.via {
        let inner = Box::pin(probe(credential, scopes)).await;
        let Probe { token, .. } = inner.map_err(|error| error.of(&credential.name))?;
        let place = &credential.attach;
        let header = token.header(&place.scheme).ok_or(FetchError::Header)?;
        headers.insert(place.name.clone(), header);
    }
    Ok(headers)
}

/// The reason why no token came.
#[derive(Debug)]
pub struct ProbeError {
    /// The other credential whose token did not come.
    via: Option<Arc<str>>,
    error: FetchError,
    /// The server's description, or a note that it is withheld.
    description: String,
    offset: Option<ClockOffset>,
    /// The part of the client's proof that was refused; `None` if no proof was.
    part: Option<ProofPart>,
    sent: Vec<(&'static str, String)>,
}

impl From<FetchError> for ProbeError {
    fn from(error: FetchError) -> Self {
        let (description, sent) = (String::new(), Vec::new());
        Self { via: None, error, description, offset: None, part: None, sent }
    }
}

impl ProbeError {
    fn refused(
        error: TokenError,
        client: &ClientCredentials,
        grant: GrantKind,
        offset: Option<ClockOffset>,
    ) -> Self {
        let description = match error.description() {
            Some(description) if contains_secret(description.text(), client) => {
                " (its description repeats the secret and is not shown)".to_owned()
            }
            Some(description) if contains_signed_token(description.text()) => {
                " (its description repeats a signed token and is not shown)".to_owned()
            }
            Some(description) => format!(": {:?}", description.text()),
            None => String::new(),
        };
        let secret = Fingerprint::of(client.id.expose());
        let error = FetchError::Refused { error, secret, grant };
        Self { description, offset, ..error.into() }
    }

    /// The same error as one of another credential, whose token is needed first.
    fn of(self, name: &Arc<str>) -> Self {
        Self { via: Some(Arc::clone(name)), ..self }
    }

    /// Tells whether the server refused the client itself, whatever its scopes.
    pub fn rejects_client(&self) -> bool {
        self.error.refused_secret().is_some()
    }

    /// The remedy, where one is known.
    pub fn hint(&self) -> Option<String> {
        match self.part {
            Some(part) => Some(part.hint().to_owned()),
            None => self.error.hint().map(Cow::into_owned),
        }
    }

    /// The proofs of the client in the request that was refused, by kind: their parts in words, to be
    /// compared with the registration. No part is secret.
    pub fn sent(&self) -> &[(&'static str, String)] {
        &self.sent
    }

    /// The difference of the clocks, for an answer with a `Date`.
    pub fn offset(&self) -> Option<ClockOffset> {
        self.offset
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.via {
            write!(f, "there is no token of the credential {name}, which token_via names: ")?;
        }
        write!(f, "{}{}", self.error, self.description)
    }
}

impl std::error::Error for ProbeError {}

/// Tells whether a text of the server repeats the secret or a part of it: as it is, form-encoded, or as
/// Basic credentials.
fn contains_secret(text: &str, client: &ClientCredentials) -> bool {
    let header = |value: &HeaderValue| {
        value.to_str().is_ok_and(|value| contains_part(text.as_bytes(), &Sensitive::new(value)))
    };
    if client.headers.iter().any(|(_, value)| header(value)) {
        return true;
    }
    let mut parameters = client.grant_parameters.iter().map(|(_, value)| value);
    if parameters.any(|value| contains_part(text.as_bytes(), value)) {
        return true;
    }
    let Some(secret) = &client.secret else { return false };
    let pair = Sensitive::new(format!("{}:{}", client.id.expose(), secret.expose()));
    let basic = Sensitive::new(STANDARD.encode(pair.expose()));
    let decoded: Vec<u8> = percent_decode_str(text).collect();
    contains_part(text.as_bytes(), secret)
        || contains_part(&decoded, secret)
        || contains_part(text.as_bytes(), &basic)
}

/// Tells whether a text of the server repeats a part of a JWT, as the assertion or the proof of the request:
/// a word of base64url that is longer than a SHA-256.
fn contains_signed_token(text: &str) -> bool {
    let in_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.split(|c| !in_word(c)).any(|word| word.len() > SHA256_LENGTH)
}

fn contains_part(text: &[u8], secret: &Sensitive) -> bool {
    let size = secret.len().clamp(1, SECRET_PART);
    let mut parts = secret.expose().as_bytes().windows(size);
    parts.any(|part| text.windows(size).any(|found| found == part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_that_repeat_a_signed_token() {
        let thumbprint = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
        for (words, expected) in [
            ("no key has the thumbprint kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k.", false),
            ("Trace ID: 3f2504e0-4f89-41d3-9a0c-0305e82c3301", false),
            (&format!("cannot verify eyJhbGciOiJFZERTQSJ9.e30.{thumbprint}{thumbprint}"), true),
            (&format!("cut off: {thumbprint}x"), true),
        ] {
            assert_eq!(contains_signed_token(words), expected, "{words}");
        }
    }

    #[test]
    fn descriptions_that_repeat_the_secret() {
        let (id, secret) = (Sensitive::new("erp"), Some(Sensitive::new("s3cr+t/with%more")));
        let client = ClientCredentials {
            id,
            secret,
            certificate: None,
            grant_key: None,
            grant_parameters: Vec::new(),
            headers: Vec::new(),
        };
        for (words, expected) in [
            ("AADSTS7000215: invalid client secret", false),
            ("the secret of erp has expired", false),
            ("no client has the secret s3cr+t/with%more", true),
            ("cut off: s3cr+t/w", true),
            ("client_id=erp&client_secret=s3cr%2Bt%2Fwith%25more", true),
            ("Authorization: Basic ZXJwOnMzY3IrdC93aXRoJW1vcmU=", true),
        ] {
            assert_eq!(contains_secret(words, &client), expected, "{words}");
        }
        let api_key =
            (http::HeaderName::from_static("x-api-key"), HeaderValue::from_static("k3y-f0r"));
        let keyed = ClientCredentials { headers: vec![api_key], ..client.clone() };
        assert!(contains_secret("no such key: k3y-f0r", &keyed));
        let client = ClientCredentials { secret: Some(Sensitive::new("x9")), ..client };
        assert!(
            contains_secret("bad secret x9", &client) && !contains_secret("bad secret", &client)
        );
        assert!(!contains_secret("erp", &ClientCredentials { secret: None, ..client }));
    }
}
