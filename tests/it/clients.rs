//! Who may ask: clients known by a key, and which routes are theirs.

use std::time::Duration;

use bearer_proxy::sandbox::{Persona, Sandbox};
use rustix::process::{getegid, geteuid};
use tempfile::TempDir;

use crate::headers::{Between, Extra};
use crate::listening::unix_client;
use crate::support::http2::frames;
use crate::support::{Client, Proxy, client, config, secret_file, soon};
use crate::tls::{Authority, connect, with_tls};

const HEAD: &str = "GET /v1/a HTTP/1.1\r\nHost: localhost";

/// Two clients with keys and one without a way in here; `/v1/**` is the first one's, `/all` is
/// everybody's who has a name, `/open` is open.
struct Guarded {
    between: Between,
    keys: TempDir,
}

impl Guarded {
    async fn start() -> Self {
        let keys = TempDir::new().unwrap();
        let erp = secret_file(keys.path(), "erp", "key-of-erp\n");
        let batch = secret_file(keys.path(), "batch", "key-of-batch");
        let clients = format!(
            "[clients.erp]\nlocal_key = {{ header = \"X-Local-Key\", value.file = {erp:?} }}\n\
             [clients.batch]\nlocal_key = {{ header = \"X-Batch-Key\", value.file = {batch:?} }}\n\
             [clients.unread]\nlocal_key = {{ header = \"X-Unread\", value.file = \"/nowhere\" }}\n\
             [clients.process]\npeer_uids = [0]\n"
        );
        let more = "[[upstreams.bank.routes]]\nname = \"named\"\npath = \"/all\"\nmethods = [\"GET\"]\nscopes = [\"balances.read\"]\n\
                    [[upstreams.bank.routes]]\nname = \"process\"\npath = \"/process\"\n\
                    methods = [\"GET\"]\nscopes = [\"balances.read\"]\nclients = [\"process\"]\n";
        let more = format!("{more}[reload]\nwatch = \"1s\"\n[log]\nlevel = \"trace\"\n");
        let more = more.as_str();
        let extra =
            Extra { clients: &clients, route: "clients = [\"erp\"]", more, ..Extra::default() };
        Self { between: soon(Between::start(extra)).await, keys }
    }
}

#[tokio::test]
async fn a_key_opens_the_routes_of_its_client_and_goes_no_further() {
    let Guarded { between, keys } = Guarded::start().await;
    let seen = between
        .forwarded(&format!(
            "{HEAD}\r\nX-Local-Key: key-of-erp\r\nX_Local_Key: x\r\nX-Batch_Key: y"
        ))
        .await;
    assert!(!seen.iter().any(|line| line.contains("key-of") || line.contains("_key")), "{seen:?}");
    let refused = async |lines: &str| between.refused(lines).await;
    let (missing, wrong) = ((403, "local_key".to_owned()), (403, "local_key".to_owned()));
    assert_eq!(refused(HEAD).await, missing);
    for key in ["", "key-of-er", "key-of-erp1", "Key-of-erp", "key-of-batch", "key-of-erp, x"] {
        assert_eq!(refused(&format!("{HEAD}\r\nX-Local-Key: {key}")).await, wrong, "{key}");
    }
    for lines in [
        "X-Local-Key: key-of-erp\r\nX-Local-Key: key-of-erp",
        "X_Local_Key: key-of-erp",
        "Authorization: Bearer key-of-erp",
        "Cookie: X-Local-Key=key-of-erp",
    ] {
        assert_eq!(refused(&format!("{HEAD}\r\n{lines}")).await, wrong, "{lines}");
    }
    let other = format!("{HEAD}\r\nX-Batch-Key: key-of-batch");
    assert_eq!(refused(&other).await, (403, "peer_not_allowed".into()));
    let unread = format!("{HEAD}\r\nX-Unread: key");
    assert_eq!(refused(&unread).await, (503, "secret_unavailable".into()));
    drop(keys);
}

#[tokio::test]
async fn a_key_that_connection_names_is_still_shown() {
    let Guarded { between, keys } = Guarded::start().await;
    let lines = format!("{HEAD}\r\nX-Local-Key: key-of-erp\r\nConnection: X-Local-Key");
    between.forwarded(&lines).await;
    drop(keys);
}

#[tokio::test]
async fn every_named_client_may_use_a_route_that_does_not_say() {
    let Guarded { between, keys } = Guarded::start().await;
    let head = "GET /all HTTP/1.1\r\nHost: localhost";
    for key in ["X-Local-Key: key-of-erp", "X-Batch-Key: key-of-batch"] {
        between.forwarded(&format!("{head}\r\n{key}")).await;
    }
    assert_eq!(between.refused(head).await, (403, "local_key".into()));
    let head = "GET /process HTTP/1.1\r\nHost: localhost\r\nX-Local-Key: key-of-erp";
    assert_eq!(between.refused(head).await, (403, "peer_not_allowed".into()));
    drop(keys);
}

#[tokio::test]
async fn strangers_learn_nothing_of_routes() {
    let Guarded { between, keys } = Guarded::start().await;
    for line in ["GET /nowhere", "DELETE /v1/a", "GET /v1/a;b"] {
        let head = format!("{line} HTTP/1.1\r\nHost: localhost");
        assert_eq!(between.refused(&head).await, (403, "local_key".into()), "{line}");
        let known = format!("{head}\r\nX-Local-Key: key-of-erp");
        assert_ne!(between.refused(&known).await.0, 403, "{line}");
    }
    drop(keys);
}

#[tokio::test]
async fn clients_have_names_in_metrics_and_logs_and_keys_are_nowhere() {
    let Guarded { between, keys } = Guarded::start().await;
    between.forwarded(&format!("{HEAD}\r\nX-Local-Key: key-of-erp")).await;
    let refused = format!("{HEAD}\r\nX-Batch-Key: key-of-batch\r\nX-Request-Id: marked");
    between.refused(&refused).await;
    let metrics = client(between.proxy.admin_addr).await.get("/metrics").await.text();
    for line in [
        "bearer_proxy_client_requests_total{client=\"erp\",route=\"all\",upstream=\"bank\"} 1",
        "bearer_proxy_client_requests_total{client=\"batch\",route=\"all\",upstream=\"bank\"} 0",
        "bearer_proxy_requests_rejected_total{reason=\"peer_not_allowed\"} 1",
        "bearer_proxy_requests_rejected_total{reason=\"local_key\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let line =
        between.proxy.wait_log(|line| line.contains("marked").then(|| line.to_owned())).await;
    assert!(line.contains("batch") && line.contains("peer_not_allowed"), "{line}");
    assert!(!between.proxy.log().contains("key-of"), "{}", between.proxy.log());
    assert!(!metrics.contains("key-of"));
    drop(keys);
}

#[tokio::test]
async fn the_same_holds_over_http2() {
    let Guarded { between, keys } = Guarded::start().await;
    let head =
        [(":method", "GET"), (":scheme", "http"), (":path", "/v1/a"), (":authority", "localhost")];
    let with = |more: &[(&'static str, &'static str)]| [&head, more].concat();
    for (fields, code) in [
        (with(&[]), "local_key"),
        (with(&[("x-local-key", "wrong")]), "local_key"),
        (with(&[("x-local-key", "key-of-erp"), ("x-local-key", "key-of-erp")]), "local_key"),
        (with(&[("x-batch-key", "key-of-batch")]), "peer_not_allowed"),
    ] {
        let mut app = frames(between.proxy.addr).await;
        let stream = app.send(&fields, None).await;
        assert_eq!(app.reply(stream).await.json()["code"], code, "{fields:?}");
    }
    let mut app = frames(between.proxy.addr).await;
    let stream = app.send(&with(&[("x-local-key", "key-of-erp")]), None).await;
    let mut bank = between.bank.accept().await;
    assert!(!bank.read_head().await.contains("key-of"));
    bank.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(app.reply(stream).await.body, b"ok");
    drop(keys);
}

#[tokio::test]
async fn a_key_is_rotated_by_writing_its_file() {
    let Guarded { between, keys } = Guarded::start().await;
    let old = format!("{HEAD}\r\nX-Local-Key: key-of-erp");
    between.forwarded(&old).await;
    secret_file(keys.path(), "erp", "newer-key");
    let changed = |line: &str| line.contains("secret of a header has changed").then_some(());
    between.proxy.wait_log(changed).await;
    between.forwarded(&format!("{HEAD}\r\nX-Local-Key: newer-key")).await;
    assert_eq!(between.refused(&old).await, (403, "local_key".into()));
    assert!(!between.proxy.log().contains("newer-key"));
}

#[tokio::test]
async fn keys_and_tokens_are_in_no_log_of_any_level() {
    let Guarded { between, keys } = Guarded::start().await;
    let mut app = frames(between.proxy.addr).await;
    let head = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/v1/a"),
        (":authority", "localhost"),
        ("x-local-key", "key-of-erp"),
    ];
    let stream = app.send(&head, None).await;
    let mut bank = between.bank.accept().await;
    let head = bank.read_head().await;
    let token = head.split("Bearer ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    bank.send(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\nX-Echo: {token}\r\n\r\nok"
    ))
    .await;
    assert_eq!(app.reply(stream).await.body, b"ok");
    between.forwarded(&format!("{HEAD}\r\nX-Local-Key: key-of-erp")).await;
    let log = between.proxy.log();
    assert!(!log.contains("key-of") && !log.contains(token));
    drop(keys);
}

const BALANCE: &str = "/qbank/v1/balances/42";

/// How an answer was refused; nothing where it was not.
async fn refusal(app: &mut Client) -> Option<(u16, String)> {
    let answer = app.get(BALANCE).await;
    (answer.status != 200)
        .then(|| (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned()))
}

#[tokio::test]
async fn a_client_may_be_known_by_its_process() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let (secrets, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = folder.path().join("proxy.sock");
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let usual = config(&sandbox, &secrets);
    let upstream = format!("[upstreams.qbank]\nlisten = \"unix:{}\"\n", path.display());
    let upstream = upstream + "forwarding_headers = \"append\"\n";
    let usual = usual.replace("[upstreams.qbank]\n", &upstream);
    let peer_not_allowed = Some((403, "peer_not_allowed".to_owned()));
    for (proof, expected) in [
        (format!("peer_uids = [{}, {uid}]", uid + 1), None),
        (format!("peer_gids = [{gid}]"), None),
        (format!("peer_uids = [{}]\npeer_gids = [{gid}]", uid + 1), None),
        (format!("peer_uids = [{}]\npeer_gids = [{}]", uid + 1, gid + 1), peer_not_allowed),
    ] {
        let proxy = Proxy::start(&format!("{usual}\n[clients.batch]\n{proof}\n")).await;
        proxy.wait_ready().await;
        assert_eq!(refusal(&mut unix_client(&path).await).await, expected, "{proof}");
        // Who comes over TCP is no process that anybody vouches for.
        let answer = client(proxy.addr).await.get("/sqr/v1/user-status").await;
        assert_eq!(answer.json()["code"], "peer_not_allowed");
    }
    let seen = sandbox.bank(Persona::QBank).api.requests();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[0].headers["x-forwarded-for"], "unknown");
    assert_eq!(seen[0].headers["x-forwarded-proto"], "http");
}

#[tokio::test]
async fn a_client_may_be_known_by_its_certificate() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let (authority, apps, folder) = (Authority::new(), Authority::new(), TempDir::new().unwrap());
    authority.issue("localhost", 2040).write(folder.path());
    let ca = secret_file(folder.path(), "apps.crt", &apps.0.pem());
    let more = format!(", client_ca_file = {ca:?}, client_certificates = \"optional\"");
    let lines = "[clients.erp]\ncertificate.subject = \"CN=erp\"\n\
                 [clients.web]\ncertificate.dns = \"web.bank.example\"\n\
                 [upstreams.qbank]\nforwarding_headers = \"append\"\n";
    let proxy =
        with_tls(&sandbox, &folder, &more, |text| text.replace("[upstreams.qbank]\n", lines)).await;
    let ask = async |name: Option<&str>| {
        let own = name.map(|name| apps.issue(name, 2040));
        let stream =
            connect(&authority.client("http/1.1", own.as_ref()), proxy.addr).await.unwrap();
        refusal(&mut Client::over(stream, proxy.addr)).await
    };
    assert_eq!(ask(Some("erp")).await, None);
    assert_eq!(ask(Some("web.bank.example")).await, None);
    for stranger in [Some("erp2"), Some("bank.example"), Some("ERP"), None] {
        let expected = Some((403, "peer_not_allowed".to_owned()));
        assert_eq!(ask(stranger).await, expected, "{stranger:?}");
    }
    let seen = sandbox.bank(Persona::QBank).api.requests();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].headers["x-forwarded-proto"], "https");
    assert!(seen[0].headers["forwarded"].as_bytes().ends_with(b"proto=https"));
    let metrics = client(proxy.admin_addr).await.get("/metrics").await.text();
    let counted = metrics.lines().find(|line| {
        line.starts_with("bearer_proxy_client_requests_total{client=\"erp\"")
            && line.ends_with(" 1")
    });
    assert!(counted.is_some(), "{metrics}");
}
