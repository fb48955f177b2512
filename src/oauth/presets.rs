//! Token servers known by name. Each is data: a [`Dialect`], a client authentication method, and the
//! contradictions of its vendor's document.

use std::time::Duration;

use super::client_auth::ClientAuth;
use super::dialect::{
    BodyEncoding, Dialect, Grant, GrantAssertion, KeyFormat, RequestFields, ResponseFields,
};
use super::field_path::FieldPath;
use super::vendors::{VENDORS, Vendor};

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
    /// The row of the table of vendors that it is made of, if it is one of those.
    pub vendor: Option<&'static Vendor>,
}

/// All presets, in the order in which they are shown.
pub fn all() -> Vec<Preset> {
    let first = [Preset::default(), json(), qbank(), sqr(), core_banking(), datacrunch()];
    let grants = [
        google_service_account(),
        docusign(),
        box_platform(),
        salesforce_jwt(),
        salesforce_password(),
        sap_destination(),
    ];
    first.into_iter().chain(VENDORS.iter().map(of_vendor)).chain(grants).collect()
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
            vendor: None,
        }
    }
}

fn of_vendor(vendor: &'static Vendor) -> Preset {
    let mut dialect = Dialect {
        encoding: if vendor.json { BodyEncoding::Json } else { BodyEncoding::Form },
        send_grant_type: vendor.grant_type == Some("client_credentials"),
        send_client_id: vendor.id_and_secret.is_some(),
        send_scope: vendor.send_scope,
        accept_token_types: vendor.token_types.iter().map(|name| (*name).to_owned()).collect(),
        default_lifetime: Duration::from_secs(vendor.default_lifetime),
        ..Dialect::default()
    };
    if let Some(grant_type) = vendor.grant_type.filter(|_| !dialect.send_grant_type) {
        dialect.extra_parameters.push(("grant_type".into(), grant_type.into()));
    }
    if let Some((id, secret)) = vendor.id_and_secret {
        dialect.request.client_id = id.into();
        dialect.request.client_secret = secret.into();
    }
    let (token, life) = vendor.token_and_life;
    dialect.response.access_token = FieldPath::name(token);
    dialect.response.expires_in = FieldPath::name(life);
    dialect.response.expires_at = vendor.expires_at.map(FieldPath::name);
    Preset {
        name: vendor.name,
        about: vendor.about,
        dialect,
        auth: vendor.auth,
        token_url: Some(vendor.token_url).filter(|url| is_fixed(url)),
        api_url: Some(vendor.api.0).filter(|url| is_fixed(url)),
        notes: vendor.notes,
        vendor: Some(vendor),
        ..Preset::default()
    }
}

/// True if a URL holds no word in capitals, which a customer would have to fill in.
fn is_fixed(url: &str) -> bool {
    !url.bytes().any(|byte| byte.is_ascii_uppercase())
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

/// A vendor whose grant is a signed assertion, without further proof of the client.
fn jwt_bearer(assertion: GrantAssertion) -> Preset {
    Preset {
        dialect: Dialect {
            grant: Grant::JwtBearer(Box::new(assertion)),
            send_client_id: false,
            ..Dialect::default()
        },
        auth: ClientAuth::None,
        ..Preset::default()
    }
}

fn google_service_account() -> Preset {
    let assertion = GrantAssertion {
        key_format: KeyFormat::GoogleServiceAccount,
        lifetime: Duration::from_secs(3600),
        scope_claim: true,
        ..GrantAssertion::default()
    };
    Preset {
        name: "google-service-account",
        about: "Google service account: JWT bearer grant with its JSON key file, scope as a claim",
        token_url: Some("https://oauth2.googleapis.com/token"),
        notes: &[
            "The key file is used as it is downloaded: client_email is the issuer, private_key_id the \
             kid, and token_uri must be the token endpoint.",
            "grant_assertion.subject names the user for domain-wide delegation; without it the token \
             is that of the service account.",
        ],
        ..jwt_bearer(assertion)
    }
}

fn docusign() -> Preset {
    let assertion = GrantAssertion {
        audience: Some("account.docusign.com".into()),
        lifetime: Duration::from_secs(3600),
        scope_claim: true,
        ..GrantAssertion::default()
    };
    Preset {
        name: "docusign",
        about: "DocuSign: JWT bearer grant for one user, scope as a claim",
        token_url: Some("https://account.docusign.com/oauth/token"),
        notes: &[
            "client_id is the integration key, and grant_assertion.subject the GUID of the user; the \
             scopes are signature and impersonation.",
            "The developer environment has token_url = \"https://account-d.docusign.com/oauth/token\" \
             and audience = \"account-d.docusign.com\", a host without https://.",
            "The downloaded key begins with BEGIN RSA PRIVATE KEY and is used as it is.",
            "consent_required means that the user has not yet allowed the app to act for them.",
        ],
        ..jwt_bearer(assertion)
    }
}

fn box_platform() -> Preset {
    let assertion =
        GrantAssertion { lifetime: Duration::from_secs(45), ..GrantAssertion::default() };
    let preset = jwt_bearer(assertion);
    Preset {
        name: "box",
        about: "Box: JWT bearer grant for an enterprise or a user, beside id and secret",
        dialect: Dialect { send_client_id: true, send_scope: false, ..preset.dialect },
        auth: ClientAuth::ClientSecretPost,
        token_url: Some("https://api.box.com/oauth2/token"),
        api_url: Some("https://api.box.com"),
        notes: &[
            "grant_assertion.subject is the id of the enterprise or the user, and the claim \
             box_sub_type is enterprise or user.",
            "grant_assertion.key_id is the publicKeyID of the app's settings. Their private key has a \
             passphrase; convert it with openssl pkcs8 -in old.pem -out key.pem.",
            "An assertion may live for 60 s; 45 s leave room for clocks that differ.",
        ],
        ..preset
    }
}

fn salesforce_jwt() -> Preset {
    let assertion = GrantAssertion {
        audience: Some("https://login.salesforce.com".into()),
        lifetime: Duration::from_secs(180),
        ..GrantAssertion::default()
    };
    let preset = jwt_bearer(assertion);
    Preset {
        name: "salesforce-jwt",
        about: "Salesforce JWT bearer flow: no scope, no lifetime in the answer",
        dialect: Dialect { send_scope: false, ..preset.dialect },
        notes: &[
            "client_id is the consumer key, and grant_assertion.subject the user name.",
            "A sandbox has audience = \"https://test.salesforce.com\"; an Experience Cloud site its \
             own URL.",
            "The answer states no lifetime; default_lifetime counts, and a 401 renews the token.",
        ],
        ..preset
    }
}

fn salesforce_password() -> Preset {
    Preset {
        name: "salesforce-password",
        about: "Salesforce username-password flow: no scope, no lifetime in the answer",
        dialect: Dialect { grant: Grant::Password, send_scope: false, ..Dialect::default() },
        notes: &[
            "RFC 9700 forbids this grant, and Salesforce blocks it in new orgs: the presets salesforce \
             and salesforce-jwt are the way to go where the org allows them.",
            "password is the password of the user with the security token of the user after it, unless \
             the network address is trusted.",
            "The answer states no lifetime; default_lifetime counts, and a 401 renews the token.",
        ],
        ..Preset::default()
    }
}

fn sap_destination() -> Preset {
    let pointer = |text: &str| FieldPath::parse(text).unwrap_or(FieldPath::name(""));
    Preset {
        name: "sap-destination",
        about: "SAP BTP destination service: GET with another token, answer with authTokens",
        dialect: Dialect {
            get: true,
            send_grant_type: false,
            send_client_id: false,
            send_scope: false,
            response: ResponseFields {
                access_token: pointer("/authTokens/0/value"),
                token_type: pointer("/authTokens/0/type"),
                expires_in: pointer("/authTokens/0/expires_in"),
                error: pointer("/authTokens/0/error"),
                error_description: pointer("/authTokens/0/error"),
                ..ResponseFields::default()
            },
            ..Dialect::default()
        },
        auth: ClientAuth::None,
        notes: &[
            "token_via names a credential with the preset sap-xsuaa, made of the service key of the \
             destination service: its url with /oauth/token, clientid and clientsecret.",
            "token_url is the uri of that key with /destination-configuration/v1/destinations/ and the \
             name of the destination after it.",
            "The first of authTokens counts. A destination that cannot be called has an error in it, \
             which `check --live` shows.",
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
        let names: std::collections::HashSet<_> = all().iter().map(|preset| preset.name).collect();
        assert_eq!(names.len(), 12 + VENDORS.len());
        assert_eq!(preset("nobody"), None);
        for preset in all() {
            if let Some(url) = preset.token_url {
                TokenEndpoint::parse(url).unwrap();
            }
            assert!(preset.token_path.is_none_or(|path| path.starts_with('/')));
            assert!(!preset.about.ends_with('.') && preset.about.len() < 100);
            assert!(preset.vendor.is_none_or(|vendor| vendor.document.starts_with("https://")));
            let field = preset.client_id_fields.first();
            assert!(field.is_none_or(|field| *field == preset.dialect.request.client_id));
        }
    }
}
