//! Token servers known by name. Each is data: a [`Dialect`], a client authentication method, and the
//! contradictions of its vendor's document.

use super::client_auth::ClientAuth;
use super::dialect::{BodyEncoding, Dialect, RequestFields, ResponseFields};
use super::field_path::FieldPath;

/// A token server known by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preset {
    /// The value of `preset` in a configuration.
    pub name: &'static str,
    /// A description in one line.
    pub about: &'static str,
    /// The deviations from RFC 6749 in requests and answers.
    pub dialect: Dialect,
    /// The client authentication method unless the configuration names another.
    pub auth: ClientAuth,
    /// The token endpoint of a vendor with one address.
    pub token_url: Option<&'static str>,
    /// The path of the token endpoint below a `base_url`, for a product that each customer hosts.
    pub token_path: Option<&'static str>,
    /// The base URL of the API of a vendor with one address.
    pub api_url: Option<&'static str>,
    /// Values that `client_id_field` may take, the default first; empty where it is settled.
    pub client_id_fields: &'static [&'static str],
    /// Contradictions and gaps of the vendor's document, and what was chosen.
    pub notes: &'static [&'static str],
}

/// The names, in the order in which they are shown.
pub const NAMES: [&str; 6] = ["rfc6749", "json", "qbank", "sqr", "core-banking", "datacrunch"];

/// All presets, in the order of [`NAMES`].
pub fn all() -> [Preset; 6] {
    [Preset::default(), json(), qbank(), sqr(), core_banking(), datacrunch()]
}

/// The preset of a name.
pub fn preset(name: &str) -> Option<Preset> {
    all().into_iter().find(|preset| preset.name == name)
}

/// RFC 6749 as written.
impl Default for Preset {
    fn default() -> Self {
        Self {
            name: "rfc6749",
            about: "RFC 6749 as written: form body, id and secret as parameters, scope sent",
            dialect: Dialect::default(),
            auth: ClientAuth::ClientSecretPost,
            token_url: None,
            token_path: None,
            api_url: None,
            client_id_fields: &[],
            notes: &[],
        }
    }
}

fn json() -> Preset {
    Preset {
        name: "json",
        about: "The parameters of RFC 6749 in a JSON body",
        dialect: Dialect { encoding: BodyEncoding::Json, ..Dialect::default() },
        ..Preset::default()
    }
}

fn qbank() -> Preset {
    Preset {
        name: "qbank",
        about: "QBank Connect: form body, one scope per permission, tokens of one hour",
        token_url: Some("https://auth.qbankconnect.com/token"),
        api_url: Some("https://api.qbankconnect.com"),
        notes: &[
            "Two versions of the document disagree on GET /v1/balances/{accountId}: one calls it \
             real-time, the other current as of the previous business day. Answers are therefore \
             never cached.",
            "The sample URL of both versions is a Markdown link inside the curl command, and its \
             account id is one digit short of a UUID; do not copy it.",
        ],
        ..Preset::default()
    }
}

fn sqr() -> Preset {
    Preset {
        name: "sqr",
        about: "SQR B2B API: JSON body without scope; the answer lists what was granted",
        dialect: Dialect { send_scope: false, ..json().dialect },
        token_url: Some("https://api.sqr-group.com/v1/oauth/token"),
        api_url: Some("https://api.sqr-group.com"),
        notes: &[
            "The document names no scope parameter although the answer has scopes: none is sent, \
             and the scopes of routes are compared with those granted.",
            "The document shows RS256 in one sample token and HS256 in another; tokens are not \
             looked into.",
            "The document gives the path of the token endpoint only; its host is that of the sample \
             API call.",
        ],
        ..Preset::default()
    }
}

fn core_banking() -> Preset {
    Preset {
        name: "core-banking",
        about: "Core banking application: JSON clientId and clientSecret, answer in camel case",
        dialect: Dialect {
            encoding: BodyEncoding::Json,
            request: RequestFields {
                client_id: "clientId".into(),
                client_secret: "clientSecret".into(),
                ..RequestFields::default()
            },
            response: ResponseFields {
                access_token: FieldPath::name("accessToken"),
                token_type: FieldPath::name("tokenType"),
                expires_in: FieldPath::name("tokenValiditySec"),
                expires_at: Some(FieldPath::name("expirationTime")),
                ..ResponseFields::default()
            },
            send_grant_type: false,
            send_scope: false,
            ..Dialect::default()
        },
        token_path: Some("/api/auth/v1/authenticate"),
        client_id_fields: &["clientId", "clientID"],
        notes: &[
            "The table of the document names the field clientID, its sample clientId; clientId is \
             sent. Set client_id_field = \"clientID\" if the server refuses it.",
            "The text of the document names the endpoint /auth, its sample \
             /api/auth/v1/authenticate; the sample is used. Set token_path for the other.",
            "expirationTime is called EPOCH time without a unit: above 10^11 it is read as \
             milliseconds, else as seconds.",
            "The document gives types instead of values (\"long\", \"string\"): numbers are read \
             from numbers and from strings, and a token type beside Bearer goes into \
             accept_token_types.",
        ],
        ..Preset::default()
    }
}

fn datacrunch() -> Preset {
    Preset {
        name: "datacrunch",
        about: "DataCrunch: JSON body without scope; refresh tokens without client credentials",
        dialect: Dialect {
            send_scope: false,
            use_refresh_token: true,
            authenticate_refresh: false,
            ..json().dialect
        },
        token_url: Some("https://api.datacrunch.io/v1/oauth2/token"),
        api_url: Some("https://api.datacrunch.io"),
        notes: &[
            "A refresh token comes with client credentials, which RFC 6749 section 4.4.3 advises \
             against; it is used without id and secret, as documented, and a refused one falls back \
             to client credentials.",
            "The document does not say whether a refresh answers with a new refresh token; the old \
             one stays when it does not.",
        ],
        ..Preset::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::TokenEndpoint;

    #[test]
    fn every_name_has_its_preset() {
        assert_eq!(all().iter().map(|preset| preset.name).collect::<Vec<_>>(), NAMES);
        assert_eq!(preset("nobody"), None);
        for preset in all() {
            if let Some(url) = preset.token_url {
                TokenEndpoint::parse(url).unwrap();
            }
            assert!(preset.token_path.is_none_or(|path| path.starts_with('/')));
            assert!(!preset.about.ends_with('.') && preset.about.len() < 100);
            let field = preset.client_id_fields.first();
            assert!(field.is_none_or(|field| *field == preset.dialect.request.client_id));
        }
    }
}
