//! Combinations that no table has: bodies that outlive answers, apps that take nothing, answers without
//! a body that speak of one, and ends in the middle.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::exchange_lifetime::{Server, second_version};
use super::recorder::{Act, Recorder, ok};
use super::refusal;
use crate::support::http2::{
    DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS, frames, head,
};
use crate::support::{Extra, Fronted, client, in_front_of, raw_server, soon};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n";
const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/a"), (":authority", "localhost")];

async fn front(extra: Extra<'_>) -> (Recorder, Fronted) {
    let bank = Recorder::start().await;
    let proxy = in_front_of(&format!("http://{}", bank.addr), extra).await;
    (bank, proxy)
}

/// An upload goes on although its answer has come: neither the time of idle connections nor the end of
/// the program cuts it.
#[tokio::test]
async fn an_upload_that_goes_on_after_its_answer_is_not_idle() {
    for leaves in [false, true] {
        for multiplexed in [true, false] {
            let extra = Extra {
                server: if multiplexed {
                    "timeouts = { idle = \"1s\" }"
                } else {
                    "timeouts = { idle = \"1s\", head = \"1500ms\" }"
                },
                more: "[shutdown]\nlame_duck = \"100ms\"\ndrain_timeout = \"10s\"",
                ..Extra::default()
            };
            let (bank, proxy) = front(extra).await;
            bank.play(|_| Act::Early(OK.into()));
            let row = format!("leaves={leaves} multiplexed={multiplexed}");
            let (mut streams, mut app) = (None, None);
            if multiplexed {
                let mut stream = frames(proxy.addr).await;
                stream.frame(HEADERS, END_HEADERS, 1, &head(&POST)).await;
                let reply = stream.reply(1).await;
                assert!(reply.ended && reply.body == b"ok", "{reply:?}");
                streams = Some(stream);
            } else {
                let mut one = client(proxy.addr).await;
                one.send(
                    "POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
                )
                .await;
                assert_eq!(one.read("POST").await.text(), "ok");
                app = Some(one);
            }
            if leaves {
                proxy.signal(Signal::TERM);
            }
            let (pieces, mut tick) = (14, tokio::time::interval(Duration::from_millis(250)));
            for piece in 1..=pieces {
                tick.tick().await;
                if let Some(stream) = &mut streams {
                    let flags = if piece == pieces { END_STREAM } else { 0 };
                    stream.frame(DATA, flags, 1, b"more").await;
                }
                if let Some(app) = &mut app {
                    app.send(if piece == pieces {
                        "4\r\nmore\r\n0\r\n\r\n"
                    } else {
                        "4\r\nmore\r\n"
                    })
                    .await;
                }
            }
            let seen = bank.wait(1).await;
            assert!(seen.whole, "{row}: {} bytes came", seen.body.len());
            assert_eq!(seen.body.len(), pieces * 4, "{row}");
            if leaves && let Some(app) = &mut app {
                // Then nothing is left to wait for.
                let ended = timeout(Duration::from_millis(500), app.read_to_close()).await;
                assert_eq!(ended.expect("it is kept"), b"", "{row}");
            }
        }
    }
}

#[tokio::test]
async fn an_upstream_connection_ends_with_the_thirty_third_hint() {
    let bank = raw_server().await;
    let proxy = in_front_of(&format!("http://{}", bank.addr), Extra::default()).await;
    let mut app = client(proxy.addr).await;
    app.send(GET).await;
    let mut serving = bank.accept().await;
    serving.read_head().await;
    serving.send("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(33)).await;
    assert_eq!(app.read("GET").await.status, 502);
    assert_eq!(serving.read_to_close().await, b"");
}

/// Half a body and the app's end: the upstream's copy is reset, never ended.
#[tokio::test]
async fn half_a_body_is_never_a_whole_one_over_http2() {
    for (fields, part) in [
        ("Content-Length: 10\r\n", "half"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n0\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n0\r\nX: y\r\n"),
    ] {
        for resets in [true, false] {
            let (bank, proxy) = second_version().await;
            let mut app = client(proxy.addr).await;
            app.send(format!("POST /a HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{part}")).await;
            let mut server = Server::accept(&bank).await;
            let stream = server.next(HEADERS).await;
            server.next(DATA).await;
            if resets {
                app.reset();
            } else {
                app.finish().await;
            }
            assert_eq!(server.until_end(stream).await, RST_STREAM, "{fields} {part:?} {resets}");
        }
    }
}

#[tokio::test]
async fn a_read_whose_app_is_gone_is_reset_over_http2() {
    let (bank, proxy) = second_version().await;
    let mut app = client(proxy.addr).await;
    app.send(GET).await;
    let mut server = Server::accept(&bank).await;
    let stream = server.next(HEADERS).await;
    let began = Instant::now();
    app.reset();
    assert_eq!(server.until_end(stream).await, RST_STREAM);
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn requests_in_one_write_are_answered_in_their_order() {
    let (bank, proxy) = front(Extra::default()).await;
    bank.play(|seen| ok(seen.path()));
    let mut bytes = String::new();
    for number in 0..100 {
        let head = format!("/n{number} HTTP/1.1\r\nHost: localhost\r\n");
        bytes += &match number % 4 {
            0 => format!("GET {head}\r\n"),
            1 => format!("POST {head}Content-Length: 3\r\n\r\npay"),
            2 => {
                format!("POST {head}Transfer-Encoding: chunked\r\n\r\n3\r\npay\r\n0\r\n\r\n")
            }
            _ => format!("\r\nGET {head}Expect: 100-continue\r\n\r\n"),
        };
    }
    let mut app = client(proxy.addr).await;
    app.send(&bytes).await;
    for number in 0..100 {
        let answer = app.read("GET").await;
        assert_eq!((answer.status, answer.text()), (200, format!("/n{number}")));
    }
    // Trailers are the end of a connection: a bare LF among them would let the next request be taken
    // for more of them, and every answer for another's.
    for trailers in ["X: y\r\n\r\n", "X: y\n\r\n", "X: y\r\n\n", "\n"] {
        let mut app = client(proxy.addr).await;
        let first = "POST /one HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let others = "GET /two HTTP/1.1\r\nHost: localhost\r\n\r\nGET /three HTTP/1.1\r\nHost: localhost\r\n\r\n";
        app.send(format!("{first}3\r\npay\r\n0\r\n{trailers}{others}")).await;
        let answer = app.read("POST").await;
        let close = answer.header("connection").map(str::to_lowercase);
        let status = (answer.status, close.as_deref());
        assert!(matches!(status, (200 | 400, Some("close"))), "{trailers:?}: {answer:?}");
        assert_eq!(app.read_to_close().await, b"", "{trailers:?}");
    }
    // A FIN behind them cuts none of those that are safe.
    let mut app = client(proxy.addr).await;
    app.send(GET.repeat(5)).await;
    app.finish().await;
    for _ in 0..5 {
        assert_eq!(app.read("GET").await.text(), "/a");
    }
    assert_eq!(app.read_to_close().await, b"");
    // HTTP/1.0 goes on where it asks for it, and only then.
    let mut app = client(proxy.addr).await;
    let old = "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    app.send(old.repeat(3) + "GET /a HTTP/1.0\r\n\r\n" + old).await;
    for _ in 0..4 {
        assert_eq!(app.read("GET").await.text(), "/a");
    }
    assert_eq!(app.read_to_close().await, b"", "what follows the last is not served");
}

/// What has no body has none, whatever its head says; the connections go on.
#[tokio::test]
async fn answers_without_a_body_may_speak_of_one() {
    for (method, answer) in [
        ("HEAD", "200 OK\r\nContent-Length: 9"),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked"),
        ("HEAD", "200 OK\r\nX: y"),
        ("GET", "304 Not Modified\r\nContent-Length: 9"),
        ("GET", "304 Not Modified\r\nTransfer-Encoding: chunked"),
        ("GET", "204 No Content\r\nContent-Length: 0"),
        ("GET", "204 No Content\r\nContent-Length: 9"),
        ("GET", "204 No Content\r\nTransfer-Encoding: chunked"),
        ("GET", "204 No Content\r\nX: y"),
    ] {
        let (bank, proxy) = front(Extra::default()).await;
        bank.play(move |seen| match seen.path() {
            "/a" => Act::Answer(format!("HTTP/1.1 {answer}\r\n\r\n").into()),
            _ => ok("next"),
        });
        let mut app = client(proxy.addr).await;
        let ask = format!("{method} /a HTTP/1.1\r\nHost: localhost\r\n\r\n");
        app.send(ask + &GET.replace("/a", "/b")).await;
        let status: u16 = answer[..3].parse().unwrap();
        assert_eq!(app.read(method).await.status, status, "{method} {answer}");
        assert_eq!(app.read("GET").await.text(), "next", "{method} {answer}");
        // The same for an app that checks what h2 checks.
        let stream = soon(tokio::net::TcpStream::connect(proxy.addr)).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        for (method, path, expected) in [(method, "/a", status), ("GET", "/b", 200)] {
            let uri = format!("http://localhost:{}{path}", proxy.addr.port());
            let request = http::Request::builder().method(method).uri(uri).body(()).unwrap();
            let (answer_of, _) = sender.send_request(request, true).unwrap();
            let came =
                soon(answer_of).await.unwrap_or_else(|error| panic!("{method} {answer}: {error}"));
            assert_eq!(came.status().as_u16(), expected, "{method} {answer}");
            let mut body = came.into_body();
            while let Some(data) = soon(body.data()).await {
                data.unwrap_or_else(|error| panic!("{method} {answer}: {error}"));
            }
        }
    }
}

/// Pours an answer into an app that takes nothing: it is cut in time, and little of it is kept.
#[tokio::test]
async fn an_answer_that_nobody_takes_is_cut_and_not_kept() {
    for multiplexed in [false, true] {
        let bank = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let more = "[log]\naccess = \"all\"\nformat = \"json\"";
        let extra = Extra { server: "timeouts = { send = \"1s\" }", more, ..Extra::default() };
        let url = format!("http://{}", bank.local_addr().unwrap());
        let proxy = in_front_of(&url, extra).await;
        let (mut streams, mut app) = (None, None);
        if multiplexed {
            let mut one = frames(proxy.addr).await;
            // No window at all.
            one.frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
            let fields = [(":method", "GET"), POST[1], POST[2], POST[3]];
            one.send(&fields, None).await;
            streams = Some(one);
        } else {
            let mut one = client(proxy.addr).await;
            one.send(GET).await;
            app = Some(one);
        }
        let (mut serving, _) = soon(bank.accept()).await.unwrap();
        // An answer before its request would be nobody's.
        let mut asked = [0; 1024];
        assert!(soon(serving.read(&mut asked)).await.unwrap() > 0);
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
        soon(serving.write_all(head)).await.unwrap();
        let piece = vec![b'x'; 1 << 20];
        let poured = soon(async {
            let mut poured = 0_usize;
            // Ends when the connection does.
            while serving.write_all(&piece).await.is_ok() {
                poured += 1;
            }
            poured
        })
        .await;
        assert!(poured < 64, "{poured} MiB, multiplexed={multiplexed}");
        if let Some(one) = &mut streams {
            assert!(one.reply(1).await.refused.is_some());
        }
        let access = |line: &str| line.contains("bearer_proxy::access").then(|| line.to_owned());
        let line = proxy.wait_log(access).await;
        let detail =
            "bearer-proxy cut the answer: the app took no byte of it for server.timeouts.send, 1s";
        for part in [detail, "\"delivered\":\"partly\"", "\"complete\":false"] {
            assert!(line.contains(part), "multiplexed={multiplexed}: {line}");
        }
        drop(app);
    }
}

#[tokio::test]
async fn what_follows_an_offer_of_websocket_is_its_own_where_it_is_not_taken() {
    let ws = "GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    for route in ["", "upgrade = { websocket = true }"] {
        let (bank, proxy) = front(Extra { route, ..Extra::default() }).await;
        bank.play(|seen| ok(seen.path()));
        let mut app = client(proxy.addr).await;
        app.send(ws.to_owned() + &GET.replace("/a", "/b")).await;
        assert_eq!(app.read("GET").await.text(), "/a");
        assert_eq!(app.read("GET").await.text(), "/b");
        app.send("\x01\x02garbage\r\n\r\n").await;
        assert_eq!(app.read("GET").await.status, 400);
        assert_eq!(app.read_to_close().await, b"");
        assert_eq!(bank.count(), 2);
    }
}

#[tokio::test]
async fn chunks_that_stop_with_a_fin_are_no_request() {
    let (bank, proxy) = front(Extra::default()).await;
    for part in [
        "",
        "4",
        "4\r\n",
        "4\r\nab",
        "4\r\nabcd",
        "4\r\nabcd\r\n",
        "4\r\nabcd\r\n0\r\n",
        "4\r\nabcd\r\n0\r\nX: y\r\n",
    ] {
        let mut app = client(proxy.addr).await;
        let head = "POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        app.send(format!("{head}{part}")).await;
        app.finish().await;
        let came = timeout(Duration::from_secs(5), app.read_to_close()).await.unwrap();
        let came = String::from_utf8_lossy(&came);
        assert!(!came.contains("HTTP/1.1 2"), "{part:?}: {came}");
    }
    assert_eq!(bank.whole(), 0);
}

/// Time on processors that a process has used, in hundredths of a second.
pub fn used(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let fields: Vec<_> = after_name.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// What waits is woken by events, also where one side has closed its half or a write has failed.
#[tokio::test]
async fn half_of_a_connection_keeps_nobody_busy() {
    let upgrade = "upgrade = { websocket = true }";
    let ws = "GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let head =
        "POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n";
    let whole = "POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\npay";
    let events = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    let piped = format!("{whole}{GET}{GET}");
    for (what, ask, answer, app_ends, bank_ends) in [
        ("a payment", whole, "", true, false),
        ("a payment and more behind it", piped.as_str(), "", true, false),
        ("a payment and more behind it, open", piped.as_str(), "", false, false),
        ("a read that is served", GET, "", true, false),
        ("an event stream", GET, events, true, false),
        ("a WebSocket, the app's half", ws, switched, true, false),
        ("a WebSocket, the bank's half", ws, switched, false, true),
        ("an answer before the body's end, and a FIN", head, OK, false, true),
        ("an answer before the body's end", head, OK, false, false),
        ("an answer that goes on, and an open body", head, events, false, false),
    ] {
        let bank = raw_server().await;
        let extra = Extra { server: "half_closed = \"serve\"", route: upgrade, ..Extra::default() };
        let proxy = in_front_of(&format!("http://{}", bank.addr), extra).await;
        let mut app = client(proxy.addr).await;
        app.send(ask).await;
        let mut serving = bank.accept().await;
        serving.read_head().await;
        serving.send(answer).await;
        if !answer.is_empty() {
            app.read_head().await;
        }
        if app_ends {
            app.finish().await;
        }
        if bank_ends {
            serving.finish().await;
        }
        let before = used(proxy.id());
        // Time passes; whatever comes meanwhile is not looked at.
        let _quiet = timeout(Duration::from_secs(1), std::future::pending::<()>()).await;
        let spent = used(proxy.id()) - before;
        assert!(spent < 15, "{what}: {spent}0 ms of a second");
    }
}

/// An app that owes some of its body is at fault, not the upstream that waits for it.
#[tokio::test]
async fn an_app_that_stalls_in_its_body_is_told_so() {
    for (method, code) in [("POST", 408), ("GET", 408)] {
        let upstream = "timeouts = { response = \"1s\", idle = \"2s\" }";
        let (bank, proxy) = front(Extra { upstream, ..Extra::default() }).await;
        bank.play(|seen| ok(seen.path()));
        let mut app = client(proxy.addr).await;
        let head = format!("{method} /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n");
        app.send(format!("{head}pay")).await;
        let answer = app.read(method).await;
        assert_eq!(
            (answer.status, refusal(&answer).as_str()),
            (code, "request_timeout"),
            "{method}"
        );
    }
}

/// A client that is refused before the end of its upload is told not to use its connection again.
#[tokio::test]
async fn a_refusal_before_the_end_of_a_request_ends_its_connection() {
    let (bank, proxy) = front(Extra::default()).await;
    let refused = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno";
    bank.play(move |_| Act::Early(refused.into()));
    let mut app = client(proxy.addr).await;
    app.send("POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\npay").await;
    let answer = app.read("POST").await;
    assert_eq!((answer.status, answer.text().as_str()), (413, "no"));
    assert_eq!(answer.header("connection").map(str::to_lowercase).as_deref(), Some("close"));
    app.finish().await;
    assert_eq!(app.read_to_close().await, b"");
}
