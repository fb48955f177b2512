//! `EndpointCall`: one token request and its answer. With DPoP the request carries a proof, and is sent once
//! more where the server asks for a nonce.

use std::time::SystemTime;

use http::header::DATE;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use tokio::time::Instant;

use super::credential::Credential;
use super::dpop::Prover;
use super::endpoint_client::MAX_RESPONSE_BYTES;
use crate::clock::Moment;
use crate::net::connect::Connector;
use crate::net::control::{self, CallError, Limits};
use crate::oauth::dpop::DPOP;
use crate::oauth::jws::AssertionError;
use crate::oauth::request::RequestError;
use crate::oauth::token_response::{self, IssuedToken};
use crate::oauth::{
    ClientAuth, ClientCredentials, ClientRequest, ErrorCode, GrantType, ScopeSet, TokenEndpoint,
    TokenError,
};

/// The parts of a token request.
pub(super) struct EndpointCall<'a> {
    pub(super) credential: &'a Credential,
    pub(super) endpoint: &'a TokenEndpoint,
    /// The client authentication at that endpoint.
    pub(super) auth: ClientAuth,
    pub(super) client: &'a ClientCredentials,
    pub(super) scopes: &'a ScopeSet,
    pub(super) grant: GrantType<'a>,
    /// Signs the proofs of the request; `None` without DPoP.
    pub(super) prover: Option<&'a Prover>,
    /// The token of another credential, in its header; empty where none is needed.
    pub(super) authorization: HeaderMap,
    /// The end of the time for the whole call.
    pub(super) deadline: Instant,
    pub(super) connector: &'a Connector,
}

/// An answer to a token request.
pub(super) struct EndpointAnswer {
    /// The time at which its request was sent.
    pub(super) sent: Moment,
    /// Its header.
    pub(super) headers: HeaderMap,
    /// The token, or the reason why there is none.
    pub(super) issued: Result<IssuedToken, TokenError>,
    /// Set if the server asked for a nonce first.
    pub(super) nonce_required: bool,
}

impl EndpointAnswer {
    /// Tells whether the server refused what authorizes the request.
    pub(super) fn is_unauthorized(&self) -> bool {
        let refused = self.issued.as_ref().err().and_then(TokenError::response);
        refused.is_some_and(|response| response.status == StatusCode::UNAUTHORIZED)
    }
}

/// The reason why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndpointCallError {
    /// No request can be made from the settings.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// No proof could be signed.
    #[error(transparent)]
    Proof(#[from] AssertionError),
    /// No whole answer came.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl EndpointCall<'_> {
    /// Makes the request, and with DPoP once more at once if the answer is `use_dpop_nonce` with a nonce
    /// (RFC 9449 section 8).
    ///
    /// # Errors
    /// No request can be made, or no whole answer came.
    pub(super) async fn make(&self) -> Result<EndpointAnswer, EndpointCallError> {
        let first = self.once().await?;
        let code = first.issued.as_ref().err().and_then(TokenError::code);
        if code != Some(ErrorCode::UseDpopNonce) || !first.nonce_required {
            return Ok(EndpointAnswer { nonce_required: false, ..first });
        }
        // The nonce has been learned, so that the next proof has it.
        Ok(EndpointAnswer { nonce_required: true, ..self.once().await? })
    }

    /// Makes the request once. `nonce_required` of the answer is set if it has a nonce.
    async fn once(&self) -> Result<EndpointAnswer, EndpointCallError> {
        let (endpoint, auth) = (self.endpoint, self.auth);
        let dialect = &self.credential.dialect;
        let sent = Moment::now();
        let request =
            ClientRequest { endpoint, dialect, auth, client: self.client, now: sent.wall };
        let mut request = request.token(self.grant, self.scopes)?;
        request.headers_mut().extend(self.authorization.clone());
        let origin = self.connector.origin().to_string();
        if let Some(prover) = self.prover {
            attach_proof(prover, &origin, &mut request)?;
        }
        let time = self.deadline.saturating_duration_since(Instant::now());
        let limits = Limits { time, body_bytes: MAX_RESPONSE_BYTES };
        let answer = control::call(self.connector, request, limits, token_response::is_whole);
        let answer = answer.await.map_err(|error| match error {
            // The setting, and not what a proof or another token has left of it.
            CallError::Timeout(_) => CallError::Timeout(self.credential.policy.timeout),
            error => error,
        });
        let (parts, body) = answer?.response.into_parts();
        let nonce_required =
            self.prover.is_some_and(|prover| prover.learn_nonce(&origin, &parts.headers));
        let issued = match parts.status.is_success() {
            true => {
                token_response::parse(dialect, self.scopes, parts.status, &parts.headers, &body)
            }
            false => {
                let dated = dated(&parts.headers, SystemTime::now());
                token_response::parse(dialect, self.scopes, parts.status, &dated, &body)
            }
        };
        Ok(EndpointAnswer { sent, headers: parts.headers, issued, nonce_required })
    }
}

fn attach_proof<B>(
    prover: &Prover,
    origin: &str,
    request: &mut Request<B>,
) -> Result<(), EndpointCallError> {
    let proof = prover.prove(request.method(), origin, request.uri().path(), None);
    request.headers_mut().insert(DPOP, proof?);
    Ok(())
}

/// The header of an answer, with the time of receipt where it has no `Date` (RFC 9110 section 6.6.1): a
/// date in `Retry-After` is read against it.
fn dated(headers: &HeaderMap, now: SystemTime) -> HeaderMap {
    let mut headers = headers.clone();
    if let Ok(now) = HeaderValue::try_from(httpdate::fmt_http_date(now)) {
        headers.entry(DATE).or_insert(now);
    }
    headers
}
