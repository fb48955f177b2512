//! Metrics of which no other story tells.

use std::time::Duration;

use bearer_proxy::sandbox::{Fault, Persona, Sandbox};
use tempfile::TempDir;

use crate::support::{Extra, Fronted, Proxy, client, config, in_front_of, raw_server, soon};

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
    let line = proxy.wait_log(|line| line.contains("log lines were dropped").then(|| line.into()));
    let line: String = line.await;
    assert!(line.contains(&format!("\"total\":{}", lines.unwrap_or_default())), "{line}");
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
