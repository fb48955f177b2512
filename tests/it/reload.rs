//! Reloading: what changes while the program runs, and what a bad file cannot change.

use std::time::Duration;

use bearer_proxy::sandbox::{Fault, Persona, Sandbox, ScriptedResponse};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::forwarding::sidecar;
use crate::support::{Proxy, client, config, raw_server, secret_file, soon};
use crate::verbs::verb;

const BALANCE: &str = "/qbank/v1/balances/42";

#[tokio::test]
async fn a_bad_file_changes_nothing_and_tokens_survive_a_good_one() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let calls = sandbox.bank(Persona::QBank).auth.ledger().calls().len();
    let good = std::fs::read_to_string(&proxy.config_path).unwrap();
    std::fs::write(&proxy.config_path, "nonsense = [").unwrap();
    proxy.signal(Signal::HUP);
    soon(proxy.wait_log(|line| line.contains("refused").then_some(()))).await;
    let mut app = client(proxy.addr).await;
    assert_eq!(app.get("/qbank/v1/balances/42").await.status, 200);
    std::fs::write(&proxy.config_path, good).unwrap();
    proxy.signal(Signal::HUP);
    soon(proxy.wait_log(|line| line.contains("configuration reloaded").then_some(()))).await;
    assert_eq!(app.get("/qbank/v1/balances/42").await.status, 200);
    assert_eq!(sandbox.bank(Persona::QBank).auth.ledger().calls().len(), calls);
}

/// Changes the configuration file and asks for a reload.
fn edit(proxy: &Proxy, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(&proxy.config_path).unwrap();
    std::fs::write(&proxy.config_path, change(text)).unwrap();
    proxy.signal(Signal::HUP);
}

#[tokio::test]
async fn a_reload_changes_what_a_banks_outage_does_to_readiness() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    sandbox.bank(Persona::Sqr).auth.set_faults(std::iter::repeat_n(Fault::Status(503), 50));
    let secrets = TempDir::new().unwrap();
    let proxy = Proxy::start(&config(&sandbox, &secrets)).await;
    let mut admin = client(proxy.admin_addr).await;
    soon(async { while admin.get("/readyz?credential=qbank").await.status != 200 {} }).await;
    soon(async { while admin.get("/startupz").await.status != 200 {} }).await;
    assert_eq!(admin.get("/readyz").await.text(), "sqr: no usable token\n");
    edit(&proxy, |text| text.replace("[admin]\n", "[admin]\nready = \"any\"\n"));
    soon(async { while admin.get("/readyz").await.status != 200 {} }).await;
    assert_eq!(admin.get("/readyz?credential=sqr").await.status, 503);
}

/// A reader of a log may see the beginning of a long text alone.
#[tokio::test]
async fn a_refused_file_is_told_by_its_first_error() {
    let (_sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    // The warning, about a credential that nothing uses, stands on a line before that of the error.
    let spare = "[credentials.spare]\ntoken_url = \"http://127.0.0.1:1/\"\nclient_id = \"x\"\nclient_secret.env = \"X\"";
    edit(&proxy, |text| format!("{text}\n{spare}\n[log]\nodd = 1\n"));
    let why = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line["why"].as_str().map(str::to_owned)
    };
    let why = soon(proxy.wait_log(why)).await;
    assert!(why.starts_with("error: "), "{why}");
    let warning = why.find("\nwarning: ").expect("there is a warning");
    assert!(why.rfind("\nerror: ").is_none_or(|error| error < warning), "{why}");
    let status = client(proxy.admin_addr).await.get("/status").await.json();
    assert_eq!(status["last_reload"]["error"], why);
    assert!(why.contains("nothing was changed") && !why.contains("nothing was started"), "{why}");
    // The verb cannot check such a file; what runs tells of itself.
    let dir = TempDir::new().unwrap();
    let text = std::fs::read_to_string(&proxy.config_path).unwrap();
    let (server, admin) = text.rsplit_once("127.0.0.1:0").unwrap();
    let file = dir.path().join("bearer-proxy.toml");
    std::fs::write(file, format!("{server}{}{admin}", proxy.admin_addr)).unwrap();
    let ended = verb(dir.path(), &["check", "--live"]).await;
    assert_eq!(ended.code, 78, "{}", ended.stdout);
    assert!(ended.stderr.contains("nothing was started"), "{}", ended.stderr);
    for part in ["an older configuration", ": ready\n", "! The configuration file was refused"] {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
}

/// A port that was free a moment ago.
async fn free_address() -> std::net::SocketAddr {
    raw_server().await.addr
}

#[tokio::test]
async fn a_listener_moves_while_its_requests_finish() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let api = &sandbox.bank(Persona::QBank).api;
    api.set_responses([ScriptedResponse::Hold]);
    let mut old = client(proxy.addr).await;
    let request =
        "POST /qbank/v1/payments/ach HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    old.send(request).await;
    soon(api.wait_requests(1)).await;
    let address = free_address().await;
    edit(&proxy, |text| text.replacen("127.0.0.1:0", &address.to_string(), 1));
    let said = format!("\"{address}\"");
    soon(proxy.wait_log(|line| line.contains(&said).then_some(()))).await;
    assert_eq!(client(address).await.get(BALANCE).await.status, 200);
    soon(async { while TcpStream::connect(proxy.addr).await.is_ok() {} }).await;
    api.release(1);
    let answer = old.read("POST").await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
}

#[tokio::test]
async fn a_port_that_is_taken_refuses_the_whole_reload() {
    let (_sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let taken = raw_server().await;
    edit(&proxy, |text| {
        let moved = text.replacen("127.0.0.1:0", &taken.addr.to_string(), 1);
        moved.replace("/v1/balances/{accountId}", "/v1/elsewhere")
    });
    let refused = |line: &str| (line.contains("refused") && line.contains("in use")).then_some(());
    soon(proxy.wait_log(refused)).await;
    assert_eq!(client(proxy.addr).await.get(BALANCE).await.status, 200);
    let metrics = client(proxy.admin_addr).await.get("/metrics").await.text();
    assert!(metrics.contains("bearer_proxy_config_last_reload_successful 0"), "{metrics}");
}

#[tokio::test]
async fn the_admin_listener_moves() {
    let (_sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let address = free_address().await;
    edit(&proxy, |text| {
        let (server, admin) = text.split_once("[admin]").unwrap();
        format!("{server}[admin]{}", admin.replacen("127.0.0.1:0", &address.to_string(), 1))
    });
    let said = format!("\"{address}\"");
    soon(proxy.wait_log(|line| line.contains(&said).then_some(()))).await;
    assert_eq!(client(address).await.get("/readyz").await.status, 200);
    soon(async { while TcpStream::connect(proxy.admin_addr).await.is_ok() {} }).await;
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_the_rest_is_in_force() {
    let (_sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    edit(&proxy, |text| {
        let changed = text.replace("[server]\n", "[server]\nworkers = 2\nmax_in_flight = 1\n");
        changed.replace("/v1/balances/{accountId}", "/v1/elsewhere") + "[log]\nlevel = \"debug\"\n"
    });
    let named = |line: &str| (line.contains("restart") && line.contains("workers")).then_some(());
    soon(proxy.wait_log(named)).await;
    let metrics = client(proxy.admin_addr).await.get("/metrics").await.text();
    for line in [
        "bearer_proxy_config_restart_needed{key=\"server.workers\"} 1",
        "bearer_proxy_config_restart_needed{key=\"log.format\"} 0",
        "bearer_proxy_config_last_reload_successful 1",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
    assert_eq!(client(proxy.addr).await.get(BALANCE).await.status, 404);
    let mut gone = client(proxy.addr).await;
    gone.send("GET /half-a-h").await;
    gone.reset();
    let said = |line: &str| line.contains("DEBUG") && line.contains("client connection failed");
    soon(proxy.wait_log(|line| said(line).then_some(()))).await;
}

#[tokio::test]
async fn connection_limits_change_for_those_that_come() {
    let (_sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let mut before = client(proxy.addr).await;
    assert_eq!(before.get(BALANCE).await.status, 200);
    edit(&proxy, |text| {
        text.replace("[server]\n", "[server]\nmax_header_bytes = \"8KiB\"\nmax_headers = 10\n")
    });
    soon(proxy.wait_log(|line| line.contains("configuration reloaded").then_some(()))).await;
    let many: Vec<_> = (0..20).map(|_| ("x", "y")).collect();
    assert_eq!(before.request("GET", BALANCE, &many, b"").await.status, 200);
    assert_eq!(client(proxy.addr).await.request("GET", BALANCE, &many, b"").await.status, 431);
}

#[tokio::test]
async fn a_rotated_key_of_a_fixed_header_is_sent_without_a_reload() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let secrets = TempDir::new().unwrap();
    let key = secret_file(secrets.path(), "apim", "first");
    let fixed = format!("X-Api-Key = {{ file = \"{}\" }}", key.display());
    let text = config(&sandbox, &secrets) + "\n[reload]\nwatch = \"1s\"\n";
    let text = text + "[upstreams.qbank.set_headers]\n" + &fixed + "\n";
    let proxy = Proxy::start(&text).await;
    proxy.wait_ready().await;
    let api = &sandbox.bank(Persona::QBank).api;
    let mut app = client(proxy.addr).await;
    let mut sent = async |count: usize| {
        assert_eq!(app.get(BALANCE).await.status, 200);
        soon(api.wait_requests(count)).await[count - 1].headers["x-api-key"].clone()
    };
    assert_eq!(sent(1).await, "first");
    secret_file(secrets.path(), "apim", "second");
    soon(proxy.wait_log(|line| line.contains("secret of a header has changed").then_some(())))
        .await;
    assert_eq!(sent(2).await, "second");
    assert!(!proxy.log().contains("second"), "{}", proxy.log());
}

#[tokio::test]
async fn reloads_under_load_cost_no_request() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let api = &sandbox.bank(Persona::QBank).api;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let busy = |stopped: tokio::sync::watch::Receiver<bool>| async move {
        let mut app = client(proxy.addr).await;
        let mut answered = 0;
        while !*stopped.borrow() {
            let answer = app.get(BALANCE).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            answered += 1;
        }
        answered
    };
    let reloads =
        async {
            for round in 0..10 {
                let lines = |proxy: &Proxy| proxy.log().matches("configuration reloaded").count();
                edit(&proxy, |text| match round % 2 {
                    0 => text
                        .replace("[server]\n", "[server]\nmax_in_flight = 200\nmax_headers = 50\n"),
                    _ => text
                        .replace("[server]\nmax_in_flight = 200\nmax_headers = 50\n", "[server]\n"),
                });
                let seen = api.requests().len();
                soon(api.wait_requests(seen + 5)).await;
                soon(proxy.wait_log(|_| (lines(&proxy) > round).then_some(()))).await;
            }
            stop.send(true).unwrap();
        };
    let clients = (busy(stopped.clone()), busy(stopped.clone()), busy(stopped));
    let (a, b, c, ()) = tokio::join!(clients.0, clients.1, clients.2, reloads);
    assert!(a > 10 && b > 10 && c > 10);
}
