//! Localhost is no boundary of trust: who a request is addressed to, and which page sent it.

use bearer_proxy::sandbox::Persona;

use crate::forwarding::sidecar;
use crate::headers::{Between, Extra};
use crate::support::http2::{Frames, frames};
use crate::support::{client, soon};

const SETTINGS: &str =
    "allowed_hosts = [\"erp.local\", \"*.corp.local\"]\nallowed_origins = [\"https://erp.local\"]";

/// Names of ours.
const OUR_HOSTS: &[&str] = &[
    "localhost",
    "localhost:80",
    "LOCALHOST:6750",
    "localhost.",
    "localhost.:1",
    "localhost:",
    "127.0.0.1",
    "[::1]",
    "[::1]:99",
    "[0:0:0:0:0:0:0:1]",
    "ERP.local",
    "a.corp.local:80",
];

/// Names of others, some of which a resolver takes for this machine.
const FOREIGN_HOSTS: &[&str] = &[
    "evil.example",
    "localhost.evil.example",
    "evil-localhost",
    "corp.local",
    "a.b.corp.local",
    "127.0.0.1.nip.io",
    "0.0.0.0",
    "[::]",
    "[::ffff:127.0.0.1]",
    "10.0.0.1",
    "169.254.169.254",
    "api.qbankconnect.com",
];

/// Fields of requests that no page of others sent.
const KNOWN_PAGES: &[&str] = &[
    "Origin: https://erp.local",
    "Origin: HTTPS://erp.local:443",
    "Origin: https://erp.local\r\nSec-Fetch-Site: cross-site",
    "Sec-Fetch-Site: same-origin",
    "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate",
    "Referer: https://evil.example/",
];

/// Fields by which a page of others is known.
const FOREIGN_PAGES: &[&str] = &[
    "Origin: null",
    "Origin:",
    "Origin: https://evil.example",
    "Origin: https://erp.local.evil.example",
    "Origin: https://xerp.local",
    "Origin: https://erp.local.",
    "Origin: https://erp.local/",
    "Origin: http://erp.local",
    "Origin: https://erp.local:8443",
    "Origin: http://localhost",
    "Origin: https://erp.local https://evil.example",
    "Origin: https://erp.local\r\nOrigin: https://evil.example",
    "Origin: https://erp.local\r\nOrigin: https://erp.local",
    "origin: chrome-extension://abcdef",
    "Sec-Fetch-Site: cross-site",
    "Sec-Fetch-Site: same-site",
    "Sec-Fetch-Site: CROSS-SITE",
    "sec-fetch-site: Same-Site",
    "Sec-Fetch-Site:",
    "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site",
    "Origin: null\r\nSec-Fetch-Site: same-origin",
    "Origin: https://evil.example\r\nConnection: Origin",
    "Origin: https://evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket",
];

async fn between() -> Between {
    soon(Between::start(Extra { server: SETTINGS, ..Extra::default() })).await
}

#[tokio::test]
async fn a_request_is_for_us_or_refused() {
    let between = between().await;
    let port = between.proxy.addr.port();
    let version = |host: &str| format!("GET /v1/a HTTP/1.1\r\n{host}");
    for host in OUR_HOSTS {
        between.forwarded(&version(&format!("Host: {host}"))).await;
    }
    for head in [
        "GET /v1/a HTTP/1.0".to_owned(),
        "GET /v1/a HTTP/1.0\r\nHost: localhost".to_owned(),
        format!("GET http://localhost:{port}/v1/a HTTP/1.1\r\nHost: localhost:{port}"),
        "GET HTTP://LocalHost/v1/a HTTP/1.1\r\nHost: localhost".to_owned(),
        "GET https://erp.local/v1/a HTTP/1.1\r\nHost: erp.local".to_owned(),
        // The target says whom it is for (RFC 9112 section 3.2.2).
        "GET http://localhost/v1/a HTTP/1.1\r\nHost: 127.0.0.1".to_owned(),
        "GET http://localhost/v1/a HTTP/1.1\r\nHost: evil.example".to_owned(),
        "GET http://localhost/v1/a HTTP/1.0\r\nHost: evil.example".to_owned(),
        "GET http://localhost/v1/a HTTP/1.0".to_owned(),
    ] {
        let seen = between.forwarded(&head).await;
        assert_eq!(seen[0], "get /v1/a http/1.1", "{head}");
    }
    for host in FOREIGN_HOSTS {
        let head = version(&format!("Host: {host}"));
        assert_eq!(between.refused(&head).await, (421, "foreign_host".into()), "{host}");
    }
    for head in [
        "GET /v1/a HTTP/1.0\r\nHost: evil.example",
        "GET http://evil.example/v1/a HTTP/1.1\r\nHost: localhost",
        "GET http://evil.example/v1/a HTTP/1.1\r\nHost: evil.example",
        "GET http://evil.example/v1/a HTTP/1.0",
        "GET http://evil.example/v1/a HTTP/1.0\r\nHost: localhost",
    ] {
        assert_eq!(between.refused(head).await, (421, "foreign_host".into()), "{head}");
    }
    for head in [
        "GET /v1/a HTTP/1.1",
        "GET http://localhost/v1/a HTTP/1.1",
        "GET /v1/a HTTP/1.1\r\nHost:",
        "GET /v1/a HTTP/1.1\r\nHost: localhost\r\nHost: localhost",
        "GET /v1/a HTTP/1.1\r\nHost: localhost, evil.example",
        "GET /v1/a HTTP/1.1\r\nHost: localhost evil.example",
        "GET /v1/a HTTP/1.1\r\nHost: localhost/v1",
        "GET /v1/a HTTP/1.1\r\nHost: user@localhost",
        "GET /v1/a HTTP/1.1\r\nHost: localhost:99999",
        "GET /v1/a HTTP/1.1\r\nHost: localhost:+80",
        "GET /v1/a HTTP/1.1\r\nHost: http://localhost",
        "GET /v1/a HTTP/1.1\r\nHost: [::1",
        "GET /v1/a HTTP/1.1\r\nHost: [::1%25lo]",
        "GET /v1/a HTTP/1.1\r\nHost: 127.1",
        "GET /v1/a HTTP/1.1\r\nHost: 2130706433",
        "GET /v1/a HTTP/1.1\r\nHost: 0x7f.0.0.1\0",
        "GET /v1/a HTTP/1.1\r\nHost: *",
        "GET http://user@localhost/v1/a HTTP/1.1\r\nHost: localhost",
        "GET http://localhost/v1/a HTTP/1.1\r\nHost: localhost, evil.example",
        "GET http://localhost/v1/a HTTP/1.1\r\nHost: localhost\r\nHost: localhost",
        "GET ftp://localhost/v1/a HTTP/1.1\r\nHost: localhost",
    ] {
        let mut app = client(between.proxy.addr).await;
        app.send(format!("{head}\r\n\r\n")).await;
        let answer = app.read("GET").await;
        assert_eq!(answer.status, 400, "{head:?}");
    }
}

#[tokio::test]
async fn a_web_page_is_known_or_refused() {
    let between = between().await;
    let head = |lines: &str| format!("GET /v1/a HTTP/1.1\r\nHost: localhost\r\n{lines}");
    for lines in KNOWN_PAGES {
        between.forwarded(&head(lines)).await;
    }
    for lines in FOREIGN_PAGES {
        assert_eq!(between.refused(&head(lines)).await, (403, "cross_site".into()), "{lines}");
    }
}

/// Sends a request over HTTP/2; the lines are those of HTTP/1.
async fn ask_over_http2(between: &Between, host: &str, lines: &str) -> (Frames, u32) {
    let fields = lines.split("\r\n").filter_map(|line| line.split_once(':'));
    let fields: Vec<_> = fields.map(|(name, value)| (name.to_lowercase(), value.trim())).collect();
    let mut head =
        vec![(":method", "GET"), (":scheme", "http"), (":path", "/v1/a"), (":authority", host)];
    head.extend(fields.iter().map(|(name, value)| (name.as_str(), *value)));
    let mut app = frames(between.proxy.addr).await;
    let stream = app.send(&head, None).await;
    (app, stream)
}

async fn passes_over_http2(between: &Between, host: &str, lines: &str) {
    let (mut app, stream) = ask_over_http2(between, host, lines).await;
    let mut bank = between.bank.accept().await;
    assert!(bank.read_head().await.starts_with("GET /v1/a HTTP/1.1\r\n"));
    bank.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    assert_eq!(app.reply(stream).await.body, b"ok", "{host} {lines}");
}

#[tokio::test]
async fn hosts_and_pages_are_the_same_over_http2() {
    let between = between().await;
    for host in OUR_HOSTS {
        passes_over_http2(&between, host, "").await;
    }
    for lines in KNOWN_PAGES {
        passes_over_http2(&between, "localhost", lines).await;
    }
    passes_over_http2(&between, "localhost", "Host: localhost").await;
    for host in FOREIGN_HOSTS {
        let (mut app, stream) = ask_over_http2(&between, host, "").await;
        assert_eq!(app.reply(stream).await.json()["code"], "foreign_host", "{host}");
        let (mut app, stream) =
            ask_over_http2(&between, "localhost", &format!("Host: {host}")).await;
        assert_eq!(app.reply(stream).await.json()["code"], "foreign_host", "{host}");
    }
    for lines in FOREIGN_PAGES.iter().filter(|lines| !lines.contains("Connection")) {
        let (mut app, stream) = ask_over_http2(&between, "localhost", lines).await;
        assert_eq!(app.reply(stream).await.json()["code"], "cross_site", "{lines}");
    }
    for (host, lines) in [
        ("localhost", "Host: 127.0.0.1"),
        ("localhost", "Host: localhost\r\nHost: localhost"),
        ("", ""),
        ("user@localhost", ""),
        ("localhost/v1", ""),
        ("localhost evil.example", ""),
        ("127.1", ""),
    ] {
        let (mut app, stream) = ask_over_http2(&between, host, lines).await;
        let reply = app.reply(stream).await;
        // Of some the HTTP/2 library makes an end itself, by resetting the stream.
        let refused = reply.refused.is_some() || reply.json()["code"] == "bad_request";
        assert!(refused, "{host} {lines} {reply:?}");
    }
}

#[tokio::test]
async fn a_preflight_gets_no_leave() {
    let between = between().await;
    let mut app = client(between.proxy.addr).await;
    app.send(
        "OPTIONS /v1/a HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\
         Access-Control-Request-Method: POST\r\nAccess-Control-Request-Private-Network: true\r\n\r\n",
    )
    .await;
    let answer = app.read("OPTIONS").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("cross_site")));
    let names = answer.headers.iter().map(|(name, _)| name.to_lowercase());
    assert!(!names.into_iter().any(|name| name.starts_with("access-control-")));
}

#[tokio::test]
async fn no_refused_page_reaches_a_bank() {
    let (sandbox, proxy, _secrets) = soon(sidecar(std::time::Duration::from_secs(60))).await;
    let mut app = client(proxy.addr).await;
    for (name, value) in [("Origin", "https://evil.example"), ("Sec-Fetch-Site", "same-site")] {
        let answer = app.request("POST", "/qbank/v1/payments/ach", &[(name, value)], b"{}").await;
        assert_eq!(answer.status, 403);
    }
    assert_eq!(sandbox.bank(Persona::QBank).api.requests().len(), 0);
}

#[tokio::test]
async fn the_admin_listener_shows_no_page_anything() {
    let between = between().await;
    let admin = between.proxy.admin_addr;
    let ask = async |method: &str, host: &str, lines: &str| {
        let mut app = client(admin).await;
        let lines = if lines.is_empty() { String::new() } else { format!("{lines}\r\n") };
        app.send(format!("{method} /status HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")).await;
        app.read(method).await.status
    };
    let own = admin.to_string();
    assert_eq!(ask("GET", &own, "").await, 200);
    assert_eq!(ask("GET", &own, &format!("Origin: http://{own}")).await, 200);
    for method in ["GET", "POST", "OPTIONS"] {
        for lines in FOREIGN_PAGES {
            assert_eq!(ask(method, &own, lines).await, 403, "{method} {lines}");
        }
    }
    for host in FOREIGN_HOSTS {
        assert_eq!(ask("GET", host, "").await, 421, "{host}");
    }
}
