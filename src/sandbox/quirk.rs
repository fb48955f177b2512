//! Habits: what an awkward token server always does, beside what its vendor's document says.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

use super::ledger::CallOutcome;
use super::serve::{Hangup, plain};

/// A quirk of a token server; real servers are known for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quirk {
    /// None: each call brings a new token, and the others live on.
    #[default]
    None,
    /// The same token until it ends, with what is left of its life.
    SameToken,
    /// A new token ends all others: whoever shares the client id revokes ours.
    OneLiveToken,
    /// A refresh token is used up, and the answer that brings the next one is lost on its way.
    LosesRefreshed,
    /// Whatever is refused is answered with status 500 and a page of HTML.
    HtmlErrors,
}

impl Quirk {
    /// What becomes of an answer; `refresh` where it is one to a refresh token.
    pub(super) fn bend(
        self,
        refresh: bool,
        outcome: &CallOutcome,
        answer: Response<Full<Bytes>>,
    ) -> Result<Response<Full<Bytes>>, Hangup> {
        match (self, outcome) {
            (Self::LosesRefreshed, CallOutcome::Issued(_)) if refresh => Err(Hangup),
            (Self::HtmlErrors, CallOutcome::Refused(..)) => {
                Ok(plain(500, "text/html", "<html><h1>Internal Server Error</h1></html>"))
            }
            _ => Ok(answer),
        }
    }
}
