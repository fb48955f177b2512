//! A 401 or 403 about our token: what does it say, and is one second try honest?
//!
//! RFC 6750 section 3.1: `invalid_token` means that a newer one may help, `insufficient_scope`
//! that none will. A 401 without a Bearer challenge is ambiguous and treated as the first.

use crate::message::{Response, text};
use http::StatusCode;
use http::header::WWW_AUTHENTICATE;

/// What an answer says of the token that its request carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// The token is not, or no longer, accepted.
    InvalidToken,
    /// The token lacks a scope that the upstream wants.
    InsufficientScope,
    /// The upstream refuses the request, and not for its token.
    Refused,
}

/// Reads the verdict of an answer's head.
pub fn verdict(response: &Response) -> Verdict {
    match response.status {
        StatusCode::UNAUTHORIZED if says(response, "insufficient_scope") => {
            Verdict::InsufficientScope
        }
        StatusCode::UNAUTHORIZED if says(response, "invalid_request") => Verdict::Refused,
        StatusCode::UNAUTHORIZED => Verdict::InvalidToken,
        StatusCode::FORBIDDEN if says(response, "insufficient_scope") => Verdict::InsufficientScope,
        _ => Verdict::Fine,
    }
}

/// Whether a Bearer challenge carries `error="…"` with this code.
fn says(response: &Response, code: &str) -> bool {
    response.fields.get_all(&WWW_AUTHENTICATE).any(|challenge| {
        text(challenge).is_some_and(|text| {
            let text = text.to_ascii_lowercase();
            text.contains("bearer")
                && text
                    .replace("error =", "error=")
                    .split("error=")
                    .skip(1)
                    .any(|rest| rest.trim_start_matches([' ', '"']).starts_with(code))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;

    #[test]
    fn challenges_are_told_apart() {
        let check = |status: u16, challenge: Option<&str>, expected: Verdict| {
            let mut response = http::Response::builder().status(status);
            if let Some(challenge) = challenge {
                response = response.header(WWW_AUTHENTICATE, challenge);
            }
            assert_eq!(
                verdict(&response.body(Body::empty()).unwrap().into()),
                expected,
                "{status} {challenge:?}"
            );
        };
        check(200, None, Verdict::Fine);
        check(401, None, Verdict::InvalidToken);
        check(401, Some("Bearer error=\"invalid_token\""), Verdict::InvalidToken);
        check(
            401,
            Some("Bearer realm=\"x\", error = \"insufficient_scope\""),
            Verdict::InsufficientScope,
        );
        check(401, Some("bearer error=\"invalid_request\""), Verdict::Refused);
        check(
            403,
            Some("Bearer error=\"insufficient_scope\", scope=\"a\""),
            Verdict::InsufficientScope,
        );
        check(403, Some("Bearer error=\"invalid_token\""), Verdict::Fine);
        check(403, None, Verdict::Fine);
    }
}
