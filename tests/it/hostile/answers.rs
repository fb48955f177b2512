//! What a broken or hostile upstream may answer: whole answers pass as they are, broken ones are seen
//! to be broken, and no connection that saw anything odd carries another request.

use std::sync::Arc;

use tokio::sync::Notify;

use super::recorder::{Act, ok};
use super::{ROUTES, Rig, refusal};
use crate::support::{Answer, Client, client, soon};

const GET: &str = "GET /files/x HTTP/1.1\r\nHost: localhost\r\n\r\n";
const HEAD: &str = "HEAD /files/x HTTP/1.1\r\nHost: localhost\r\n\r\n";

async fn rig() -> Rig {
    let tables = "[upstreams.bank]\nurl = \"{url}\"\ntimeouts = { response = \"1s\", idle = \"1s\" }\nROUTES";
    Rig::with(tables, ROUTES).await
}

async fn ask(rig: &Rig, request: &str) -> Client {
    let mut app = client(rig.proxy.addr).await;
    app.send(request).await;
    app
}

/// The upstream's connection that carried the last request carries no other.
async fn ended(rig: &Rig, row: &[u8]) {
    let connection = rig.upstream.seen().last().unwrap().connection;
    rig.upstream.wait_closed(connection).await;
    rig.upstream.play(|_| ok("next"));
    let mut app = ask(rig, GET).await;
    rig.check(app.read("GET").await.text() == "next", row, "the next request has another's answer");
    let fresh = rig.upstream.seen().last().unwrap().connection != connection;
    rig.check(fresh, row, "the connection was used again");
}

/// Bytes of an upstream that become no answer.
async fn breaks(rig: &Rig, bytes: impl Into<Vec<u8>>) {
    let bytes = bytes.into();
    for request in [GET, HEAD] {
        let sent = bytes.clone();
        rig.upstream.play(move |_| Act::Hold(sent.clone()));
        let mut app = ask(rig, request).await;
        let answer = app.read(request[..4].trim_end()).await;
        rig.check(answer.status == 502, &bytes, format!("{} {}", answer.status, answer.text()));
        if request == GET {
            rig.check(refusal(&answer) == "upstream_reset", &bytes, refusal(&answer));
        }
        let forwarded = answer.header("bearer-proxy-forwarded");
        rig.check(forwarded == Some("unknown"), &bytes, format!("{forwarded:?}"));
        ended(rig, &bytes).await;
    }
}

/// Bytes of an upstream that become this whole answer, after which the connection is used again or not.
async fn passes(
    rig: &Rig,
    bytes: impl Into<Vec<u8>>,
    status: u16,
    body: &str,
    again: bool,
) -> Answer {
    let bytes = bytes.into();
    let sent = bytes.clone();
    rig.upstream
        .play(move |_| if again { Act::Answer(sent.clone()) } else { Act::Last(sent.clone()) });
    let mut app = ask(rig, GET).await;
    let answer = app.read("GET").await;
    let found = (answer.status, answer.text());
    rig.check(found == (status, body.to_owned()), &bytes, format!("{found:?}"));
    rig.check(answer.header("bearer-proxy-forwarded").is_none(), &bytes, "an answer of ours");
    let used = rig.upstream.seen().last().unwrap().connection;
    rig.upstream.play(|_| ok("next"));
    // It comes back to the pool at its own time; the same app asks when it has.
    let found = app_again(app, "next").await;
    let same = rig.upstream.seen().last().unwrap().connection == used;
    rig.check(found && (again || !same), &bytes, format!("used again: {same}"));
    answer
}

async fn app_again(mut app: Client, body: &str) -> bool {
    app.send(GET).await;
    app.read("GET").await.text() == body
}

/// All values of a header.
fn all<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let fields = answer.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    fields.map(|(_, value)| value.as_str()).collect()
}

#[tokio::test]
async fn a_status_line_has_one_meaning() {
    let rig = rig().await;
    let whole = |line: &str| format!("{line}\r\nContent-Length: 2\r\n\r\nok");
    for (line, status) in [
        ("HTTP/1.1 200 OK", 200),
        ("HTTP/1.1 200 ", 200),
        ("HTTP/1.1 200", 200),
        ("HTTP/1.1 200 All's well, \u{e9}", 200),
        ("HTTP/1.1 299 Odd", 299),
        ("HTTP/1.1 418 I'm a teapot", 418),
        ("HTTP/1.1 500 Oh", 500),
        ("HTTP/1.1 599 Oh", 599),
    ] {
        passes(&rig, whole(line), status, "ok", true).await;
    }
    passes(&rig, whole("HTTP/1.0 200 OK"), 200, "ok", false).await;
    for line in [
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 abc OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 200\0",
        "HTTP/1.1 200 O\x01K",
        "HTTP/1.1 000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/2.0 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/11 200 OK",
        "http/1.1 200 OK",
        "ICY 200 OK",
        "HTTP/1.1\t200 OK",
        " HTTP/1.1 200 OK",
        "200 OK",
        "220 mail.example ESMTP",
        "SSH-2.0-OpenSSH_9.2",
        "<html>",
        "\x15\x03\x01\x00\x02\x02\x28",
        "PRI * HTTP/2.0",
        "GET / HTTP/1.1",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket",
    ] {
        breaks(&rig, whole(line)).await;
    }
}

#[tokio::test]
async fn an_answer_ends_in_one_place() {
    let rig = rig().await;
    let head = |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
    let chunks = "2\r\nok\r\n0\r\n\r\n";
    passes(&rig, head("Content-Length: 2\r\n", "ok"), 200, "ok", true).await;
    passes(&rig, head("Content-Length: 0\r\n", ""), 200, "", true).await;
    passes(&rig, head("Transfer-Encoding: chunked\r\n", chunks), 200, "ok", true).await;
    passes(&rig, head("transfer-encoding: Chunked\r\n", chunks), 200, "ok", true).await;
    passes(&rig, head("", "until the end"), 200, "until the end", false).await;
    passes(&rig, "HTTP/1.0 200 OK\r\n\r\nold", 200, "old", false).await;
    // What old servers write is forgiven, and goes on as it should have been written.
    for fields in [
        "Content-Length: 2, 2\r\n",
        "Content-Length: 2,2 , 2\r\n",
        "Content-Length: 2\r\nContent-Length: 2\r\n",
        "Content-Length: 2\r\nX: y\r\ncontent-length: 2, 2\r\n",
        "Content-Length : 2\r\n",
        "Content-Length\t: 2\r\n",
        "Content-Length:\r\n 2\r\n",
    ] {
        let answer = passes(&rig, head(fields, "ok"), 200, "ok", true).await;
        assert_eq!(all(&answer, "content-length"), ["2"], "{answer:?}");
        assert_eq!(answer.header("transfer-encoding"), None, "{answer:?}");
    }
    for fields in ["Transfer-Encoding : chunked\r\n", "Transfer-Encoding:\r\n\tchunked\r\n"] {
        let answer = passes(&rig, head(fields, chunks), 200, "ok", true).await;
        assert_eq!(all(&answer, "transfer-encoding"), ["chunked"], "{answer:?}");
        assert_eq!(answer.header("content-length"), None, "{answer:?}");
    }
    for fields in ["X: a\r\n b\r\nContent-Length: 2\r\n", "X : a\r\n\tb\r\nContent-Length: 2\r\n"] {
        let answer = passes(&rig, head(fields, "ok"), 200, "ok", true).await;
        let words: Vec<_> = answer.header("x").unwrap().split_whitespace().collect();
        assert_eq!(words, ["a", "b"], "{answer:?}");
    }
    for fields in [
        "Content-Length: five\r\n",
        "Content-Length: -2\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: 2x\r\n",
        "Content-Length: 0x2\r\n",
        "Content-Length: 2,3\r\n",
        "Content-Length: 2, 2, 3\r\n",
        "Content-Length: 2,\r\n",
        "Content-Length: ,2\r\n",
        "Content-Length: 2 2\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: \r\n",
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Content-Length: 2\r\n Transfer-Encoding: chunked\r\n",
        "Content-Length : 2\r\nTransfer-Encoding : chunked\r\n",
        "Content-Length: 2\r\nContent-Length : 3\r\n",
        "Content-Length: 2\r\n 3\r\n",
        "Transfer-Encoding: chunked\r\n , gzip\r\n",
        "X\r\nContent-Length: 2\r\n",
        ": x\r\nContent-Length: 2\r\n",
        "X: a\0b\r\nContent-Length: 2\r\n",
        "X: a\rb\r\nContent-Length: 2\r\n",
    ] {
        breaks(&rig, head(fields, chunks)).await;
    }
    breaks(&rig, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn heads_of_answers_are_bounded() {
    let rig = rig().await;
    let fields = |count: usize| {
        let many = "X: y\r\n".repeat(count - 1);
        format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 2\r\n\r\nok")
    };
    let long = |bytes: usize| {
        let long = "y".repeat(bytes);
        format!("HTTP/1.1 200 OK\r\nX: {long}\r\nContent-Length: 2\r\n\r\nok")
    };
    passes(&rig, fields(256), 200, "ok", true).await;
    passes(&rig, long(63 * 1024), 200, "ok", true).await;
    breaks(&rig, fields(257)).await;
    breaks(&rig, fields(5000)).await;
    breaks(&rig, long(65 * 1024)).await;
}

/// Hints are not passed on, and nobody waits for an answer behind too many of them.
#[tokio::test]
async fn informational_answers_are_no_answers() {
    let rig = rig().await;
    let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for hint in ["100 Continue", "102 Processing", "103 Early Hints\r\nLink: </x>", "199 Odd"] {
        let hint = format!("HTTP/1.1 {hint}\r\n\r\n").into_bytes();
        for count in [1, 3, 32] {
            passes(&rig, [hint.repeat(count), whole.into()].concat(), 200, "ok", true).await;
        }
        // At once: the time for an answer, of which the other code would tell, is not waited for.
        for more in [&[][..], whole] {
            breaks(&rig, [hint.repeat(33), more.into()].concat()).await;
        }
    }
    let endless = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100_000);
    rig.upstream.play(move |_| Act::Hold(endless.clone()));
    let mut app = ask(&rig, GET).await;
    let answer = app.read("GET").await;
    assert_eq!((answer.status, refusal(&answer).as_str()), (502, "upstream_reset"));
    ended(&rig, b"endless hints").await;
}

/// What follows an answer belongs to nobody.
#[tokio::test]
async fn bytes_after_an_answer_are_not_the_next_one() {
    let rig = rig().await;
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (answer, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok"),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("HTTP/1.1 304 Not Modified\r\n\r\n", ""),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 45\r\n\r\n", ""),
    ] {
        let status = answer[9..12].parse().unwrap();
        for more in [evil, "\r\n", "x", "HTTP/1.1 100 Continue\r\n\r\n"] {
            let bytes = format!("{answer}{more}");
            let sent = bytes.clone();
            rig.upstream.play(move |_| Act::Hold(sent.clone().into()));
            let mut app = ask(&rig, GET).await;
            let found = app.read("GET").await;
            let fits = (found.status, found.text().as_str()) == (status, body);
            rig.check(fits, bytes.as_bytes(), found.text());
            ended(&rig, bytes.as_bytes()).await;
        }
    }
    // The body that a HEAD's answer must not have.
    rig.upstream
        .play(move |_| Act::Hold(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil".into()));
    let mut app = ask(&rig, HEAD).await;
    assert_eq!(app.read("HEAD").await.header("content-length"), Some("4"));
    ended(&rig, b"a body after HEAD").await;
}

/// An answer that breaks off upstream breaks off here, whatever the app speaks.
#[tokio::test]
async fn a_cut_answer_is_seen_to_be_cut() {
    let rig = rig().await;
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cases: Vec<(&str, Act)> = vec![
        ("a length, an end", Act::Last(length.into())),
        ("a length, a reset", Act::Reset(length.into())),
        ("a length, silence", Act::Hold(length.into())),
        ("chunks, an end", Act::Last(chunked.into())),
        ("chunks, a reset", Act::Reset(chunked.into())),
        ("chunks, silence", Act::Hold(chunked.into())),
        ("chunks, the last line missing", Act::Last(format!("{chunked}0\r\n").into())),
        ("half a chunk", Act::Last(format!("{head}8\r\nhalf").into())),
        ("a chunk without its line", Act::Hold(format!("{chunked}2\r\nokxx").into())),
        ("a size that is none", Act::Hold(format!("{chunked}zz\r\nok\r\n0\r\n\r\n").into())),
        ("a size beyond all", Act::Hold(format!("{chunked}fffffffffffffffff\r\nok").into())),
        ("a negative size", Act::Hold(format!("{chunked}-1\r\nok\r\n0\r\n\r\n").into())),
        ("a reset without any framing", Act::Reset(b"HTTP/1.1 200 OK\r\n\r\nhalf".into())),
    ];
    for (name, act) in cases {
        for version in ["1.1", "1.0"] {
            let act = act.clone();
            // A reset may overtake what came before it.
            let overtaken = matches!(act, Act::Reset(_)) || version == "1.0";
            rig.upstream.play(move |_| act.clone());
            let line = format!("GET /files/x HTTP/{version}\r\nHost: localhost\r\n\r\n");
            let mut app = ask(&rig, &line).await;
            let row = format!("{name}, HTTP/{version}");
            match soon(app.head()).await {
                Some(head) => {
                    let whole = soon(app.body_is_whole(&head)).await;
                    rig.check(!whole, row.as_bytes(), format!("looks whole: {head}"));
                }
                None => rig.check(overtaken, row.as_bytes(), "what came before the cut is lost"),
            }
            let connection = rig.upstream.seen().last().unwrap().connection;
            rig.upstream.wait_closed(connection).await;
        }
    }
}

/// An app that stops reading in the middle leaves nothing behind for the next.
#[tokio::test]
async fn an_answer_that_nobody_reads_ends_its_connection() {
    let rig = rig().await;
    let large =
        format!("HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n{}", "x".repeat(8_000_000));
    rig.upstream.play(move |_| Act::Answer(large.clone().into()));
    let mut app = ask(&rig, GET).await;
    let _some = app.read_bytes(1000).await;
    drop(app);
    ended(&rig, b"an unread answer").await;
}

/// The upstream may answer before it has heard all.
#[tokio::test]
async fn an_early_answer_passes_and_its_connection_waits_for_the_body() {
    let rig = rig().await;
    let early = b"HTTP/1.1 413 Too much\r\nContent-Length: 2\r\n\r\nno".to_vec();
    rig.upstream.play(move |_| Act::Early(early.clone()));
    let mut app = client(rig.proxy.addr).await;
    app.send("POST /pay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf").await;
    let answer = app.read("POST").await;
    assert_eq!((answer.status, answer.text().as_str()), (413, "no"));
    assert_eq!(rig.upstream.count(), 0, "it has not heard all");
    // Another request does not get in between.
    rig.upstream.play(|_| ok("other"));
    let mut other = ask(&rig, GET).await;
    assert_eq!(other.read("GET").await.text(), "other");
    assert_eq!(rig.upstream.wait(1).await.connection, 2);
    app.send("-whole").await;
    let told = rig.upstream.wait(2).await;
    assert!(told.whole && told.connection == 1 && told.body == b"half-whole", "{told:?}");
}

/// What comes too late comes to nobody.
#[tokio::test]
async fn a_late_answer_answers_nothing() {
    let rig = rig().await;
    let told = Arc::new(Notify::new());
    let answering = Arc::clone(&told);
    rig.upstream.play(move |_| {
        Act::When(
            Arc::clone(&answering),
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate".into(),
        )
    });
    for method in ["GET", "POST"] {
        let line = format!("{method} /files/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut app = ask(&rig, &line).await;
        let answer = app.read(method).await;
        assert_eq!((answer.status, refusal(&answer).as_str()), (504, "upstream_timeout"));
        let late = rig.upstream.seen().last().unwrap().connection;
        told.notify_one();
        rig.upstream.wait_closed(late).await;
        let count = rig.upstream.count();
        app.send(GET).await;
        let next = rig.upstream.wait(count + 1).await;
        assert_ne!(next.connection, late);
        told.notify_one();
        assert_eq!(app.read("GET").await.text(), "late");
    }
}
