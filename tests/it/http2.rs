//! Cleartext HTTP/2 with prior knowledge: the same guards and codes as HTTP/1.

use std::time::Duration;

use bearer_proxy::sandbox::Persona;

use crate::forwarding::sidecar;
use crate::support::http2::{self, CONTINUATION, END_HEADERS, END_STREAM, HEADERS, frames, head};
use crate::support::{Extra, client, in_front_of, raw_server, soon};

const BALANCE: &str = "/qbank/v1/balances/42";

/// The pseudo-header fields of a request, then others.
fn fields<'a>(
    method: &'a str,
    path: &'a str,
    authority: &'a str,
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let pseudo =
        [(":method", method), (":scheme", "http"), (":path", path), (":authority", authority)];
    pseudo.into_iter().filter(|(_, value)| !value.is_empty()).chain(more.iter().copied()).collect()
}

#[tokio::test]
async fn requests_are_forwarded_with_a_token_and_cookies_in_one_field() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let mut app = frames(proxy.addr).await;
    let crumbs = [("cookie", "a=b"), ("authorization", "Basic eA=="), ("cookie", "c=d")];
    let stream = app.send(&fields("GET", BALANCE, "localhost", &crumbs), None).await;
    let reply = app.reply(stream).await;
    assert!(reply.head && reply.ended, "{reply:?}");
    assert_eq!(reply.json()["path"], "/v1/balances/42");
    let body = b"{\"amount\":1}";
    let post = fields("POST", "/qbank/v1/payments/ach", "localhost", &[]);
    let stream = app.send(&post, Some(body)).await;
    assert_eq!(app.reply(stream).await.json()["body_length"], body.len());
    let seen = sandbox.bank(Persona::QBank).api.requests();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].headers["cookie"], "a=b; c=d");
    assert!(seen.iter().all(|request| request.token.is_some()));
}

#[tokio::test]
async fn what_is_refused_over_http1_is_refused_over_http2() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let long = format!("/qbank/v1/balances/{}", "4".repeat(8 * 1024));
    let check = async |head: Vec<(&str, &str)>, code: &str| {
        let mut app = frames(proxy.addr).await;
        let stream = app.send(&head, None).await;
        let reply = app.reply(stream).await;
        assert_eq!(reply.json()["code"], code, "{head:?}");
        assert_eq!(reply.json()["forwarded"], "no");
    };
    check(fields("GET", "/nowhere", "localhost", &[]), "no_route").await;
    check(fields("DELETE", BALANCE, "localhost", &[]), "method").await;
    check(fields("GET", "/qbank/v1/balances/../x", "localhost", &[]), "bad_target").await;
    check(fields("GET", "/qbank/v1/balances/..#/42", "localhost", &[]), "bad_target").await;
    check(fields("GET", "/#/qbank/v1/balances/42", "localhost", &[]), "no_route").await;
    check(fields("GET", &long, "localhost", &[]), "uri_too_long").await;
    check(fields("GET", BALANCE, "evil.example", &[]), "foreign_host").await;
    check(fields("GET", BALANCE, "localhost", &[("host", "evil.example")]), "foreign_host").await;
    check(fields("GET", BALANCE, "localhost", &[("host", "127.0.0.1")]), "bad_request").await;
    check(fields("GET", BALANCE, "", &[]), "bad_request").await;
    check(fields("GET", BALANCE, "localhost", &[("origin", "http://evil.example")]), "cross_site")
        .await;
    check(fields("GET", BALANCE, "localhost", &[("sec-fetch-site", "cross-site")]), "cross_site")
        .await;
    let names: Vec<String> = (0..100).map(|number| format!("x-{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let many = fields("GET", BALANCE, "localhost", &[&many[..], &[("x", "1")]].concat());
    let mut app = frames(proxy.addr).await;
    let stream = app.send(&many, None).await;
    let reply = app.reply(stream).await;
    let bare = reply.head && reply.ended && reply.body.is_empty() && reply.refused.is_none();
    assert!(bare, "431 without a body, as over HTTP/1: {reply:?}");
    let metrics = client(proxy.admin_addr).await.get("/metrics").await.text();
    let counted = "bearer_proxy_requests_rejected_total{reason=\"headers_too_large\"} 1\n";
    assert!(metrics.contains(counted), "not counted:\n{}", proxy.log());
    let connect = vec![(":method", "CONNECT"), (":authority", "localhost:443")];
    check(connect, "bad_target").await;
    let large =
        fields("POST", "/qbank/v1/payments/ach", "localhost", &[("content-length", "17000000")]);
    let mut app = frames(proxy.addr).await;
    app.frame(HEADERS, END_HEADERS, 1, &head(&large)).await;
    assert_eq!(app.reply(1).await.json()["code"], "body_too_large");
    assert_eq!(sandbox.bank(Persona::QBank).api.requests().len(), 0);
}

/// Over HTTP/2 as over HTTP/1: it is for nobody but the app.
#[tokio::test]
async fn a_fragment_goes_no_further() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    for fragment in ["#", "#x", "#/../../payments/ach", "#?x"] {
        let mut app = frames(proxy.addr).await;
        let path = format!("{BALANCE}{fragment}");
        let stream = app.send(&fields("GET", &path, "localhost", &[]), None).await;
        assert_eq!(app.reply(stream).await.json()["path"], "/v1/balances/42", "{path}");
    }
    assert_eq!(sandbox.bank(Persona::QBank).api.requests().len(), 4);
}

#[tokio::test]
async fn malformed_requests_reset_their_stream_or_end_the_connection() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let get = |more: &[(&'static str, &'static str)]| fields("GET", BALANCE, "localhost", more);
    let extended = fields("CONNECT", BALANCE, "localhost", &[(":protocol", "websocket")]);
    for head in [
        get(&[("connection", "close")]),
        get(&[("transfer-encoding", "chunked")]),
        get(&[("upgrade", "websocket")]),
        get(&[("keep-alive", "1")]),
        get(&[("te", "gzip")]),
        get(&[("X-Upper", "1")]),
        get(&[("x", "a\r\nauthorization: b")]),
        get(&[(":path", "/twice")]),
        get(&[("x", "1"), (":method", "POST")]),
        get(&[(":status", "200")]),
        vec![(":method", "GET"), (":authority", "localhost"), (":scheme", "http")],
        vec![(":method", "GET"), (":path", BALANCE), (":authority", "localhost")],
        extended,
    ] {
        let mut app = frames(proxy.addr).await;
        let stream = app.send(&head, None).await;
        let reply = app.reply(stream).await;
        let refused = reply.refused.is_some() || reply.json()["status"].as_u64() >= Some(400);
        assert!(refused, "{head:?}: {reply:?}");
    }
    // A body that is not as long as it says.
    let mut app = frames(proxy.addr).await;
    let post = fields("POST", "/qbank/v1/payments/ach", "localhost", &[("content-length", "5")]);
    let stream = app.send(&post, Some(b"seven..")).await;
    assert!(app.reply(stream).await.refused.is_some());
    assert_eq!(sandbox.bank(Persona::QBank).api.requests().len(), 0);
}

/// GOAWAY says why a connection ends, also to a client that goes on sending.
#[tokio::test]
async fn the_reason_of_the_end_arrives() {
    const PROTOCOL_ERROR: u32 = 1;
    let (_sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let mut app = frames(proxy.addr).await;
    app.frame(http2::DATA, 0, 0, b"no stream").await;
    app.bytes(&vec![0; 4 << 20]).await;
    assert_eq!(app.reply(1).await.refused, Some(PROTOCOL_ERROR));
}

/// The h2 crate bounds them by the length that a header list may have.
#[tokio::test]
async fn endless_heads_end_the_connection() {
    let (_sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let mut app = frames(proxy.addr).await;
    app.frame(HEADERS, END_STREAM, 1, &head(&fields("GET", BALANCE, "localhost", &[]))).await;
    for _ in 0..200 {
        app.frame(CONTINUATION, 0, 1, &head(&[("x", "y")])).await;
    }
    let reply = app.reply(1).await;
    assert!(reply.refused.is_some(), "{reply:?}");
    let mut app = frames(proxy.addr).await;
    let large = "y".repeat(15_000);
    app.frame(
        HEADERS,
        END_STREAM,
        1,
        &head(&fields("GET", BALANCE, "localhost", &[("x", &large)])),
    )
    .await;
    app.frame(CONTINUATION, 0, 1, &head(&[("y", &large)])).await;
    app.frame(CONTINUATION, END_HEADERS, 1, &head(&[("z", &large)])).await;
    let reply = app.reply(1).await;
    assert!(reply.head && reply.body.is_empty(), "431 without a body: {reply:?}");
}

#[tokio::test]
async fn a_payment_whose_client_gives_up_half_way_is_cut_not_completed() {
    let server = raw_server().await;
    let proxy = in_front_of(&format!("http://{}", server.addr), Extra::default()).await;
    for reason in [0_u32, 8] {
        let mut app = frames(proxy.addr).await;
        let post = fields("POST", "/pay", "localhost", &[]);
        app.frame(HEADERS, END_HEADERS, 1, &head(&post)).await;
        app.frame(http2::DATA, 0, 1, b"{\"amount\":").await;
        let mut bank = server.accept().await;
        assert!(bank.read_head().await.starts_with("POST /pay HTTP/1.1\r\n"));
        assert_eq!(bank.read_bytes(15).await, b"A\r\n{\"amount\":\r\n");
        app.frame(http2::RST_STREAM, 0, 1, &reason.to_be_bytes()).await;
        assert_eq!(bank.read_to_close().await, b"", "no last chunk, reason {reason}");
    }
}

/// The h2 crate answers what asks for an answer and no more than there is room for; cancelled
/// requests are counted by us.
#[tokio::test]
async fn floods_of_frames_end_or_do_no_harm() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let frame = |kind: u8, stream: u32, payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, 0], &stream.to_be_bytes()[..], payload].concat()
    };
    const WINDOW_UPDATE: u8 = 8;
    for flood in [
        frame(http2::PING, 0, b"12345678"),
        frame(http2::SETTINGS, 0, b""),
        frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]),
        frame(0x42, 0, b"unknown"),
    ] {
        let mut app = frames(proxy.addr).await;
        app.bytes(&flood.repeat(10_000)).await;
        let stream = app.send(&fields("GET", BALANCE, "localhost", &[]), None).await;
        let reply = app.reply(stream).await;
        assert!(reply.ended || reply.refused.is_some(), "{reply:?}");
    }
    let served = sandbox.bank(Persona::QBank).api.requests().len();
    let mut app = frames(proxy.addr).await;
    let mut rapid = Vec::new();
    for number in 0..1_000 {
        let (stream, head) = (2 * number + 1, head(&fields("GET", BALANCE, "localhost", &[])));
        let mut begun = frame(HEADERS, stream, &head);
        begun[4] = END_HEADERS | END_STREAM;
        rapid.extend([begun, frame(http2::RST_STREAM, stream, &8_u32.to_be_bytes())].concat());
    }
    app.bytes(&rapid).await;
    let reply = app.reply(u32::MAX).await;
    assert!(reply.refused.is_some(), "the connection ends: {reply:?}");
    let forwarded = sandbox.bank(Persona::QBank).api.requests().len() - served;
    assert!(forwarded <= 200, "{forwarded} of 1000 were forwarded");
    let mut app = frames(proxy.addr).await;
    let stream = app.send(&fields("GET", BALANCE, "localhost", &[]), None).await;
    assert!(app.reply(stream).await.ended, "others are served");
}
