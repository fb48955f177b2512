//! How a connection to an app begins, goes on and ends: answers that arrive whatever else the app is
//! sending, HTTP/1.0, pipelines, apps that have closed their side, and what is cut.

use crate::support::{Client, Extra, Fronted, RawServer, client, in_front_of, raw_server, soon};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const PAY: &str = "POST /pay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi";
const GET: &str = "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n";

async fn front() -> (RawServer, Fronted) {
    let bank = raw_server().await;
    let proxy = in_front_of(&format!("http://{}", bank.addr), Extra::default()).await;
    (bank, proxy)
}

/// An app that has sent this, and the bank that has read its head.
async fn asked(bank: &RawServer, proxy: &Fronted, request: &str) -> (Client, Client, String) {
    let mut app = client(proxy.addr).await;
    app.send(request).await;
    let mut bank = bank.accept().await;
    let head = bank.read_head().await;
    (app, bank, head)
}

/// The app writes on and on before it reads: the refusal must still be there, and no reset.
#[tokio::test]
async fn a_refusal_reaches_an_app_that_is_still_sending() {
    let (_bank, proxy) = front().await;
    let body = vec![b'x'; 18 << 20];
    for (head, status) in [
        ("Content-Length: 18874368\r\n", 413),
        ("Content-Length: 18874368\r\nOrigin: http://evil.example\r\n", 413),
        ("Content-Length: 9437184\r\nOrigin: http://evil.example\r\n", 403),
        ("Content-Length: 9437184\r\nContent-Length: 9437185\r\n", 400),
        ("Bad Name: 1\r\nContent-Length: 9437184\r\n", 400),
    ] {
        let mut app = client(proxy.addr).await;
        app.send(format!("POST /pay HTTP/1.1\r\nHost: localhost\r\n{head}\r\n")).await;
        app.send(&body[..9 << 20]).await;
        assert_eq!(app.read("POST").await.status, status, "{head}");
        app.send(&body[9 << 20..]).await;
        assert_eq!(app.read_to_close().await, b"");
    }
}

#[tokio::test]
async fn an_early_answer_reaches_an_app_that_is_still_sending() {
    let (bank, proxy) = front().await;
    let head = "POST /pay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9437184\r\n\r\n";
    let (mut app, mut bank, _) = asked(&bank, &proxy, head).await;
    bank.send("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno").await;
    drop(bank);
    app.send(vec![b'x'; 9 << 20]).await;
    assert_eq!(app.read("POST").await.status, 403);
}

#[tokio::test]
async fn http_1_0_has_no_chunks_and_ends_when_it_says() {
    let (bank, proxy) = front().await;
    let (mut app, mut bank, head) =
        asked(&bank, &proxy, "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert!(head.starts_with("GET /a HTTP/1.1\r\n"), "{head}");
    bank.send(OK).await;
    let kept = app.read("GET").await;
    assert_eq!((kept.text().as_str(), kept.header("connection")), ("ok", Some("keep-alive")));
    // Nobody knows how long this one is, so that it ends with the connection.
    app.send("GET /b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    bank.read_head().await;
    bank.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    let ended = app.read("GET").await;
    assert_eq!((ended.text().as_str(), ended.header("connection")), ("ok", Some("close")));
    assert_eq!(ended.header("transfer-encoding"), None);
}

#[tokio::test]
async fn what_is_cut_on_its_way_is_cut_for_the_app() {
    let whole = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n";
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok";
    let check = async |version: &str, answer: &str, expected: Result<(&str, &str), ()>| {
        let (bank, proxy) = front().await;
        let request =
            format!("GET /a HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let (mut app, mut bank, _) = asked(&bank, &proxy, &request).await;
        bank.send(answer).await;
        let head = app.read_head().await.to_lowercase();
        drop(bank);
        match (app.read_to_end().await, expected) {
            (Ok(rest), Ok((field, body))) => {
                assert!(head.contains(field), "{head}");
                assert_eq!(String::from_utf8_lossy(&rest), body, "{version} {answer}");
            }
            (Err(_), Err(())) => {}
            (seen, expected) => panic!("{version} {answer}: {seen:?} is not {expected:?}"),
        }
    };
    check("1.1", whole, Ok(("transfer-encoding: chunked", "2\r\nok\r\n0\r\n\r\n"))).await;
    check("1.1", chunks, Ok(("transfer-encoding: chunked", "2\r\nok\r\n"))).await;
    check("1.1", length, Ok(("content-length: 10", "ok"))).await;
    check("1.0", whole, Ok(("connection: close", "ok"))).await;
    check("1.0", length, Ok(("content-length: 10", "ok"))).await;
    // A body that ends with its connection has no other sign of having been cut than a reset.
    check("1.0", chunks, Err(())).await;
}

#[tokio::test]
async fn bodies_are_told_apart_from_heads_without_them() {
    let (bank, proxy) = front().await;
    let mut app = client(proxy.addr).await;
    let mut side = None;
    for (method, answer, status, length) in [
        ("HEAD", "200 OK\r\nContent-Length: 100", 200, Some("100")),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked", 200, None),
        ("HEAD", "404 Not Found\r\nContent-Length: 9", 404, Some("9")),
        ("GET", "204 No Content", 204, None),
        ("GET", "304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 100", 304, None),
        ("GET", "200 OK\r\nContent-Length: 0", 200, Some("0")),
        ("POST", "204 No Content", 204, None),
    ] {
        let body = if method == "POST" { "Content-Length: 2\r\n\r\nhi" } else { "\r\n" };
        app.send(format!("{method} /a HTTP/1.1\r\nHost: localhost\r\n{body}")).await;
        let mut server = match side.take() {
            Some(server) => server,
            None => bank.accept().await,
        };
        assert!(server.read_head().await.starts_with(method));
        if method == "POST" {
            assert_eq!(server.read_bytes(2).await, b"hi");
        }
        server.send(format!("HTTP/1.1 {answer}\r\n\r\n")).await;
        let got = app.read(method).await;
        assert_eq!((got.status, got.header("content-length")), (status, length), "{answer}");
        assert_eq!(got.header("transfer-encoding"), None, "{answer}");
        side = Some(server);
    }
}

#[tokio::test]
async fn a_pipeline_is_answered_in_its_order_and_once() {
    let (bank, proxy) = front().await;
    let pay = "POST /pay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi";
    let last = "GET /c HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let pipeline = format!("{GET}{pay}{last}");
    let (mut app, mut bank, _) = asked(&bank, &proxy, &pipeline).await;
    for (body, next) in [("a", "POST /pay HTTP/1.1"), ("bb", "GET /c HTTP/1.1")] {
        bank.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        assert!(bank.read_head().await.starts_with(next));
        if next.starts_with("POST") {
            assert_eq!(bank.read_bytes(2).await, b"hi");
        }
    }
    bank.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nccc").await;
    for body in ["a", "bb", "ccc"] {
        assert_eq!(app.read("GET").await.text(), body);
    }
    assert_eq!(app.read_to_close().await, b"");
}

/// Whoever is asked for a safe thing by an app that may be gone does not work on it for long.
#[tokio::test]
async fn an_app_that_has_closed_its_side_is_waited_with_for_a_moment() {
    let (bank, proxy) = front().await;
    let (mut app, mut bank, _) = asked(&bank, &proxy, GET).await;
    app.finish().await;
    assert_eq!(bank.read_to_close().await, b"");
    assert_eq!(app.read_to_close().await, b"");
}

#[tokio::test]
async fn an_app_that_has_closed_its_side_gets_all_its_answers_where_that_is_configured() {
    let server = raw_server().await;
    let extra = Extra { server: "half_closed = \"serve\"", ..Extra::default() };
    let proxy = in_front_of(&format!("http://{}", server.addr), extra).await;
    let (mut app, mut bank, _) = asked(&server, &proxy, &format!("{GET}{PAY}")).await;
    app.finish().await;
    bank.send(OK).await;
    assert!(bank.read_head().await.starts_with("POST"));
    assert_eq!(bank.read_bytes(2).await, b"hi");
    bank.send("HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").await;
    assert_eq!(app.read("GET").await.status, 200);
    bank.send("0\r\n\r\n").await;
    let paid = app.read("POST").await;
    assert_eq!((paid.status, paid.text().as_str()), (201, "ok"));
    assert_eq!(app.read_to_close().await, b"");
}

/// What comes before an answer is for our hop: 100 is the one that the app may wait for.
#[tokio::test]
async fn interim_answers_that_nobody_waits_for_are_not_passed_on() {
    let (bank, proxy) = front().await;
    let (mut app, mut bank, _) = asked(&bank, &proxy, GET).await;
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
    bank.send(format!("HTTP/1.1 100 Continue\r\n\r\n{early}{OK}")).await;
    let answer = app.read("GET").await;
    assert_eq!((answer.status, answer.header("link")), (200, None));
}

#[tokio::test]
async fn events_are_passed_on_one_by_one() {
    let (bank, proxy) = front().await;
    let (mut app, mut bank, _) = asked(&bank, &proxy, GET).await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    bank.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n")).await;
    assert!(app.read_head().await.contains("text/event-stream"));
    for number in 0..5 {
        // The next is not sent before the app has this one.
        let event = format!("9\r\ndata: {number}\n\n\r\n");
        bank.send(&event).await;
        assert_eq!(app.read_bytes(event.len()).await, event.as_bytes());
    }
    bank.send("0\r\n\r\n").await;
    assert_eq!(app.read_bytes(5).await, b"0\r\n\r\n");
}

/// What hyper cannot read it answers itself, with a status and nothing else; the operator hears of it
/// all the same.
#[tokio::test]
async fn a_head_that_cannot_be_read_is_refused_counted_and_logged() {
    let bank = raw_server().await;
    let extra = Extra { server: "workers = 1", ..Extra::default() };
    let proxy = in_front_of(&format!("http://{}", bank.addr), extra).await;
    let host = "Host: localhost\r\n";
    let lines = "X: 1\r\n".repeat(100);
    let rows = [
        (format!("GET  /a HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET /a HTTP/1.1\r\n{host}Bad Name: 1\r\n\r\n"), 400),
        (format!("GET /a HTTP/1.1\r\n{host}X : 1\r\n\r\n"), 400),
        (format!("GET /a HTTP/1.1\r\n{host}X: 1\r\n 2\r\n\r\n"), 400),
        (format!("GET /a HTTP/1.1\r\n{host}X: a\0b\r\n\r\n"), 400),
        (format!("GET /a HTTP/1.1\r\n{host}{lines}\r\n"), 431),
        (format!("GET /a HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(33_000)), 431),
    ];
    for (request, status) in &rows {
        let mut app = client(proxy.addr).await;
        app.send(request).await;
        let answer = app.read("GET").await;
        let mut fields: Vec<_> =
            answer.headers.iter().map(|(name, _)| name.to_lowercase()).collect();
        fields.sort();
        assert_eq!((answer.status, answer.text().as_str()), (*status, ""), "{request}");
        assert_eq!(fields, ["connection", "content-length", "date"], "{request}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(app.read_to_close().await, b"");
    }
    let counted = async |reason: &str, status: u16| {
        let count = rows.iter().filter(|row| row.1 == status).count();
        let line = format!("bearer_proxy_requests_rejected_total{{reason=\"{reason}\"}} {count}\n");
        let mut admin = client(proxy.admin_addr).await;
        while !admin.get("/metrics").await.text().contains(&line) {}
    };
    soon(counted("bad_request", 400)).await;
    soon(counted("headers_too_large", 431)).await;
    // What can be read and is refused by us is written down and explained as ever.
    let mut app = client(proxy.addr).await;
    app.send(format!("GET /a/../b HTTP/1.1\r\n{host}\r\n")).await;
    let ours = app.read("GET").await;
    assert_eq!((ours.status, ours.json()["code"].as_str()), (400, Some("bad_target")));
    app = client(proxy.addr).await;
    app.send(format!("GET /{} HTTP/1.1\r\n{host}\r\n", "x".repeat(9_000))).await;
    let long = app.read("GET").await;
    assert_eq!((long.status, long.json()["code"].as_str()), (414, Some("uri_too_long")));
    proxy.wait_log(|line| line.contains("uri_too_long").then_some(())).await;
    let log = proxy.log();
    let lines = |words: &str| log.lines().filter(|line| line.contains(words)).collect::<Vec<_>>();
    // Once in 10 s for each cause, so that none hides another.
    let [bad, large] = lines("request head refused")[..] else { panic!("not once each:\n{log}") };
    assert!(bad.contains("WARN") && !bad.contains("max_header_bytes"), "{bad}");
    assert!(large.contains("WARN") && large.contains("server.max_header_bytes"), "{large}");
    let [target, long] = lines("duration_ms")[..] else { panic!("of what was not read:\n{log}") };
    assert!(target.contains("bad_target") && long.contains("uri_too_long"), "{log}");
}

/// Beyond what `server.max_uri` can be set to, hyper has a bound of its own.
#[tokio::test]
async fn a_target_beyond_all_bounds_is_refused_as_too_long() {
    let bank = raw_server().await;
    let server = "max_uri = \"60KiB\"\nmax_header_bytes = \"128KiB\"";
    let extra = Extra { server, ..Extra::default() };
    let proxy = in_front_of(&format!("http://{}", bank.addr), extra).await;
    for (length, status, code) in [
        (62_000, 414, Some("uri_too_long")),
        (66_000, 414, None),
        (120_000, 414, None),
        (140_000, 431, None),
    ] {
        let mut app = client(proxy.addr).await;
        let target = "x".repeat(length);
        app.send(format!("GET /{target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        let answer = app.read("GET").await;
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")));
        match code {
            Some(code) => assert_eq!(answer.json()["code"], code),
            None => assert_eq!((answer.text().as_str(), answer.headers.len()), ("", 3)),
        }
        assert_eq!(app.read_to_close().await, b"", "{length}");
    }
}
