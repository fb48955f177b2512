//! Requests in their real states, with the real token river, to a bank that does whatever a seed
//! says, in virtual time: how often each arrives, with which token, and what its app is told.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::{authorize, is_safe, send};
use crate::body::Body;
use crate::clock::testing as clock;
use crate::listen::Peer;
use crate::listen::settings::Listen;
use crate::net::testing::origin;
use crate::net::tls::ClientIdentity;
use crate::proxy::access_log::AccessRecord;
use crate::proxy::headers::FieldClass;
use crate::proxy::policy::metrics::ProxyMetrics;
use crate::proxy::policy::plan::{BoundListener, Plan, PlanInputs, token_specs};
use crate::proxy::policy::settings::{
    AllowedHosts, ListenerSettings, ProxySettings, RequestLimits, RetryUnsafe, RouteSettings,
    UpstreamSettings,
};
use crate::proxy::rejection::{Code, Rejection};
use crate::proxy::request::scope::{RequestScope, ScopedRequest};
use crate::proxy::snapshot::Snapshot;
use crate::server::{ClientProbe, ConnectionInfo};
use crate::telemetry::Registry;
use crate::token::credential::RefreshPolicy;
use crate::token::testing::{Mood, Scripted, credential, manager};
use crate::upstream::{
    self, Forwarded, Reuse, SendError, SendErrorKind, SendFailure, SendRequest, Transport,
    UpstreamResponse,
};

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
const TOKEN_WAIT: Duration = Duration::from_secs(2);

/// What the bank does with a request that reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered(u16),
    /// The token is refused, and nothing else is looked at.
    Challenged,
    /// The connection had carried others, and ends without a word.
    Stale,
    /// A connection made for it ends without a word.
    Reset,
    /// The bank promises not to have looked at it.
    Refused,
    Silent,
}

#[derive(Debug)]
struct Arrival {
    id: String,
    authorization: HeaderValue,
    fate: Fate,
}

/// The way to the bank, and its book.
struct Bank {
    dice: RefCell<fastrand::Rng>,
    server: Scripted,
    book: RefCell<Vec<Arrival>>,
}

impl Bank {
    fn roll(&self, below: u32) -> u32 {
        self.dice.borrow_mut().u32(0..below)
    }

    fn fate(&self, reuse: Reuse) -> Fate {
        match self.roll(16) {
            0 if reuse != Reuse::Never => Fate::Stale,
            0 | 1 => Fate::Reset,
            2 => Fate::Refused,
            3 => Fate::Silent,
            4 | 5 => Fate::Challenged,
            6 => Fate::Answered(403),
            7 => Fate::Answered(503),
            _ => Fate::Answered(200),
        }
    }
}

/// A connection to the bank.
struct BankConnection(Rc<Bank>, Reuse);

impl Transport for Rc<Bank> {
    type Connection = BankConnection;

    async fn acquire(
        &self,
        reuse: Reuse,
        _identity: Option<&Arc<ClientIdentity>>,
    ) -> Result<BankConnection, SendError> {
        sleep(Duration::from_millis(self.roll(50).into())).await;
        if self.roll(40) == 0 {
            let (kind, forwarded) = (SendErrorKind::Overloaded, Forwarded::No);
            return Err(SendError { kind, forwarded, reused: false });
        }
        Ok(BankConnection(Rc::clone(self), reuse))
    }
}

impl SendRequest for BankConnection {
    fn peer_address(&self) -> Option<SocketAddr> {
        None
    }

    fn release(self) {}

    async fn send(self, request: Request<Body>) -> Result<UpstreamResponse, SendFailure> {
        let Self(bank, reuse) = self;
        if bank.roll(30) == 0 {
            let (kind, forwarded) = (SendErrorKind::Closed, Forwarded::No);
            let error = SendError { kind, forwarded, reused: true };
            return Err(SendFailure::Returned(Box::new(request), error));
        }
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let told = if head.method == Method::GET { "" } else { "pay" };
        assert_eq!(body, told, "a body goes with each of a request's tries");
        let fate = bank.fate(reuse);
        let authorization = head.headers["authorization"].clone();
        assert!(bank.server.lives(&authorization), "a token is sent after its end");
        let id = head.uri.path().to_owned();
        bank.book.borrow_mut().push(Arrival { id, authorization, fate });
        if fate == Fate::Silent {
            std::future::pending::<()>().await;
        }
        sleep(Duration::from_millis(bank.roll(3000).into())).await;
        let failed = |kind, forwarded, reused| {
            Err(SendFailure::Failed(SendError { kind, forwarded, reused }))
        };
        let unknown = Forwarded::Unknown;
        let challenge = "Bearer error=\"invalid_token\"";
        match fate {
            Fate::Stale => failed(SendErrorKind::Closed, unknown, true),
            Fate::Reset | Fate::Silent => failed(SendErrorKind::Closed, unknown, false),
            Fate::Refused => failed(SendErrorKind::Refused, Forwarded::No, true),
            Fate::Challenged => Ok(answer(401, challenge)),
            Fate::Answered(403) => Ok(answer(403, "Bearer error=\"insufficient_scope\"")),
            Fate::Answered(status) => Ok(answer(status, "")),
        }
    }
}

fn answer(status: u16, challenge: &str) -> UpstreamResponse {
    let response = Response::builder().status(status).header("www-authenticate", challenge);
    let response = response.body(Body::full("told")).unwrap();
    UpstreamResponse { response, body_unread: false }
}

/// One route for each setting of `retry.unsafe`.
fn settings() -> ProxySettings {
    let route = |name: &str, retry_unsafe| RouteSettings {
        name: name.into(),
        host: None,
        path: crate::route::PathPattern::parse(&format!("/{name}/**")).unwrap(),
        methods: vec![Method::GET, Method::POST],
        scopes: crate::oauth::ScopeSet::parse("a").unwrap(),
        credential: None,
        clients: Default::default(),
        retry_unsafe,
        retry_dpop_nonce: true,
        renew_on: Default::default(),
        allowed_quirks: Default::default(),
        allow_override_headers: false,
        trailers: Default::default(),
        upgrade: Default::default(),
    };
    let listen = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
    ProxySettings {
        listeners: vec![ListenerSettings {
            listen,
            peers: Default::default(),
            tls: None,
            allowed_hosts: AllowedHosts::Own,
            allowed_origins: Vec::new(),
        }],
        clients: Vec::new(),
        upstreams: vec![UpstreamSettings {
            connection: upstream::Settings::new("bank", origin("http://127.0.0.1:1")),
            base_path: String::new(),
            mount: String::new(),
            strip_mount: true,
            case_insensitive: false,
            listeners: 0..1,
            credential: "bank".into(),
            set_headers: Vec::new(),
            incoming_authorization: Default::default(),
            query_access_token: Default::default(),
            forwarding_headers: Default::default(),
            request_id_header: None,
            rewrite_cookies: false,
            response_timeout: RESPONSE_TIMEOUT,
            body_idle_timeout: RESPONSE_TIMEOUT,
            routes: vec![
                route("never", RetryUnsafe::Never),
                route("keyed", RetryUnsafe::IdempotencyKey),
                route("always", RetryUnsafe::Always),
            ],
        }],
        limits: RequestLimits::default(),
        via: Default::default(),
    }
}

/// What an app sends.
#[derive(Debug, Clone)]
struct Asked {
    method: Method,
    path: String,
    keyed: bool,
}

impl Asked {
    fn drawn(bank: &Bank, number: usize) -> Self {
        let method = if bank.roll(2) == 0 { Method::GET } else { Method::POST };
        let route = ["never", "keyed", "always"][bank.roll(3) as usize];
        Self { method, path: format!("/{route}/{number}"), keyed: bank.roll(2) == 0 }
    }

    fn may_repeat(&self) -> bool {
        let route = self.path.split('/').nth(1).unwrap();
        is_safe(&self.method) || route == "always" || (route == "keyed" && self.keyed)
    }

    fn request(&self) -> Request<Body> {
        let mut request = Request::builder().method(&self.method).uri(&self.path);
        request = request.header("host", "localhost");
        if self.keyed {
            request = request.header("idempotency-key", "k");
        }
        let body = if self.method == Method::GET { Body::empty() } else { Body::full("pay") };
        if self.method != Method::GET {
            request = request.header("content-length", "3");
        }
        request.body(body).unwrap()
    }
}

/// A request of an app, as the stack would hand it on.
fn scoped(snapshot: &Rc<Snapshot>, request: Request<Body>) -> Box<ScopedRequest> {
    let fields = FieldClass::classify_all(request.headers());
    let peer = Peer::tcp(SocketAddr::from(([127, 0, 0, 1], 1)));
    let record = AccessRecord::new(
        &request,
        peer.address,
        fields,
        snapshot.plan.request_log,
        snapshot.stop.clone(),
    );
    let in_flight = snapshot.metrics.enter_in_flight();
    let scope = RequestScope::new(Rc::clone(snapshot), record, in_flight, &Rc::default());
    let connection = Rc::new(ConnectionInfo::new(0, peer));
    let client = ClientProbe::always_connected();
    Box::new(ScopedRequest { request, fields, connection, client, upgrade: None, scope })
}

async fn handled(
    snapshot: &Rc<Snapshot>,
    bank: &Rc<Bank>,
    asked: &Asked,
) -> Result<Response<Body>, Rejection> {
    send(&mut authorize(scoped(snapshot, asked.request())).await?, bank).await
}

/// What must hold of one request, whatever happened.
fn judge(
    asked: &Asked,
    book: &[Arrival],
    outcome: &Result<Response<Body>, Rejection>,
    took: Duration,
) {
    let arrived: Vec<_> = book.iter().filter(|one| one.id == asked.path).collect();
    let told = format!("{asked:?} {arrived:?} {:?}", outcome.as_ref().map(Response::status));
    assert!(arrived.len() <= if asked.may_repeat() { 3 } else { 1 }, "{told}");
    for two in arrived.windows(2) {
        let challenged = two[0].fate == Fate::Challenged;
        assert!(challenged || matches!(two[0].fate, Fate::Stale | Fate::Refused), "{told}");
        assert!(!challenged || two[0].authorization != two[1].authorization, "{told}");
    }
    let longest = TOKEN_WAIT + TOKEN_WAIT + 3 * RESPONSE_TIMEOUT + Duration::from_secs(1);
    assert!(took <= longest, "{took:?} {told}");
    let was = |fate| arrived.iter().any(|one| one.fate == fate);
    let fits = match (arrived.last().map(|last| last.fate), outcome) {
        (Some(Fate::Answered(status)), Ok(response)) => response.status() == status,
        (Some(Fate::Challenged), Ok(response)) => response.status() == 401,
        (Some(Fate::Stale | Fate::Reset), Err(rejection)) => {
            rejection.code == Code::UpstreamReset && rejection.forwarded == Forwarded::Unknown
        }
        (Some(Fate::Silent), Err(rejection)) => {
            rejection.code == Code::UpstreamTimeout && rejection.forwarded == Forwarded::Unknown
        }
        // The second try ended before it reached anybody.
        (Some(Fate::Challenged), Err(rejection)) => {
            asked.may_repeat() && rejection.forwarded == Forwarded::Yes
        }
        (Some(Fate::Refused), Err(rejection)) if was(Fate::Challenged) => {
            rejection.forwarded != Forwarded::No
        }
        (Some(Fate::Refused), Err(rejection)) => {
            (rejection.forwarded == Forwarded::Unknown) == was(Fate::Stale)
        }
        (None, Err(rejection)) => rejection.forwarded == Forwarded::No,
        _ => false,
    };
    assert!(fits, "{told}");
}

async fn story(seed: u64) {
    clock::set(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let (server, settings) = (Scripted::new(), settings());
    let credentials =
        [Arc::new(credential(RefreshPolicy { wait: TOKEN_WAIT, ..RefreshPolicy::default() }))];
    let (mut manager, _registry) = manager(&server);
    let metrics = ProxyMetrics::register(&Registry::new()).unwrap();
    let plan = Plan::build(
        &settings,
        PlanInputs {
            credentials: &credentials,
            readers: manager.apply(token_specs(&settings, &credentials)),
            set_headers: HashMap::new(),
            local_keys: HashMap::new(),
            bound: HashMap::from([(0, BoundListener { id: 0, addresses: Vec::new() })]),
            metrics: &metrics,
            request_log: Default::default(),
            config_sha256: Default::default(),
        },
    );
    let plan = Arc::new(plan.unwrap_or_else(|_| panic!("no two routes conflict")));
    let snapshot = Rc::new(Snapshot::without_pools(plan, metrics));
    let dice = RefCell::new(fastrand::Rng::with_seed(seed));
    let bank = Rc::new(Bank { dice, server: server.clone(), book: RefCell::default() });
    let mut apps = Vec::new();
    let started = Instant::now();
    for number in 0..40 {
        let (snapshot, bank) = (Rc::clone(&snapshot), Rc::clone(&bank));
        let (asked, begins) = (Asked::drawn(&bank, number), bank.roll(200_000));
        apps.push(tokio::task::spawn_local(async move {
            sleep(Duration::from_millis(begins.into())).await;
            let began = Instant::now();
            let outcome = handled(&snapshot, &bank, &asked).await;
            judge(&asked, &bank.book.borrow(), &outcome, began.elapsed());
        }));
    }
    let moods = [Mood::Gives(60), Mood::Gives(5), Mood::SameToken(60), Mood::Down, Mood::Hangs];
    for _ in 0..10 {
        sleep(Duration::from_millis(bank.roll(30_000).into())).await;
        server.set(moods[bank.roll(5) as usize]);
    }
    for app in apps {
        app.await.unwrap();
    }
    // One call a second, the first at once, however many are refused.
    let calls = server.calls() as u64;
    assert!(calls <= 2 + started.elapsed().as_secs(), "seed {seed}: {calls} calls");
}

#[test]
fn whatever_fails_a_request_arrives_as_often_as_it_may_and_its_app_is_told_the_truth() {
    for seed in 0..150 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        LocalSet::new().block_on(&runtime, story(seed));
    }
}

/// hyper keeps room for one with each connection.
#[test]
fn a_requests_future_is_small() {
    fn size<T>(_: fn(Box<ScopedRequest>) -> T) -> usize {
        size_of::<T>()
    }
    let bytes = size(super::forward);
    // 16 bytes more where crates of other features switch on more of tokio than this program asks for.
    assert!(bytes <= if cfg!(feature = "aws") { 1456 } else { 1440 }, "{bytes}");
}
