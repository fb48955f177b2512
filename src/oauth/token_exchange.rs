//! Token exchange (RFC 8693): a token of another issuer is traded for an access token.

use serde_json::Value;

use super::error::MalformedResponse;

/// The names of RFC 8693 section 3 begin so.
const URN: &str = "urn:ietf:params:oauth:token-type:";
/// Token types that have a name of RFC 8693 section 3.
pub const SHORT_NAMES: [&str; 6] =
    ["access_token", "refresh_token", "id_token", "saml1", "saml2", "jwt"];

/// The settings of a token exchange. The tokens themselves are secrets and not in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenExchange {
    /// The type of the subject token, as a URI.
    pub subject_token_type: String,
    /// The type of the actor token, as a URI, if there is such a token.
    pub actor_token_type: Option<String>,
    /// The type of the token that the request asks for, as a URI; `None`: the server chooses.
    pub requested_token_type: Option<String>,
}

impl TokenExchange {
    /// The parameters that are not secret.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        [
            ("subject_token_type", Some(&self.subject_token_type)),
            ("actor_token_type", self.actor_token_type.as_ref()),
            ("requested_token_type", self.requested_token_type.as_ref()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?.as_str())))
    }

    /// Checks the type of the token in an answer. RFC 8693 section 2.2.1 requires it, but an answer
    /// without it is accepted: its `token_type` tells that the token can be used.
    pub(super) fn check_issued(&self, issued: Option<&Value>) -> Result<(), MalformedResponse> {
        let usable = |kind: &str| {
            // A JWT is a format, which access tokens have too (RFC 8693 section 3).
            let access_token = ["access_token", "jwt"].map(|name| token_type(name).ok());
            access_token.iter().flatten().any(|known| known == kind)
                || self.requested_token_type.as_deref() == Some(kind)
        };
        match issued {
            None => Ok(()),
            Some(kind) if kind.as_str().is_some_and(usable) => Ok(()),
            Some(_) => Err(MalformedResponse::IssuedTokenType),
        }
    }
}

/// The URI of a token type: one of [`SHORT_NAMES`], or a URI as it is.
///
/// # Errors
/// The text is neither.
pub fn token_type(text: &str) -> Result<String, &'static str> {
    let uri = text.split_once(':').is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
    });
    match text {
        text if SHORT_NAMES.contains(&text) => Ok(format!("{URN}{text}")),
        text if uri => Ok(text.to_owned()),
        _ => {
            Err("expected access_token, refresh_token, id_token, saml1, saml2, jwt, or the URI of \
             another type (RFC 8693 section 3)")
        }
    }
}

/// The URI of a type that can be requested: a refresh token cannot be sent to an API.
///
/// # Errors
/// As [`token_type`].
pub fn requested_token_type(text: &str) -> Result<String, &'static str> {
    match token_type(text)? {
        uri if uri.ends_with(":refresh_token") => {
            Err("a refresh token is no access token and would not work at an API")
        }
        uri => Ok(uri),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_are_short_names_or_uris() {
        for (text, expected) in [
            ("jwt", Some("urn:ietf:params:oauth:token-type:jwt")),
            ("saml2", Some("urn:ietf:params:oauth:token-type:saml2")),
            ("urn:x-oath:token-type:device-secret", Some("urn:x-oath:token-type:device-secret")),
            ("JWT", None),
            ("", None),
            ("urn:", None),
            ("urn:a b", None),
        ] {
            assert_eq!(token_type(text).ok().as_deref(), expected, "{text}");
        }
        assert!(requested_token_type("refresh_token").is_err());
        assert!(requested_token_type("access_token").is_ok());
    }

    #[test]
    fn an_issued_token_must_be_of_use_as_access_token_or_as_requested() {
        let exchange = |requested: Option<&str>| TokenExchange {
            subject_token_type: token_type("jwt").unwrap(),
            actor_token_type: None,
            requested_token_type: requested.map(|name| token_type(name).unwrap()),
        };
        let issued = |name: &str| json!(token_type(name).unwrap());
        for (requested, value, good) in [
            (None, issued("access_token"), true),
            (None, issued("jwt"), true),
            (None, issued("id_token"), false),
            (Some("id_token"), issued("id_token"), true),
            (Some("access_token"), issued("refresh_token"), false),
            (None, json!("access_token"), false),
            (None, json!(7), false),
        ] {
            let found = exchange(requested).check_issued(Some(&value));
            assert_eq!(found.is_ok(), good, "{requested:?} {value}");
        }
        assert_eq!(exchange(None).check_issued(None), Ok(()));
    }
}
