//! What `/status` and the verb `status` say of trouble, and how long they say it.

use std::process::{Command, Stdio};
use std::time::Duration;

use bearer_proxy::sandbox::{Fault, Persona, Sandbox, ScriptedResponse};
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::forwarding::sidecar;
use crate::support::{Extra, Fronted};
use crate::support::{Proxy, client, collect, config, in_front_of, raw_server, secret_file, soon};
use crate::verbs::verb;

/// Asks for the state until it is as wanted.
async fn state(proxy: &Proxy, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut admin = client(proxy.admin_addr).await;
    soon(async {
        loop {
            let status = admin.get("/status").await.json();
            if wanted(&status) {
                return status;
            }
        }
    })
    .await
}

/// The verb `status` in a folder without a configuration.
async fn told(proxy: &Proxy) -> String {
    let (dir, admin) = (TempDir::new().unwrap(), proxy.admin_addr.to_string());
    verb(dir.path(), &["status", "--admin", &admin]).await.stdout
}

async fn refresh(proxy: &Proxy, credential: &str) {
    let path = format!("/refresh?credential={credential}");
    let answer = client(proxy.admin_addr).await.request("POST", &path, &[], b"").await;
    assert_eq!(answer.status, 202);
}

fn token<'a>(status: &'a Value, credential: &str) -> &'a Value {
    let tokens = status["tokens"].as_array().unwrap();
    tokens.iter().find(|token| token["credential"] == credential).unwrap()
}

/// The points that need attention, each as one text.
fn attention(status: &Value) -> Vec<String> {
    let points = status["attention"].as_array().unwrap();
    let text = |point: &Value| {
        let word = |name: &str| point[name].as_str().unwrap().to_owned();
        assert!(!word("hint").is_empty(), "{point}");
        format!("{} {}", word("what"), word("hint"))
    };
    points.iter().map(text).collect()
}

#[tokio::test]
async fn a_refused_secret_is_told_at_every_token_while_the_held_ones_serve() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let status = state(&proxy, |_| true).await;
    assert_eq!(attention(&status), Vec::<String>::new(), "all is well");
    sandbox.bank(Persona::QBank).auth.accept_secrets(["another".to_owned()]);
    refresh(&proxy, "qbank").await;
    let status = state(&proxy, |status| token(status, "qbank")["secret_refused"] == true).await;
    let tokens = status["tokens"].as_array().unwrap();
    let qbank: Vec<&Value> = tokens.iter().filter(|token| token["credential"] == "qbank").collect();
    assert!(qbank.len() > 1, "{status}");
    for token in qbank {
        assert_eq!((&token["usable"], &token["secret_refused"]), (&true.into(), &true.into()));
        assert!(token["hint"].as_str().unwrap().contains("client_secret"), "{token}");
    }
    assert_eq!(token(&status, "sqr")["secret_refused"], false);
    let points = attention(&status);
    assert_eq!(points.len(), 1, "once for the credential: {points:?}");
    assert!(points[0].contains("refused the client secret of qbank"), "{points:?}");
    let told = told(&proxy).await;
    assert!(told.contains("usable"), "{told}");
    assert!(told.contains(", the client secret was refused"), "{told}");
    assert!(told.contains("  ! The token server refused the client secret of qbank.\n    -> "));
    assert!(!told.contains(sandbox.bank(Persona::QBank).auth.client_secret()));
}

#[tokio::test]
async fn a_spent_budget_and_a_rate_limit_are_told_with_their_end() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let secrets = TempDir::new().unwrap();
    let table = "[credentials.datacrunch]\n";
    let text = config(&sandbox, &secrets).replace(table, &format!("{table}token_budget = 1\n"));
    let proxy = Proxy::start(&text).await;
    proxy.wait_ready().await;
    let status = state(&proxy, |_| true).await;
    let budget = &token(&status, "datacrunch")["budget"];
    assert_eq!(
        (&budget["limit"], &budget["spent"], &budget["left"]),
        (&1.into(), &1.into(), &0.into())
    );
    assert!(budget["until"].is_string(), "{budget}");
    let points = attention(&status);
    assert!(points[0].contains("token_budget of datacrunch is spent until 2"), "{points:?}");
    let spent = told(&proxy).await;
    assert!(spent.contains(", all 1 calls spent until 2"), "{spent}");
    assert_eq!(token(&status, "sqr")["budget"], Value::Null);

    let retry_after = Duration::from_secs(120);
    sandbox.bank(Persona::Sqr).auth.set_faults([Fault::TooMany { retry_after }]);
    refresh(&proxy, "sqr").await;
    let limited = |status: &Value| token(status, "sqr")["rate_limited_until"].is_string();
    let status = state(&proxy, limited).await;
    let points = attention(&status);
    let limited = "sqr is rate limited by its token server until 2";
    assert!(points.iter().any(|point| point.contains(limited)), "{points:?}");
    assert!(told(&proxy).await.contains(", rate limited until 2"));
    assert!(token(&status, "sqr")["error_text"].as_str().unwrap().contains("429"), "{status}");
}

#[tokio::test]
async fn what_an_upstream_says_of_scopes_and_quotas_is_told_with_the_route() {
    let bank = raw_server().await;
    let extra = Extra { route: "scopes = [\"read:users\"]", ..Extra::default() };
    let proxy: Fronted = in_front_of(&format!("http://{}", bank.addr), extra).await;
    let mut app = client(proxy.addr).await;
    app.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut serving = bank.accept().await;
    serving.read_head().await;
    let challenge = "Bearer error=\"insufficient_scope\", scope=\"read:users write\"";
    let answer =
        format!("HTTP/1.1 403 No\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n");
    serving.send(answer).await;
    assert_eq!(app.read("GET").await.status, 403);
    app.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    serving.read_head().await;
    let fields = "Retry-After: 90\r\nX-RateLimit-Remaining: 0\r\nContent-Length: 0";
    serving.send(format!("HTTP/1.1 429 Slow\r\n{fields}\r\n\r\n")).await;
    assert_eq!(app.read("GET").await.status, 429);
    let status = state(&proxy, |status| status["upstreams"][0]["rate_limited"] == 1).await;
    let upstream = &status["upstreams"][0];
    let lacking = &upstream["last_insufficient_scope"];
    assert_eq!((&lacking["route"], &lacking["scope"]), (&"all".into(), &"read:users write".into()));
    assert_eq!(upstream["last_rate_limit"]["quota"], "x-ratelimit-remaining: 0");
    let points = attention(&status);
    assert_eq!(points.len(), 2, "{points:?}");
    assert!(points[0].contains("Upstream a is rate limited until 2"), "{points:?}");
    // Only what the route does not ask for yet.
    let lacks =
        "the token of route all lacks write (of read:users write, which it asks for). add write to";
    assert!(points[1].contains(lacks), "{points:?}");
    let told = told(&proxy).await;
    assert!(told.contains(", insufficient_scope on all: read:users write"), "{told}");
    assert!(told.contains(" (x-ratelimit-remaining: 0)"), "{told}");
    app.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    serving.read_head().await;
    serving.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(app.read("GET").await.status, 200);
    let lacks = |status: &Value| attention(status).iter().any(|point| point.contains("lacks"));
    state(&proxy, |status| !lacks(status)).await;
}

#[tokio::test]
async fn a_route_whose_payments_fail_is_told_although_reading_works() {
    let bank = raw_server().await;
    let proxy: Fronted = in_front_of(&format!("http://{}", bank.addr), Extra::default()).await;
    let mut app = client(proxy.addr).await;
    for number in 0..2 {
        app.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").await;
        let mut serving = bank.accept().await;
        serving.read_head().await;
        serving.send("HTTP/1.1 504 Late\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        assert_eq!(app.read("POST").await.status, 504);
        app.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut serving = bank.accept().await;
        serving.read_head().await;
        serving.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        assert_eq!(app.read("GET").await.status, 200);
        let status = state(&proxy, |status| status["upstreams"][0]["failing"] == false).await;
        let points = attention(&status);
        let words = "Route a.all: the last 2 unsafe requests (POST) failed since 2";
        match number {
            0 => assert_eq!(points, Vec::<String>::new()),
            _ => assert!(points.len() == 1 && points[0].starts_with(words), "{points:?}"),
        }
    }
}

#[tokio::test]
async fn refusals_that_repeat_are_told_with_what_mends_them() {
    let (_sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(3600))).await;
    let mut app = client(proxy.addr).await;
    let lost = |id: u8| {
        format!(
            "GET /v1/user-status/DE0212 HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: lost-{id}\r\n\r\n"
        )
    };
    app.send(lost(1)).await;
    assert_eq!(app.read("GET").await.status, 404);
    let foreign = "GET / HTTP/1.1\r\nHost: erp.example\r\n\r\n";
    let status = state(&proxy, |status| status["refusals"][0]["code"] == "no_route").await;
    assert_eq!(
        (attention(&status).len(), &status["repeated_refusals"]),
        (0, &json!([])),
        "{status}"
    );
    app.send(lost(2)).await;
    assert_eq!(app.read("GET").await.status, 404);
    for _ in 0..2 {
        app.send(foreign).await;
        assert_eq!(app.read("GET").await.status, 421);
    }
    let repeated = |status: &Value| status["repeated_refusals"].as_array().unwrap().len() == 2;
    let points = attention(&state(&proxy, repeated).await);
    let check = |point: &str, parts: &[&str]| {
        parts.iter().for_each(|part| assert!(point.contains(part), "{part}: {points:?}"));
    };
    assert_eq!(points.len(), 2, "{points:?}");
    check(&points[0], &["2 requests got 421 foreign_host since 2", "erp.example", "allowed_hosts"]);
    check(
        &points[1],
        &["2 requests got 404 no_route since 2", "GET /v1/user-status/_ from 127.0.0.1:"],
    );
    check(&points[1], &["request_id lost-2: ", "whose mount /sqr is missing in the path"]);
    assert!(!proxy.log().contains("user-status/"), "no path is in the log");
    let (dir, admin) = (TempDir::new().unwrap(), proxy.admin_addr.to_string());
    let told = verb(dir.path(), &["status", "--admin", &admin]).await.stdout;
    assert!(!told.contains("DE0212") && told.contains("! 2 requests got 404 no_route"), "{told}");
}

#[tokio::test]
async fn a_payment_of_unknown_outcome_is_told_although_the_next_one_succeeds() {
    let bank = raw_server().await;
    let proxy: Fronted = in_front_of(&format!("http://{}", bank.addr), Extra::default()).await;
    let request =
        "POST /x HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: pay-8\r\nContent-Length: 0\r\n\r\n";
    let mut app = client(proxy.addr).await;
    app.send(request).await;
    let mut serving = bank.accept().await;
    serving.read_head().await;
    drop(serving);
    assert_eq!(app.read("POST").await.header("bearer-proxy-forwarded"), Some("unknown"));
    app.send(request).await;
    let mut serving = bank.accept().await;
    serving.read_head().await;
    serving.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(app.read("POST").await.status, 201);
    let settled = |status: &Value| {
        status["forwarded_unknown"]["last_hour"] == 1 && status["upstreams"][0]["failing"] == false
    };
    let status = state(&proxy, settled).await;
    assert_eq!(status["forwarded_unknown"]["last"]["request_id"], "pay-8", "{status}");
    let recent = &status["forwarded_unknown"]["recent"];
    assert_eq!((recent.as_array().unwrap().len(), &recent[0]["request_id"]), (1, &"pay-8".into()));
    assert!(recent[0]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{status}");
    assert_eq!(status["routes"][0]["forwarded_unknown"], 1);
    assert_eq!(status["refusals"][0]["forwarded"], "unknown");
    assert_eq!(status["refusals"][0]["method"], "POST");
    let points = attention(&status);
    assert_eq!(points.len(), 1, "{points:?}");
    for part in ["acted on 1 unsafe request", "POST a.all at 2", "request_id pay-8."] {
        assert!(points[0].contains(part), "{part}: {points:?}");
    }
}

#[tokio::test]
async fn a_payment_whose_app_has_left_is_told_with_its_route_and_id() {
    let bank = raw_server().await;
    let proxy: Fronted = in_front_of(&format!("http://{}", bank.addr), Extra::default()).await;
    let mut app = client(proxy.addr).await;
    app.send(
        "POST /x HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: pay-7\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let mut serving = bank.accept().await;
    serving.read_head().await;
    app.reset();
    serving.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    let status = state(&proxy, |status| status["undelivered"]["last_hour"] == 1).await;
    let last = &status["undelivered"]["last"];
    assert_eq!((&last["status"], &last["request_id"]), (&201.into(), &"pay-7".into()), "{status}");
    assert_eq!(status["routes"][0]["undelivered"], 1);
    let points = attention(&status);
    assert_eq!(points.len(), 1, "{points:?}");
    for part in [
        "to 1 unsafe request in the last hour",
        "POST a.all at 2",
        "it closed or reset",
        "request_id pay-7.",
    ] {
        assert!(points[0].contains(part), "{part}: {points:?}");
    }
    assert!(told(&proxy).await.contains("  ! Apps did not get"), "the verb says it too");
}

#[tokio::test]
async fn a_request_whose_app_is_slow_is_told_apart_from_one_whose_bank_is() {
    let bank = raw_server().await;
    let proxy: Fronted = in_front_of(&format!("http://{}", bank.addr), Extra::default()).await;
    let mut app = client(proxy.addr).await;
    app.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\npay").await;
    let mut serving = bank.accept().await;
    serving.read_head().await;
    assert_eq!(serving.read_bytes(3).await, b"pay");
    let in_phase = |status: &Value, phase: &str| status["requests"][0]["phase"] == phase;
    state(&proxy, |status| in_phase(status, "waiting for body")).await;
    app.send("now").await;
    assert_eq!(serving.read_bytes(3).await, b"now");
    state(&proxy, |status| in_phase(status, "sent")).await;
}

#[tokio::test]
async fn a_refused_reload_is_told_and_the_broken_file_still_leads_to_the_instance() {
    let (_sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let good = std::fs::read_to_string(&proxy.config_path).unwrap();
    let admin = proxy.admin_addr.to_string();
    let broken = good.replacen(
        "[admin]\nlisten = \"127.0.0.1:0\"",
        &format!("[admin]\nlisten = \"{admin}\""),
        1,
    );
    assert_ne!(broken, good);
    std::fs::write(&proxy.config_path, format!("{broken}\n[nonsense]\nkey = 1\n")).unwrap();
    proxy.signal(Signal::HUP);
    let status = state(&proxy, |status| status["last_reload"]["ok"] == false).await;
    assert!(status["last_reload"]["error"].as_str().unwrap().contains("nonsense"), "{status}");
    let points = attention(&status);
    assert!(points[0].starts_with("The configuration file was refused at 2"), "{points:?}");
    assert!(points[0].contains("run bearer-proxy check"), "{points:?}");
    let file = proxy.config_path.to_str().unwrap();
    let found = verb(std::path::Path::new("/"), &["status", "--config", file]).await;
    assert_eq!(found.code, 0, "{}", found.stderr);
    let process = format!("  pid {}, up ", proxy.id());
    assert!(found.stdout.contains(&process), "{}", found.stdout);
    assert!(found.stdout.contains(&format!(", {file}, reload refused 2")), "{}", found.stdout);
    std::fs::write(&proxy.config_path, good).unwrap();
    proxy.signal(Signal::HUP);
    let status = state(&proxy, |status| status["last_reload"]["ok"] == true).await;
    assert_eq!(attention(&status), Vec::<String>::new());
}

#[tokio::test]
async fn counts_of_answers_survive_a_reload() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let failure =
        ScriptedResponse::Exactly { status: 500, headers: Vec::new(), body: Bytes::new() };
    sandbox.bank(Persona::QBank).api.set_responses([failure.clone(), failure]);
    let mut app = client(proxy.addr).await;
    let balance = "/qbank/v1/balances/42";
    for _ in 0..2 {
        assert_eq!(app.get(balance).await.status, 500);
    }
    let counted = |status: &Value, requests: u64, errors: u64| {
        let mut routes = status["routes"].as_array().unwrap().iter();
        routes.any(|route| route["requests"] == requests && route["errors"] == errors)
    };
    state(&proxy, |status| counted(status, 2, 2)).await;
    let text = std::fs::read_to_string(&proxy.config_path).unwrap();
    std::fs::write(&proxy.config_path, format!("{text}\n# a comment\n")).unwrap();
    proxy.signal(Signal::HUP);
    soon(proxy.wait_log(|line| line.contains("configuration reloaded").then_some(()))).await;
    state(&proxy, |status| counted(status, 2, 2)).await;
    assert_eq!(app.get(balance).await.status, 200);
    state(&proxy, |status| counted(status, 3, 2)).await;
}

#[tokio::test]
async fn sources_of_secrets_have_ages_and_their_failures_are_told() {
    let (sandbox, proxy, secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let sources = |status: &Value| {
        let secrets = status["secrets"].as_array().unwrap();
        let of = secrets.iter().map(|secret| secret["source"].as_str().unwrap().to_owned());
        of.collect::<Vec<_>>()
    };
    let status = state(&proxy, |_| true).await;
    let folder = secrets.path().to_str().unwrap();
    assert!(sources(&status).iter().any(|source| source.contains(folder)), "{status}");
    for secret in status["secrets"].as_array().unwrap() {
        assert!(secret["last_read"].is_string() && secret["value_since"].is_string(), "{secret}");
    }
    for file in std::fs::read_dir(secrets.path()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    refresh(&proxy, "qbank").await;
    let failed =
        |status: &Value| attention(status).iter().any(|point| point.contains("cannot be read"));
    let status = state(&proxy, failed).await;
    assert_eq!(token(&status, "qbank")["last_error"], "secret_unreadable");
    let points = attention(&status);
    assert!(points.iter().any(|point| point.starts_with("No token of qbank can be requested: ")));
    assert!(!points.iter().any(|point| point.contains("read last stays in use")), "{points:?}");
    let metrics = client(proxy.admin_addr).await.get("/metrics").await.text();
    let none = "bearer_proxy_token_requests_total{credential=\"qbank\",result=\"error\"} 0";
    assert!(metrics.contains(none), "the token server was not asked");
    let told = told(&proxy).await;
    assert!(told.contains(", FAILED: file "), "{told}");
    for bank in sandbox.banks() {
        assert!(!told.contains(bank.auth.client_secret()));
    }
}

#[tokio::test]
async fn the_state_is_shown_again_until_ctrl_c() {
    let (_sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    for (format, begins) in [("text", "bearer-proxy "), ("json", "{\"attention\":[")] {
        let admin = proxy.admin_addr.to_string();
        let mut watching = Command::new(env!("CARGO_BIN_EXE_bearer-proxy"))
            .args(["status", "--watch=100ms", "-o", format, "--admin", &admin])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = collect(watching.stdout.take().unwrap());
        let states =
            |lines: &[String]| lines.iter().filter(|line| line.starts_with(begins)).count();
        soon(lines.wait_for(|lines| states(lines) >= 3)).await.unwrap();
        let id = i32::try_from(watching.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(id, Signal::INT).unwrap();
        soon(async { while lines.changed().await.is_ok() {} }).await;
        assert_eq!(watching.wait().unwrap().code(), Some(0));
        assert!(!lines.borrow().iter().any(|line| line.contains('\x1b')), "it is no terminal");
    }
}

#[tokio::test]
async fn without_an_instance_there_is_nothing_to_watch() {
    let dir = TempDir::new().unwrap();
    assert_eq!(verb(dir.path(), &["status", "--watch", "--admin", "127.0.0.1:9"]).await.code, 69);
    assert_eq!(
        verb(dir.path(), &["status", "--watch=1ms", "--admin", "127.0.0.1:9"]).await.code,
        2
    );
}

/// A secret for each place where one could be, in the configuration or beside it.
const PLANTED: [&str; 8] = [
    "pLaNtEd-comment",
    "pLaNtEd-subscription",
    "pLaNtEd-local-key",
    "pLaNtEd-proxy-password",
    "pLaNtEd-environment",
    "pLaNtEd-wrong-place",
    "pLaNtEd-wrong-name",
    "pLaNtEd-tenant",
];

#[tokio::test]
async fn a_support_bundle_has_everything_but_secrets() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let secrets = TempDir::new().unwrap();
    let [comment, subscription, local, proxy_password, environment, place, name, tenant] = PLANTED;
    let key = secret_file(secrets.path(), "subscription", subscription);
    let local = secret_file(secrets.path(), "local", local);
    let text = config(&sandbox, &secrets)
        .replace(
            "[upstreams.sqr]\n",
            &format!(
                "[upstreams.sqr] # {comment}\nset_headers = {{ X-Key = {{ file = {key:?} }} }}\n"
            ),
        )
        .replace(
            "[credentials.sqr]\n",
            &format!(
                "[credentials.sqr]\nrequest = {{ headers = {{ X-Tenant = \"{tenant}\", X-Env = \"${{PLANTED}}\" }} }}\n"
            ),
        )
        + &format!(
            "\n[clients.erp]\nlocal_key = {{ header = \"X-Local\", value.file = {local:?} }}\n"
        );
    let proxy = Proxy::start_in(&text, &[("PLANTED", environment)]).await;
    proxy.wait_ready().await;
    let auth = &sandbox.bank(Persona::QBank).auth;
    let mut app = client(proxy.addr).await;
    let own = [("X-Local", PLANTED[2]), ("Authorization", PLANTED[0])];
    app.request("POST", "/qbank/v1/payments/ach", &own, b"{}").await;
    // A rotation, whose log line has fingerprints of both secrets.
    auth.accept_secrets([PLANTED[0].to_owned()]);
    for file in std::fs::read_dir(secrets.path()).unwrap() {
        let path = file.unwrap().path();
        if std::fs::read_to_string(&path).unwrap() == auth.client_secret() {
            secret_file(secrets.path(), path.file_name().unwrap().to_str().unwrap(), PLANTED[0]);
        }
    }
    refresh(&proxy, "qbank").await;
    soon(proxy.wait_log(|line| line.contains("client secret is accepted").then_some(()))).await;

    let (dir, admin) = (TempDir::new().unwrap(), proxy.admin_addr.to_string());
    let written = verb(dir.path(), &["status", "--bundle", "--admin", &admin]).await;
    assert_eq!(written.code, 0, "{}", written.stderr);
    let file = dir.path().join("bearer-proxy-bundle.json");
    let bundle = std::fs::read_to_string(&file).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let again = verb(dir.path(), &["status", "--bundle", "--admin", &admin]).await;
    assert_eq!(again.code, 1, "an existing file is not overwritten: {}", again.stderr);
    let parts: Value = serde_json::from_str(&bundle).unwrap();
    let has = |part: &str, words: &str| {
        let lines = parts[part].as_array().unwrap();
        assert!(
            lines.iter().any(|line| line.as_str().unwrap().contains(words)),
            "{words} in {part}"
        );
    };
    has("configuration", "[upstreams.sqr]");
    has("configuration", "client_secret");
    has("metrics", "bearer_proxy_token_usable{");
    has("log", "client secret is accepted");
    has("log", "payments");
    assert_eq!(parts["status"]["ready"], true);

    // The file with mistakes: a key that does not exist, a URL with a password; then one that is no TOML.
    let wrong = format!(
        "{text}\n[egress]\nproxy = \"http://user:{proxy_password}@proxy.example:3128\"\n\
         client_secret = \"{place}\"\n\"{name}\" = 1\n"
    );
    let mut bundles = vec![bundle];
    for broken in [wrong.clone(), format!("{wrong}\nsecret = '{place}\n")] {
        std::fs::write(&proxy.config_path, broken).unwrap();
        bundles
            .push(verb(dir.path(), &["status", "--bundle", "-", "--admin", &admin]).await.stdout);
    }
    let log = proxy.log();
    let hashes: Vec<&str> = ["\"fingerprint\":\"", "\"was\":\"", "\"token\":\""]
        .iter()
        .flat_map(|field| log.split(field).skip(1).map(|rest| &rest[..8]))
        .collect();
    assert!(hashes.len() > 6, "{log}");
    for bundle in &bundles {
        assert!(bundle.contains("\"bundle\": 1"), "{bundle}");
        assert!(!bundle.contains("pLaNtEd"), "{bundle}");
        for bank in sandbox.banks() {
            let mut said = vec![bank.auth.client_secret().to_owned()];
            said.extend(bank.auth.ledger().issued().into_iter().map(|issued| issued.token));
            assert!(!said.iter().any(|secret| bundle.contains(secret)), "{bundle}");
        }
        for hash in &hashes {
            assert!(!bundle.contains(hash), "{hash} in {bundle}");
        }
    }
}

#[tokio::test]
async fn on_a_terminal_each_state_replaces_the_one_before() {
    use std::os::unix::fs::OpenOptionsExt as _;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let (_sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let side = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OpenptFlags::NOCTTY.bits().cast_signed())
        .open(name.to_str().unwrap())
        .unwrap();
    let admin = proxy.admin_addr.to_string();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
    command.args(["status", "--watch=100ms", "--admin", &admin]).stdin(Stdio::null());
    command.stdout(side).stderr(Stdio::null()).kill_on_drop(true);
    let mut watching = command.spawn().unwrap();
    let lines = collect(std::fs::File::from(terminal));
    let redrawn = |lines: &Vec<String>| {
        lines.iter().filter(|line| line.starts_with("\x1b[H\x1b[Jbearer-proxy ")).count() >= 3
    };
    soon(lines.clone().wait_for(redrawn)).await.unwrap();
    let id = watching.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).unwrap();
    kill_process(id, Signal::INT).unwrap();
    assert_eq!(soon(watching.wait()).await.unwrap().code(), Some(0));
}
