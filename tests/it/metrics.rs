//! Metrics of which no other story tells.

use std::net::SocketAddr;
use std::time::Duration;

use bearer_proxy::sandbox::{Fault, Persona, Sandbox};
use tempfile::TempDir;

use crate::support::{
    Extra, Fronted, Proxy, client, config, in_front_of, raw_server, secret_file, soon,
};

/// More lines than the log's queue and the pipe behind it hold.
const REQUESTS: usize = 12_000;

/// The value of a metric without labels.
async fn metric(proxy: &Fronted, name: &str) -> Option<u64> {
    let metrics = client(proxy.admin_addr).await.get("/metrics").await;
    let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
    metrics.text().lines().find_map(value)
}

#[tokio::test]
async fn log_lines_that_nobody_reads_are_counted() {
    let bank = raw_server().await;
    let extra = Extra { more: "[log]\naccess = \"all\"", ..Extra::default() };
    let proxy = in_front_of(&format!("http://{}", bank.addr), extra).await;
    let dropped = "bearer_proxy_log_lines_dropped_total";
    assert_eq!(metric(&proxy, dropped).await, Some(0));
    let unread = proxy.hold_log();
    let mut app = client(proxy.addr).await;
    let request = "DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for _ in 0..REQUESTS / 100 {
        app.send(request.repeat(100)).await;
        for _ in 0..100 {
            assert_eq!(app.read("DELETE").await.status, 405);
        }
    }
    let lines = metric(&proxy, dropped).await;
    drop(unread);
    assert!(lines.is_some_and(|lines| lines > 0), "{lines:?}");
    // More may be dropped between the scrape and the line.
    let all_told = |line: &str| {
        let (_, total) = line.split_once("log lines were dropped")?.1.split_once("\"total\":")?;
        let total: u64 = total.split(',').next()?.parse().ok()?;
        (Some(total) >= lines).then_some(())
    };
    soon(proxy.wait_log(all_told)).await;
}

/// The count and the sum of a histogram of an upstream.
async fn histogram(proxy: &Proxy, name: &str, upstream: &str) -> (u64, f64) {
    let metrics = client(proxy.admin_addr).await.get("/metrics").await.text();
    let value = |part: &str| -> f64 {
        let labels = format!("{name}_{part}{{");
        let mut lines = metrics.lines().filter(|line| line.starts_with(&labels));
        let line = lines.find(|line| line.contains(&format!("upstream=\"{upstream}\""))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    (value("count") as u64, value("sum"))
}

#[tokio::test]
async fn the_overhead_holds_neither_the_upstreams_time_nor_waits_for_a_token() {
    const OVERHEAD: &str = "bearer_proxy_http_request_overhead_seconds";
    const SLOW: Duration = Duration::from_millis(600);
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let auth = &sandbox.bank(Persona::DataCrunch).auth;
    auth.set_faults([Fault::Hold]);
    let secrets = TempDir::new().unwrap();
    let proxy = Proxy::start(&config(&sandbox, &secrets)).await;
    let addr = proxy.addr;
    let asked = tokio::spawn(async move { client(addr).await.get("/datacrunch/v1/balance").await });
    soon(auth.ledger().wait_calls(1)).await;
    // What is measured is time, so that some must pass.
    tokio::time::sleep(SLOW).await;
    auth.release(1);
    assert_eq!(soon(asked).await.unwrap().status, 200);
    let (count, sum) = histogram(&proxy, OVERHEAD, "datacrunch").await;
    assert!(count == 1 && sum > 0.0 && sum < SLOW.as_secs_f64(), "{count} {sum}");
    let duration = "bearer_proxy_http_request_duration_seconds";
    let (count, sum) = histogram(&proxy, duration, "datacrunch").await;
    assert!(count == 1 && sum >= SLOW.as_secs_f64(), "{count} {sum}");
    // A refusal of our own is no overhead of an answer.
    assert_eq!(client(addr).await.get("/nowhere").await.status, 404);
    assert_eq!(histogram(&proxy, OVERHEAD, "datacrunch").await.0, 1);

    let bank = raw_server().await;
    let proxy = in_front_of(&format!("http://{}", bank.addr), Extra::default()).await;
    let mut app = client(proxy.addr).await;
    app.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut serving = bank.accept().await;
    serving.read_head().await;
    tokio::time::sleep(SLOW).await;
    serving.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(app.read("GET").await.status, 204);
    let (count, sum) = histogram(&proxy, OVERHEAD, "a").await;
    assert!(count == 1 && sum < SLOW.as_secs_f64(), "{count} {sum}");
}

/// Answers the first bytes of each connection with these.
async fn answers(bytes: impl Into<String>) -> SocketAddr {
    let (server, bytes) = (raw_server().await, bytes.into());
    let addr = server.addr;
    tokio::spawn(async move {
        loop {
            let (mut caller, bytes) = (server.accept().await, bytes.clone());
            tokio::spawn(async move {
                caller.read_bytes(1).await;
                caller.send(&bytes).await;
                caller.finish().await;
                // Bytes that stay unread would cut the answer with a reset.
                let _end = caller.read_to_end().await;
            });
        }
    });
    addr
}

/// An address at which nothing listens.
async fn nobody() -> SocketAddr {
    raw_server().await.addr
}

/// The series of a family, each with its value.
async fn series(proxy: &Proxy, name: &str) -> Vec<String> {
    let metrics = client(proxy.admin_addr).await.get("/metrics").await.text();
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    lines.filter(|line| line.starts_with('{')).map(str::to_owned).collect()
}

#[tokio::test]
async fn failed_token_requests_are_counted_by_their_cause() {
    const RESULTS: &str = "bearer_proxy_token_requests_total";
    const LABELS: [&str; 10] = [
        "denied",
        "error",
        "malformed",
        "ok",
        "rate_limited",
        "redirect",
        "refused",
        "timeout",
        "tls",
        "unreachable",
    ];
    let secrets = TempDir::new().unwrap();
    let secret = secret_file(secrets.path(), "secret", "a-secret");
    let plain = answers("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
    let server = async |status: &str, body: &str| {
        let head = format!("HTTP/1.1 {status}\r\nLocation: /x\r\nContent-Length: {}", body.len());
        format!("http://{}", answers(format!("{head}\r\n\r\n{body}")).await)
    };
    let cases = [
        (format!("http://{plain}"), "denied", "denied"),
        (server("429 Slow", "").await, "rate_limited", "rate_limited"),
        (server("302 Found", "").await, "redirect", "redirect"),
        (server("500 Oops", "").await, "error", "error"),
        (server("200 OK", "?").await, "malformed", "malformed"),
        (server("400 No", r#"{"error":"invalid_scope"}"#).await, "denied", "invalid_scope"),
        (format!("http://{}", nobody().await), "refused", "refused"),
        (format!("https://{plain}"), "tls", "tls"),
        ("https://nowhere.invalid".to_owned(), "unreachable", "unreachable"),
    ];
    let mut text =
        "version = 1\nserver.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n".to_owned();
    for (index, (url, ..)) in cases.iter().enumerate() {
        text += &format!(
            "[credentials.c{index}]\ntoken_url = \"{url}/token\"\nclient_id = \"an-id\"\n\
             client_secret.file = {secret:?}\n\
             [upstreams.u{index}]\nurl = \"http://{plain}\"\ncredential = \"c{index}\"\n\
             routes = [{{ name = \"all\", path = \"/u{index}/**\", methods = [\"GET\"], scopes = [\"a\"] }}]\n"
        );
    }
    let proxy = Proxy::start(&text).await;
    assert_eq!(series(&proxy, RESULTS).await.len(), cases.len() * LABELS.len());
    for (index, (url, label, word)) in cases.iter().enumerate() {
        let name = format!("c{index}");
        let error = async || {
            let status = client(proxy.admin_addr).await.get("/status").await.json();
            let tokens = status["tokens"].as_array().unwrap();
            let token = tokens.iter().find(|token| token["credential"] == *name).unwrap();
            token["last_error"].as_str().map(str::to_owned)
        };
        let error = soon(async {
            loop {
                if let Some(error) = error().await {
                    return error;
                }
            }
        });
        assert_eq!(error.await, *word, "{url}");
        let all = series(&proxy, RESULTS).await;
        for result in LABELS {
            let labels = format!("{{credential=\"{name}\",result=\"{result}\"}} ");
            let count = all.iter().find_map(|line| line.strip_prefix(&labels)).unwrap();
            assert_eq!(count != "0", result == *label, "{url} {all:?}");
        }
    }
}

#[tokio::test]
async fn failed_exchanges_are_counted_by_their_cause() {
    const ERRORS: &str = "bearer_proxy_upstream_errors_total";
    const REASONS: [&str; 6] =
        ["overloaded", "refused", "timeout", "tls", "unreachable", "upstream_reset"];
    let plain = answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let alert = answers("\x15\x03\x03\0\x02\x02\x28").await;
    let extra = || Extra { upstream: "timeouts = { connect = \"1s\" }", ..Extra::default() };
    let check = async |url: String, code: &str, counted: &str| {
        let proxy = in_front_of(&url, extra()).await;
        let zero = REASONS.map(|reason| format!("{{reason=\"{reason}\",upstream=\"a\"}} 0"));
        assert_eq!(series(&proxy, ERRORS).await, zero);
        let answer = client(proxy.addr).await.get("/x").await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (502, Some(code)), "{url}");
        let one = format!("{{reason=\"{counted}\",upstream=\"a\"}} 1");
        let found = series(&proxy, ERRORS).await;
        assert_eq!(found.iter().filter(|line| !line.ends_with(" 0")).collect::<Vec<_>>(), [&one]);
    };
    check(format!("http://{}", nobody().await), "connect", "refused").await;
    check(format!("https://{plain}"), "connect", "tls").await;
    check(format!("http://{alert}"), "upstream_reset", "tls").await;
    check("https://nowhere.invalid".to_owned(), "connect", "unreachable").await;
    let closing = answers("").await;
    check(format!("http://{closing}"), "upstream_reset", "upstream_reset").await;
}

#[tokio::test]
async fn answers_of_a_failing_upstream_are_counted() {
    const FAILED: &str = "bearer_proxy_upstream_server_errors_total";
    let failing = answers("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").await;
    let proxy = in_front_of(&format!("http://{failing}"), Extra::default()).await;
    assert_eq!(series(&proxy, FAILED).await, ["{upstream=\"a\"} 0"]);
    assert_eq!(client(proxy.addr).await.get("/x").await.status, 500);
    assert_eq!(series(&proxy, FAILED).await, ["{upstream=\"a\"} 1"]);
}
