//! WebSocket where a route lets it through, and what ends its stream; no other protocol, anywhere.

use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::secured::{Secured, Special};
use crate::support::{
    Client, Extra, Fronted, Proxy, RawServer, client, in_front_of, raw_server, soon,
};

const WEBSOCKET: &str = "GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\n\
     Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
     Sec-WebSocket-Version: 13\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\
     Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const ALLOWED: &str = "upgrade = { websocket = true }";

async fn front(extra: Extra<'_>) -> (RawServer, Fronted) {
    let bank = raw_server().await;
    let proxy = in_front_of(&format!("http://{}", bank.addr), extra).await;
    (bank, proxy)
}

/// Both ends of a stream that has just begun.
async fn open(bank: &RawServer, proxy: &Fronted) -> (Client, Client) {
    let mut app = client(proxy.addr).await;
    app.send(WEBSOCKET).await;
    let mut bank = bank.accept().await;
    bank.read_head().await;
    bank.send(SWITCHED).await;
    assert_eq!(app.read("GET").await.status, 101);
    (app, bank)
}

#[tokio::test]
async fn a_stream_begins_with_a_request_that_bears_a_token() {
    let (bank, proxy) = front(Extra { route: ALLOWED, ..Extra::default() }).await;
    let mut app = client(proxy.addr).await;
    // Bytes that come before the switch are the stream's, and not a request's.
    app.send(format!("{WEBSOCKET}early")).await;
    let mut bank = bank.accept().await;
    let head = bank.read_head().await.to_lowercase();
    for line in ["connection: upgrade", "upgrade: websocket", "authorization: bearer "] {
        assert!(head.contains(&format!("\r\n{line}")), "{line} is not in {head}");
    }
    assert!(head.contains("\r\nsec-websocket-key: "), "{head}");
    bank.send(format!("{SWITCHED}hello")).await;
    let answer = app.read("GET").await;
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("websocket")));
    assert_eq!(answer.header("connection"), Some("upgrade"));
    assert!(answer.header("sec-websocket-accept").is_some());
    assert_eq!(app.read_bytes(5).await, b"hello");
    assert_eq!(bank.read_bytes(5).await, b"early");
    // Each side may end before the other.
    app.send("last words").await;
    app.finish().await;
    assert_eq!(bank.read_to_close().await, b"last words");
    bank.send("so long").await;
    drop(bank);
    assert_eq!(app.read_to_close().await, b"so long");
}

#[tokio::test]
async fn an_upstream_that_does_not_switch_answers_as_ever() {
    let (bank, proxy) = front(Extra { route: ALLOWED, ..Extra::default() }).await;
    let mut app = client(proxy.addr).await;
    app.send(WEBSOCKET).await;
    let mut first = bank.accept().await;
    first.read_head().await;
    first.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    assert_eq!(app.read("GET").await.text(), "no");
    // A token that is not accepted any more is replaced, as for any GET.
    app.send(WEBSOCKET).await;
    let mut second = bank.accept().await;
    second.read_head().await;
    second.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
    let mut third = bank.accept().await;
    assert!(third.read_head().await.to_lowercase().contains("\r\nupgrade: websocket\r\n"));
    third.send(SWITCHED).await;
    assert_eq!(app.read("GET").await.status, 101);
}

#[tokio::test]
async fn an_offer_that_no_route_takes_is_ignored() {
    let check = async |route: &str, request: &str| {
        let (bank, proxy) = front(Extra { route, ..Extra::default() }).await;
        let mut app = client(proxy.addr).await;
        app.send(request).await;
        let mut bank = bank.accept().await;
        let head = bank.read_head().await.to_lowercase();
        assert!(!head.contains("upgrade") && !head.contains("h2c"), "{head}");
        assert!(head.contains("\r\nauthorization: bearer "), "{head}");
        if let Some(body) = request.strip_suffix("hi").map(|_| b"hi") {
            assert_eq!(bank.read_bytes(2).await, body);
        }
        bank.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let answer = app.read("GET").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{request}");
        assert_eq!(answer.header("upgrade"), None);
        // What comes after it is a request and no stream, on both connections.
        app.send("GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(bank.read_head().await.starts_with("GET /next HTTP/1.1\r\n"), "{request}");
        bank.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext").await;
        assert_eq!(app.read("GET").await.text(), "next");
    };
    check("", WEBSOCKET).await;
    for request in [
        WEBSOCKET.replace("websocket", "TLS/1.0"),
        WEBSOCKET.replace("websocket", "websocket, h2c"),
        WEBSOCKET.replace("Upgrade: websocket", "Upgrade: websocket\r\nUpgrade: h2c"),
        WEBSOCKET.replace("keep-alive, Upgrade", "keep-alive"),
        WEBSOCKET.replace("HTTP/1.1", "HTTP/1.0"),
        WEBSOCKET.replace("GET", "POST"),
        WEBSOCKET.replace("Host", "Content-Length: 2\r\nHost") + "hi",
    ] {
        check(ALLOWED, &request).await;
    }
}

#[tokio::test]
async fn a_page_of_another_origin_gets_no_stream() {
    let (_bank, proxy) = front(Extra { route: ALLOWED, ..Extra::default() }).await;
    let mut app = client(proxy.addr).await;
    app.send(WEBSOCKET.replace("Host", "Origin: http://evil.example\r\nHost")).await;
    assert_eq!(app.read("GET").await.json()["code"], "cross_site");
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_never_passes() {
    let plain = "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let other = SWITCHED.replace("WebSocket\r\n", "h2c\r\n");
    let unnamed = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
    for (request, answer) in
        [(plain, SWITCHED), (WEBSOCKET, other.as_str()), (WEBSOCKET, unnamed), (plain, unnamed)]
    {
        let (bank, proxy) = front(Extra { route: ALLOWED, ..Extra::default() }).await;
        let mut app = client(proxy.addr).await;
        app.send(request).await;
        let mut bank = bank.accept().await;
        bank.read_head().await;
        bank.send(answer).await;
        let answer = app.read("GET").await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (502, Some("upstream_reset")));
        assert_eq!(bank.read_to_close().await, b"");
    }
}

#[tokio::test]
async fn a_silent_stream_ends() {
    let route = "upgrade = { websocket = true, idle = \"300ms\" }";
    let (bank, proxy) = front(Extra { route, ..Extra::default() }).await;
    let (mut app, mut bank) = open(&bank, &proxy).await;
    for _ in 0..3 {
        app.send("ping").await;
        assert_eq!(bank.read_bytes(4).await, b"ping");
    }
    assert_eq!(app.read_to_close().await, b"");
    assert_eq!(bank.read_to_close().await, b"");
}

#[tokio::test]
async fn a_stream_ends_with_its_token_unless_the_route_keeps_it() {
    let lifetime = Some(Duration::from_secs(2));
    let (bank, proxy) = front(Extra { route: ALLOWED, lifetime, ..Extra::default() }).await;
    let (mut app, mut side) = open(&bank, &proxy).await;
    assert_eq!(app.read_to_close().await, b"");
    assert_eq!(side.read_to_close().await, b"");

    let route = "upgrade = { websocket = true, at_token_expiry = \"keep\" }";
    let (bank, proxy) = front(Extra { route, lifetime, ..Extra::default() }).await;
    let (mut app, mut side) = open(&bank, &proxy).await;
    // The third token: the first one's life is over.
    soon(proxy.auth.ledger().wait_issued(3)).await;
    side.send("still here").await;
    assert_eq!(app.read_bytes(10).await, b"still here");
}

#[tokio::test]
async fn a_stream_has_the_drain_time_to_end() {
    let more = "[shutdown]\nlame_duck = \"0s\"\ndrain_timeout = \"700ms\"";
    let (bank, mut proxy) = front(Extra { route: ALLOWED, more, ..Extra::default() }).await;
    let (mut app, mut bank) = open(&bank, &proxy).await;
    proxy.proxy.signal(Signal::TERM);
    bank.send("goes on").await;
    assert_eq!(app.read_bytes(7).await, b"goes on");
    assert_eq!(app.read_to_close().await, b"");
    assert_eq!(soon(proxy.proxy.wait_exit()).await.code(), Some(0));
}

/// How a stream ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Both sides close it, the upstream first.
    Both,
    /// The upstream closes its side, and the app does not.
    Upstream,
    UpstreamReset,
    AppReset,
    Idle,
    Shutdown,
}

#[tokio::test]
async fn the_line_of_a_stream_says_how_it_ended() {
    const LOG: &str = "[log]\naccess = \"all\"\nformat = \"json\"\n[shutdown]\nlame_duck = \"0s\"\n\
                       drain_timeout = \"300ms\"";
    for (end, level, code, complete, detail) in [
        (End::Both, "INFO", "", true, None),
        (End::Upstream, "INFO", "", true, None),
        (
            End::UpstreamReset,
            "WARN",
            "",
            false,
            Some("the upstream's side of the stream broke off: "),
        ),
        (End::AppReset, "INFO", "", false, Some("the app reset the connection of the stream")),
        (End::Idle, "INFO", "", false, Some("no byte came from either side for upgrade.idle, 2s")),
        (End::Shutdown, "WARN", "cut_by_shutdown", false, Some("shut down")),
    ] {
        // Where it is not the idle timeout that ends the stream, none ends it in its place.
        let idle = if matches!(end, End::Idle) { "2s" } else { "60s" };
        let route = format!("upgrade = {{ websocket = true, idle = \"{idle}\" }}");
        let (bank, proxy) = front(Extra { route: &route, more: LOG, ..Extra::default() }).await;
        let (mut app, mut bank) = open(&bank, &proxy).await;
        bank.send("news").await;
        assert_eq!(app.read_bytes(4).await, b"news");
        let mut kept = Vec::new();
        match end {
            End::Both | End::Upstream => {
                bank.finish().await;
                assert_eq!(app.read_to_close().await, b"");
                kept.push(bank);
                if matches!(end, End::Upstream) {
                    kept.push(app);
                }
            }
            End::UpstreamReset => {
                bank.reset();
                kept.push(app);
            }
            End::AppReset => app.reset(),
            End::Idle | End::Shutdown => kept.extend([app, bank]),
        }
        if matches!(end, End::Shutdown) {
            proxy.proxy.signal(Signal::TERM);
        }
        let access = |line: &str| line.contains("bearer_proxy::access").then(|| line.to_owned());
        let line: serde_json::Value = serde_json::from_str(&proxy.wait_log(access).await).unwrap();
        let found = (line["level"].as_str(), line["code"].as_str(), line["complete"].as_bool());
        assert_eq!(found, (Some(level), Some(code), Some(complete)), "{end:?}: {line}");
        let delivered = if complete { "yes" } else { "partly" };
        assert_eq!(
            (line["status"].as_u64(), line["delivered"].as_str()),
            (Some(101), Some(delivered))
        );
        match detail {
            Some(words) => assert!(line["detail"].as_str().unwrap().contains(words), "{line}"),
            None => assert_eq!(line.get("detail"), None, "{line}"),
        }
    }
}

/// A server that would rather speak HTTP/2, where there is no switch, is not offered it.
#[tokio::test]
async fn over_tls_a_stream_begins_with_http_1_1() {
    let bank = Secured::start().await;
    let tls = bank.ca.issue(&["localhost"], |_| {}).acceptor(None, &["h2", "http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let special = Special { api_origin: Some(&origin), ..Special::default() };
    let proxy = Proxy::start(&format!("{}{ALLOWED}\n", bank.config(&special))).await;
    proxy.wait_ready().await;
    let mut app = client(proxy.addr).await;
    app.send(WEBSOCKET.replace("/live", "/v1/balances/42")).await;
    let (stream, _) = soon(listener.accept()).await.unwrap();
    let mut stream = soon(tls.accept(stream)).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        soon(stream.read_buf(&mut head)).await.unwrap();
    }
    soon(stream.write_all(format!("{SWITCHED}hello").as_bytes())).await.unwrap();
    assert_eq!(app.read("GET").await.status, 101);
    assert_eq!(app.read_bytes(5).await, b"hello");
}
