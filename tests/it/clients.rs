//! Who may ask: clients known by a key, and which routes are theirs.

use crate::hygiene::{Between, Extra};
use crate::support::http2::frames;
use crate::support::{client, secret_file, soon};

const HEAD: &str = "GET /v1/a HTTP/1.1\r\nHost: localhost";

/// Two clients with keys and one without a way in here; `/v1/**` is the first one's, `/all` is
/// everybody's who has a name, `/open` is open.
struct Guarded {
    between: Between,
    keys: tempfile::TempDir,
}

impl Guarded {
    async fn start() -> Self {
        let keys = tempfile::tempdir().unwrap();
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
