//! Pure classification of a 401 or 403 by what it says about the token (RFC 6750 section 3.1), or about
//! the proof beside it (RFC 9449 section 7.1).
//!
//! After `invalid_token` a newer token may help, after `insufficient_scope` none will. A 401 without
//! a Bearer challenge is ambiguous and counts as `invalid_token`, and so does one with challenges of
//! other schemes only. A challenge of DPoP has the same parameters, and counts where the request
//! carried a proof.

mod auth_params;

use http::header::WWW_AUTHENTICATE;
use http::{Response, StatusCode};

use auth_params::AuthParams;

/// The meaning of a response for the token that its request carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// The response is not about the token.
    None,
    /// The token is not, or no longer, accepted.
    InvalidToken,
    /// The token lacks a scope.
    InsufficientScope,
    /// The proof of DPoP is not accepted, or must have a nonce of the server.
    Proof,
    /// The request is refused for another reason than its token.
    Other,
}

/// The statuses after which a newer token is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewOn {
    /// 401, as RFC 6750 section 3.1 has it.
    pub unauthorized: bool,
    /// 403, for servers that answer an expired token so.
    pub forbidden: bool,
}

impl Default for RenewOn {
    fn default() -> Self {
        Self { unauthorized: true, forbidden: false }
    }
}

impl RenewOn {
    fn includes(self, status: StatusCode) -> bool {
        match status {
            StatusCode::UNAUTHORIZED => self.unauthorized,
            StatusCode::FORBIDDEN => self.forbidden,
            _ => false,
        }
    }
}

/// Classifies a response by its status and its challenges: those of Bearer, and with `proven` also those
/// of DPoP.
pub fn classify_challenge<B>(response: &Response<B>, renew_on: RenewOn, proven: bool) -> Challenge {
    let has_error_code = |code| has_error_code(response, code, proven);
    match response.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
            if has_error_code("insufficient_scope") =>
        {
            Challenge::InsufficientScope
        }
        StatusCode::UNAUTHORIZED
            if proven && (wants_nonce(response) || has_error_code("invalid_dpop_proof")) =>
        {
            Challenge::Proof
        }
        StatusCode::UNAUTHORIZED if has_error_code("invalid_request") => Challenge::Other,
        status if renew_on.includes(status) => Challenge::InvalidToken,
        StatusCode::UNAUTHORIZED => Challenge::Other,
        _ => Challenge::None,
    }
}

/// The `scope` of a Bearer challenge: the scopes that the resource asks for; empty where it names none.
pub fn challenged_scope<B>(response: &Response<B>) -> Vec<u8> {
    let lines = response.headers().get_all(WWW_AUTHENTICATE).iter();
    let mut params = lines.flat_map(|line| AuthParams::new(line.as_bytes()));
    let scope = params.find(|param| {
        param.scheme.eq_ignore_ascii_case(b"bearer") && param.name.eq_ignore_ascii_case(b"scope")
    });
    scope.map(|param| param.value.into_owned()).unwrap_or_default()
}

/// True if a response asks for a proof with a nonce (RFC 9449 section 9).
pub fn wants_nonce<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::UNAUTHORIZED
        && has_error_code(response, "use_dpop_nonce", true)
}

/// True if a challenge of Bearer, or with `proven` of DPoP, has this `error` code. Codes are compared without
/// case, since servers write them in any, although RFC 6750 section 3 defines them in lower case.
fn has_error_code<B>(response: &Response<B>, code: &str, proven: bool) -> bool {
    let lines = response.headers().get_all(WWW_AUTHENTICATE).iter();
    lines.flat_map(|line| AuthParams::new(line.as_bytes())).any(|param| {
        (param.scheme.eq_ignore_ascii_case(b"bearer")
            || proven && param.scheme.eq_ignore_ascii_case(b"dpop"))
            && param.name.eq_ignore_ascii_case(b"error")
            && param.value.eq_ignore_ascii_case(code.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, challenges: &[&str]) -> Response<()> {
        let mut response = Response::builder().status(status);
        for challenge in challenges {
            response = response.header(WWW_AUTHENTICATE, *challenge);
        }
        response.body(()).unwrap()
    }

    #[test]
    fn the_scope_of_a_challenge_is_found() {
        let check = |challenges: &[&str], expected: &[u8]| {
            assert_eq!(challenged_scope(&answer(403, challenges)), expected, "{challenges:?}");
        };
        check(&["Bearer error=\"insufficient_scope\", scope=\"a b\""], b"a b");
        check(&["Basic realm=\"x\"", "bearer SCOPE=a"], b"a");
        check(&["DPoP scope=\"a\"", "Bearer realm=\"scope=b\""], b"");
    }

    #[test]
    fn the_statuses_after_which_a_token_is_renewed_are_chosen() {
        let check = |unauthorized, forbidden, status, challenges: &[&str], expected| {
            let renew_on = RenewOn { unauthorized, forbidden };
            let found = classify_challenge(&answer(status, challenges), renew_on, false);
            assert_eq!(found, expected, "{renew_on:?} {status} {challenges:?}");
        };
        let lacking = "Bearer error=\"insufficient_scope\"";
        check(true, true, 403, &[], Challenge::InvalidToken);
        check(true, true, 403, &["Bearer error=\"invalid_token\""], Challenge::InvalidToken);
        check(true, true, 403, &[lacking], Challenge::InsufficientScope);
        check(true, true, 401, &[], Challenge::InvalidToken);
        check(true, true, 404, &[], Challenge::None);
        check(false, true, 401, &[], Challenge::Other);
        check(false, true, 403, &[], Challenge::InvalidToken);
        check(false, false, 403, &[], Challenge::None);
    }

    #[test]
    fn challenges_of_dpop_count_where_a_proof_was_sent() {
        for (status, challenge, proven, plain) in [
            (401, "DPoP error=\"use_dpop_nonce\"", Challenge::Proof, Challenge::InvalidToken),
            (
                401,
                "dpop algs=\"ES256\", ERROR=\"invalid_dpop_proof\"",
                Challenge::Proof,
                Challenge::InvalidToken,
            ),
            (401, "DPoP error=\"invalid_token\"", Challenge::InvalidToken, Challenge::InvalidToken),
            (401, "DPoP error=\"invalid_request\"", Challenge::Other, Challenge::InvalidToken),
            (
                403,
                "DPoP error=\"insufficient_scope\"",
                Challenge::InsufficientScope,
                Challenge::None,
            ),
            (403, "DPoP error=\"use_dpop_nonce\"", Challenge::None, Challenge::None),
            (
                401,
                "Bearer, DPoP error=\"use_dpop_nonce\"",
                Challenge::Proof,
                Challenge::InvalidToken,
            ),
        ] {
            let answer = answer(status, &[challenge]);
            let classify = |proof| classify_challenge(&answer, RenewOn::default(), proof);
            assert_eq!((classify(true), classify(false)), (proven, plain), "{status} {challenge}");
        }
        assert!(wants_nonce(&answer(401, &["DPoP error=\"use_dpop_nonce\""])));
        assert!(!wants_nonce(&answer(401, &["DPoP error=\"invalid_dpop_proof\""])));
    }

    #[test]
    fn challenges_are_told_apart() {
        let check = |status: u16, challenges: &[&str], expected: Challenge| {
            assert_eq!(
                classify_challenge(&answer(status, challenges), RenewOn::default(), false),
                expected,
                "{status} {challenges:?}"
            );
        };
        check(200, &[], Challenge::None);
        check(200, &["Bearer error=\"insufficient_scope\""], Challenge::None);
        check(401, &[], Challenge::InvalidToken);
        check(401, &["Bearer"], Challenge::InvalidToken);
        check(401, &["Bearer error=\"invalid_token\""], Challenge::InvalidToken);
        check(401, &["bearer error=\"invalid_request\""], Challenge::Other);
        check(
            403,
            &["Bearer error=\"insufficient_scope\", scope=\"a\""],
            Challenge::InsufficientScope,
        );
        check(403, &["Bearer error=\"invalid_token\""], Challenge::None);
        check(403, &[], Challenge::None);
        for lacking in [
            &["Bearer realm=\"x\", error = \"insufficient_scope\""][..],
            &["BEARER ERROR=Insufficient_Scope"],
            &["Basic realm=\"x\", Bearer error=insufficient_scope"],
            &["Negotiate, Bearer realm=\"a, \\\"b\", error=\"insufficient_scope\""],
            &["Basic realm=\"x\"", "Bearer error=\"insufficient_scope\""],
            &["Bearer error=\"insufficient\\_scope\", Basic realm=\"x\""],
        ] {
            check(401, lacking, Challenge::InsufficientScope);
            check(403, lacking, Challenge::InsufficientScope);
        }
        for other in [
            "Basic realm=\"bearer error=insufficient_scope\"",
            "Basic realm=\"bearer\", error=\"insufficient_scope\"",
            "DPoP error=\"insufficient_scope\"",
            "Bearer realm=\"x\", DPoP algs=\"ES256\", error=\"insufficient_scope\"",
            "Bearer realm=\"error=insufficient_scope\"",
            "Bearer error_description=\"insufficient_scope\"",
            "Bearer error=\"insufficient_scope_of_mind\"",
            "Bearers error=\"insufficient_scope\"",
            "error=\"insufficient_scope\"",
        ] {
            check(401, &[other], Challenge::InvalidToken);
            check(403, &[other], Challenge::None);
        }
    }
}
