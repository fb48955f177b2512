//! The vendor's API on loopback: echoes what arrived, and checks the bearer token against the
//! ledger as RFC 6750 asks.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::Full;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::dpop::{DpopPolicy, ProofFault};
use super::fault::Script;
use super::ledger::{Ledger, TokenValidity};
use super::persona::Persona;
use super::serve::{self, Answer, FakeServer, hang_up};

/// A fake API; dropping it closes it.
#[derive(Debug)]
pub struct Upstream {
    server: FakeServer,
    shared: Arc<ApiState>,
}

/// Settings of a fake API.
#[derive(Debug, Clone)]
pub struct UpstreamOptions {
    /// The vendor that it imitates.
    pub persona: Persona,
    /// The token servers it trusts.
    pub ledgers: Vec<Arc<Ledger>>,
    /// Port on 127.0.0.1; 0 for any free one.
    pub port: u16,
}

/// One request that arrived.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    /// When its token was checked.
    pub at: SystemTime,
    /// Number of the connection it came on, counted from 0.
    pub connection: usize,
    /// Its method.
    pub method: Method,
    /// Its target as written.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// The raw bearer token.
    pub token: Option<String>,
    /// The result of checking the token.
    pub validity: TokenValidity,
    /// The reason why its proof is refused, where proofs are demanded.
    pub proof_fault: Option<ProofFault>,
}

/// An answer out of the ordinary, on a script.
#[derive(Debug, Clone)]
pub enum ScriptedResponse {
    /// The usual answer, after [`Upstream::release`].
    Hold,
    /// 401 `invalid_token`, however good the token is.
    Challenge,
    /// The request is read, then the connection closes without an answer.
    DropConnection,
    /// These bytes, whatever the token is worth.
    Exactly {
        /// The status.
        status: u16,
        /// The headers.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: Bytes,
    },
}

#[derive(Debug)]
struct ApiState {
    options: UpstreamOptions,
    script: Script<ScriptedResponse>,
    requests: watch::Sender<Vec<RecordedRequest>>,
    dpop: DpopPolicy,
    /// `http://127.0.0.1:PORT`: the URL in proofs begins with it.
    base_url: OnceLock<String>,
}

impl Upstream {
    /// Binds and serves from now on.
    ///
    /// # Errors
    /// The port cannot be bound.
    pub async fn start(options: UpstreamOptions) -> io::Result<Self> {
        let port = options.port;
        let shared = Arc::new(ApiState {
            options,
            script: Script::new(),
            requests: watch::Sender::default(),
            dpop: DpopPolicy::default(),
            base_url: OnceLock::new(),
        });
        let server = FakeServer::start(port, Arc::clone(&shared)).await?;
        shared.base_url.get_or_init(|| format!("http://{}", server.addr()));
        Ok(Self { server, shared })
    }

    /// The address of its socket.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// `http://127.0.0.1:PORT`, without a path.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.requests.borrow().clone()
    }

    /// Waits until `count` requests have arrived and returns all of them.
    pub async fn wait_requests(&self, count: usize) -> Vec<RecordedRequest> {
        // This fails where the sender is dropped, and it lives as long as `self`.
        let _ = self.shared.requests.subscribe().wait_for(|requests| requests.len() >= count).await;
        self.requests()
    }

    /// The number of requests so far whose token check `wanted` accepts.
    pub fn count(&self, wanted: impl Fn(&TokenValidity) -> bool) -> usize {
        self.shared.requests.borrow().iter().filter(|request| wanted(&request.validity)).count()
    }

    /// The number of requests with an expired token.
    pub fn expired_tokens(&self) -> usize {
        self.count(|validity| *validity == TokenValidity::Expired)
    }

    /// The number of requests without a token.
    pub fn missing_tokens(&self) -> usize {
        self.count(|validity| *validity == TokenValidity::Missing)
    }

    /// The next requests are answered like this, one each; after them all is normal again.
    pub fn set_responses(&self, replies: impl IntoIterator<Item = ScriptedResponse>) {
        self.shared.script.set(replies);
    }

    /// Its rules for proofs; it demands none at first, and then takes tokens of type Bearer.
    pub fn dpop(&self) -> &DpopPolicy {
        &self.shared.dpop
    }

    /// While down, connections are closed as soon as they are made.
    pub fn set_down(&self, down: bool) {
        self.shared.script.set_down(down);
    }

    /// From now on every request takes this long, and its token is checked at the end of that time.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.script.set_latency(latency);
    }

    /// Lets `count` requests go on that met, or will meet, [`ScriptedResponse::Hold`].
    pub fn release(&self, count: usize) {
        self.shared.script.release(count);
    }

    /// Closes the socket and every connection.
    pub async fn shutdown(mut self) {
        self.server.shutdown().await;
    }
}

impl serve::Service for ApiState {
    const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

    fn is_down(&self) -> bool {
        self.script.is_down()
    }

    async fn call(self: Arc<Self>, connection: usize, head: Parts, body: Bytes) -> Answer {
        self.script.delay().await;
        let at = SystemTime::now();
        let demanded = self.dpop.is_demanded();
        let scheme = if demanded { "DPoP" } else { "Bearer" };
        let token = token(&head.headers, scheme).map(str::to_owned);
        let validity = self.check(token.as_deref(), at, head.uri.path());
        let proof_fault =
            if demanded { self.check_proof(&head, token.as_deref()).err() } else { None };
        let request = RecordedRequest {
            at,
            connection,
            method: head.method,
            target: head.uri.to_string(),
            headers: head.headers,
            body,
            token,
            validity,
            proof_fault,
        };
        self.requests.send_modify(|requests| requests.push(request.clone()));
        self.answer(&request).await
    }
}

impl ApiState {
    /// The first ledger that knows the token decides.
    fn check(&self, token: Option<&str>, now: SystemTime, path: &str) -> TokenValidity {
        let Some(token) = token else { return TokenValidity::Missing };
        let needed = self.options.persona.scopes_needed(path);
        let judged = self.options.ledgers.iter().map(|ledger| ledger.check(token, now, needed));
        judged
            .into_iter()
            .find(|validity| *validity != TokenValidity::Unknown)
            .unwrap_or(TokenValidity::Unknown)
    }

    /// Checks the proof of a request that carries a token, and that the token is bound to its key.
    fn check_proof(&self, head: &Parts, token: Option<&str>) -> Result<(), ProofFault> {
        let url = format!("{}{}", self.base_url.get().map_or("", String::as_str), head.uri.path());
        let key = self.dpop.check(&head.headers, &head.method, &url, token)?;
        let mut bound = self.options.ledgers.iter().filter_map(|ledger| ledger.bound_to(token?));
        match bound.any(|bound| bound == key) {
            true => Ok(()),
            false => Err(ProofFault::Invalid("the token is bound to another key")),
        }
    }

    async fn answer(&self, request: &RecordedRequest) -> Answer {
        let mut answer = self.scripted(request).await;
        if let Ok(answer) = &mut answer {
            self.dpop.state_nonce(answer.headers_mut());
        }
        answer
    }

    async fn scripted(&self, request: &RecordedRequest) -> Answer {
        match self.script.take() {
            None => Ok(self.normal(request)),
            Some(ScriptedResponse::Hold) => {
                self.script.hold().await;
                Ok(self.normal(request))
            }
            Some(ScriptedResponse::Challenge) => Ok(invalid_token("scripted")),
            Some(ScriptedResponse::DropConnection) => hang_up(),
            Some(ScriptedResponse::Exactly { status, headers, body }) => {
                let mut answer = Response::new(Full::from(body));
                *answer.status_mut() = serve::status_code(status);
                for (name, value) in headers {
                    // A header that HTTP forbids in the script closes the connection: loud enough.
                    let value = HeaderValue::try_from(value).map_err(io::Error::other)?;
                    let name = http::HeaderName::try_from(name).map_err(io::Error::other)?;
                    answer.headers_mut().append(name, value);
                }
                Ok(answer)
            }
        }
    }

    fn normal(&self, request: &RecordedRequest) -> Response<Full<Bytes>> {
        if let Some(fault) = request.proof_fault {
            let code = fault.code();
            return challenge(401, code, format!("DPoP algs=\"ES256 EdDSA\", error=\"{code}\""));
        }
        match &request.validity {
            TokenValidity::Valid(_) => serve::json(200, &self.echo(request)),
            // RFC 6750 section 3.1: without any credentials, no error code.
            TokenValidity::Missing => challenge(401, "missing", "Bearer realm=\"demo\"".to_owned()),
            TokenValidity::Unknown => invalid_token("unknown"),
            TokenValidity::Expired => invalid_token("expired"),
            TokenValidity::Revoked => invalid_token("revoked"),
            TokenValidity::Insufficient(lacking) => {
                let scope = lacking.join(" ");
                let value = format!(
                    "Bearer realm=\"demo\", error=\"insufficient_scope\", scope=\"{scope}\""
                );
                challenge(403, "insufficient_scope", value)
            }
        }
    }

    fn echo(&self, request: &RecordedRequest) -> Value {
        let (path, query) = match request.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (request.target.as_str(), None),
        };
        json!({
            "bank": self.options.persona.name(),
            "method": request.method.as_str(),
            "path": path,
            "query": query,
            "headers": shown_headers(request),
            "body_length": request.body.len(),
        })
    }
}

/// The headers with repeated ones joined; credentials are shown by their ends only.
fn shown_headers(request: &RecordedRequest) -> Value {
    let mut shown = Map::new();
    for name in request.headers.keys() {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let values: Vec<String> = request.headers.get_all(name).iter().map(text).collect();
        let value = if name == AUTHORIZATION { redacted(request) } else { values.join(", ") };
        shown.insert(name.as_str().to_owned(), value.into());
    }
    Value::Object(shown)
}

/// `Bearer demo-…abcd (valid, scopes balances.read)`.
fn redacted(request: &RecordedRequest) -> String {
    let Some(token) = &request.token else { return "not a bearer token".to_owned() };
    let ends = match (token.get(..5), token.len().checked_sub(4).and_then(|at| token.get(at..))) {
        (Some(start), Some(end)) if token.len() >= 24 => format!("{start}…{end}"),
        _ => "…".to_owned(),
    };
    let worth = match &request.validity {
        TokenValidity::Valid(scopes) if scopes.is_empty() => "valid, no scopes".to_owned(),
        TokenValidity::Valid(scopes) => format!("valid, scopes {}", scopes.join(" ")),
        _ => "not valid".to_owned(),
    };
    format!("Bearer {ends} ({worth})")
}

/// The token of exactly one `Authorization` with the scheme Bearer (RFC 6750 section 2.1) or DPoP.
fn token<'h>(headers: &'h HeaderMap, expected: &str) -> Option<&'h str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let text = values.next()?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    let sound = scheme.eq_ignore_ascii_case(expected)
        && !token.is_empty()
        && token.bytes().all(allowed)
        && values.next().is_none();
    sound.then_some(token)
}

fn invalid_token(why: &str) -> Response<Full<Bytes>> {
    let value = format!(
        "Bearer realm=\"demo\", error=\"invalid_token\", error_description=\"the token is {why}\""
    );
    challenge(401, "invalid_token", value)
}

fn challenge(status: u16, error: &str, value: String) -> Response<Full<Bytes>> {
    let mut answer = serve::json(status, &json!({ "error": error }));
    if let Ok(value) = HeaderValue::try_from(value) {
        answer.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bearer_token_is_read_and_nothing_else() {
        let check = |values: &[&'static str], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            assert_eq!(token(&headers, "Bearer"), expected, "{values:?}");
        };
        check(&["Bearer abc"], Some("abc"));
        check(&["bearer a.b_c~d+e/f=="], Some("a.b_c~d+e/f=="));
        check(&[], None);
        check(&["Bearer "], None);
        check(&["Bearer  abc"], None);
        check(&["Basic abc"], None);
        check(&["Bearer a", "Bearer b"], None);
        check(&["Bearer a, Bearer b"], None);
    }
}
