//! What is true of a message however its bytes are spread over time, and of connections between
//! messages.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::recorder::{Act, Recorder, ok};
use super::refusal;
use crate::support::http2::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, frames, head};
use crate::support::{Client, Extra, Fronted, client, in_front_of, raw_server, soon};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n";
const CHUNKED: &str = "POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";

/// More than any bound, and than what sockets hold.
const MUCH: usize = 8 * 1024 * 1024;

async fn front(extra: Extra<'_>) -> (Recorder, Fronted) {
    let bank = Recorder::start().await;
    let proxy = in_front_of(&format!("http://{}", bank.addr), extra).await;
    (bank, proxy)
}

async fn plain() -> (Recorder, Fronted) {
    front(Extra::default()).await
}

/// Bytes of memory that a process holds.
fn memory(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Sends a beginning and then the same again and again, [`MUCH`] in all or until nobody takes more,
/// and gives back what came until the connection closed.
async fn pour(proxy: &Fronted, begin: &str, again: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let stream = soon(tokio::net::TcpStream::connect(proxy.addr)).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let piece = again.repeat((64 * 1024_usize).div_ceil(again.len()));
    let begin = begin.to_owned();
    let pouring = tokio::spawn(async move {
        to.write_all(begin.as_bytes()).await?;
        for _ in 0..MUCH / piece.len() {
            to.write_all(piece.as_bytes()).await?;
        }
        // The end of this half would be another story.
        std::future::pending::<std::io::Result<()>>().await
    });
    let mut came = Vec::new();
    // A reset is an end too.
    let _ended = soon(from.read_to_end(&mut came)).await;
    pouring.abort();
    String::from_utf8_lossy(&came).into_owned()
}

/// How a head comes.
#[derive(Debug, Clone, Copy)]
enum Pace {
    Whole,
    Halves,
    Bytes,
}

/// Sends a head at a pace; the pauses last until another connection has been answered.
async fn paced(proxy: &Fronted, text: &str, pace: Pace) -> (u16, bool) {
    let mut app = client(proxy.addr).await;
    match pace {
        Pace::Whole => app.send(text).await,
        Pace::Halves => {
            let (first, second) = text.split_at(text.len() / 2);
            app.send(first).await;
            assert_eq!(client(proxy.addr).await.get("/pause").await.status, 200);
            app.send(second).await;
        }
        Pace::Bytes => {
            // One by one where it matters, since thirty thousand would only take long.
            let (first, rest) = text.split_at(100);
            let (middle, last) = rest.split_at(rest.len() - 100);
            for byte in first.as_bytes() {
                app.send([*byte]).await;
            }
            for piece in middle.as_bytes().chunks(61) {
                app.send(piece).await;
            }
            assert_eq!(client(proxy.addr).await.get("/pause").await.status, 200);
            for byte in last.as_bytes() {
                app.send([*byte]).await;
            }
        }
    }
    let answer = app.read("GET").await;
    if answer.status == 431 {
        assert!(answer.body.is_empty(), "bare");
        assert_eq!(app.read_to_close().await, b"");
        return (431, true);
    }
    app.send(GET).await;
    assert_eq!(app.read("GET").await.status, 200);
    (answer.status, false)
}

#[tokio::test]
async fn a_head_has_the_same_bounds_at_any_pace() {
    let (_bank, proxy) = plain().await;
    for pace in [Pace::Whole, Pace::Halves, Pace::Bytes] {
        for (size, expected) in [(32 * 1024 - 1, 200), (32 * 1024, 200), (32 * 1024 + 1, 431)] {
            let begin = "GET /a HTTP/1.1\r\nHost: localhost\r\nX: ";
            let text = format!("{begin}{}\r\n\r\n", "y".repeat(size - begin.len() - 4));
            assert_eq!(text.len(), size);
            let (status, _) = paced(&proxy, &text, pace).await;
            assert_eq!(status, expected, "{size} bytes, {pace:?}");
        }
        for (lines, expected) in [(99, 200), (100, 200), (101, 431)] {
            let more = "X-Some-Thing: y\r\n".repeat(lines - 1);
            let text = format!("GET /a HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
            let (status, _) = paced(&proxy, &text, pace).await;
            assert_eq!(status, expected, "{lines} lines, {pace:?}");
        }
    }
}

#[tokio::test]
async fn a_head_without_end_is_refused_and_not_kept() {
    let (bank, proxy) = plain().await;
    let before = bank.count();
    let start = "GET /a HTTP/1.1\r\nHost: localhost\r\n";
    for (begin, again, status) in [
        (format!("{start}X: "), "y", "431"),
        (start.to_owned(), "X: y\r\n", "431"),
        (format!("{start}X: y\r\nY"), "y", "431"),
        ("GET /".to_owned(), "a", "431"),
        ("\r\n".to_owned(), "\r\n", "431"),
        (format!("{GET}\r\n"), "\r\n", "431"),
    ] {
        let held = memory(proxy.id());
        let came = pour(&proxy, &begin, again).await;
        let last = came.rsplit("HTTP/1.1 ").next().unwrap();
        assert!(last.starts_with(status), "{begin:?} {again:?}: {came}");
        assert!(last.to_ascii_lowercase().contains("connection: close"), "{last}");
        let grown = memory(proxy.id()).saturating_sub(held);
        assert!(grown < 2 * 1024 * 1024, "{begin:?} {again:?}: {grown} bytes more");
    }
    assert_eq!(bank.count(), before + 1, "the one request that was whole");
}

#[tokio::test]
async fn a_body_whose_framing_has_no_end_is_cut_and_not_kept() {
    let (bank, proxy) =
        front(Extra { upstream: "timeouts = { idle = \"2s\" }", ..Extra::default() }).await;
    let before = bank.whole();
    for (begin, again) in [
        ("4;", "a"),                          // an extension
        ("1;a=b\r\nx\r\n", "1;a=b\r\nx\r\n"), // many, short in themselves
        ("4;a=\"", "\\\""),
        ("0", "0"), // a size
        ("4", " "),
        ("4\r\nabcd\r\n0\r\nX: ", "y"), // trailers
        ("4\r\nabcd\r\n0\r\n", "X: y\r\n"),
    ] {
        let held = memory(proxy.id());
        let came = pour(&proxy, &format!("{CHUNKED}{begin}"), again).await;
        assert!(came.is_empty() || came.starts_with("HTTP/1.1 4"), "{begin:?} {again:?}: {came}");
        assert!(came.matches("HTTP/1.1").count() <= 1, "{came}");
        let grown = memory(proxy.id()).saturating_sub(held);
        assert!(grown < 2 * 1024 * 1024, "{begin:?} {again:?}: {grown} bytes more");
        assert_eq!(bank.whole(), before, "{begin:?} {again:?}");
    }
}

#[tokio::test]
async fn a_mebibyte_of_extensions_for_four_bytes_is_no_request() {
    let (bank, proxy) = plain().await;
    let body = format!("4;{}\r\nabcd\r\n0\r\n\r\n", "a".repeat(1024 * 1024));
    let spread = format!("1;{}\r\na\r\n", "a".repeat(5 * 1024)).repeat(4) + "0\r\n\r\n";
    for body in [body, spread] {
        let mut app = client(proxy.addr).await;
        app.send(format!("{CHUNKED}{body}{GET}")).await;
        let answer = app.read("POST").await;
        assert!((400..500).contains(&answer.status), "{answer:?}");
        assert_eq!(app.read_to_close().await, b"");
    }
    assert_eq!(bank.whole(), 0);
}

#[tokio::test]
async fn continuation_frames_without_end_are_refused_and_not_kept() {
    let (bank, proxy) = plain().await;
    let held = memory(proxy.id());
    let mut app = frames(proxy.addr).await;
    let fields =
        [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "localhost")];
    app.frame(HEADERS, END_STREAM, 1, &head(&fields)).await;
    let more = head(&[("x", &"y".repeat(8000))]);
    for _ in 0..500 {
        app.frame(CONTINUATION, 0, 1, &more).await;
    }
    // Whatever is said, it ends.
    while app.next().await.is_some() {}
    let grown = memory(proxy.id()).saturating_sub(held);
    assert!(grown < 2 * 1024 * 1024, "{grown} bytes more");
    // Empty ones cost nothing but time, and end as well.
    let mut app = frames(proxy.addr).await;
    app.frame(HEADERS, END_STREAM, 1, &head(&fields)).await;
    for _ in 0..5000 {
        app.frame(CONTINUATION, 0, 1, b"").await;
    }
    while app.next().await.is_some() {}
    assert_eq!(bank.count(), 0);
}

#[tokio::test]
async fn an_answer_whose_head_has_no_end_is_refused() {
    let bank = raw_server().await;
    let proxy = in_front_of(&format!("http://{}", bank.addr), Extra::default()).await;
    for (begin, again) in [
        ("HTTP/1.1 200 OK\r\nX: ", "y"),
        ("HTTP/1.1 200 OK\r\n", "X: y\r\n"),
        ("HTTP/1.1 200 ", "O"),
        ("\r\n", "\r\n"),
    ] {
        let held = memory(proxy.id());
        let mut app = client(proxy.addr).await;
        app.send(GET).await;
        let mut bank = bank.accept().await;
        bank.read_head().await;
        let piece = again.repeat(64 * 1024);
        let pouring = tokio::spawn(async move {
            bank.send(begin).await;
            for _ in 0..100 {
                bank.send(&piece).await; // fails when the connection is closed, which ends the task
            }
        });
        let answer = app.read("GET").await;
        assert_eq!((answer.status, refusal(&answer).as_str()), (502, "upstream_reset"));
        let _ended = soon(pouring).await;
        let grown = memory(proxy.id()).saturating_sub(held);
        assert!(grown < 2 * 1024 * 1024, "{begin:?} {again:?}: {grown} bytes more");
    }
}

#[tokio::test]
async fn the_thirty_third_informational_answer_ends_an_exchange() {
    for (count, expected) in [(32, 200), (33, 502)] {
        for apart in [false, true] {
            let bank = raw_server().await;
            let proxy = in_front_of(&format!("http://{}", bank.addr), Extra::default()).await;
            let mut app = client(proxy.addr).await;
            app.send(GET).await;
            let mut bank = bank.accept().await;
            bank.read_head().await;
            let hints = "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n";
            if apart {
                for _ in 0..count {
                    bank.send(hints).await;
                    assert_eq!(client(proxy.admin_addr).await.get("/livez").await.status, 200);
                }
                if expected == 200 {
                    bank.send(OK).await;
                }
            } else {
                bank.send(hints.repeat(count) + OK).await;
            }
            let answer = app.read("GET").await;
            assert_eq!(answer.status, expected, "{count} apart={apart}: {answer:?}");
        }
    }
}

/// Leaves something on a kept connection, and then asks after so many quick requests, all in one write.
async fn after_quick_ones(left: &'static str, ends: bool, quick: usize, method: &str) {
    let bank = raw_server().await;
    let proxy = in_front_of(&format!("http://{}", bank.addr), Extra::default()).await;
    let mut app = client(proxy.addr).await;
    app.send(GET).await;
    let mut first = bank.accept().await;
    first.read_head().await;
    first.send(OK).await;
    assert_eq!(app.read("GET").await.text(), "ok");
    let row = format!("{left:?} fin={ends} after {quick} {method}");
    let ask = format!("{method} /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    let none = "DELETE /none HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let bytes = none.repeat(quick) + &ask;
    first.send(left).await;
    if ends {
        first.finish().await;
    }
    app.send(bytes).await;
    let mut second = bank.accept().await;
    assert!(second.read_head().await.starts_with(&format!("{method} /b ")), "{row}");
    second.send(OK.replace("ok", "it")).await;
    for _ in 0..quick {
        assert_eq!(app.read("GET").await.status, 405, "{row}");
    }
    let answer = app.read(method).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "it"), "{row}");
    drop(first);
}

#[tokio::test]
async fn what_was_left_on_a_kept_connection_answers_nothing() {
    let left = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", false),
        ("HTTP/1.1 200 OK\r\nContent-Le", false),
        ("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", true),
        ("HTTP/1.1 100 Continue\r\n\r\n", false),
        ("H", false),
        ("\r\n", false),
        ("", true),
    ];
    for (left, ends) in left {
        for quick in [0, 1, 17, 127, 128, 300] {
            for method in ["GET", "POST"] {
                after_quick_ones(left, ends, quick, method).await;
            }
        }
    }
}

/// The same where it comes with the answer before, in one write.
#[tokio::test]
async fn what_comes_with_an_answer_is_not_the_next_one() {
    for left in [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "H",
        "\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        for quick in [0, 1, 127, 128, 300] {
            let bank = raw_server().await;
            let proxy = in_front_of(&format!("http://{}", bank.addr), Extra::default()).await;
            let mut app = client(proxy.addr).await;
            let none = "DELETE /none HTTP/1.1\r\nHost: localhost\r\n\r\n";
            app.send(GET.to_owned() + &none.repeat(quick) + &GET.replace("/a", "/b")).await;
            let mut first = bank.accept().await;
            first.read_head().await;
            first.send(format!("{OK}{left}")).await;
            assert_eq!(app.read("GET").await.text(), "ok");
            for _ in 0..quick {
                assert_eq!(app.read("GET").await.status, 405);
            }
            let mut second = bank.accept().await;
            assert!(second.read_head().await.starts_with("GET /b "));
            second.send(OK.replace("ok", "it")).await;
            assert_eq!(app.read("GET").await.text(), "it", "{left:?} after {quick}");
        }
    }
}

#[tokio::test]
async fn nothing_is_served_after_a_body_that_breaks() {
    let (bank, proxy) = plain().await;
    bank.play(|seen| match seen.path() {
        "/a" => Act::Early(OK.into()),
        _ => ok("no"),
    });
    let next = GET.replace("/a", "/smuggled");
    for rest in [
        "0\r\nBroken\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n\0: y\r\n\r\n",
        "0\r\n folded: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\n\r\r\n",
        "zz\r\n",
        "-1\r\n",
        "ffffffffffffffffff\r\n",
        "4\r\nabcdX\r\n",
        "4\r\nabcd\n0\r\n\r\n",
        "\r\n\r\n",
        "4\rabcd\r\n0\r\n\r\n",
    ] {
        let mut app = client(proxy.addr).await;
        app.send(CHUNKED.to_owned() + "4\r\nwxyz\r\n").await;
        assert_eq!(app.read("POST").await.text(), "ok", "{rest:?}");
        app.send(format!("{rest}{next}")).await;
        let after = app.read_to_close().await;
        assert_eq!(String::from_utf8_lossy(&after), "", "{rest:?}");
    }
    let smuggled = bank.seen().iter().any(|seen| seen.path() == "/smuggled");
    assert!(!smuggled);
    assert_eq!(bank.whole(), 0);
}

/// SIGTERM with nothing under way: how long it takes to leave.
async fn leaves(mut proxy: Fronted, what: &str) {
    let told = Instant::now();
    proxy.proxy.signal(Signal::TERM);
    assert_eq!(soon(proxy.proxy.wait_exit()).await.code(), Some(0));
    let took = told.elapsed();
    assert!(took < Duration::from_millis(2300), "{what}: {took:?}");
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let lame = Extra { more: "[shutdown]\nlame_duck = \"1s\"", ..Extra::default() };
    let (_bank, proxy) = front(lame).await;
    let mut app = client(proxy.addr).await;
    let post = "POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\npay\r\n";
    app.send(post).await;
    assert_eq!(app.read("POST").await.status, 200);
    let mut streams = frames(proxy.addr).await;
    let fields =
        [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "localhost")];
    let stream = streams.send(&fields, None).await;
    assert!(streams.reply(stream).await.ended);
    leaves(proxy, "an empty line after a body").await;
    assert_eq!(app.read_to_close().await, b"");
}

#[tokio::test]
async fn an_answer_before_the_end_of_its_request_does_not_hold_up_the_end() {
    let lame = Extra { more: "[shutdown]\nlame_duck = \"1s\"", ..Extra::default() };
    let (bank, proxy) = front(lame).await;
    bank.play(|_| Act::Early(OK.into()));
    let mut app = client(proxy.addr).await;
    app.send(format!("{CHUNKED}4\r\nwxyz\r\n")).await;
    assert_eq!(app.read("POST").await.text(), "ok");
    app.send("0\r\n\r\n").await;
    assert!(bank.wait(1).await.whole);
    leaves(proxy, "an answer that came early").await;
}

#[tokio::test]
async fn empty_lines_before_a_request_do_not_hold_up_the_end() {
    for lines in ["\r\n", "\r\n\r\n", "\r", "\n", ""] {
        let lame = Extra { more: "[shutdown]\nlame_duck = \"1s\"", ..Extra::default() };
        let (_bank, proxy) = front(lame).await;
        let (mut fresh, mut used) = (client(proxy.addr).await, client(proxy.addr).await);
        fresh.send(lines).await;
        used.send(GET).await;
        assert_eq!(used.read("GET").await.status, 200);
        used.send(lines).await;
        assert_eq!(client(proxy.addr).await.get("/pause").await.status, 200);
        leaves(proxy, lines).await;
    }
}

const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

#[tokio::test]
async fn tls_on_a_plain_listener_is_told_at_once() {
    let (_bank, proxy) = plain().await;
    for length in [1, 5, HELLO.len(), 517] {
        let mut hello = HELLO.to_vec();
        hello.resize(517, 7);
        let mut app: Client = client(proxy.addr).await;
        let began = Instant::now();
        app.send(&hello[..length]).await;
        let came = app.read_to_close().await;
        assert!(!came.is_empty(), "{length} bytes");
        assert!(began.elapsed() < Duration::from_secs(4), "{length}: {:?}", began.elapsed());
    }
    let hint = |line: &str| (line.contains("WARN") && line.contains("http://")).then_some(());
    proxy.wait_log(hint).await;
}

#[tokio::test]
async fn data_after_a_length_of_zero_is_nobodys() {
    let (bank, proxy) = plain().await;
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a"),
        (":authority", "localhost"),
        ("content-length", "0"),
    ];
    for pause in [false, true] {
        let mut app = frames(proxy.addr).await;
        app.frame(HEADERS, END_HEADERS, 1, &head(&fields)).await;
        if pause {
            assert_eq!(client(proxy.admin_addr).await.get("/livez").await.status, 200);
        }
        app.frame(DATA, END_STREAM, 1, b"pay").await;
        let reply = app.reply(1).await;
        assert!(reply.refused.is_some() || reply.head, "{reply:?}");
    }
    assert_eq!(bank.count(), 0);
    // An empty frame is no data.
    let mut app = frames(proxy.addr).await;
    let stream = app.send(&fields, Some(b"")).await;
    assert_eq!(app.reply(stream).await.body, b"ok");
    assert_eq!(bank.wait(1).await.header("content-length"), ["0"]);
}
