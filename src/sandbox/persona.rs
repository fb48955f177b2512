//! Which server a fake imitates. Each persona is as strict as the vendor's document and no
//! stricter: what the document does not mention is refused, so that we never come to rely on it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method, Uri, header};
use serde_json::{Value, json};

use super::wire::{self, Fields};

/// The four servers whose documents we have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Persona {
    /// RFC 6749 to the letter: a form with `scope`.
    QBank,
    /// The same fields as JSON; scopes are those that were registered.
    Sqr,
    /// Field names of its own, no grant type, an absolute expiry beside the relative one.
    CoreBanking,
    /// JSON, and a refresh token that is replaced with each use.
    DataCrunch,
}

/// A token request, as read from a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenRequest {
    /// The client-credentials grant.
    Client { id: String, secret: String, scopes: Vec<String> },
    /// The refresh-token grant.
    Refresh { token: String },
}

/// Why a token call is refused, in the terms of RFC 6749 section 5.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ErrorResponse {
    pub status: u16,
    pub error: &'static str,
    pub description: String,
}

impl ErrorResponse {
    pub(super) fn new(status: u16, error: &'static str, description: impl Into<String>) -> Self {
        Self { status, error, description: description.into() }
    }

    fn request(description: impl Into<String>) -> Self {
        Self::new(400, "invalid_request", description)
    }
}

/// The facts that a token response states.
#[derive(Debug, Clone)]
pub(super) struct TokenResponse<'a> {
    pub access_token: &'a str,
    pub refresh_token: Option<&'a str>,
    pub scopes: &'a [String],
    pub life: Duration,
    pub expires: SystemTime,
    /// True if the response states the lifetime.
    pub tell_expiry: bool,
}

impl Persona {
    /// All of them, in the order of the documents.
    pub const ALL: [Self; 4] = [Self::QBank, Self::Sqr, Self::CoreBanking, Self::DataCrunch];

    /// The preset of the program's configuration, and the name in client ids and tokens.
    pub fn name(self) -> &'static str {
        match self {
            Self::QBank => "qbank",
            Self::Sqr => "sqr",
            Self::CoreBanking => "core-banking",
            Self::DataCrunch => "datacrunch",
        }
    }

    /// Its credential, upstream and mount in the configuration of the sandbox, without a slash.
    pub fn mount(self) -> &'static str {
        match self {
            Self::CoreBanking => "corebank",
            other => other.name(),
        }
    }

    /// The path of the token endpoint.
    pub fn token_path(self) -> &'static str {
        match self {
            Self::QBank => "/token",
            Self::Sqr => "/v1/oauth/token",
            Self::CoreBanking => "/api/auth/v1/authenticate",
            Self::DataCrunch => "/v1/oauth2/token",
        }
    }

    /// The scopes that this server knows. Only QBank lets the client choose among them.
    pub fn scopes(self) -> &'static [&'static str] {
        match self {
            Self::QBank => {
                &["accounts.read", "balances.read", "transactions.read", "payments.ach.write"]
            }
            Self::Sqr => &["read:users", "write:logs"],
            Self::CoreBanking => &[],
            Self::DataCrunch => &["fullAccess"],
        }
    }

    /// The scopes that a call of the API at `path` needs; unknown paths need a valid token only.
    pub fn scopes_needed(self, path: &str) -> &'static [&'static str] {
        const NEEDED: [(Persona, &str, &[&str]); 5] = [
            (Persona::QBank, "/v1/balances", &["balances.read"]),
            (Persona::QBank, "/v1/transactions", &["transactions.read"]),
            (Persona::QBank, "/v1/payments/ach", &["payments.ach.write"]),
            (Persona::Sqr, "/v1/user-status", &["read:users"]),
            (Persona::DataCrunch, "/v1/balance", &["fullAccess"]),
        ];
        let below = |prefix: &str| match path.strip_prefix(prefix) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        };
        let found = NEEDED.iter().find(|(persona, at, _)| *persona == self && below(at));
        found.map_or(&[], |(_, _, scopes)| scopes)
    }

    /// Reads a token call as the document describes it.
    pub(super) fn read(
        self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<TokenRequest, ErrorResponse> {
        self.check_head(method, uri, headers)?;
        let fields = match self {
            Self::QBank => wire::form(body),
            _ => wire::json(body),
        };
        let fields = fields.map_err(|reason| ErrorResponse::request(format!("body: {reason}")))?;
        match self {
            Self::CoreBanking => core_banking(fields),
            Self::DataCrunch if value(&fields, "grant_type") == Some("refresh_token") => {
                refresh(fields)
            }
            _ => self.client_credentials(fields),
        }
    }

    fn check_head(
        self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), ErrorResponse> {
        if uri.path() != self.token_path() {
            let what = format!("the token endpoint is at {}", self.token_path());
            return Err(ErrorResponse::new(404, "invalid_request", what));
        }
        if method != Method::POST {
            return Err(ErrorResponse::new(
                405,
                "invalid_request",
                "the token endpoint takes POST only",
            ));
        }
        // RFC 6749 section 2.3.1: the parameters "MUST NOT be included in the request URI".
        if uri.query().is_some() {
            return Err(ErrorResponse::request("the token endpoint takes no query"));
        }
        if uri.authority().is_some() || headers.get_all(header::HOST).iter().count() != 1 {
            return Err(ErrorResponse::request("expected an origin-form target and one Host"));
        }
        // RFC 6749 section 2.3: "The client MUST NOT use more than one authentication method in
        // each request." All four documents put the credentials into the body.
        if headers.contains_key(header::AUTHORIZATION) {
            return Err(ErrorResponse::request("expected no Authorization header"));
        }
        let expected = self.media_type();
        if media_type(headers).as_deref() == Some(expected) {
            Ok(())
        } else {
            Err(ErrorResponse::new(
                415,
                "invalid_request",
                format!("expected Content-Type {expected}"),
            ))
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::QBank => "application/x-www-form-urlencoded",
            _ => "application/json",
        }
    }

    fn client_credentials(self, fields: Fields) -> Result<TokenRequest, ErrorResponse> {
        if value(&fields, "grant_type").is_some_and(|grant| grant != "client_credentials") {
            let what = "expected grant_type client_credentials";
            return Err(ErrorResponse::new(400, "unsupported_grant_type", what));
        }
        if self == Self::QBank {
            let names = ["grant_type", "client_id", "client_secret", "scope"];
            let [_, id, secret, scope] = exactly(fields, names)?;
            Ok(TokenRequest::Client { id, secret, scopes: self.choose(&scope)? })
        } else {
            let [_, id, secret] = exactly(fields, ["grant_type", "client_id", "client_secret"])?;
            let scopes = self.scopes().iter().map(|&scope| scope.to_owned()).collect();
            Ok(TokenRequest::Client { id, secret, scopes })
        }
    }

    fn choose(self, scope: &str) -> Result<Vec<String>, ErrorResponse> {
        let choose = |scope: &str| {
            if self.scopes().contains(&scope) {
                Ok(scope.to_owned())
            } else {
                Err(ErrorResponse::new(400, "invalid_scope", format!("unknown scope `{scope}`")))
            }
        };
        scope.split(' ').map(choose).collect()
    }

    /// The body of a right answer, as the document shows it.
    pub(super) fn answer(self, grant: &TokenResponse<'_>) -> Value {
        let seconds = grant.life.as_secs();
        let mut answer = match self {
            Self::CoreBanking => {
                let since = grant.expires.duration_since(UNIX_EPOCH).unwrap_or_default();
                let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
                json!({"accessToken": grant.access_token, "tokenType": "Bearer",
                    "expirationTime": millis, "tokenValiditySec": seconds})
            }
            _ => json!({"access_token": grant.access_token, "token_type": "Bearer",
                "expires_in": seconds, "scope": grant.scopes.join(" ")}),
        };
        if let Value::Object(fields) = &mut answer {
            if let Some(token) = grant.refresh_token {
                fields.insert("refresh_token".to_owned(), token.into());
            }
            if !grant.tell_expiry {
                fields.retain(|name, _| {
                    !matches!(name.as_str(), "expires_in" | "expirationTime" | "tokenValiditySec")
                });
            }
        }
        answer
    }

    /// The body of a refusal. The document of the core bank names none: it speaks its own way.
    pub(super) fn refuse(self, refusal: &ErrorResponse) -> Value {
        match self {
            Self::CoreBanking => json!({"status": refusal.status, "message": refusal.description}),
            _ => json!({"error": refusal.error, "error_description": refusal.description}),
        }
    }

    /// True if responses carry a refresh token.
    pub(super) fn gives_refresh_tokens(self) -> bool {
        self == Self::DataCrunch
    }
}

/// The sample says `clientId`, the table says `clientID`; the sample is what can be pasted.
fn core_banking(fields: Fields) -> Result<TokenRequest, ErrorResponse> {
    let [id, secret] = exactly(fields, ["clientId", "clientSecret"])?;
    if id.chars().count() > 100 || secret.chars().count() > 100 {
        return Err(ErrorResponse::request(
            "clientId and clientSecret have at most 100 characters",
        ));
    }
    Ok(TokenRequest::Client { id, secret, scopes: Vec::new() })
}

fn refresh(fields: Fields) -> Result<TokenRequest, ErrorResponse> {
    let [_, token] = exactly(fields, ["grant_type", "refresh_token"])?;
    Ok(TokenRequest::Refresh { token })
}

fn value<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Exactly these fields, none missing, none empty, none beside them.
fn exactly<const N: usize>(fields: Fields, names: [&str; N]) -> Result<[String; N], ErrorResponse> {
    if let Some((name, _)) = fields.iter().find(|(name, _)| !names.contains(&name.as_str())) {
        return Err(ErrorResponse::request(format!("unexpected field `{name}`")));
    }
    if let Some(name) = names.iter().find(|name| value(&fields, name).is_none_or(str::is_empty)) {
        return Err(ErrorResponse::request(format!("field `{name}` is missing or empty")));
    }
    Ok(names.map(|name| value(&fields, name).unwrap_or_default().to_owned()))
}

/// The media type, lower-cased; a charset is allowed if it is UTF-8.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let text = values.next()?.to_str().ok()?.to_ascii_lowercase();
    let (kind, parameters) = text.split_once(';').unwrap_or((&text, "charset=utf-8"));
    let sound = values.next().is_none() && parameters.trim() == "charset=utf-8";
    sound.then(|| kind.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";
    const JSON: &str = "application/json";

    /// `expected` is what is asked for in short, or status and error.
    fn check(persona: Persona, kind: &str, body: &str, expected: &str) {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "127.0.0.1".parse().unwrap());
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        let uri = Uri::from_static(persona.token_path());
        let found = match persona.read(&Method::POST, &uri, &headers, body.as_bytes()) {
            Ok(TokenRequest::Client { id, secret, scopes }) => format!("{id} {secret} {scopes:?}"),
            Ok(TokenRequest::Refresh { token }) => format!("refresh {token}"),
            Err(refusal) => format!("{} {}", refusal.status, refusal.error),
        };
        assert_eq!(found, expected, "{persona:?} {kind} {body}");
    }

    #[test]
    fn each_document_is_kept_to_the_letter() {
        use Persona::{CoreBanking, DataCrunch, QBank, Sqr};
        let form = "grant_type=client_credentials&client_id=i&client_secret=s%2B";
        let json = r#"{"grant_type":"client_credentials","client_id":"i","client_secret":"s"}"#;
        let core = r#"{"clientId":"i","clientSecret":"s"}"#;
        let scoped = format!("{form}&scope=balances.read+accounts.read");
        check(QBank, FORM, &scoped, r#"i s+ ["balances.read", "accounts.read"]"#);
        check(
            QBank,
            "Application/X-WWW-Form-Urlencoded; charset=UTF-8",
            &scoped,
            r#"i s+ ["balances.read", "accounts.read"]"#,
        );
        check(QBank, FORM, form, "400 invalid_request");
        check(QBank, FORM, &format!("{form}&scope=root"), "400 invalid_scope");
        check(
            QBank,
            FORM,
            &format!("{form}&scope=balances.read++accounts.read"),
            "400 invalid_scope",
        );
        check(QBank, FORM, &format!("{scoped}&audience=x"), "400 invalid_request");
        check(QBank, JSON, json, "415 invalid_request");
        check(QBank, FORM, "grant_type=password", "400 unsupported_grant_type");
        check(Sqr, JSON, json, r#"i s ["read:users", "write:logs"]"#);
        check(Sqr, FORM, form, "415 invalid_request");
        check(Sqr, JSON, core, "400 invalid_request");
        check(CoreBanking, JSON, core, "i s []");
        check(CoreBanking, JSON, r#"{"clientID":"i","clientSecret":"s"}"#, "400 invalid_request");
        check(CoreBanking, JSON, json, "400 invalid_request");
        check(DataCrunch, JSON, json, r#"i s ["fullAccess"]"#);
        check(
            DataCrunch,
            JSON,
            r#"{"grant_type":"refresh_token","refresh_token":"r"}"#,
            "refresh r",
        );
        check(
            DataCrunch,
            JSON,
            r#"{"grant_type":"refresh_token","refresh_token":"r","client_id":"i"}"#,
            "400 invalid_request",
        );
    }

    #[test]
    fn scopes_are_needed_below_a_path_and_not_beside_it() {
        let check = |path: &str, expected: &[&str]| {
            assert_eq!(Persona::QBank.scopes_needed(path), expected, "{path}");
        };
        check("/v1/balances/42", &["balances.read"]);
        check("/v1/balances", &["balances.read"]);
        check("/v1/balancesheet", &[]);
        check("/v1/payments/ach/7", &["payments.ach.write"]);
        check("/", &[]);
    }

    #[test]
    fn the_core_bank_states_milliseconds() {
        let grant = TokenResponse {
            access_token: "t",
            refresh_token: None,
            scopes: &[],
            life: Duration::from_secs(20),
            expires: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            tell_expiry: true,
        };
        let expected = json!({"accessToken": "t", "tokenType": "Bearer",
            "expirationTime": 1_700_000_000_123_u64, "tokenValiditySec": 20});
        assert_eq!(Persona::CoreBanking.answer(&grant), expected);
    }
}
