//! `OtherToken`: the token of another credential, which authorizes the token requests of this one.

use std::sync::Arc;

use tokio::time::Instant;

use super::token_cell::{Reader, TokenUnavailable};
use super::token_guard::TokenGuard;

/// The token of another credential.
pub(super) struct OtherToken {
    pub(super) name: Arc<str>,
    pub(super) reader: Reader,
}

impl OtherToken {
    /// Waits for a usable token.
    pub(super) async fn token(&self, deadline: Instant) -> Result<TokenGuard, OtherTokenError> {
        let error = |cause| OtherTokenError { name: Arc::clone(&self.name), cause };
        self.reader.wait_usable(deadline).await.map_err(error)
    }

    /// Reports that the server refused the token of a generation, and waits for a newer one.
    pub(super) async fn renewed(&self, refused: u64, deadline: Instant) -> Option<TokenGuard> {
        self.reader.report_rejected(refused);
        self.reader.newer_than(refused, deadline).await.ok()
    }
}

/// There is no token of the other credential.
#[derive(Debug, thiserror::Error)]
#[error("there is no token of the credential {name}, which token_via names: {cause}")]
pub struct OtherTokenError {
    name: Arc<str>,
    cause: TokenUnavailable,
}
