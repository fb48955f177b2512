//! Localhost is no boundary of trust: who a request is addressed to, and which page sent it.

use bearer_proxy::sandbox::Persona;

use crate::forwarding::sidecar;
use crate::hygiene::{Between, Extra};
use crate::support::{client, soon};

const SETTINGS: &str =
    "allowed_hosts = [\"erp.local\", \"*.corp.local\"]\nallowed_origins = [\"https://erp.local\"]";

async fn between() -> Between {
    soon(Between::start(Extra { server: SETTINGS, ..Extra::default() })).await
}

#[tokio::test]
async fn a_request_is_for_us_or_refused() {
    let between = between().await;
    let port = between.proxy.addr.port();
    let version = |host: &str| format!("GET /v1/a HTTP/1.1\r\n{host}");
    for host in [
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
    ] {
        between.forwarded(&version(&format!("Host: {host}"))).await;
    }
    for head in [
        "GET /v1/a HTTP/1.0".to_owned(),
        "GET /v1/a HTTP/1.0\r\nHost: localhost".to_owned(),
        format!("GET http://localhost:{port}/v1/a HTTP/1.1\r\nHost: localhost:{port}"),
        "GET HTTP://LocalHost/v1/a HTTP/1.1\r\nHost: localhost".to_owned(),
        "GET https://erp.local/v1/a HTTP/1.1\r\nHost: erp.local".to_owned(),
    ] {
        let seen = between.forwarded(&head).await;
        assert_eq!(seen[0], "get /v1/a http/1.1", "{head}");
    }
    for host in [
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
    ] {
        let head = version(&format!("Host: {host}"));
        assert_eq!(between.refused(&head).await, (421, "foreign_host".into()), "{host}");
    }
    for head in [
        "GET /v1/a HTTP/1.0\r\nHost: evil.example",
        "GET http://evil.example/v1/a HTTP/1.1\r\nHost: localhost",
        "GET http://localhost/v1/a HTTP/1.1\r\nHost: evil.example",
        "GET http://evil.example/v1/a HTTP/1.0",
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
        "GET http://localhost/v1/a HTTP/1.1\r\nHost: 127.0.0.1",
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
    for lines in [
        "Origin: https://erp.local",
        "Origin: HTTPS://erp.local:443",
        "Origin: https://erp.local\r\nSec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-origin",
        "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate",
        "Referer: https://evil.example/",
    ] {
        between.forwarded(&head(lines)).await;
    }
    for lines in [
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
    ] {
        assert_eq!(between.refused(&head(lines)).await, (403, "cross_site".into()), "{lines}");
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
    assert_eq!(sandbox.bank(Persona::QBank).api.seen().len(), 0);
}
