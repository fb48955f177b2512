//! The HTTP API of Vault and OpenBao: logins, tokens and the KV secrets engine.
//!
//! Answers are read by their status and a few fields. Their texts are compared with known ones and never
//! repeated, because they may hold parts of a request.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::error::SecretFault;
use super::transport::StoreClient;
use super::vault::{KvEngine, VaultLogin, VaultSecret, VaultSettings};
use super::vault_fault::VaultFault;
use crate::sensitive::{Sensitive, looks_random};

/// Bytes of a path that need no percent-encoding: RFC 3986 section 2.3, and the slash.
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A longer lease is renewed as if it were this long.
const LONGEST_LEASE: Duration = Duration::from_secs(366 * 24 * 3600);

/// One server, for one reading or renewal.
pub(super) struct VaultApi<'a> {
    pub(super) settings: &'a VaultSettings,
    pub(super) client: StoreClient,
}

/// A token of Vault.
#[derive(Clone)]
pub(super) struct VaultToken {
    pub(super) value: Sensitive,
    pub(super) lease: TokenLease,
}

/// The remaining life of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenLease {
    /// Zero for a token that does not expire.
    pub(super) remaining: Duration,
    pub(super) renewable: bool,
}

impl TokenLease {
    fn new(seconds: u64, renewable: bool) -> Self {
        Self { remaining: Duration::from_secs(seconds).min(LONGEST_LEASE), renewable }
    }
}

/// An answer that is neither a failure of the server nor a redirect.
struct Answer {
    status: StatusCode,
    body: Bytes,
}

impl VaultApi<'_> {
    /// Obtains a token. `secret` is the token itself, the secret id or the JWT.
    pub(super) async fn log_in(&self, secret: &Sensitive) -> Result<VaultToken, SecretFault> {
        let (mount, fields) = match &self.settings.login {
            VaultLogin::Token => {
                // A token without a policy to look itself up is used as it is, without renewal.
                let lease = self.look_up(secret).await?.unwrap_or(TokenLease::new(0, false));
                return Ok(VaultToken { value: secret.clone(), lease });
            }
            VaultLogin::AppRole { mount, role_id } => {
                (mount, json!({ "role_id": role_id, "secret_id": secret.expose() }))
            }
            VaultLogin::Jwt { mount, role } => {
                (mount, json!({ "role": role, "jwt": secret.expose() }))
            }
        };
        let body = serde_json::to_vec(&fields).unwrap_or_default();
        let body = Bytes::from_owner(Zeroizing::new(body));
        let path = format!("auth/{}/login", encoded(mount));
        let answer = self.send(Method::POST, &path, None, body).await?;
        if !answer.status.is_success() {
            return Err(self.login_fault(mount, &answer));
        }
        let found: LoginAnswer = answer.parse()?;
        let lease = TokenLease::new(found.auth.lease_duration, found.auth.renewable);
        Ok(VaultToken { value: Sensitive::new(found.auth.client_token), lease })
    }

    fn login_fault(&self, mount: &str, answer: &Answer) -> SecretFault {
        let method = format!("auth/{mount}");
        let approle = matches!(self.settings.login, VaultLogin::AppRole { .. });
        SecretFault::Vault(match answer.status {
            _ if answer.says("namespace not found") => VaultFault::NoNamespace,
            StatusCode::NOT_FOUND => VaultFault::NoMount { mount: method },
            _ => {
                let expired = !approle && answer.says("expired");
                VaultFault::LoginRefused { method, approle, expired }
            }
        })
    }

    /// The remaining life of a token; `None` if Vault does not accept the token.
    pub(super) async fn look_up(
        &self,
        token: &Sensitive,
    ) -> Result<Option<TokenLease>, SecretFault> {
        let path = "auth/token/lookup-self";
        let answer = self.send(Method::GET, path, Some(token), Bytes::new()).await?;
        match answer.status {
            status if status.is_success() => {
                let found: LookupAnswer = answer.parse()?;
                Ok(Some(TokenLease::new(found.data.ttl, found.data.renewable)))
            }
            _ if answer.says("namespace not found") => Err(VaultFault::NoNamespace.into()),
            _ => Ok(None),
        }
    }

    /// Renews a token; `None` if Vault refuses.
    pub(super) async fn renew(&self, token: &Sensitive) -> Result<Option<TokenLease>, SecretFault> {
        let path = "auth/token/renew-self";
        let answer = self.send(Method::POST, path, Some(token), Bytes::from_static(b"{}")).await?;
        if !answer.status.is_success() {
            return Ok(None);
        }
        let found: RenewAnswer = answer.parse()?;
        Ok(Some(TokenLease::new(found.auth.lease_duration, found.auth.renewable)))
    }

    /// Reads a secret; `None` if Vault denies it, for which the token or its policies may be the cause.
    pub(super) async fn read(
        &self,
        secret: &VaultSecret,
        token: &Sensitive,
    ) -> Result<Option<Sensitive>, SecretFault> {
        let mut path = encoded(&secret.api_path());
        if let Some(version) = secret.version {
            path = format!("{path}?version={version}");
        }
        let answer = self.send(Method::GET, &path, Some(token), Bytes::new()).await?;
        match answer.status {
            StatusCode::FORBIDDEN => Ok(None),
            StatusCode::NOT_FOUND => Err(answer.missing(secret)),
            status if status.is_success() => answer.field(secret).map(Some),
            status => Err(SecretFault::refused(status.as_str(), false)),
        }
    }

    /// Sends a request. Answers that say nothing about the request are faults.
    async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&Sensitive>,
        body: Bytes,
    ) -> Result<Answer, SecretFault> {
        let answer = self.exchange(method, path, token, body).await?;
        match answer.status.as_u16() {
            503 => Err(self.unavailable().await),
            // 472 and 473 are those of standby nodes.
            300..=399 | 472 | 473 => Err(VaultFault::Standby.into()),
            // 412: the node has not yet replicated the token.
            412 | 429 | 500..=599 => Err(SecretFault::refused(answer.status.as_str(), true)),
            _ => Ok(answer),
        }
    }

    /// The reason for a 503. This question is answered in every state of Vault.
    async fn unavailable(&self) -> SecretFault {
        let asked = self.exchange(Method::GET, "sys/seal-status", None, Bytes::new()).await;
        match asked.and_then(|answer| answer.parse::<SealStatus>()) {
            Ok(SealStatus { initialized: false, .. }) => VaultFault::NotInitialized.into(),
            Ok(SealStatus { sealed: true, .. }) => VaultFault::Sealed.into(),
            _ => SecretFault::refused("503", true),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        token: Option<&Sensitive>,
        body: Bytes,
    ) -> Result<Answer, SecretFault> {
        // A proxy of Vault may demand this field, which no web page can send.
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/{path}", self.settings.address))
            .header("X-Vault-Request", "true");
        if let Some(token) = token {
            let value = token.header("").ok_or(VaultFault::TokenRefused)?;
            request = request.header("X-Vault-Token", value);
        }
        if let Some(namespace) = &self.settings.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if !body.is_empty() {
            request = request.header("Content-Type", HeaderValue::from_static("application/json"));
        }
        let unsendable = |_| SecretFault::Unreachable("the request cannot be sent".into());
        let request = request.body(body).map_err(unsendable)?;
        let answer = self.client.send(request).await;
        let answer = answer.map_err(|error| SecretFault::Unreachable(error.to_string()))?;
        Ok(Answer { status: answer.status(), body: answer.into_body() })
    }
}

impl Answer {
    fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, SecretFault> {
        // The parser's own error is dropped, because it would repeat parts of the answer.
        serde_json::from_slice(&self.body).map_err(|_| unreadable())
    }

    /// Tells whether an error or a warning of the answer holds this text.
    fn says(&self, text: &str) -> bool {
        let found: Remarks = self.parse().unwrap_or_default();
        let mut remarks = found.errors.iter().chain(&found.warnings).flatten();
        remarks.any(|remark| remark.contains(text))
    }

    /// The fault of a 404.
    fn missing(&self, secret: &VaultSecret) -> SecretFault {
        if let Ok(DataAnswer { data: VersionedData { metadata, .. } }) = self.parse() {
            let (version, destroyed) = (metadata.version, metadata.destroyed);
            return VaultFault::Deleted { version, destroyed }.into();
        }
        if self.says("namespace not found") {
            return VaultFault::NoNamespace.into();
        }
        if self.says("versioned K/V") {
            return VaultFault::Versioned.into();
        }
        // What Vault says where no secrets engine is.
        if self.says("no handler for route") {
            return VaultFault::NoMount { mount: secret.mount.clone() }.into();
        }
        SecretFault::Missing
    }

    fn field(&self, secret: &VaultSecret) -> Result<Sensitive, SecretFault> {
        let fields = match secret.engine {
            KvEngine::V1 => self.parse::<DataAnswer<Fields<'_>>>()?.data,
            KvEngine::V2 => {
                let found: DataAnswer<VersionedData<'_>> = self.parse()?;
                found.data.data.ok_or_else(unreadable)?
            }
        };
        let Some(value) = fields.get(secret.field.as_str()) else {
            return Err(VaultFault::NoField(names(&fields)).into());
        };
        let text = serde_json::from_str::<String>(value.get());
        text.map(Sensitive::new).map_err(|_| VaultFault::NotText.into())
    }
}

fn encoded(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}

fn unreadable() -> SecretFault {
    SecretFault::Unreachable("Vault gave an answer that cannot be read".into())
}

/// The names of fields, without those that may be secrets themselves.
fn names(fields: &Fields<'_>) -> Vec<String> {
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_graphic());
    let shown = |name: &&String| name.len() <= 64 && plain(name) && !looks_random(name);
    fields.keys().filter(shown).cloned().collect()
}

impl From<VaultFault> for SecretFault {
    fn from(fault: VaultFault) -> Self {
        Self::Vault(fault)
    }
}

/// The values stay in the bytes of the answer, so that only the one that is asked for is copied.
type Fields<'a> = BTreeMap<String, &'a RawValue>;

#[derive(Deserialize)]
struct DataAnswer<T> {
    data: T,
}

#[derive(Deserialize)]
struct VersionedData<'a> {
    #[serde(borrow)]
    data: Option<Fields<'a>>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
    #[serde(default)]
    destroyed: bool,
}

#[derive(Deserialize)]
struct LoginAnswer {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

/// The token in the answer is that of the request, and is skipped.
#[derive(Deserialize)]
struct RenewAnswer {
    auth: Renewal,
}

#[derive(Deserialize)]
struct Renewal {
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct LookupAnswer {
    data: Lookup,
}

#[derive(Deserialize)]
struct Lookup {
    #[serde(default)]
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct SealStatus {
    initialized: bool,
    sealed: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Remarks {
    errors: Option<Vec<String>>,
    warnings: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(engine: KvEngine, field: &str) -> VaultSecret {
        let cache = Duration::ZERO;
        let (mount, path) = ("secret".to_owned(), "erp/my bank?".to_owned());
        VaultSecret { mount, path, field: field.into(), version: None, engine, cache }
    }

    fn answer(body: &'static str) -> Answer {
        Answer { status: StatusCode::OK, body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn a_lease_is_bounded() {
        assert_eq!(TokenLease::new(u64::MAX, true).remaining, LONGEST_LEASE);
        assert_eq!(TokenLease::new(60, true).remaining, Duration::from_secs(60));
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(encoded(&secret(KvEngine::V2, "").api_path()), "secret/data/erp/my%20bank%3F");
        assert_eq!(encoded(&secret(KvEngine::V1, "").api_path()), "secret/erp/my%20bank%3F");
    }

    #[test]
    fn a_field_of_a_secret() {
        let check = |body, engine, expected: Result<&str, VaultFault>| {
            let found = answer(body).field(&secret(engine, "s"));
            let expected = expected.map(Sensitive::new).map_err(SecretFault::from);
            assert_eq!(found, expected, "{body}");
        };
        let (v1, v2) = (KvEngine::V1, KvEngine::V2);
        let metadata = r#"{"data":{"data":{"s":"a\"b","n":1},"metadata":{"version":3}}}"#;
        check(metadata, v2, Ok("a\"b"));
        check(r#"{"data":{"s":"x"},"warnings":null}"#, v1, Ok("x"));
        check(r#"{"data":{"s":1}}"#, v1, Err(VaultFault::NotText));
        // A name that looks like a key is left out.
        let others = r#"{"data":{"user":"x","sk_live_51HxQ2eJ":"x"}}"#;
        check(others, v1, Err(VaultFault::NoField(vec!["user".into()])));
        for wrong in ["", "canary", r#"{"data":null}"#, r#"{"data":{"data":null}}"#] {
            assert_eq!(answer(wrong).field(&secret(v2, "s")), Err(unreadable()), "{wrong}");
        }
    }

    #[test]
    fn a_secret_that_is_not_found() {
        let check = |body, expected| {
            assert_eq!(answer(body).missing(&secret(KvEngine::V2, "s")), expected, "{body}");
        };
        let deleted = r#"{"data":{"data":null,"metadata":{"version":2,"deletion_time":"2026-11-26T15:04:59Z","destroyed":false}}}"#;
        check(deleted, VaultFault::Deleted { version: 2, destroyed: false }.into());
        check(r#"{"errors":[]}"#, SecretFault::Missing);
        check("", SecretFault::Missing);
        let nothing =
            r#"{"errors":["no handler for route \"secret/data/x\". route entry not found."]}"#;
        check(nothing, VaultFault::NoMount { mount: "secret".into() }.into());
        let versioned =
            r#"{"data":null,"warnings":["Invalid path for a versioned K/V secrets engine."]}"#;
        check(versioned, VaultFault::Versioned.into());
    }
}
