//! The store against an API server of the tests: what replicas see, and what the server does.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use http::StatusCode;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::time::timeout;

use super::probe::probe;
use super::record::SecretObject;
use super::testing::ApiServer;
use super::{KubernetesOptions, KubernetesStore};
use crate::net::testing::{Authority, ServerSetup};
use crate::net::tls::TlsSettings;
use crate::secret::Reference;
use crate::share::metrics::ShareMetrics;
use crate::share::names::TokenName;
use crate::share::probe::ProbeVerdict;
use crate::share::protocol::{AcquireReply, PublishReply};
use crate::share::sealing::SealedPlace;
use crate::share::state::{ClockReading, TokenState};
use crate::share::store::{Acquire, Announcement, StoreError, TokenStore};
use crate::share::testing::{canary_token, sealing_keys};
use crate::telemetry::Registry;

const PATIENCE: Duration = Duration::from_secs(20);
const LEASE: Duration = Duration::from_secs(5);
const LIFE: Duration = Duration::from_secs(600);
const SECRET: &str = "tokens";

/// An API server, and the token file of a service account.
struct Cluster {
    server: ApiServer,
    dir: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let cluster = Self {
            server: ApiServer::start("erp", "canary-sa").await,
            dir: TempDir::new().unwrap(),
        };
        cluster.write_token("canary-sa");
        cluster
    }

    fn token_file(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    fn write_token(&self, token: &str) {
        std::fs::write(self.token_file(), token).unwrap();
        std::fs::set_permissions(self.token_file(), std::fs::Permissions::from_mode(0o600))
            .unwrap();
    }

    /// Time-outs that a busy machine keeps to.
    fn options(&self) -> KubernetesOptions {
        KubernetesOptions {
            server: Some(crate::net::testing::origin(&self.server.url())),
            namespace: Some("erp".to_owned()),
            secret: SECRET.to_owned(),
            token: Reference::File(self.token_file()),
            tls: TlsSettings::default(),
            connect_timeout: PATIENCE,
            operation_timeout: PATIENCE,
        }
    }

    fn store(&self) -> KubernetesStore {
        store(self.options())
    }
}

fn store(options: KubernetesOptions) -> KubernetesStore {
    KubernetesStore::start(options, ShareMetrics::register(&Registry::new()).unwrap())
}

fn ask(owner: &str) -> Acquire<'_> {
    Acquire { owner, generation: 0, token_owner: "", lead: Some(LEASE), secret: "", budget: 0 }
}

async fn until(store: &KubernetesStore, reached: bool) {
    let mut state = store.reached();
    let waited = timeout(PATIENCE, state.wait_for(|now| *now == reached)).await;
    waited.expect("in time").unwrap();
}

/// Waits until the server is as a condition says.
async fn soon(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "it did not happen");
        tokio::task::yield_now().await;
    }
}

async fn next(announced: &mut broadcast::Receiver<Announcement>) -> Announcement {
    timeout(PATIENCE, announced.recv()).await.expect("in time").unwrap()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Refused(message)) => {
            assert!(!message.contains("canary"), "{message}");
            message
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn unreachable<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Unreachable(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn replicas_share_a_token() {
    let cluster = Cluster::start().await;
    let (first, second) = (cluster.store(), cluster.store());
    let name = TokenName::random();
    let mut announced = second.announcements(&name);
    // Both watch, so that each change is announced.
    until(&second, true).await;
    soon(|| cluster.server.watchers() == 2).await;
    assert_eq!(first.acquire(&name, ask("r1")).await, Ok(AcquireReply::Lead(1)));
    let held = second.acquire(&name, ask("r2")).await.unwrap();
    assert!(matches!(held, AcquireReply::Held(left) if left > LEASE / 2), "{held:?}");
    assert_eq!(first.renew(&name, "r1", 1, LEASE).await, Ok(true));
    assert_eq!(second.renew(&name, "r2", 1, LEASE).await, Ok(false));
    first.announce_handover(&name).await.unwrap();
    assert_eq!(next(&mut announced).await, Announcement::HandingOver);
    let published = first.publish(&name, "r1", 1, b"sealed", LIFE).await;
    assert_eq!(published, Ok(PublishReply::Accepted));
    assert_eq!(next(&mut announced).await, Announcement::Published(1));
    let Ok(AcquireReply::Token(value)) = second.acquire(&name, ask("r2")).await else { panic!() };
    assert_eq!((&*value.sealed, &*value.owner, value.generation), (&b"sealed"[..], "r1", 1));
    assert!(value.life_left <= LIFE && value.life_left > LIFE - Duration::from_secs(5));
    let late = second.publish(&name, "r2", 1, b"late", LIFE).await;
    assert_eq!(late, Ok(PublishReply::Superseded(1)));
    let knows = Acquire { generation: 1, token_owner: "r1", ..ask("r2") };
    let floor = second.acquire(&name, knows).await.unwrap();
    assert!(
        matches!(floor, AcquireReply::Wait(left) if left <= Duration::from_secs(2)),
        "{floor:?}"
    );
    let looks = Acquire { lead: None, ..knows };
    assert_eq!(second.acquire(&name, looks).await, Ok(AcquireReply::NoOther));
    assert_eq!(second.fail(&name, "r2", LEASE, None).await, Ok(false));
}

#[tokio::test]
async fn one_of_many_replicas_leads_a_cold_start() {
    let cluster = Cluster::start().await;
    // All read before the first one writes.
    cluster.server.set_latency(Duration::from_millis(5));
    let name = TokenName::random();
    let stores: Vec<_> = (0..25).map(|_| Arc::new(cluster.store())).collect();
    let mut asked = tokio::task::JoinSet::new();
    for (number, store) in stores.iter().enumerate() {
        let (store, name) = (Arc::clone(store), name.clone());
        asked.spawn(async move { store.acquire(&name, ask(&format!("r{number}"))).await.unwrap() });
    }
    let replies = asked.join_all().await;
    let leads = replies.iter().filter(|reply| **reply == AcquireReply::Lead(1)).count();
    let held = replies.iter().filter(|reply| matches!(reply, AcquireReply::Held(_))).count();
    assert_eq!((leads, held), (1, 24), "{replies:?}");
}

#[tokio::test]
async fn conflicts_are_tried_again_within_the_timeout() {
    let cluster = Cluster::start().await;
    let calm = cluster.store();
    let name = TokenName::random();
    until(&calm, true).await;
    cluster.server.disturb(6);
    assert_eq!(calm.acquire(&name, ask("r1")).await, Ok(AcquireReply::Lead(1)));
    assert!(cluster.server.data(SECRET).contains_key("disturbance"), "what others wrote stays");
    let operation_timeout = Duration::from_millis(300);
    let hasty = store(KubernetesOptions { operation_timeout, ..cluster.options() });
    until(&hasty, true).await;
    cluster.server.disturb(usize::MAX);
    let begun = Instant::now();
    let message = unreachable(hasty.acquire(&name, ask("r1")).await);
    assert!(message.contains("did not carry out acquire within 300ms"), "{message}");
    assert!(message.contains("is secrets/tokens changed by many at once?"), "{message}");
    assert!(begun.elapsed() < PATIENCE / 2);
    assert!(*hasty.reached().borrow(), "a server that answers is not away");
    // Tokens of different credentials meet in one Secret.
    cluster.server.disturb(0);
    let shared = Arc::new(calm);
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let store = Arc::clone(&shared);
        asked.spawn(async move { store.acquire(&TokenName::random(), ask("r1")).await });
    }
    for reply in asked.join_all().await {
        assert_eq!(reply, Ok(AcquireReply::Lead(1)));
    }
}

#[tokio::test]
async fn a_leader_that_was_killed_is_followed_by_another() {
    let cluster = Cluster::start().await;
    let (first, second) = (cluster.store(), cluster.store());
    let name = TokenName::random();
    let short = Acquire { lead: Some(Duration::from_millis(100)), ..ask("r1") };
    assert_eq!(first.acquire(&name, short).await, Ok(AcquireReply::Lead(1)));
    drop(first);
    // The server's clock passes the end of the lease, which it tells by whole seconds.
    cluster.server.set_ahead(3);
    assert_eq!(second.acquire(&name, ask("r2")).await, Ok(AcquireReply::Lead(2)));
    assert_eq!(second.publish(&name, "r2", 2, b"second", LIFE).await, Ok(PublishReply::Accepted));
    let third = cluster.store();
    // The answer of the bank came late to the first one.
    let late = third.publish(&name, "r1", 1, b"first", LIFE).await;
    assert_eq!(late, Ok(PublishReply::Superseded(2)));
}

#[tokio::test]
async fn only_the_clock_of_the_server_counts() {
    let cluster = Cluster::start().await;
    let store = cluster.store();
    let name = TokenName::random();
    for ahead in [-36_000, 36_000] {
        cluster.server.set_ahead(ahead);
        let Ok(AcquireReply::Lead(epoch)) = store.acquire(&name, ask("r1")).await else { panic!() };
        store.publish(&name, "r1", epoch, b"sealed", LIFE).await.unwrap();
        let Ok(AcquireReply::Token(value)) = store.acquire(&name, ask("r2")).await else {
            panic!()
        };
        assert!(value.life_left <= LIFE && value.life_left > LIFE - Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_server_that_hangs_delays_an_operation_by_its_timeout_and_no_other() {
    let cluster = Cluster::start().await;
    let operation_timeout = Duration::from_millis(500);
    let store = store(KubernetesOptions { operation_timeout, ..cluster.options() });
    let name = TokenName::random();
    until(&store, true).await;
    cluster.server.set_hangs(true);
    let begun = Instant::now();
    let message = unreachable(store.acquire(&name, ask("r1")).await);
    assert!(message.contains("did not answer acquire within 500ms"), "{message}");
    assert!(begun.elapsed() >= operation_timeout && begun.elapsed() < Duration::from_secs(5));
    until(&store, false).await;
    let begun = Instant::now();
    unreachable(store.acquire(&name, ask("r1")).await);
    assert!(begun.elapsed() < Duration::from_millis(450), "{:?}", begun.elapsed());
    cluster.server.set_hangs(false);
    until(&store, true).await;
    assert!(matches!(store.acquire(&name, ask("r1")).await, Ok(AcquireReply::Lead(_))));
}

#[tokio::test]
async fn a_server_that_was_killed_and_comes_back_empty_is_reached_again() {
    let cluster = Cluster::start().await;
    let store = cluster.store();
    let name = TokenName::random();
    let mut announced = store.announcements(&name);
    until(&store, true).await;
    store.acquire(&name, ask("r1")).await.unwrap();
    cluster.server.stop();
    let message = unreachable(store.acquire(&name, ask("r1")).await);
    assert!(message.contains(&cluster.server.url()), "{message}");
    until(&store, false).await;
    cluster.server.lose();
    cluster.server.start_again().await;
    until(&store, true).await;
    let remembers = Acquire { generation: 7, token_owner: "r2", ..ask("r1") };
    assert_eq!(store.acquire(&name, remembers).await, Ok(AcquireReply::Lead(8)));
    soon(|| cluster.server.watchers() == 1).await;
    store.publish(&name, "r1", 8, b"sealed", LIFE).await.unwrap();
    assert_eq!(next(&mut announced).await, Announcement::Published(8));
}

#[tokio::test]
async fn a_secret_that_was_deleted_is_made_again() {
    let cluster = Cluster::start().await;
    let store = cluster.store();
    let name = TokenName::random();
    store.acquire(&name, ask("r1")).await.unwrap();
    soon(|| cluster.server.watchers() == 1).await;
    cluster.server.remove(SECRET);
    // As after a server that came back empty: the last leader offers its token.
    until(&store, false).await;
    until(&store, true).await;
    assert_eq!(store.acquire(&name, ask("r2")).await, Ok(AcquireReply::Lead(1)));
}

#[tokio::test]
async fn a_secret_that_was_emptied_gets_its_tokens_again() {
    let cluster = Cluster::start().await;
    let store = cluster.store();
    let (name, other) = (TokenName::random(), TokenName::random());
    let mut announced = store.announcements(&name);
    until(&store, true).await;
    for name in [&name, &other] {
        store.acquire(name, ask("r1")).await.unwrap();
        store.publish(name, "r1", 1, b"sealed", LIFE).await.unwrap();
    }
    assert_eq!(next(&mut announced).await, Announcement::Published(1));
    soon(|| cluster.server.watchers() == 1).await;
    // Nothing follows the other one, such as a token that `check --live` throws away.
    let mut state = store.reached();
    store.remove(&other).await.unwrap();
    cluster.server.change(SECRET, BTreeMap::clear);
    state.mark_unchanged();
    until(&store, false).await;
    until(&store, true).await;
}

#[tokio::test]
async fn a_token_that_was_replaced_is_read_again() {
    let cluster = Cluster::start().await;
    let store = cluster.store();
    let name = TokenName::random();
    assert_eq!(store.acquire(&name, ask("r1")).await, Ok(AcquireReply::Lead(1)));
    cluster.server.set_token("canary-next");
    let message = refused(store.acquire(&name, ask("r1")).await);
    assert!(message.contains("did not accept the service account's token"), "{message}");
    cluster.write_token("canary-next");
    assert_eq!(store.acquire(&name, ask("r1")).await, Ok(AcquireReply::Lead(2)));
}

#[tokio::test]
async fn rights_that_are_missing_are_named() {
    let cluster = Cluster::start().await;
    let name = TokenName::random();
    cluster.server.set_rights(&["get", "patch", "watch"]);
    let message = refused(cluster.store().acquire(&name, ask("r1")).await);
    assert!(message.contains("no secrets/tokens in the namespace erp"), "{message}");
    assert!(message.contains("create"), "{message}");
    cluster.server.change(SECRET, |_| {});
    for (rights, verb) in [(&["patch", "watch"][..], "get"), (&["get", "watch"], "patch")] {
        cluster.server.set_rights(rights);
        let message = refused(cluster.store().acquire(&name, ask("r1")).await);
        assert!(
            message.contains(&format!("to {verb} secrets/tokens in the namespace erp")),
            "{message}"
        );
    }
    // Without a watch operations work all the same.
    cluster.server.set_rights(&["get", "patch"]);
    let store = cluster.store();
    assert_eq!(store.acquire(&name, ask("r1")).await, Ok(AcquireReply::Lead(1)));
    until(&store, true).await;
    let elsewhere = KubernetesOptions { namespace: Some("other".into()), ..cluster.options() };
    cluster.server.set_rights(&["get", "patch", "watch", "create"]);
    let message = refused(self::store(elsewhere).acquire(&name, ask("r1")).await);
    assert!(message.contains("there is no namespace other"), "{message}");
    let absent = Reference::File(cluster.dir.path().join("absent"));
    let without = KubernetesOptions { token: absent, ..cluster.options() };
    let message = refused(self::store(without).acquire(&name, ask("r1")).await);
    assert!(message.contains("absent does not exist"), "{message}");
}

#[tokio::test]
async fn what_the_server_cannot_do_now_is_unreachable() {
    let cluster = Cluster::start().await;
    let store = cluster.store();
    let name = TokenName::random();
    until(&store, true).await;
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
        cluster.server.set_failing(Some(status));
        let message = unreachable(store.acquire(&name, ask("r1")).await);
        assert!(message.contains(status.as_str()), "{message}");
        cluster.server.set_failing(None);
        until(&store, true).await;
    }
    cluster.server.set_failing(Some(StatusCode::IM_A_TEAPOT));
    let message = refused(cluster.store().acquire(&name, ask("r1")).await);
    assert!(message.contains("418, InternalError"), "{message}");
}

#[tokio::test]
async fn a_watch_that_was_cut_misses_nothing() {
    let cluster = Cluster::start().await;
    let (leader, follower) = (cluster.store(), cluster.store());
    let name = TokenName::random();
    let mut announced = follower.announcements(&name);
    until(&follower, true).await;
    soon(|| cluster.server.watchers() == 2).await;
    cluster.server.bookmark();
    let mut generation = 0;
    for end in [ApiServer::cut_watches, ApiServer::expire_watches] {
        end(&cluster.server);
        let asks = Acquire { generation, token_owner: "r1", ..ask("r1") };
        let Ok(AcquireReply::Lead(epoch)) = leader.acquire(&name, asks).await else { panic!() };
        leader.announce_handover(&name).await.unwrap();
        assert_eq!(next(&mut announced).await, Announcement::HandingOver);
        leader.publish(&name, "r1", epoch, b"sealed", LIFE).await.unwrap();
        assert_eq!(next(&mut announced).await, Announcement::Published(epoch));
        generation = epoch;
        // The least interval between two token requests.
        cluster.server.set_ahead(i64::try_from(epoch * 10).unwrap());
    }
    assert!(*follower.reached().borrow(), "a watch that ends is no loss of the store");
}

#[tokio::test]
async fn a_state_that_no_replica_wrote_heals() {
    let cluster = Cluster::start().await;
    let store = cluster.store();
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let locked = "{\"leader\":\"r9\",\"until\":9000000000000,\"not_before\":9000000000000}";
    for text in ["x", "{\"generation\":-1}", locked] {
        let name = TokenName::random();
        cluster.server.change(SECRET, |data| {
            data.extend([(format!("{name}.s"), encode(text)), (format!("{name}.t"), encode("x"))]);
        });
        assert_eq!(store.acquire(&name, ask("r1")).await, Ok(AcquireReply::Lead(1)), "{text}");
        let published = store.publish(&name, "r1", 1, b"sealed", LIFE).await;
        assert_eq!(published, Ok(PublishReply::Accepted), "{text}");
    }
}

#[tokio::test]
async fn a_secret_that_would_be_too_large_is_refused_in_words() {
    let cluster = Cluster::start().await;
    let store = cluster.store();
    let name = TokenName::random();
    assert_eq!(store.acquire(&name, ask("r1")).await, Ok(AcquireReply::Lead(1)));
    let huge = vec![b'x'; 1024 * 1024];
    let message = refused(store.publish(&name, "r1", 1, &huge, LIFE).await);
    assert!(message.contains("of 1048576 at most"), "{message}");
}

/// A listener that passes all bytes on to the server, and keeps a copy.
async fn tapped(server: std::net::SocketAddr) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, taken) =
        (format!("http://{}", listener.local_addr().unwrap()), Arc::<Mutex<Vec<u8>>>::default());
    let copy = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = TcpStream::connect(server).await.unwrap().into_split();
            tokio::spawn(tap(from_client, to_server, Arc::clone(&copy)));
            tokio::spawn(tap(from_server, to_client, Arc::clone(&copy)));
        }
    });
    (url, taken)
}

async fn tap(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    copy: Arc<Mutex<Vec<u8>>>,
) {
    let mut bytes = vec![0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        copy.lock().unwrap().extend(&bytes[..read]);
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// A listener that takes TLS off before the server.
async fn terminated(ca: &Authority, server: std::net::SocketAddr) -> String {
    let tls = ca.server(ServerSetup::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(mut client) = tls.accept(client).await else { continue };
            let mut server = TcpStream::connect(server).await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    url
}

#[tokio::test]
async fn tls_trusts_the_ca_file_of_the_pod_alone() {
    let (cluster, ca, other) =
        (Cluster::start().await, Authority::new(), Authority::named("other"));
    let server = Some(crate::net::testing::origin(&terminated(&ca, cluster.server.address).await));
    let files = |ca: &Authority| {
        let pod = KubernetesOptions::default().tls;
        TlsSettings { extra_ca_files: vec![ca.file("ca.pem")], ..pod }
    };
    let options = KubernetesOptions { server, tls: files(&ca), ..cluster.options() };
    let name = TokenName::random();
    assert_eq!(store(options.clone()).acquire(&name, ask("r1")).await, Ok(AcquireReply::Lead(1)));
    let steps = probe(&options).await;
    assert!(
        steps.iter().any(|step| step.name == "tls" && step.verdict == ProbeVerdict::Ok),
        "{steps:?}"
    );
    let foreign = KubernetesOptions { tls: files(&other), ..options.clone() };
    let message = unreachable(store(foreign).acquire(&name, ask("r2")).await);
    assert!(message.contains("TLS with 127.0.0.1"), "{message}");
    let absent = TlsSettings { extra_ca_files: vec![PathBuf::from("/absent.crt")], ..files(&ca) };
    let without = KubernetesOptions { tls: absent, ..options };
    let message = refused(store(without).acquire(&name, ask("r2")).await);
    assert!(message.contains("/absent.crt"), "{message}");
}

#[tokio::test]
async fn nothing_of_a_token_is_in_the_secret_or_on_the_wire() {
    let cluster = Cluster::start().await;
    let (url, wire) = tapped(cluster.server.address).await;
    let server = Some(crate::net::testing::origin(&url));
    let store = store(KubernetesOptions { server, ..cluster.options() });
    let (keys, name, token) = (sealing_keys(), TokenName::random(), canary_token());
    let place = SealedPlace { prefix: SECRET, name: &name, generation: 1, owner: "r1" };
    let sealed = keys.seal(&token, place).unwrap();
    store.acquire(&name, ask("r1")).await.unwrap();
    store.publish(&name, "r1", 1, &sealed, LIFE).await.unwrap();
    let Ok(AcquireReply::Token(value)) = store.acquire(&name, ask("r2")).await else { panic!() };
    assert_eq!(keys.open(&value.sealed, place), Ok(token));
    let kept = cluster.server.data(SECRET).into_iter();
    let kept: Vec<u8> = kept.flat_map(|(key, value)| [key.into_bytes(), value].concat()).collect();
    // The service account's own token is on the wire: within TLS, but for the loopback of this test.
    let wire = String::from_utf8_lossy(&wire.lock().unwrap()).replace("Bearer canary-sa", "");
    let encoded = |text: &str| {
        // Base64 of a text at each of the three offsets, without the letters that depend on what is beside
        // it.
        let encode = |shift: usize| {
            let shifted = [&b"xxx"[..shift], text.as_bytes()].concat();
            let whole = base64::engine::general_purpose::STANDARD_NO_PAD.encode(shifted);
            whole[shift + 1..whole.len() - 2].to_owned()
        };
        [encode(0), encode(1), encode(2)]
    };
    let all = [kept, wire.into_bytes()].concat();
    let holds = |text: &str| all.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds(&format!("{name}.t")) && holds("merge-patch+json") && holds("resourceVersion"));
    assert!(encoded("\"owner\":\"r1\"").iter().any(|text| holds(text)), "base64 is looked into");
    for text in ["canary-access", "canary-refresh", "canary.read", "canary-thumbprint"] {
        assert!(!holds(text), "{text}");
        for text in encoded(text) {
            assert!(!holds(&text), "{text}");
        }
    }
}

#[tokio::test]
async fn the_probe_names_each_step() {
    let cluster = Cluster::start().await;
    let steps = probe(&cluster.options()).await;
    let names: Vec<&str> = steps.iter().map(|step| step.name).collect();
    let all = ["server", "dns", "tcp", "login", "watch", "round trip", "clock", "rights"];
    assert_eq!(names, all, "{steps:?}");
    assert!(steps.iter().all(|step| step.verdict == ProbeVerdict::Ok), "{steps:?}");
    assert!(cluster.server.data(SECRET).is_empty(), "what it wrote is gone");
    cluster.server.set_rights(&["get", "watch"]);
    let failed = probe(&cluster.options()).await.pop().unwrap();
    assert_eq!((failed.name, failed.verdict), ("rights", ProbeVerdict::Failed), "{failed:?}");
    cluster.server.set_rights(&["get", "patch"]);
    let found = probe(&cluster.options()).await;
    let watch = found.iter().find(|step| step.name == "watch").unwrap();
    assert_eq!(watch.verdict, ProbeVerdict::Warning, "{watch:?}");
    cluster.server.stop();
    let failed = probe(&cluster.options()).await.pop().unwrap();
    assert_eq!((failed.name, failed.verdict), ("tcp", ProbeVerdict::Failed), "{failed:?}");
}

#[tokio::test]
async fn a_store_that_is_dropped_disconnects() {
    let cluster = Cluster::start().await;
    let store = cluster.store();
    soon(|| cluster.server.watchers() == 1).await;
    drop(store);
    soon(|| cluster.server.watchers() == 0).await;
    let verbs: BTreeSet<String> = cluster.server.requests().into_iter().collect();
    assert_eq!(verbs.into_iter().collect::<Vec<_>>(), ["create", "get", "watch"]);
}

/// One operation of a replica.
#[derive(Debug, Clone)]
enum Step {
    Acquire {
        owner: &'static str,
        generation: u64,
        token_owner: &'static str,
        lead: bool,
        secret: &'static str,
    },
    Renew(&'static str, u64),
    Publish(&'static str, u64),
    Fail(&'static str, Option<&'static str>),
}

impl Step {
    fn any(random: &mut fastrand::Rng, state: &TokenState) -> Self {
        let owner = ["r1", "r2", "r3"][random.usize(..3)];
        let near =
            |random: &mut fastrand::Rng, middle: u64| (middle + random.u64(..4)).saturating_sub(2);
        match random.u32(..8) {
            0..4 => Self::Acquire {
                owner,
                generation: near(random, state.generation),
                token_owner: ["r1", "r2"][random.usize(..2)],
                lead: random.u32(..4) > 0,
                secret: ["a", "b"][random.usize(..2)],
            },
            4 => Self::Renew(owner, near(random, state.epoch)),
            5 | 6 => Self::Publish(owner, near(random, state.epoch)),
            _ => Self::Fail(owner, [None, Some("a"), Some("b")][random.usize(..3)]),
        }
    }

    fn ask(&self) -> Acquire<'_> {
        let Self::Acquire { owner, generation, token_owner, lead, secret } = self else { panic!() };
        let (generation, lead) = (*generation, lead.then_some(Duration::from_secs(2)));
        Acquire { owner, generation, token_owner, lead, secret, budget: 5 }
    }

    /// The reply of the state machine.
    fn on(&self, state: &mut TokenState, now: ClockReading) -> String {
        match self {
            Self::Acquire { .. } => format!("{:?}", state.acquire(now, &self.ask())),
            Self::Renew(owner, epoch) => format!("{:?}", state.renew(now, owner, *epoch, LEASE)),
            Self::Publish(owner, epoch) => {
                format!("{:?}", state.publish(now, owner, *epoch, owner.as_bytes(), 2 * LEASE))
            }
            Self::Fail(owner, refused) => format!("{:?}", state.fail(now, owner, LEASE, *refused)),
        }
    }

    /// The reply of a store.
    async fn at(&self, store: &KubernetesStore, name: &TokenName) -> String {
        match self {
            Self::Acquire { .. } => format!("{:?}", store.acquire(name, self.ask()).await.unwrap()),
            Self::Renew(owner, epoch) => {
                format!("{:?}", store.renew(name, owner, *epoch, LEASE).await.unwrap())
            }
            Self::Publish(owner, epoch) => {
                let sealed = owner.as_bytes();
                format!(
                    "{:?}",
                    store.publish(name, owner, *epoch, sealed, 2 * LEASE).await.unwrap()
                )
            }
            Self::Fail(owner, refused) => {
                format!("{:?}", store.fail(name, owner, LEASE, *refused).await.unwrap())
            }
        }
    }
}

/// The state in the Secret, without a token that has ended.
fn kept(cluster: &Cluster, name: &TokenName, now: ClockReading) -> TokenState {
    let encode = |value: &Vec<u8>| base64::engine::general_purpose::STANDARD.encode(value);
    let data = cluster.server.data(SECRET);
    let data: BTreeMap<_, _> = data.iter().map(|(key, value)| (key, encode(value))).collect();
    let metadata = serde_json::json!({ "name": SECRET, "resourceVersion": "1" });
    let secret = serde_json::json!({ "metadata": metadata, "data": data });
    let secret: SecretObject = serde_json::from_value(secret).unwrap();
    secret.record(&name.to_string()).current(now).state
}

/// Three replicas at once, with conflicts: their replies, and what is kept, are those of the state machine in
/// one of the six orders.
#[tokio::test]
async fn interleavings_are_those_of_the_state_machine() {
    const ORDERS: [[usize; 3]; 6] =
        [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let cluster = Cluster::start().await;
    let stores = [cluster.store(), cluster.store(), cluster.store()];
    let mut random = fastrand::Rng::with_seed(6750);
    let (mut seconds, mut seen) = (1_800_000_000, BTreeSet::new());
    for _ in 0..4 {
        let (name, mut state) = (TokenName::random(), TokenState::default());
        for round in 0..80 {
            seconds += random.u64(..4);
            cluster.server.stop_clock(seconds);
            let now = ClockReading { earliest: seconds * 1000, latest: seconds * 1000 + 999 };
            cluster.server.disturb(random.usize(..3));
            let steps: [Step; 3] = std::array::from_fn(|_| Step::any(&mut random, &state));
            let (first, second, third) = tokio::join!(
                steps[0].at(&stores[0], &name),
                steps[1].at(&stores[1], &name),
                steps[2].at(&stores[2], &name),
            );
            let (replies, found) = ([first, second, third], kept(&cluster, &name, now));
            let fits = ORDERS.iter().find_map(|order| {
                let mut tried = state.clone();
                let same = order.iter().all(|at| steps[*at].on(&mut tried, now) == replies[*at]);
                tried.value.take_if(|(_, ends)| *ends <= now.earliest);
                (same && tried == found).then_some(tried)
            });
            let words =
                replies.iter().map(|reply| reply.split(['(', '{']).next().unwrap().to_owned());
            seen.extend(words);
            state = fits.unwrap_or_else(|| panic!("{round}: {steps:?} {replies:?} {found:?}"));
        }
    }
    let seen: Vec<&str> = seen.iter().map(|word| word.trim()).collect();
    let all =
        ["Accepted", "Held", "Lead", "NoOther", "Superseded", "Token", "Wait", "false", "true"];
    assert_eq!(seen, all);
}
