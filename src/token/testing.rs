//! A token server of the tests: it answers as it is told, under paused time, and keeps count.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use tokio::time::Instant;

use super::bearer::TokenHeader;
use super::credential::{
    Binding, ClientIdSource, Credential, Grouping, RefreshPolicy, TokenSource,
};
#[cfg(feature = "share")]
use super::fetch::ReplicaProof;
use super::fetch::{Fetch, FetchError, Fetched, MakeFetch};
use super::fingerprint::Fingerprint;
#[cfg(feature = "share")]
use super::fingerprint::SecretDigest;
use super::manager::TokenManager;
use super::metrics::TokenMetrics;
use super::spec::TokenSpec;
use super::token_cell::Reader;
use crate::clock::{Moment, testing as clock};
use crate::net::control::CallError;
use crate::net::testing::connect_error;
use crate::net::tls::TlsSettings;
use crate::oauth::dialect::GrantKind;
use crate::oauth::error::{ErrorCode, MalformedResponse, TokenError, TokenErrorResponse};
use crate::oauth::lifetime::Lifetime;
use crate::oauth::{ClientAuth, Dialect, IssuedToken, RevokedToken, ScopeSet, TokenEndpoint};
use crate::secret::Reference;
use crate::sensitive::Sensitive;
use crate::telemetry::Registry;

/// What the server does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// A token that lives so many seconds.
    Gives(u64),
    /// The token before while it lives, then one that lives so many seconds.
    SameToken(u64),
    /// No connection.
    Down,
    /// The connection is cut after the request was read.
    Cut,
    /// A status and, where it is not 0, Retry-After in seconds.
    Status(u16, u64),
    /// 401 `invalid_client`.
    Refuses,
    /// 200 with something that is no token.
    Malformed,
    /// No answer at all.
    Hangs,
}

/// One call as the server saw it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The fetcher that made it: one for each token.
    pub fetcher: usize,
    /// When it came.
    pub began: Instant,
    /// When it was answered; `None` while it is not, and for one that was given up.
    pub ended: Option<Instant>,
    /// What became of it.
    pub mood: Mood,
    /// True if it came with a refresh token.
    pub refresh: bool,
}

/// The server's state, and its book.
pub struct World {
    /// What it does with the next calls.
    pub mood: Mood,
    /// How long an answer takes.
    pub latency: Duration,
    /// The secret that clients have now.
    pub secret: u64,
    /// True if answers bring a refresh token.
    pub refresh_tokens: bool,
    /// The scopes that are granted, where the answer names them.
    pub granted: Option<&'static str>,
    /// Most calls that may be in flight to it at a time: four of each process.
    pub most_in_flight: usize,
    /// Tokens that it gives in each 24 hours since its start; further calls get 429.
    pub daily_limit: Option<usize>,
    /// Every call.
    pub calls: Vec<Call>,
    /// Tokens that were ended by request.
    pub revoked: Vec<String>,
    /// How long the machine has slept: time that only a wall clock sees.
    pub slept: Duration,
    start: Instant,
    /// When each token ends, in time that nothing but time moves.
    ends: HashMap<String, Duration>,
    /// The last token of each credential and scopes.
    last: HashMap<String, String>,
    in_flight: HashMap<usize, usize>,
}

/// The server, shared by the test and all make_fetch.
#[derive(Clone)]
pub struct Scripted(Arc<Mutex<World>>, Arc<AtomicUsize>);

impl Scripted {
    /// A server that gives tokens of a minute after 100 ms.
    pub fn new() -> Self {
        Self(
            Arc::new(Mutex::new(World {
                mood: Mood::Gives(60),
                latency: Duration::from_millis(100),
                secret: 1,
                refresh_tokens: false,
                granted: None,
                most_in_flight: 4,
                daily_limit: None,
                calls: Vec::new(),
                revoked: Vec::new(),
                slept: Duration::ZERO,
                start: Instant::now(),
                ends: HashMap::new(),
                last: HashMap::new(),
                in_flight: HashMap::new(),
            })),
            Arc::default(),
        )
    }

    /// Its state, to be looked at and changed between two awaits.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// From now on it does this.
    pub fn set(&self, mood: Mood) {
        self.world().mood = mood;
    }

    /// How many calls have come.
    pub fn calls(&self) -> usize {
        self.world().calls.len()
    }

    /// True if a token lives, by true time.
    pub fn lives(&self, header: &http::HeaderValue) -> bool {
        let token = header.to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
        let world = self.world();
        world.ends[&token] > world.now()
    }

    /// The credential and the scopes that a token was asked with, such as `bank: a b`; empty for
    /// one that is not the last of its kind.
    pub fn asked_with(&self, header: &http::HeaderValue) -> String {
        let token = header.to_str().unwrap().strip_prefix("Bearer ").unwrap();
        let world = self.world();
        let found = world.last.iter().find(|(_, last)| *last == token);
        found.map(|(whose, _)| whose.clone()).unwrap_or_default()
    }
}

impl World {
    fn now(&self) -> Duration {
        self.start.elapsed() + self.slept
    }

    /// Tells whether the tokens of this day are given.
    fn limit_reached(&self) -> bool {
        let day = |time: Instant| time.duration_since(self.start).as_secs() / (24 * 3600);
        let (today, is_given) = (day(Instant::now()), |mood| matches!(mood, Mood::Gives(_)));
        let calls = self.calls.iter().rev().take_while(|call| day(call.began) == today);
        self.daily_limit
            .is_some_and(|limit| calls.filter(|call| is_given(call.mood)).count() >= limit)
    }

    /// Gives out a token; the server's part of the work is done at once.
    fn give(&mut self, whose: &str, life: u64, same: bool) -> (String, Duration) {
        let now = self.now();
        if let Some(token) = self.last.get(whose).filter(|_| same)
            && let Some(left) = self.ends[token].checked_sub(now).filter(|left| left.as_secs() > 0)
        {
            return (token.clone(), Duration::from_secs(left.as_secs()));
        }
        let token = format!("t{}", self.ends.len());
        let life = Duration::from_secs(life);
        self.ends.insert(token.clone(), now + life);
        self.last.insert(whose.to_owned(), token.clone());
        (token, life)
    }
}

impl MakeFetch for Scripted {
    type Fetch = Fetcher;

    fn make_fetch(
        &mut self,
        credential: &Arc<Credential>,
        scopes: &ScopeSet,
        _: Option<Reader>,
    ) -> Fetcher {
        let number = self.1.fetch_add(1, Ordering::Relaxed);
        let whose = format!("{}: {scopes}", credential.name);
        Fetcher { server: self.clone(), whose, number }
    }
}

/// Fetches one token.
pub struct Fetcher {
    server: Scripted,
    whose: String,
    number: usize,
}

/// A call in flight; given up when dropped.
struct InFlight<'a>(&'a Fetcher);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0.server.world().in_flight.get_mut(&self.0.number) {
            *count -= 1;
        }
    }
}

impl Fetch for Fetcher {
    async fn fetch(
        &self,
        refresh: Option<&Sensitive>,
        suppressed: Option<Fingerprint>,
    ) -> Result<Fetched, FetchError> {
        let sent = Moment::now();
        let (secret, mood, latency, call) = {
            let mut world = self.server.world();
            let secret = Fingerprint::of(world.secret);
            if suppressed == Some(secret) {
                return Err(FetchError::SecretSuppressed);
            }
            let before = world.calls.iter().rev().find(|call| call.fetcher == self.number);
            if let Some(before) = before {
                assert!(sent.mono >= before.began + Duration::from_secs(1), "less than 1 s apart");
            }
            let mood = if world.limit_reached() { Mood::Status(429, 0) } else { world.mood };
            let call = Call {
                fetcher: self.number,
                began: sent.mono,
                ended: None,
                mood,
                refresh: refresh.is_some(),
            };
            world.calls.push(call);
            let count = world.in_flight.entry(self.number).or_default();
            *count += 1;
            assert_eq!(*count, 1, "two calls in flight for one token");
            let all: usize = world.in_flight.values().sum();
            assert!(all <= world.most_in_flight, "{all} calls in flight to one endpoint");
            (secret, mood, world.latency, world.calls.len() - 1)
        };
        let _in_flight = InFlight(self);
        let latency = if mood == Mood::Hangs { Duration::from_secs(10) } else { latency };
        tokio::time::sleep(latency / 2).await;
        let given = match mood {
            Mood::Gives(life) => Some(self.server.world().give(&self.whose, life, false)),
            Mood::SameToken(life) => Some(self.server.world().give(&self.whose, life, true)),
            _ => None,
        };
        tokio::time::sleep(latency / 2).await;
        self.server.world().calls[call].ended = Some(Instant::now());
        let grant = GrantKind::ClientCredentials;
        let refused = |error| Err(FetchError::Refused { error, secret, grant });
        match (mood, given) {
            (_, Some((token, life))) => {
                let secret = refresh.is_none().then_some(secret);
                Ok(self.fetched(token, life, sent, secret))
            }
            (Mood::Down, _) => Err(CallError::Connect(connect_error()).into()),
            (Mood::Cut, _) => Err(CallError::Incomplete.into()),
            (Mood::Hangs, _) => Err(CallError::Timeout(latency).into()),
            (Mood::Malformed, _) => refused(TokenError::Malformed(MalformedResponse::NotJson)),
            (Mood::Refuses, _) => refused(TokenError::Refused(TokenErrorResponse {
                status: StatusCode::UNAUTHORIZED,
                code: Some(ErrorCode::InvalidClient),
                description: None,
                retry_after: None,
            })),
            (Mood::Status(status, wait), _) => refused(TokenError::Refused(TokenErrorResponse {
                status: StatusCode::from_u16(status).unwrap(),
                code: None,
                description: None,
                retry_after: (wait > 0).then(|| Duration::from_secs(wait)),
            })),
            (Mood::Gives(_) | Mood::SameToken(_), None) => unreachable!("they give"),
        }
    }

    async fn revoke(&self, token: RevokedToken<'_>) -> Result<(), FetchError> {
        let (RevokedToken::Access(token) | RevokedToken::Refresh(token)) = token;
        self.server.world().revoked.push(token.expose().to_owned());
        Ok(())
    }

    #[cfg(feature = "share")]
    async fn proof(&self) -> Result<ReplicaProof, FetchError> {
        Ok(ReplicaProof {
            client_id: Sensitive::new("client"),
            username: None,
            secret: SecretDigest::of(self.server.world().secret),
            identity: None,
            prover: None,
        })
    }
}

impl Fetcher {
    fn fetched(
        &self,
        token: String,
        life: Duration,
        sent: Moment,
        secret: Option<Fingerprint>,
    ) -> Fetched {
        let world = self.server.world();
        let refresh = world.refresh_tokens.then(|| Sensitive::new(format!("r-{token}")));
        let issued = IssuedToken {
            access_token: Sensitive::new(token),
            expires_in: Some(life),
            expires_at: None,
            refresh_token: refresh,
            scope: world.granted.map(|granted| ScopeSet::parse(granted).unwrap()),
            date: None,
        };
        let lifetime = Lifetime { life, ignored: None };
        Fetched {
            issued,
            lifetime,
            sent,
            clock_offset: None,
            secret,
            identity: None,
            prover: None,
            reread: None,
        }
    }
}

/// A credential named "bank".
pub fn credential(policy: RefreshPolicy) -> Credential {
    Credential {
        name: "bank".into(),
        source: TokenSource::Endpoint(TokenEndpoint::parse("https://auth.example/token").unwrap()),
        via: None,
        client_id: ClientIdSource::Referenced(Reference::Env("ID".into())),
        secret_headers: Vec::new(),
        client_secret: None,
        certificate: None,
        grant_key: None,
        grant_parameters: Vec::new(),
        attach: TokenHeader::default(),
        auth: ClientAuth::None,
        dialect: Dialect::default(),
        tls: TlsSettings::default(),
        binding: Binding::None,
        client_certificate: None,
        dpop: None,
        egress: None,
        grouping: Grouping::PerScopeSet,
        revocation: None,
        policy,
    }
}

/// What routes with these scopes want of it.
pub fn wanted(credential: &Arc<Credential>, scopes: &[&str]) -> Vec<TokenSpec> {
    let want = |scopes: &&str| TokenSpec {
        credential: Arc::clone(credential),
        scopes: ScopeSet::parse(scopes).unwrap(),
    };
    scopes.iter().map(want).collect()
}

/// Has a manager keep one token for each of these scope sets, and gives their readers in the order
/// of the scope sets.
pub fn keep(
    manager: &mut TokenManager<Scripted>,
    credential: &Arc<Credential>,
    scopes: &[&str],
) -> Vec<Reader> {
    let readers = manager.apply(wanted(credential, scopes));
    let of = |one: &TokenSpec| readers.get(&one.key()).unwrap().clone();
    wanted(credential, scopes).iter().map(of).collect()
}

/// A manager whose tokens come from this server.
pub fn manager(server: &Scripted) -> (TokenManager<Scripted>, Registry) {
    let registry = Registry::new();
    let metrics = TokenMetrics::register(&registry).unwrap();
    (TokenManager::with(server.clone(), metrics), registry)
}

/// One token of the credential `bank`, and its server.
pub(crate) struct Story {
    pub server: Scripted,
    pub manager: TokenManager<Scripted>,
    pub registry: Registry,
    pub reader: Reader,
}

impl Story {
    pub(crate) fn begin(mood: Mood, adjust: impl FnOnce(&mut Credential)) -> Self {
        clock::set(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let server = Scripted::new();
        server.set(mood);
        let mut credential = credential(RefreshPolicy::default());
        adjust(&mut credential);
        let (mut manager, registry) = manager(&server);
        let reader = keep(&mut manager, &Arc::new(credential), &["a"]).remove(0);
        Self { server, manager, registry, reader }
    }

    /// All metrics as they are scraped.
    pub(crate) fn metrics(&self) -> String {
        String::from_utf8(self.registry.render()).unwrap()
    }
}
