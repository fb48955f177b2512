//! `StaticToken`: a token that a source of secrets holds. It is read, not requested.

use std::sync::Arc;
use std::time::Duration;

use super::client_identity::LoadError;
use super::fetch::{FetchError, Fetched};
use crate::clock::Moment;
use crate::oauth::token_response::check_access_token;
use crate::oauth::{IssuedToken, Lifetime};
use crate::secret::{CredentialPart, Freshness, Reference, SecretFault, Store};
use crate::sensitive::Sensitive;

/// Least time between two planned readings of a file: it may change at any time, and costs little.
const SHORTEST_REREAD: Duration = Duration::from_secs(5);

/// The source of one token.
pub struct StaticToken {
    pub(super) reference: Reference,
    pub(super) store: Arc<Store>,
    /// The time for which a token is used after its source was last read.
    pub(super) life: Duration,
    /// Longest token that is accepted, in bytes.
    pub(super) max_bytes: usize,
}

impl StaticToken {
    /// Reads the token past any cache: the planned readings keep within the time for which a value may be
    /// cached, and the others follow a 401.
    pub(super) async fn read(&self) -> Result<Fetched, FetchError> {
        let sent = Moment::now();
        let part = CredentialPart::Secret;
        let token = self.store.read(&self.reference, part, Freshness::Fresh).await;
        let token = token.map_err(LoadError::from)?;
        let access_token = checked(token, &self.reference, self.max_bytes)?;
        let reread = self.reference.recheck().map(|every| every.max(SHORTEST_REREAD));
        let reread = reread.unwrap_or(self.life / 2);
        let issued = IssuedToken {
            access_token,
            expires_in: None,
            expires_at: None,
            refresh_token: None,
            scope: None,
            date: None,
        };
        // One reading that fails must not end the token.
        let lifetime = Lifetime { life: self.life.max(reread * 2), ignored: None };
        Ok(Fetched {
            issued,
            lifetime,
            sent,
            clock_offset: None,
            secret: None,
            identity: None,
            prover: None,
            reread: Some(reread),
        })
    }
}

/// Reads the token of a source as it is now, for an operator.
pub(super) async fn read_now(
    reference: &Reference,
    max_bytes: usize,
) -> Result<Sensitive, FetchError> {
    let token = reference.read().await.map_err(LoadError::from)?;
    checked(token, reference, max_bytes)
}

fn checked(
    token: Sensitive,
    reference: &Reference,
    max_bytes: usize,
) -> Result<Sensitive, FetchError> {
    let fault = |_| LoadError::from(reference.error(SecretFault::NotToken)).into();
    check_access_token(token, max_bytes).map_err(fault)
}
