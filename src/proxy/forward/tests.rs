//! Requests in their real states, with the real token river, to a bank that does whatever a seed
//! says, in virtual time: how often each arrives, with which token, and what its app is told.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method};
use http_body_util::BodyExt;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::{Exchange, Forwarder, Local, is_safe};
use crate::body::Body;
use crate::clock::testing as clock;
use crate::message::{Request, Response};
use crate::net::testing::origin;
use crate::proxy::hygiene::Kinds;
use crate::proxy::metrics::ProxyMetrics;
use crate::proxy::plan::{BoundListener, Plan, PlanInputs, wanted};
use crate::proxy::received::Received;
use crate::proxy::rejection::{Code, Forwarded, Rejection};
use crate::proxy::settings::{
    AllowedHosts, ListenerSettings, ProxySettings, RequestLimits, RetryUnsafe, RouteSettings,
    UpstreamSettings,
};
use crate::server::settings::Listen;
use crate::server::{ConnectionInfo, Peer};
use crate::telemetry::Registry;
use crate::token::credential::Policy;
use crate::token::testing::{Mood, Scripted, credential, keeper};
use crate::upstream::{self, Alarms, Departure, Reuse, SendError, SendErrorKind, Way};

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
    alarms: Alarms,
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

impl Way for Bank {
    async fn send(
        &self,
        request: &mut Request,
        reuse: Reuse,
        _: &Departure,
    ) -> Result<Box<Response>, SendError> {
        let body = std::mem::take(&mut request.body).collect().await.unwrap().to_bytes();
        let told = if request.method == Method::GET { "" } else { "pay" };
        assert_eq!(body, told, "a body goes with each of a request's tries");
        sleep(Duration::from_millis(self.roll(50).into())).await;
        let failed = |kind, forwarded, reused| Err(SendError { kind, forwarded, reused });
        if self.roll(40) == 0 {
            return failed(SendErrorKind::Closed, upstream::Forwarded::No, false);
        }
        let fate = self.fate(reuse);
        let authorization =
            HeaderValue::from_bytes(request.fields.get("authorization").unwrap()).unwrap();
        assert!(self.server.lives(&authorization), "a token is sent after its end");
        let id = request.uri.path().to_owned();
        self.book.borrow_mut().push(Arrival { id, authorization, fate });
        if fate == Fate::Silent {
            std::future::pending::<()>().await;
        }
        sleep(Duration::from_millis(self.roll(3000).into())).await;
        let unknown = upstream::Forwarded::Unknown;
        let challenge = "Bearer error=\"invalid_token\"";
        match fate {
            Fate::Stale => failed(SendErrorKind::Closed, unknown, true),
            Fate::Reset | Fate::Silent => failed(SendErrorKind::Closed, unknown, false),
            Fate::Refused => failed(SendErrorKind::Refused, upstream::Forwarded::No, true),
            Fate::Challenged => Ok(answer(401, challenge)),
            Fate::Answered(403) => Ok(answer(403, "Bearer error=\"insufficient_scope\"")),
            Fate::Answered(status) => Ok(answer(status, "")),
        }
    }

    fn alarms(&self) -> &Alarms {
        &self.alarms
    }
}

fn answer(status: u16, challenge: &str) -> Box<Response> {
    let response = http::Response::builder().status(status).header("www-authenticate", challenge);
    Box::new(response.body(Body::full("told")).unwrap().into())
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
        allow_semicolon: false,
        allow_encoded_slash: false,
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
            listener: 0,
            credential: "bank".into(),
            set_headers: Vec::new(),
            incoming_authorization: Default::default(),
            query_access_token: Default::default(),
            forwarding_headers: Default::default(),
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

    fn request(&self) -> Box<Request> {
        let mut request = http::Request::builder().method(&self.method).uri(&self.path);
        request = request.header("host", "localhost");
        if self.keyed {
            request = request.header("idempotency-key", "k");
        }
        let body = if self.method == Method::GET { Body::empty() } else { Body::full("pay") };
        if self.method != Method::GET {
            request = request.header("content-length", "3");
        }
        Box::new(request.body(body).unwrap().into())
    }
}

async fn handled(
    local: Rc<Local>,
    bank: &Rc<Bank>,
    asked: &Asked,
) -> Result<Box<Response>, Rejection> {
    let plan = &local.plan;
    let listener = &plan.listeners[0];
    let request = asked.request();
    let fields = Kinds::survey(&request.fields);
    let received = Received::read(request, fields, listener, &plan.limits)?;
    let routed = received.route(listener)?;
    let upstream = Arc::clone(&plan.upstreams[0]);
    let route = Arc::clone(&routed.route);
    let peer = Peer::tcp(SocketAddr::from(([127, 0, 0, 1], 1)));
    let authorized = routed.authorize(&upstream, &plan.limits, &peer).await?;
    let (local, pool) = (Rc::clone(&local), Rc::clone(bank));
    Exchange { local, pool, route, upstream, switch: None }.run(authorized).await
}

/// What must hold of one request, whatever happened.
fn judge(
    asked: &Asked,
    book: &[Arrival],
    outcome: &Result<Box<Response>, Rejection>,
    took: Duration,
) {
    let arrived: Vec<_> = book.iter().filter(|one| one.id == asked.path).collect();
    let told =
        format!("{asked:?} {arrived:?} {:?}", outcome.as_ref().map(|response| response.status));
    assert!(arrived.len() <= if asked.may_repeat() { 3 } else { 1 }, "{told}");
    for two in arrived.windows(2) {
        let challenged = two[0].fate == Fate::Challenged;
        assert!(challenged || matches!(two[0].fate, Fate::Stale | Fate::Refused), "{told}");
        assert!(!challenged || two[0].authorization != two[1].authorization, "{told}");
    }
    let longest = TOKEN_WAIT + TOKEN_WAIT + 3 * RESPONSE_TIMEOUT + Duration::from_secs(1);
    assert!(took <= longest, "{took:?} {told}");
    let fits = match (arrived.last().map(|last| last.fate), outcome) {
        (Some(Fate::Answered(status)), Ok(response)) => response.status == status,
        (Some(Fate::Challenged), Ok(response)) => response.status == 401,
        (Some(Fate::Stale | Fate::Reset), Err(rejection)) => {
            rejection.code == Code::UpstreamReset && rejection.forwarded == Forwarded::Unknown
        }
        (Some(Fate::Silent), Err(rejection)) => {
            rejection.code == Code::UpstreamTimeout && rejection.forwarded == Forwarded::Unknown
        }
        (Some(Fate::Refused), Err(rejection)) => rejection.forwarded == Forwarded::No,
        (None, Err(rejection)) => rejection.forwarded == Forwarded::No,
        _ => false,
    };
    // A second try may end before it reaches anybody.
    let unsent = outcome.as_ref().is_err_and(|rejection| rejection.forwarded == Forwarded::No);
    assert!(fits || (unsent && asked.may_repeat()), "{told}");
}

async fn story(seed: u64) {
    clock::set(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let (server, settings) = (Scripted::new(), settings());
    let credentials = [Arc::new(credential(Policy { wait: TOKEN_WAIT, ..Policy::default() }))];
    let (mut keeper, _registry) = keeper(&server);
    let plan = Plan::build(
        &settings,
        PlanInputs {
            credentials: &credentials,
            readers: keeper.apply(wanted(&settings, &credentials)),
            set_headers: HashMap::new(),
            local_keys: HashMap::new(),
            bound: HashMap::from([(0, BoundListener { id: 0, addresses: Vec::new() })]),
            metrics: &ProxyMetrics::register(&Registry::new()).unwrap(),
            access: crate::telemetry::log::AccessLog::Off,
        },
    );
    let plan = Arc::new(plan.unwrap_or_else(|_| panic!("no two routes conflict")));
    let local = Rc::new(Local { plan, pools: Vec::new() });
    let dice = RefCell::new(fastrand::Rng::with_seed(seed));
    let (book, alarms) = (RefCell::default(), Alarms::default());
    let bank = Rc::new(Bank { dice, server: server.clone(), book, alarms });
    let mut apps = Vec::new();
    let started = Instant::now();
    for number in 0..40 {
        let (local, bank) = (Rc::clone(&local), Rc::clone(&bank));
        let (asked, begins) = (Asked::drawn(&bank, number), bank.roll(200_000));
        apps.push(tokio::task::spawn_local(async move {
            sleep(Duration::from_millis(begins.into())).await;
            let began = Instant::now();
            let outcome = handled(local, &bank, &asked).await;
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

/// One is allocated for each request. glibc keeps blocks of up to 1,032 bytes at hand; larger ones cost
/// 500 instructions more.
#[test]
fn a_requests_future_is_small() {
    fn size<F, T>(_: F) -> usize
    where
        F: Fn(Rc<Forwarder>, Rc<ConnectionInfo>, Box<Request>) -> T,
    {
        size_of::<T>()
    }
    let (bytes, around_it) = (size(Forwarder::handle), 32);
    assert!(bytes + around_it <= 1032, "{bytes}");
}
