//! Fetches the metadata of an issuer. The last good ones are kept, and fetched again daily and after a failed
//! token request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, Request, StatusCode};
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::credential::Credential;
use super::endpoint_client::{MAX_RESPONSE_BYTES, connector};
use super::issuer::Issuer;
use crate::net::control::{self, CallError, Limits};
use crate::net::tls::ClientIdentity;
use crate::oauth::TokenEndpoint;
use crate::oauth::metadata::{MetadataError, ServerMetadata};
use crate::x509::TlsSetupError;

/// Age from which the metadata are fetched again.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// The reason why no metadata were found.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// No whole answer came.
    #[error("the issuer's metadata: {0}")]
    Call(#[from] CallError),
    /// The TLS settings cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// Neither well-known address answered 200; the statuses in their order.
    #[error(
        "no metadata at the issuer: its .well-known/oauth-authorization-server answered {0} and \
         .well-known/openid-configuration {1}"
    )]
    NotThere(u16, u16),
    /// The metadata cannot be used.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

impl DiscoveryError {
    /// The remedy, where one is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Call(error) => error.hint(),
            Self::NotThere(..) => {
                Some("check issuer; a server without metadata needs token_url in its place".into())
            }
            Self::Metadata(error) => error.hint().map(str::to_owned),
            Self::Tls(_) => None,
        }
    }
}

/// The metadata: those that were found last, or new ones if these are old or doubted. If they cannot
/// be fetched again, the last good ones stay in use.
///
/// # Errors
/// There are none that can be used, and none were found before.
pub(super) async fn metadata(
    issuer: &Issuer,
    credential: &Credential,
    identity: Option<&ClientIdentity>,
) -> Result<Arc<ServerMetadata>, DiscoveryError> {
    let mut fetched = issuer.fetched().lock().await;
    let held = issuer.found();
    let is_fresh = fetched.is_some_and(|at| at.elapsed() < MAX_AGE) && !issuer.take_doubt();
    if let Some(held) = held.as_ref().filter(|_| is_fresh) {
        return Ok(Arc::clone(held));
    }
    match (fetch(issuer, credential, identity).await, held) {
        (Ok(metadata), held) => {
            *fetched = Some(Instant::now());
            let metadata = Arc::new(metadata);
            if held.as_ref() != Some(&metadata) {
                let (name, endpoint) = (&credential.name, &metadata.token);
                tracing::info!(credential = %name, %endpoint, client_auth = metadata.auth.name(),
                        "the issuer's metadata name the token endpoint");
                issuer.store(Arc::clone(&metadata));
            }
            Ok(metadata)
        }
        (Err(error), Some(held)) => {
            tracing::warn!(credential = %credential.name, %error,
                    "the issuer's metadata cannot be fetched again; the last good ones stay in use");
            Ok(held)
        }
        (Err(error), None) => Err(error),
    }
}

/// Fetches the metadata from the first well-known address that has them.
///
/// # Errors
/// Neither address has metadata that can be used.
pub(super) async fn fetch(
    issuer: &Issuer,
    credential: &Credential,
    identity: Option<&ClientIdentity>,
) -> Result<ServerMetadata, DiscoveryError> {
    let mut statuses = [0; 2];
    for (location, status) in issuer.settings.locations().into_iter().zip(&mut statuses) {
        let location = location.ok_or(MetadataError::NotMetadata)?;
        let (found, body) = get(credential, &location, identity).await?;
        if found == StatusCode::OK {
            return Ok(issuer.settings.read(&body)?);
        }
        *status = found.as_u16();
    }
    let [inserted, appended] = statuses;
    Err(DiscoveryError::NotThere(inserted, appended))
}

async fn get(
    credential: &Credential,
    location: &TokenEndpoint,
    identity: Option<&ClientIdentity>,
) -> Result<(StatusCode, Bytes), DiscoveryError> {
    let request = Request::get(location.uri()).header(ACCEPT, "application/json");
    let request = request.body(Bytes::new()).map_err(|_| MetadataError::NotMetadata)?;
    let limits = Limits { time: credential.policy.timeout, body_bytes: MAX_RESPONSE_BYTES };
    let is_whole = |_: &HeaderMap, body: &[u8]| serde_json::from_slice::<IgnoredAny>(body).is_ok();
    let connector = connector(credential, location, identity)?;
    let response = control::call(&connector, request, limits, is_whole).await?.response;
    Ok((response.status(), response.into_body()))
}
