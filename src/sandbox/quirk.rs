//! Habits: what an awkward token server always does, beside what its vendor's document says.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

use super::ledger::CallOutcome;
use super::serve::{Answer, hang_up, plain};

/// A quirk of a token server; real servers are known for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quirk {
    /// None: each call brings a new token, and the others live on.
    #[default]
    None,
    /// The same token until it ends, with what is left of its life.
    SameToken,
    /// A new token revokes all others, also those of other users of the client id.
    OneLiveToken,
    /// A refresh token is used up, and the answer that brings the next one is lost on its way.
    LosesRefreshed,
    /// Whatever is refused is answered with status 500 and a page of HTML.
    HtmlErrors,
}

impl Quirk {
    /// Changes an answer as the quirk demands; `refresh` is true for the refresh-token grant.
    pub(super) fn bend(
        self,
        refresh: bool,
        outcome: &CallOutcome,
        answer: Response<Full<Bytes>>,
    ) -> Answer {
        match (self, outcome) {
            (Self::LosesRefreshed, CallOutcome::Issued(_)) if refresh => hang_up(),
            (Self::HtmlErrors, CallOutcome::Refused(..)) => {
                Ok(plain(500, "text/html", "<html><h1>Internal Server Error</h1></html>"))
            }
            _ => Ok(answer),
        }
    }
}
