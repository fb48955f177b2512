//! The confirmation claim of a JWT access token (RFC 7800, RFC 8705 section 3.1). It is read, and not
//! verified: the upstream verifies the token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

#[derive(Deserialize)]
struct Claims {
    cnf: Option<Confirmation>,
}

#[derive(Deserialize)]
struct Confirmation {
    #[serde(rename = "x5t#S256")]
    certificate: Option<String>,
}

/// Tells whether a token says that it is bound to another client certificate than the one with this
/// `x5t#S256`. A token that is no JWT, or has no such claim, says nothing.
pub fn names_other_certificate(token: &str, thumbprint: &str) -> bool {
    let named = token.split('.').nth(1).and_then(|claims| {
        let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
        serde_json::from_slice::<Claims>(&claims).ok()?.cnf?.certificate
    });
    named.is_some_and(|named| named != thumbprint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_claim_about_another_certificate_counts() {
        let check = |claims: &str, expected: bool| {
            let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
            assert_eq!(names_other_certificate(&token, "mine"), expected, "{claims}");
        };
        check(r#"{"cnf":{"x5t#S256":"mine"}}"#, false);
        check(r#"{"sub":"erp","cnf":{"x5t#S256":"other"}}"#, true);
        check(r#"{"cnf":{"x5t#S256":""}}"#, true);
        check(r#"{"cnf":{"jkt":"other"}}"#, false);
        check(r#"{"sub":"erp"}"#, false);
        check("[]", false);
        assert!(!names_other_certificate("opaque", "mine"));
        assert!(!names_other_certificate("a.!.c", "mine"));
    }
}
