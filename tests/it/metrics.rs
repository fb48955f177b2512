//! Metrics of which no other story tells.

use crate::support::{Extra, Fronted, client, in_front_of, raw_server};

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
