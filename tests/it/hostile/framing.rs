//! Where a request ends: one way to say so, or none.

use super::{ROUTES, Rig};
use crate::support::client;

fn post(fields: &str, body: &str) -> String {
    format!("POST /pay HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}")
}

#[tokio::test]
async fn a_length_is_one_plain_number() {
    let rig = Rig::start(ROUTES).await;
    for length in ["5", "05", "0000000005", " 5", "5 ", "\t5"] {
        let seen = rig
            .passes(
                post(&format!("Content-Length:{length}\r\n"), "hello"),
                "POST /pay HTTP/1.1",
                "hello",
            )
            .await;
        assert_eq!(seen.header("transfer-encoding").len(), 0);
    }
    rig.passes(post("Content-Length: 0\r\n", ""), "POST /pay HTTP/1.1", "").await;
    rig.passes(post("", ""), "POST /pay HTTP/1.1", "").await;
    for length in [
        "+5",
        "-5",
        "-0",
        "5,5",
        "5, 5",
        "5,6",
        "5 5",
        "0x5",
        "5x",
        "5.0",
        "5e0",
        "",
        " ",
        "five",
        "\"5\"",
        "5;",
        "5,",
        ",5",
        "\u{665}",
        "18446744073709551616",
        "18446744073709551615",
        "99999999999999999999999",
        "9223372036854775808",
        "5\t5",
        "00x5",
        "0b1",
        "5_0",
        "1,000",
        "5\0",
    ] {
        rig.refuses_somehow(post(&format!("Content-Length: {length}\r\n"), "hello")).await;
    }
    // What is said twice in the same way is said once from here on.
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nX: y\r\nCONTENT-LENGTH: 5\r\n",
        "Content-Length: 5\r\ncontent-length:5\r\nContent-Length:\t5 \r\n",
        "Content-Length: 5\r\nContent-Length: 05\r\n",
        "Connection: content-length\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
    ] {
        let seen = rig.passes(post(fields, "hello"), "POST /pay HTTP/1.1", "hello").await;
        assert_eq!(seen.header("content-length"), ["5"], "{}", seen.head);
        assert_eq!(seen.header("transfer-encoding").len(), 0, "{}", seen.head);
    }
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 6\r\nContent-Length: 5\r\n",
        "content-length: 0\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5, 5\r\n",
        "Content-Length: 5\r\nContent-Length: +5\r\n",
        "Content-Length: 5\r\nContent-Length:\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\t: 5\r\n",
        " Content-Length: 5\r\n",
        "Content-Length:\r\n 5\r\n",
        "Content-Length: 5\r\n 5\r\n",
    ] {
        rig.refuses_somehow(post(fields, "hello")).await;
    }
    rig.refuses(post("Content-Length: 16777217\r\n", ""), 413, "body_too_large").await;
    rig.refuses(post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"), 400, "").await;
}

/// A method that gives a body a meaning says that there is none (RFC 9110 section 8.6).
#[tokio::test]
async fn a_request_without_a_body_says_so_where_one_is_expected() {
    let methods = ["GET", "OPTIONS", "DELETE", "POST", "PUT", "PATCH"];
    let routes = format!(r#"{{ name = "all", path = "/files/**", methods = {methods:?} }}"#);
    let rig = Rig::start(&routes).await;
    for (method, length) in [
        ("GET", &[][..]),
        ("OPTIONS", &[]),
        ("DELETE", &[]),
        ("POST", &["0"]),
        ("PUT", &["0"]),
        ("PATCH", &["0"]),
    ] {
        let line = format!("{method} /files/x HTTP/1.1");
        let seen = rig.passes(format!("{line}\r\nHost: localhost\r\n\r\n"), &line, "").await;
        assert_eq!(seen.header("content-length"), length, "{}", seen.head);
        assert_eq!(seen.header("transfer-encoding").len(), 0, "{}", seen.head);
    }
}

#[tokio::test]
async fn the_only_coding_is_chunked_once() {
    let rig = Rig::start(ROUTES).await;
    for coding in ["chunked", "Chunked", "CHUNKED", " chunked", "chunked ", "\tchunked"] {
        let seen = rig
            .passes(
                post(&format!("Transfer-Encoding:{coding}\r\n"), "5\r\nhello\r\n0\r\n\r\n"),
                "POST /pay HTTP/1.1",
                "hello",
            )
            .await;
        assert_eq!(seen.header("transfer-encoding"), ["chunked"]);
    }
    for coding in [
        "gzip, chunked",
        "chunked, chunked",
        ", chunked",
        "chunked,",
        "chunked, gzip",
        "gzip",
        "identity",
        "identity, chunked",
        "chunked, identity",
        "x",
        "",
        " ",
        "\"chunked\"",
        "chunked;q=1",
        "chunked;",
        "chunked x",
        "xchunked",
        "chunkedx",
        "chu nked",
        "\x0bchunked",
        "\x0cchunked",
        "chunked\0",
        "'chunked'",
        "deflate",
        "compress",
        "trailers",
        "chunked\u{a0}",
        "c\u{212a}hunked",
        "chunKed,chunked",
        "gzip,gzip",
        "null",
        "br, chunked",
        ",",
        "chunked,,",
        "chunke",
        "CHUNKED, Chunked",
    ] {
        rig.refuses_somehow(post(
            &format!("Transfer-Encoding: {coding}\r\n"),
            "5\r\nhello\r\n0\r\n\r\n",
        ))
        .await;
    }
    for fields in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n",
    ] {
        rig.refuses_somehow(post(fields, "5\r\nhello\r\n0\r\n\r\n")).await;
    }
}

#[tokio::test]
async fn chunks_win_over_a_length_which_goes_no_further() {
    let rig = Rig::start(ROUTES).await;
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 15\r\n",
        "content-length: 5\r\ntransfer-encoding: CHUNKED\r\n",
        "Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 5\r\n",
        // hyper reads no length that comes after a coding.
        "Transfer-Encoding: chunked\r\nContent-Length: x\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5, 5\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n",
    ] {
        let bytes = post(fields, "5\r\nhello\r\n0\r\n\r\n");
        let seen = rig.passes(bytes, "POST /pay HTTP/1.1", "hello").await;
        assert_eq!(seen.header("transfer-encoding"), ["chunked"], "{}", seen.head);
        assert_eq!(seen.header("content-length").len(), 0, "{}", seen.head);
    }
    for fields in [
        "Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5, 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: gzip, chunked\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
    ] {
        rig.refuses_somehow(post(fields, "5\r\nhello\r\n0\r\n\r\n")).await;
    }
    // A coding is unknown to HTTP/1.0.
    for fields in [
        "Transfer-Encoding: chunked\r\n",
        "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
    ] {
        let bytes =
            format!("POST /pay HTTP/1.0\r\nHost: localhost\r\n{fields}\r\n5\r\nhello\r\n0\r\n\r\n");
        rig.refuses_somehow(bytes).await;
    }
}

#[tokio::test]
async fn chunks_are_read_in_one_way() {
    let rig = Rig::start(ROUTES).await;
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    for (body, read) in [
        ("0\r\n\r\n", ""),
        ("1\r\na\r\n0\r\n\r\n", "a"),
        ("00001\r\na\r\n0\r\n\r\n", "a"),
        ("a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("A\r\n0123456789\r\n00\r\n\r\n", "0123456789"),
        ("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", "abc"),
        ("1;x=y\r\na\r\n0\r\n\r\n", "a"),
        ("1;x=\"y\"\r\na\r\n0;z\r\n\r\n", "a"),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
        ("5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"),
        ("1\r\na\r\n0\r\nX-Trailer: y\r\n\r\n", "a"),
    ] {
        rig.passes(chunked(body), "POST /pay HTTP/1.1", read).await;
    }
    for body in [
        "x\r\na\r\n0\r\n\r\n",
        "-1\r\na\r\n0\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "1_0\r\na\r\n0\r\n\r\n",
        "\r\na\r\n0\r\n\r\n",
        ";x\r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "2\r\na\r\n0\r\n\r\n",
        "1\ra\r\n0\r\n\r\n",
        "1\r\na\r0\r\n\r\n",
        "ffffffffffffffff\r\na\r\n0\r\n\r\n",
        "fffffffffffffffff\r\na\r\n0\r\n\r\n",
        "10000000000000001\r\na\r\n0\r\n\r\n",
        "1\0\r\na\r\n0\r\n\r\n",
        "1;x\ny\r\na\r\n0\r\n\r\n",
        "\u{661}\r\na\r\n0\r\n\r\n",
        "1,\r\na\r\n0\r\n\r\n",
        "1 1\r\na\r\n0\r\n\r\n",
        "1\r\na\r\n0\n\n",
        "1\r\na\r\n0\r\n\n",
        "1\r\na\r\n-0\r\n\r\n",
        "0\r\n: x\r\n\r\n",
        "0\r\nX Y: z\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "1;x\r\ry\r\na\r\n0\r\n\r\n",
        "g\r\n",
        "1\r\na\r\nzz\r\n",
        " 1\r\na\r\n0\r\n\r\n",
    ] {
        rig.cuts(chunked(body)).await;
    }
}

/// What comes after the last chunk is not a place to bring credentials in by.
#[tokio::test]
async fn trailers_carry_no_credentials() {
    let rig = Rig::start(ROUTES).await;
    for trailer in [
        "Authorization: Bearer theirs",
        "authorization: Bearer theirs",
        "Proxy-Authorization: theirs",
        "Host: theirs",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "X-HTTP-Method-Override: theirs",
        "Cookie: theirs",
        "Connection: theirs",
    ] {
        let body = format!("1\r\na\r\n0\r\n{trailer}\r\n\r\n");
        let seen = rig
            .passes(
                post("Transfer-Encoding: chunked\r\nTrailer: x\r\n", &body),
                "POST /pay HTTP/1.1",
                "a",
            )
            .await;
        assert!(!seen.head.contains("theirs"), "{}", seen.head);
        let head = seen.head.to_lowercase();
        assert!(!head.contains("trailer content-length"), "{head}");
        assert!(!head.contains("trailer transfer"), "{head}");
    }
}

/// A body that does not come whole is never taken for a whole one.
#[tokio::test]
async fn a_body_that_ends_early_is_cut() {
    let rig = Rig::start(ROUTES).await;
    rig.cuts(post("Content-Length: 10\r\n", "hello")).await;
    rig.cuts(post("Content-Length: 10\r\n", "")).await;
    for body in [
        "",
        "5",
        "5\r\n",
        "5\r\nhel",
        "5\r\nhello",
        "5\r\nhello\r",
        "5\r\nhello\r\n",
        "5\r\nhello\r\n0",
        "5\r\nhello\r\n0\r\n",
        "5\r\nhello\r\n0\r\nX: y\r\n",
        "5;x",
        "0\r\nX",
    ] {
        rig.cuts(post("Transfer-Encoding: chunked\r\n", body)).await;
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_none_hides_in_a_body() {
    let rig = Rig::start(ROUTES).await;
    let mut app = client(rig.proxy.addr).await;
    let hidden = "GET /files/hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let first = post(&format!("Content-Length: {}\r\n", hidden.len()), hidden);
    let second = post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n");
    let third = "GET /files/third HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let fourth = "GET /files/../fourth HTTP/1.1\r\nHost: localhost\r\n\r\n";
    app.send(format!("{first}{second}{third}{fourth}{third}")).await;
    for status in [200, 200, 200, 400] {
        assert_eq!(app.read("GET").await.status, status);
    }
    assert_eq!(app.read_to_close().await, b"");
    let seen = rig.upstream.seen();
    let lines: Vec<_> = seen.iter().map(|seen| (seen.line(), seen.body.len())).collect();
    let expected = [
        ("POST /pay HTTP/1.1", hidden.len()),
        ("POST /pay HTTP/1.1", 3),
        ("GET /files/third HTTP/1.1", 0),
    ];
    assert_eq!(lines, expected);
}

/// The same bytes, however they are cut into segments.
#[tokio::test]
async fn segments_do_not_matter() {
    let rig = Rig::start(ROUTES).await;
    let good = post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n");
    let bad = "GET /files/../y HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for step in [1, 2, 3, 7] {
        let mut app = client(rig.proxy.addr).await;
        for part in [good.as_bytes(), bad.as_bytes()].concat().chunks(step) {
            app.send(part).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(app.read("POST").await.status, 200);
        assert_eq!(app.read("GET").await.status, 400);
        assert_eq!(app.read_to_close().await, b"");
    }
    assert_eq!(rig.upstream.count(), 4);
}
