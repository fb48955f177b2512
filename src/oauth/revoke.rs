//! Revocation requests (RFC 7009): a token is ended at the server when nobody needs it any more.

use std::time::SystemTime;

use bytes::Bytes;
use http::Request;

use super::client_auth::ClientAuth;
use super::dialect::{BodyEncoding, ClientCredentials, Dialect};
use super::endpoint::TokenEndpoint;
use super::request::{self, RequestError};
use crate::sensitive::Sensitive;

/// A token that is to be ended.
#[derive(Debug, Clone, Copy)]
pub enum RevokedToken<'a> {
    /// An access token.
    Access(&'a Sensitive),
    /// A refresh token, and the access tokens that came from it.
    Refresh(&'a Sensitive),
}

/// Builds one revocation request with an absolute URI. The client proves itself as for a token.
///
/// # Errors
/// Where the credentials do not fit the way the client is to prove itself.
pub fn build(
    endpoint: &TokenEndpoint,
    dialect: &Dialect,
    auth: ClientAuth,
    client: &ClientCredentials,
    token: RevokedToken<'_>,
    now: SystemTime,
) -> Result<Request<Bytes>, RequestError> {
    let (token, hint) = match token {
        RevokedToken::Access(token) => (token, "access_token"),
        RevokedToken::Refresh(token) => (token, "refresh_token"),
    };
    // RFC 7009 section 2.1 asks for a form, whatever the token endpoint takes.
    let dialect = Dialect {
        encoding: BodyEncoding::Form,
        extra_parameters: Vec::new(),
        resources: Vec::new(),
        ..dialect.clone()
    };
    let parameters = vec![("token", token.expose()), ("token_type_hint", hint)];
    request::with_proof(endpoint, &dialect, Some(auth), client, parameters, None, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::client_auth::BasicEncoding;

    #[test]
    fn a_form_with_the_clients_own_proof() {
        let endpoint = TokenEndpoint::parse("https://auth.example/revoke").unwrap();
        let client =
            ClientCredentials { id: Sensitive::new("me"), secret: Some(Sensitive::new("a+b")) };
        let dialect = Dialect {
            encoding: BodyEncoding::Json,
            resources: vec!["https://api.example".into()],
            ..Dialect::default()
        };
        let token = Sensitive::new("t/1");
        for (auth, revoked, expected) in [
            (
                ClientAuth::ClientSecretPost,
                RevokedToken::Access(&token),
                "token=t%2F1&token_type_hint=access_token&client_id=me&client_secret=a%2Bb",
            ),
            (
                ClientAuth::ClientSecretBasic(BasicEncoding::Rfc6749),
                RevokedToken::Refresh(&token),
                "token=t%2F1&token_type_hint=refresh_token",
            ),
        ] {
            let request =
                build(&endpoint, &dialect, auth, &client, revoked, SystemTime::UNIX_EPOCH).unwrap();
            assert_eq!(request.body(), expected.as_bytes());
            assert_eq!(request.uri(), "https://auth.example/revoke");
            assert_eq!(request.headers()["content-type"], "application/x-www-form-urlencoded");
        }
    }
}
