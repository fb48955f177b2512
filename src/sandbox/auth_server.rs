//! A token endpoint on loopback that does what its [`Persona`]'s document says, keeps a
//! [`Ledger`], and errs on a script.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, PRAGMA, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Response};
use http_body_util::Full;

use super::dpop::DpopPolicy;
use super::fault::{Fault, Script};
use super::ledger::{CallOutcome, Issued, Ledger, TokenCall};
use super::persona::{ErrorResponse, Persona, TokenRequest, TokenResponse};
use super::quirk::Quirk;
use super::serve::{self, FakeServer, hang_up};
use super::wire;

/// Path of the revocation endpoint; the vendors' documents name none.
const REVOCATION_PATH: &str = "/revoke";

/// A fake token server; dropping it closes it.
#[derive(Debug)]
pub struct AuthServer {
    server: FakeServer,
    shared: Arc<AuthState>,
}

/// Settings of a fake token server.
#[derive(Debug, Clone)]
pub struct AuthOptions {
    /// Life of its tokens; whole seconds are told to the client.
    pub lifetime: Duration,
    /// The one client it knows.
    pub client_id: String,
    /// That client's secret.
    pub client_secret: String,
    /// Port on 127.0.0.1; 0 for any free one.
    pub port: u16,
}

impl AuthOptions {
    /// A client of `persona` with a random secret full of characters that need escaping somewhere.
    pub fn for_persona(persona: Persona) -> Self {
        Self {
            lifetime: Duration::from_secs(3600),
            client_id: format!("demo-{}-client", persona.name()),
            client_secret: format!("demo {:032x} +/%2B&=\"\\", fastrand::u128(..)),
            port: 0,
        }
    }
}

#[derive(Debug)]
struct AuthState {
    persona: Persona,
    options: AuthOptions,
    /// Secrets that are accepted at the moment.
    secrets: Mutex<Vec<String>>,
    ledger: Arc<Ledger>,
    script: Script<Fault>,
    quirk: Mutex<Quirk>,
    dpop: DpopPolicy,
    /// `http://127.0.0.1:PORT`: the URL in proofs begins with it.
    base_url: OnceLock<String>,
}

impl AuthServer {
    /// Binds and serves from now on.
    ///
    /// # Errors
    /// The port cannot be bound.
    pub async fn start(persona: Persona, options: AuthOptions) -> io::Result<Self> {
        let port = options.port;
        let ledger = Arc::default();
        let secrets = Mutex::new(vec![options.client_secret.clone()]);
        let script = Script::new();
        let quirk = Mutex::default();
        let (dpop, base_url) = (DpopPolicy::default(), OnceLock::new());
        let shared = Arc::new(AuthState {
            persona,
            options,
            secrets,
            ledger,
            script,
            quirk,
            dpop,
            base_url,
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

    /// The whole URL of the token endpoint.
    pub fn token_url(&self) -> String {
        format!("http://{}{}", self.addr(), self.shared.persona.token_path())
    }

    /// The whole URL of its revocation endpoint (RFC 7009).
    pub fn revocation_url(&self) -> String {
        format!("http://{}{REVOCATION_PATH}", self.addr())
    }

    /// Whom it imitates.
    pub fn persona(&self) -> Persona {
        self.shared.persona
    }

    /// The client id it knows.
    pub fn client_id(&self) -> &str {
        &self.shared.options.client_id
    }

    /// The client secret that it knows from its start.
    pub fn client_secret(&self) -> &str {
        &self.shared.options.client_secret
    }

    /// From now on it accepts these secrets and no others: while a client rotates its secret, the
    /// old one and the new.
    pub fn accept_secrets(&self, secrets: impl IntoIterator<Item = String>) {
        let mut accepted = self.shared.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        *accepted = secrets.into_iter().collect();
    }

    /// The calls that arrived and the tokens that were issued.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.shared.ledger
    }

    /// The next calls go wrong like this, one each; after them all is normal again.
    pub fn set_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.script.set(faults);
    }

    /// From now on it has this quirk.
    pub fn set_quirk(&self, quirk: Quirk) {
        *self.shared.quirk.lock().unwrap_or_else(PoisonError::into_inner) = quirk;
    }

    /// Its rules for proofs; it demands none at first, and then issues tokens of type Bearer.
    pub fn dpop(&self) -> &DpopPolicy {
        &self.shared.dpop
    }

    /// While down, connections are closed as soon as they are made.
    pub fn set_down(&self, down: bool) {
        self.shared.script.set_down(down);
    }

    /// From now on every answer leaves this long after its token is issued.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.script.set_latency(latency);
    }

    /// Lets `count` calls go on that met, or will meet, [`Fault::Hold`].
    pub fn release(&self, count: usize) {
        self.shared.script.release(count);
    }

    /// Closes the socket and every connection.
    pub async fn shutdown(mut self) {
        self.server.shutdown().await;
    }
}

impl serve::Service for AuthState {
    const MAX_BODY_BYTES: usize = 64 * 1024;

    fn is_down(&self) -> bool {
        self.script.is_down()
    }

    async fn call(self: Arc<Self>, _connection: usize, head: Parts, body: Bytes) -> serve::Answer {
        if head.uri.path() == REVOCATION_PATH {
            return Ok(self.revoke(&body));
        }
        let asked = self.persona.read(&head.method, &head.uri, &head.headers, &body);
        let base_url = self.base_url.get().map_or("", String::as_str);
        let url = format!("{base_url}{}", head.uri.path());
        let key = match self.dpop.is_demanded() {
            true => self.dpop.check(&head.headers, &head.method, &url, None).map(Some),
            false => Ok(None),
        };
        let call = self.ledger.record(TokenCall {
            at: SystemTime::now(),
            method: head.method,
            target: head.uri.to_string(),
            headers: head.headers,
            body,
            outcome: CallOutcome::Pending,
        });
        let (outcome, mut answer) = match key {
            Ok(key) => self.answer(asked, key).await,
            Err(fault) => {
                let refusal = ErrorResponse::new(400, fault.code(), format!("{fault:?}"));
                (CallOutcome::Refused(400, fault.code().to_owned()), Ok(self.refusal(&refusal)))
            }
        };
        if let Ok(answer) = &mut answer {
            self.dpop.state_nonce(answer.headers_mut());
        }
        self.script.delay().await;
        self.ledger.conclude(call, outcome);
        answer
    }
}

/// The outcome of a token call, and the answer to it.
type Concluded = (CallOutcome, serve::Answer);

impl AuthState {
    /// The scripted fault first, then what the document says.
    async fn answer(
        &self,
        asked: Result<TokenRequest, ErrorResponse>,
        bound_to: Option<String>,
    ) -> Concluded {
        let mut deviation = Deviation { bound_to, ..Deviation::default() };
        let Some(fault) = self.script.take() else { return self.normal(asked, deviation) };
        match &fault {
            Fault::Delay(time) => tokio::time::sleep(*time).await,
            Fault::Hold => self.script.hold().await,
            Fault::ShortLife(life) => deviation.life = Some(*life),
            Fault::NoExpiry => deviation.omit_expiry = true,
            Fault::SameToken => deviation.same_token = true,
            _ => {}
        }
        let answer = match &fault {
            Fault::DropConnection => return (CallOutcome::Faulted(fault), hang_up()),
            Fault::InvalidClient => self.refusal(&invalid_client()),
            Fault::Html500 => serve::plain(500, "text/html", "<html><h1>Oops</h1></html>"),
            Fault::Status(status) => serve::plain(*status, "text/plain", ""),
            Fault::Malformed => serve::plain(200, "application/json", "{\"access_token\": \"demo-"),
            Fault::TooMany { retry_after } => {
                let mut answer = serve::plain(429, "text/plain", "slow down");
                answer.headers_mut().insert(RETRY_AFTER, retry_after.as_secs().into());
                answer
            }
            _ => return self.normal(asked, deviation),
        };
        (CallOutcome::Faulted(fault), Ok(answer))
    }

    fn normal(
        &self,
        asked: Result<TokenRequest, ErrorResponse>,
        mut deviation: Deviation,
    ) -> Concluded {
        let quirk = *self.quirk.lock().unwrap_or_else(PoisonError::into_inner);
        deviation.same_token |= quirk == Quirk::SameToken;
        let refresh = matches!(asked, Ok(TokenRequest::Refresh { .. }));
        let scopes = asked.and_then(|asked| self.authenticate(asked));
        if scopes.is_ok() && quirk == Quirk::OneLiveToken {
            self.ledger.revoke_all();
        }
        let (outcome, answer) = match scopes {
            Ok(scopes) => self.grant(scopes, &deviation),
            Err(refusal) => {
                let reason = format!("{}: {}", refusal.error, refusal.description);
                (CallOutcome::Refused(refusal.status, reason), self.refusal(&refusal))
            }
        };
        let answer = quirk.bend(refresh, &outcome, answer);
        (outcome, answer)
    }

    /// RFC 7009 section 2: unknown tokens are no error.
    fn revoke(&self, body: &[u8]) -> Response<Full<Bytes>> {
        let fields = wire::form(body).unwrap_or_default();
        let field = |name: &str| {
            let found = fields.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let client = TokenRequest::Client {
            id: field("client_id"),
            secret: field("client_secret"),
            scopes: Vec::new(),
        };
        match self.authenticate(client) {
            Ok(_) => {
                self.ledger.revoke(&field("token"));
                serve::plain(200, "text/plain", "")
            }
            Err(refusal) => self.refusal(&refusal),
        }
    }

    /// Checks the client or the refresh token, and returns the scopes to grant.
    fn authenticate(&self, asked: TokenRequest) -> Result<Vec<String>, ErrorResponse> {
        match asked {
            TokenRequest::Client { id, secret, scopes } => {
                let accepted = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
                let known = id == self.options.client_id && accepted.contains(&secret);
                if known { Ok(scopes) } else { Err(invalid_client()) }
            }
            TokenRequest::Refresh { token } => self.ledger.redeem(&token).ok_or_else(|| {
                ErrorResponse::new(400, "invalid_grant", "the refresh token is unknown or used up")
            }),
        }
    }

    fn grant(
        &self,
        scopes: Vec<String>,
        deviation: &Deviation,
    ) -> (CallOutcome, Response<Full<Bytes>>) {
        let now = SystemTime::now();
        let again = if deviation.same_token { self.ledger.last(now, &scopes) } else { None };
        let (issued, life) = again.unwrap_or_else(|| {
            let life = deviation.life.unwrap_or(self.options.lifetime);
            let issued = Issued {
                bound_to: deviation.bound_to.clone(),
                ..self.new_token(scopes, now, life)
            };
            self.ledger.issue(issued.clone());
            (issued, life)
        });
        let mut body = self.persona.answer(&TokenResponse {
            access_token: &issued.token,
            refresh_token: issued.refresh_token.as_deref(),
            scopes: &issued.scopes,
            life,
            expires: issued.expires,
            tell_expiry: !deviation.omit_expiry,
        });
        if issued.bound_to.is_some() {
            body["token_type"] = "DPoP".into();
        }
        (CallOutcome::Issued(issued.token), not_stored(serve::json(200, &body)))
    }

    fn new_token(&self, scopes: Vec<String>, now: SystemTime, life: Duration) -> Issued {
        let random =
            |kind: &str| format!("demo-{}{kind}-{:032x}", self.persona.name(), fastrand::u128(..));
        let refresh_token = self.persona.gives_refresh_tokens().then(|| random("-refresh"));
        let token = random("");
        let (revoked, bound_to) = (false, None);
        Issued { token, scopes, at: now, expires: now + life, revoked, bound_to, refresh_token }
    }

    fn refusal(&self, refusal: &ErrorResponse) -> Response<Full<Bytes>> {
        not_stored(serve::json(refusal.status, &self.persona.refuse(refusal)))
    }
}

/// Differences of a successful response from the usual one.
#[derive(Debug, Default)]
struct Deviation {
    life: Option<Duration>,
    omit_expiry: bool,
    same_token: bool,
    /// The thumbprint of the key that the token is bound to.
    bound_to: Option<String>,
}

fn invalid_client() -> ErrorResponse {
    ErrorResponse::new(401, "invalid_client", "unknown client or wrong secret")
}

/// RFC 6749 section 5.1 asks for both headers with every answer that holds a token.
fn not_stored(mut answer: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
    answer
}
