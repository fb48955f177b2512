//! Plans from inputs in any order, and from inputs of which one is missing.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use tokio::time::Instant;

use super::{
    BoundListener, BoundListeners, HostPolicy, LocalKeys, Plan, PlanError, PlanInputs, SetHeaders,
    token_specs,
};
use crate::listen::settings::Listen;
use crate::net::testing::origin;
use crate::oauth::ScopeSet;
use crate::proxy::policy::metrics::ProxyMetrics;
use crate::proxy::policy::settings::{
    AllowedHosts, ClientCredential, ClientSettings, HeaderText, IncomingAuthorization,
    ListenerSettings, ProxySettings, RequestLimits, RouteSettings, UpstreamSettings,
};
use crate::route::{Authority, Lookup, PathPattern};
use crate::secret::Reference;
use crate::telemetry::Registry;
use crate::telemetry::log::RequestLog;
use crate::token::credential::{Grouping, RefreshPolicy};
use crate::token::testing::{Scripted, credential, manager};
use crate::token::{Credential, TokenReaders, TokenSpec};
use crate::upstream;

const KEY: HeaderName = HeaderName::from_static("x-api-key");

fn route(name: &str, scopes: &str, credential: Option<&str>) -> RouteSettings {
    RouteSettings {
        name: name.into(),
        host: None,
        path: PathPattern::parse(&format!("/{name}")).unwrap(),
        methods: vec![Method::GET],
        scopes: ScopeSet::parse(scopes).unwrap(),
        credential: credential.map(Arc::from),
        clients: Default::default(),
        retry_unsafe: Default::default(),
        retry_dpop_nonce: true,
        renew_on: Default::default(),
        allowed_quirks: Default::default(),
        allow_override_headers: false,
        trailers: Default::default(),
        upgrade: Default::default(),
    }
}

fn upstream(name: &str, listener: usize, routes: Vec<RouteSettings>) -> UpstreamSettings {
    UpstreamSettings {
        connection: upstream::Settings::new(name, origin("http://127.0.0.1:1")),
        base_path: String::new(),
        mount: format!("/{name}"),
        strip_mount: true,
        case_insensitive: false,
        listeners: listener..listener + 1,
        credential: name.into(),
        set_headers: vec![(KEY, HeaderText::Secret(Reference::Env("KEY".into())))],
        incoming_authorization: Default::default(),
        query_access_token: Default::default(),
        forwarding_headers: Default::default(),
        response_timeout: Duration::from_secs(60),
        body_idle_timeout: Duration::from_secs(60),
        request_id_header: None,
        rewrite_cookies: false,
        routes,
    }
}

fn listener() -> ListenerSettings {
    ListenerSettings {
        listen: Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
        peers: Default::default(),
        tls: None,
        allowed_hosts: AllowedHosts::Own,
        allowed_origins: Vec::new(),
    }
}

/// Two listeners with the same address, port 0; upstreams of which one has no tokens of ours.
fn settings() -> ProxySettings {
    let bank = vec![route("read", "r", None), route("pay", "p q", None)];
    let open = vec![route("news", "", None)];
    let shop =
        vec![route("read", "r", None), route("buy", "b", None), route("lend", "r", Some("bank"))];
    let keeps = IncomingAuthorization::Keep;
    let open = UpstreamSettings { incoming_authorization: keeps, ..upstream("open", 0, open) };
    let credential =
        ClientCredential::LocalKey { header: KEY, value: Reference::Env("KEY".into()) };
    ProxySettings {
        listeners: vec![listener(), listener()],
        clients: vec![ClientSettings { name: "erp".into(), credential }],
        upstreams: vec![upstream("bank", 0, bank), open, upstream("shop", 1, shop)],
        limits: RequestLimits::default(),
        via: Default::default(),
    }
}

/// One token for each of the bank's scope sets, and one for the whole shop.
fn credentials() -> Vec<Arc<Credential>> {
    let bank = credential(RefreshPolicy::default());
    let shop = Credential { name: "shop".into(), grouping: Grouping::Union, ..bank.clone() };
    vec![Arc::new(bank), Arc::new(shop)]
}

fn set_headers() -> SetHeaders {
    let value = |name| ((Arc::from(name), KEY), Some(HeaderValue::from_static(name)));
    ["bank", "open", "shop"].map(value).into()
}

fn bound() -> BoundListeners {
    let at = |id: u8| {
        let addresses = vec![SocketAddr::from(([127, 0, 1, id], 80))];
        BoundListener { id: id.into(), addresses }
    };
    HashMap::from([(0, at(7)), (1, at(3))])
}

/// What a plan is built from here, beside the readers.
struct Given {
    settings: ProxySettings,
    credentials: Vec<Arc<Credential>>,
    set_headers: SetHeaders,
    local_keys: LocalKeys,
    bound: BoundListeners,
}

impl Given {
    fn all() -> Self {
        let local_keys = HashMap::from([("erp".into(), None)]);
        let (settings, credentials) = (settings(), credentials());
        Self { settings, credentials, set_headers: set_headers(), local_keys, bound: bound() }
    }

    fn plan(self, readers: TokenReaders) -> Result<Plan, PlanError> {
        let inputs = PlanInputs {
            credentials: &self.credentials,
            readers,
            set_headers: self.set_headers,
            local_keys: self.local_keys,
            bound: self.bound,
            metrics: &ProxyMetrics::register(&Registry::new()).unwrap(),
            request_log: RequestLog::default(),
            config_sha256: Arc::default(),
        };
        Plan::build(&self.settings, inputs)
    }
}

/// The tokens of all routes, in the order of the file.
fn all_wanted() -> Vec<TokenSpec> {
    token_specs(&settings(), &credentials())
}

/// The plan that the given order of tokens leads to, and with which token each route goes.
async fn tokens(given: Given, wanted: Vec<TokenSpec>) -> BTreeMap<String, String> {
    let server = Scripted::new();
    let (mut manager, _registry) = manager(&server);
    let plan = given.plan(manager.apply(wanted)).unwrap();
    let mut told = BTreeMap::new();
    for listener in &plan.listeners {
        for (name, path) in [
            ("bank.read", "/bank/read"),
            ("bank.pay", "/bank/pay"),
            ("open.news", "/open/news"),
            ("shop.read", "/shop/read"),
            ("shop.buy", "/shop/buy"),
            ("shop.lend", "/shop/lend"),
        ] {
            let found = listener.table.find("localhost", &Method::GET, path, |_, _| false);
            let Lookup::Found(route) = found else { continue };
            let token = match &route.token {
                None => "none".to_owned(),
                Some(reader) => {
                    let bearer = reader.wait_usable(Instant::now() + Duration::from_secs(9)).await;
                    server.asked_with(bearer.unwrap().header())
                }
            };
            told.insert(name.to_owned(), token);
        }
    }
    told
}

#[tokio::test(start_paused = true)]
async fn each_route_gets_its_own_token_in_whatever_order_they_are_kept() {
    let expected = [
        ("bank.pay", "bank: p q"),
        ("bank.read", "bank: r"),
        ("open.news", "none"),
        ("shop.buy", "shop: r b"),
        ("shop.lend", "bank: r"),
        ("shop.read", "shop: r b"),
    ];
    let expected: BTreeMap<_, _> = expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    assert_eq!(all_wanted().len(), 5);
    for seed in 0..20 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut wanted = all_wanted();
        dice.shuffle(&mut wanted);
        let mut found = tokens(Given::all(), wanted).await;
        // The scopes of a union are sent in the order in which the routes came.
        for token in found.values_mut().filter(|token| **token == "shop: b r") {
            "shop: r b".clone_into(token);
        }
        assert_eq!(found, expected, "seed {seed}");
    }
    let mut given = Given::all();
    given.settings.upstreams.reverse();
    given.settings.upstreams.iter_mut().for_each(|upstream| upstream.routes.reverse());
    given.credentials.reverse();
    assert_eq!(tokens(given, all_wanted()).await, expected);
}

#[tokio::test(start_paused = true)]
async fn headers_and_listeners_are_found_by_what_the_settings_call_them() {
    let (mut manager, _registry) = manager(&Scripted::new());
    let mut given = Given::all();
    given.settings.upstreams.reverse();
    let plan = given.plan(manager.apply(all_wanted())).unwrap();
    for upstream in &plan.upstreams {
        let name = HeaderValue::from_str(&upstream.connection.name).unwrap();
        assert_eq!(upstream.set_headers, [(KEY, Some(name))]);
    }
    let answers = |policy: &HostPolicy, host: &str| {
        policy.allows(&Authority::parse(host.as_bytes()).unwrap())
    };
    for (index, (id, own, other)) in
        [(7, "127.0.1.7", "127.0.1.3"), (3, "127.0.1.3", "127.0.1.7")].into_iter().enumerate()
    {
        let listener = &plan.listeners[index];
        assert_eq!(listener.id, id);
        assert!(answers(&listener.hosts, own) && !answers(&listener.hosts, other));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_refused_by_its_name() {
    let check = |spoil: fn(&mut Given, &mut Vec<TokenSpec>), expected: PlanError, text: &str| {
        let (mut given, mut wanted) = (Given::all(), all_wanted());
        spoil(&mut given, &mut wanted);
        let (mut manager, _registry) = manager(&Scripted::new());
        let error = given.plan(manager.apply(wanted)).err();
        assert_eq!(error.as_ref().map(ToString::to_string).as_deref(), Some(text));
        assert_eq!(error, Some(expected));
    };
    let name = |name: &str| -> Arc<str> { Arc::from(name) };
    // Were readers paired by place, its neighbours would now have each other's tokens.
    check(
        |_, wanted| wanted.retain(|one| one.scopes != ScopeSet::parse("q p").unwrap()),
        PlanError::NoReader {
            upstream: name("bank"),
            route: name("pay"),
            credential: name("bank"),
        },
        "route `bank.pay` needs a token of credential `bank` that nobody keeps",
    );
    // Another route has the same scopes with another credential.
    check(
        |_, wanted| wanted.retain(|one| *one.key().credential() != Arc::from("bank")),
        PlanError::NoReader {
            upstream: name("bank"),
            route: name("read"),
            credential: name("bank"),
        },
        "route `bank.read` needs a token of credential `bank` that nobody keeps",
    );
    // A union without the scopes of this route is not its token.
    check(
        |_, wanted| wanted.retain(|one| one.scopes != ScopeSet::parse("b").unwrap()),
        PlanError::NoReader {
            upstream: name("shop"),
            route: name("buy"),
            credential: name("shop"),
        },
        "route `shop.buy` needs a token of credential `shop` that nobody keeps",
    );
    check(
        |given, _| drop(given.credentials.pop()),
        PlanError::NoCredential {
            upstream: name("shop"),
            route: name("read"),
            credential: name("shop"),
        },
        "route `shop.read` names credential `shop`, which is not there",
    );
    check(
        |given, _| drop(given.set_headers.remove(&(Arc::from("open"), KEY))),
        PlanError::NoHeader { upstream: name("open"), header: KEY },
        "header `x-api-key` of upstream `open` was never read",
    );
    check(
        |given, _| given.local_keys.clear(),
        PlanError::NoLocalKey { client: name("erp") },
        "the local key of client `erp` was never read",
    );
    check(
        |given, _| drop(given.bound.remove(&0)),
        PlanError::NotBound { listen: listener().listen },
        "listener 127.0.0.1:0 is not bound",
    );
    check(
        |given, _| drop(given.settings.listeners.pop()),
        PlanError::NoListener { upstream: name("shop") },
        "upstream `shop` is behind a listener that is not there",
    );
}
