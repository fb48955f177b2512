//! Bounds on clients: in number, in size, and in the time that they may take.

use std::time::Duration;

use bearer_proxy::sandbox::{Persona, Sandbox, ScriptedResponse};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tempfile::TempDir;

use crate::support::http2::{frames, head};
use crate::support::{Client, Extra, Fronted, Proxy, RawServer, client, config, in_front_of};
use crate::support::{collect, raw_server, secret_file, soon};

const BALANCE: &str = "/qbank/v1/balances/42";

/// A proxy in front of an upstream that answers nothing by itself.
async fn front(server: &str) -> (RawServer, Fronted) {
    let bank = raw_server().await;
    let extra = Extra {
        server,
        upstream: "timeouts = { idle = \"1s\", response = \"20s\" }",
        ..Extra::default()
    };
    let proxy = in_front_of(&format!("http://{}", bank.addr), extra).await;
    (bank, proxy)
}

async fn code(app: &mut Client, method: &str) -> (u16, String) {
    let answer = app.read(method).await;
    (answer.status, answer.json()["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn clients_that_dawdle_are_let_go() {
    let timeouts = "timeouts = { head = \"1s\", idle = \"1s\", send = \"1s\" }";
    let (bank, proxy) = front(timeouts).await;

    let silent = async { client(proxy.addr).await.read_to_close().await };
    let slow_head = async {
        let mut app = client(proxy.addr).await;
        app.send("GET / HTTP/1.1\r\nHost: local").await;
        app.read_to_close().await
    };
    // With HTTP/2 the same: half a head, and a connection without requests.
    let slow_stream = async {
        let mut app = frames(proxy.addr).await;
        let block = head(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]);
        app.frame(1, 0, 1, &block).await; // END_HEADERS never comes
        while app.next().await.is_some() {}
    };
    let silent_streams = async {
        let mut app = frames(proxy.addr).await;
        while app.next().await.is_some() {}
    };
    let (silent, slow_head, (), ()) =
        soon(async { tokio::join!(silent, slow_head, slow_stream, silent_streams) }).await;
    assert_eq!((silent, slow_head), (Vec::new(), Vec::new()));

    // A body that stops: the app is told, the upstream sees it cut.
    let mut app = client(proxy.addr).await;
    app.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf").await;
    let mut seen = bank.accept().await;
    assert!(seen.read_head().await.starts_with("POST / "));
    assert_eq!(code(&mut app, "POST").await, (408, "request_timeout".to_owned()));
    assert_eq!(seen.read_to_close().await, b"half");
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_the_upstream_sees_it() {
    let (bank, proxy) = front(
        "max_uri = \"256B\"\nmax_headers = 10\nmax_header_bytes = \"8KiB\"\nmax_request_body = \"5B\"",
    )
    .await;
    let refused = async |request: String, status: u16, expected: &str| {
        let mut app = client(proxy.addr).await;
        app.send(request).await;
        let answer = app.read("GET").await;
        assert_eq!(answer.status, status);
        if !expected.is_empty() {
            assert_eq!(answer.json()["code"], expected);
        }
    };
    let get =
        |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let localhost = |text: String| text.replace("Host: a", "Host: localhost");
    let long = format!("/{}", "a".repeat(256));
    refused(localhost(get(&long, "")), 414, "uri_too_long").await;
    refused(localhost(get("/", &"x: y\r\n".repeat(11))), 431, "").await;
    refused(localhost(get("/", &format!("x: {}\r\n", "y".repeat(9000)))), 431, "").await;
    let post = "POST / HTTP/1.1\r\nHost: localhost\r\n";
    refused(format!("{post}Content-Length: 6\r\n\r\n123456"), 413, "body_too_large").await;
    assert!(
        tokio::time::timeout(Duration::from_millis(1), bank.accept()).await.is_err(),
        "nothing of it went upstream"
    );
    // Without a length it is found out on the way: the upstream's copy is cut, never completed.
    let mut app = client(proxy.addr).await;
    app.send(format!("{post}Transfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n")).await;
    let mut seen = bank.accept().await;
    assert!(seen.read_head().await.starts_with("POST / "));
    app.send("4\r\n5678\r\n0\r\n\r\n").await;
    assert_eq!(code(&mut app, "POST").await, (413, "body_too_large".to_owned()));
    assert!(!String::from_utf8(seen.read_to_close().await).unwrap().ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn requests_beyond_the_limit_are_shed_and_connections_wait() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let secrets = TempDir::new().unwrap();
    let limits = "[server]\nmax_in_flight = 1\nmax_connections = 3\n";
    let proxy = Proxy::start(&config(&sandbox, &secrets).replace("[server]\n", limits)).await;
    proxy.wait_ready().await;
    let api = &sandbox.bank(Persona::QBank).api;
    api.set_responses([ScriptedResponse::Hold]);
    let ask = format!("GET {BALANCE} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut first = client(proxy.addr).await;
    first.send(&ask).await;
    soon(api.wait_requests(1)).await;

    let mut second = client(proxy.addr).await;
    let shed = second.get(BALANCE).await;
    assert_eq!((shed.status, &shed.json()["code"]), (503, &"overloaded".into()));
    assert_eq!(shed.header("retry-after"), Some("1"));
    // A third place is there, the fourth connection waits for one.
    let mut third = client(proxy.addr).await;
    assert_eq!(third.get(BALANCE).await.status, 503);
    let mut fourth = client(proxy.addr).await;
    fourth.send(&ask).await;
    let metrics = client(proxy.admin_addr).await.get("/metrics").await.text();
    assert!(metrics.contains("bearer_proxy_client_connections 3"), "{metrics}");
    assert!(metrics.contains("bearer_proxy_requests_rejected_total{reason=\"overloaded\"} 2"));
    api.release(1);
    assert_eq!(first.read("GET").await.status, 200);
    drop(third);
    assert_eq!(fourth.read("GET").await.status, 200);
}

#[tokio::test]
async fn idle_connections_make_room_for_one_that_asks() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let secrets = TempDir::new().unwrap();
    let limits = "[server]\nmax_connections = 3\n";
    let proxy = Proxy::start(&config(&sandbox, &secrets).replace("[server]\n", limits)).await;
    proxy.wait_ready().await;
    let mut used = client(proxy.addr).await;
    assert_eq!(used.get(BALANCE).await.status, 200);
    let (_silent, _streams) = (client(proxy.addr).await, frames(proxy.addr).await);
    for _ in 0..3 {
        // Whoever has been idle for a second is let go; the newest are not.
        assert_eq!(client(proxy.addr).await.get(BALANCE).await.status, 200);
    }
}

#[tokio::test]
async fn a_shortage_of_descriptors_ends_nothing_and_spins_nowhere() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let secrets = TempDir::new().unwrap();
    let proxy = Proxy::start(&config(&sandbox, &secrets)).await;
    proxy.wait_ready().await;
    let mut open = client(proxy.addr).await;
    assert_eq!(open.get(BALANCE).await.status, 200);
    let pid = i32::try_from(proxy.id()).ok().and_then(Pid::from_raw);
    let used = std::fs::read_dir(format!("/proc/{}/fd", proxy.id())).unwrap().count();
    let limit = |current: u64| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        prlimit(pid, Resource::Nofile, Rlimit { current: Some(current), maximum }).unwrap();
    };
    limit(used as u64);

    // Connections that were closing when they were counted make room for these.
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(client(proxy.addr).await);
    }
    let mut waiting = client(proxy.addr).await;
    waiting.send(format!("GET {BALANCE} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    soon(proxy.wait_log(|line| line.contains("accepting a connection failed").then_some(()))).await;
    assert_eq!(open.get("/nowhere").await.status, 404, "open connections go on");
    proxy.wait_log(|line| line.contains("failed: too many open files").then_some(())).await;
    // Some descriptors are held back for operators, also for one after the other.
    for _ in 0..2 * bearer_proxy::listen::descriptors::RESERVED {
        assert_eq!(soon(client(proxy.admin_addr).await.get("/livez")).await.status, 200);
    }
    let mut admin = client(proxy.admin_addr).await;
    let metrics = soon(admin.get("/metrics")).await.text();
    assert!(metrics.contains(&format!("\nprocess_max_fds {used}\n")), "{metrics}");
    let status = soon(admin.get("/status")).await.json();
    let words = format!(" of {used} file descriptors are in use.");
    let point = status["attention"][0]["what"].as_str().unwrap().to_owned();
    assert!(point.ends_with(&words), "{point}");
    limit(512);
    assert_eq!(waiting.read("GET").await.status, 200);
    let told = proxy.log().matches("accepting a connection failed").count();
    assert!(told <= 2, "{told} lines");
}

#[tokio::test]
async fn a_limit_of_open_files_that_the_settings_may_exceed_is_told_at_the_start() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let secrets = TempDir::new().unwrap();
    let file = secret_file(secrets.path(), "config.toml", &config(&sandbox, &secrets));
    let run = format!("ulimit -n 700 && exec \"$0\" run --config {file:?}");
    let mut child = std::process::Command::new("sh")
        .args(["-c", &run, env!("CARGO_BIN_EXE_bearer-proxy")])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = collect(child.stderr.take().unwrap());
    let told = |lines: &Vec<String>| {
        lines.iter().find(|line| line.contains("the limit of open files is below")).cloned()
    };
    let line = told(&soon(log.wait_for(|lines| told(lines).is_some())).await.unwrap()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // 512 for apps, 256 for each of four upstreams, and those of the program itself.
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["level"], &line["limit"]), (&"WARN".into(), &700.into()));
    assert!(line["needed"].as_u64().unwrap() > 512 + 4 * 256, "{line}");
}
