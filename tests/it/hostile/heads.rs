//! Heads: one spelling of each field, one Host, and none that would change what was matched.

use super::{ROUTES, Rig};

fn with(fields: &str) -> String {
    format!("GET /files/x HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

#[tokio::test]
async fn fields_have_one_spelling() {
    let rig = Rig::start(ROUTES).await;
    for fields in [
        "X-A : b\r\n",
        "X-A\t: b\r\n",
        "X A: b\r\n",
        ": b\r\n",
        "X-A\r\n",
        " X-A: b\r\n",
        "\tX-A: b\r\n",
        "X-A: b\r\n c\r\n",
        "X-A: b\r\n\tc\r\n",
        "X-A: b\r\n \r\n",
        "X-A:\r\n b\r\n",
        "X-A: a\0b\r\n",
        "X-A: a\x01b\r\n",
        "X-A: a\x08b\r\n",
        "X-A: a\x0bb\r\n",
        "X-A: a\x0cb\r\n",
        "X-A: a\x1bb\r\n",
        "X-A: a\x7fb\r\n",
        "X-A: a\rb\r\n",
        "X-A: a\r\r\n",
        "X\0A: b\r\n",
        "X(A: b\r\n",
        "X,A: b\r\n",
        "X/A: b\r\n",
        "X[A: b\r\n",
        "X{A: b\r\n",
        "X\"A: b\r\n",
        "X@A: b\r\n",
        "X=A: b\r\n",
        "X?A: b\r\n",
        "X\\A: b\r\n",
        "X\u{e9}A: b\r\n",
        "X\x7fA: b\r\n",
        "GET /files/y HTTP/1.1\r\n",
        "X-A=b\r\n",
        "\r: b\r\n",
        "X-A\r: b\r\n",
    ] {
        rig.refuses_somehow(with(fields)).await;
    }
}

#[tokio::test]
async fn a_line_ends_with_its_last_byte_and_goes_on_with_both() {
    let rig = Rig::start(ROUTES).await;
    for (bytes, more) in [
        ("GET /files/x HTTP/1.1\nHost: localhost\n\n", &[][..]),
        ("GET /files/x HTTP/1.1\nHost: localhost\r\n\r\n", &[]),
        ("GET /files/x HTTP/1.1\r\nHost: localhost\n\r\n", &[]),
        ("GET /files/x HTTP/1.1\r\nHost: localhost\r\n\n", &[]),
        ("GET /files/x HTTP/1.1\r\nHost: localhost\nX-A: b\r\n\r\n", &["b"]),
        ("\nGET /files/x HTTP/1.1\r\nHost: localhost\r\n\r\n", &[]),
        ("GET /files/x HTTP/1.1\r\nHost: localhost\r\nX-A: b\n\r\n", &["b"]),
        ("GET /files/x HTTP/1.1\nX-A: b\nX-A: c\nHost: localhost\n\n", &["b", "c"]),
    ] {
        let seen = rig.passes(bytes, "GET /files/x HTTP/1.1", "").await;
        assert_eq!(seen.header("x-a"), more, "{}", seen.head);
        assert!(!seen.head.replace("\r\n", "").contains(['\r', '\n']), "{:?}", seen.head);
    }
    for bytes in [
        "GET /files/x HTTP/1.1\rHost: localhost\r\r",
        "GET /files/x HTTP/1.1\r\nHost: localhost\r\r\n",
        "GET /files/x HTTP/1.1\r\r\nHost: localhost\r\n\r\n",
        "GET /files/x HTTP/1.1\n\rHost: localhost\n\r\n\r",
        "GET /files/x HTTP/1.1\r\nHost: localhost\r\n\rX-A: b\r\n\r\n",
    ] {
        rig.refuses_somehow(bytes).await;
    }
}

#[tokio::test]
async fn there_is_one_host_and_it_is_ours() {
    let rig = Rig::start(ROUTES).await;
    let hosts = |hosts: &str| format!("GET /files/x HTTP/1.1\r\n{hosts}\r\n");
    for bad in [
        "",
        "Host:\r\n",
        "Host: \r\n",
        "Host: localhost\r\nHost: localhost\r\n",
        "Host: localhost\r\nHost: evil.example\r\n",
        "Host: evil.example\r\nHost: localhost\r\n",
        "host: localhost\r\nHOST: localhost\r\n",
        "Host: a b\r\n",
        "Host: localhost, localhost\r\n",
        "Host: localhost,evil.example\r\n",
        "Host: localhost/\r\n",
        "Host: localhost/files\r\n",
        "Host: http://localhost\r\n",
        "Host: user@localhost\r\n",
        "Host: localhost@evil.example\r\n",
        "Host: localhost:x\r\n",
        "Host: localhost:-1\r\n",
        "Host: localhost:99999\r\n",
        "Host: localhost:80:80\r\n",
        "Host: localhost;x\r\n",
        "Host: localhost?x\r\n",
        "Host: localhost#x\r\n",
        "Host: local%68ost\r\n",
        "Host: [::1\r\n",
        "Host: ::1\r\n",
        "Host: [::1]x\r\n",
        "Host: [::g]\r\n",
        "Host: lo\u{e7}alhost\r\n",
        "Host: localhost\\evil.example\r\n",
        "Host: *\r\n",
        "Host: .localhost\r\n",
        "Host: localhost..\r\n",
        "Host: 0x7f.1\r\n",
        "Host: 127.1\r\n",
        "Host: 2130706433\r\n",
        "Host: 0177.0.0.1\r\n",
        "Host: localhost:+80\r\n",
        "Host: localhost: 80\r\n",
        "Host: local host\r\n",
        "Host: \"localhost\"\r\n",
        "Host: <localhost>\r\n",
    ] {
        // Some of these are other names rather than no names; none is ours.
        rig.refuses_somehow(hosts(bad)).await;
    }
    for foreign in [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "evil-localhost",
        "xlocalhost",
        "127.0.0.2",
        "10.0.0.1",
        "0.0.0.0",
        "[::2]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "127.0.0.1.nip.io",
        "bank.example",
        "localhost.localdomain",
        "metadata.google.internal",
        "169.254.169.254",
    ] {
        rig.declines(hosts(&format!("Host: {foreign}\r\n")), 421, "foreign_host").await;
    }
    for own in [
        "localhost",
        "LOCALHOST",
        "LocalHost",
        "localhost:80",
        "localhost:6750",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:80",
        "[0:0:0:0:0:0:0:1]",
        "localhost:",
    ] {
        let seen =
            rig.passes(hosts(&format!("Host: {own}\r\n")), "GET /files/x HTTP/1.1", "").await;
        assert_eq!(seen.header("host"), [rig.upstream.addr.to_string()]);
    }
    // HTTP/1.0 may come without, but not with another's or two.
    rig.passes("GET /files/x HTTP/1.0\r\n\r\n", "GET /files/x HTTP/1.1", "").await;
    rig.refuses_somehow("GET /files/x HTTP/1.0\r\nHost: evil.example\r\n\r\n").await;
    rig.refuses_somehow("GET /files/x HTTP/1.0\r\nHost: localhost\r\nHost: localhost\r\n\r\n")
        .await;
}

/// What a hop keeps to itself, what would let a request pass for another, and what is not the app's
/// to say.
#[tokio::test]
async fn fields_of_this_hop_and_the_apps_credentials_stay_here() {
    let rig = Rig::start(ROUTES).await;
    for fields in [
        "Authorization: Bearer theirs\r\n",
        "authorization: Basic eDp5\r\nAuthorization: Bearer theirs\r\n",
        "Authorization:\r\n",
        "AUTHORIZATION: x\r\n",
        "Proxy-Authorization: Basic eDp5\r\n",
        "Connection: authorization\r\n",
        "Connection: Authorization, host, x-a\r\nX-A: gone\r\n",
        "Connection: x-a\r\nConnection: x-b\r\nX-A: gone\r\nX-B: gone\r\n",
        "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
        "Connection: X-A,,, ,\r\nX-A: gone\r\n",
        "Connection: \"x-a\", x-a\r\nX-A: gone\r\n",
        "Connection: content-length\r\n",
        "Connection: transfer-encoding\r\n",
        "Connection: host\r\n",
        "Connection: via\r\n",
        "Proxy-Connection: keep-alive\r\n",
        "TE: trailers\r\n",
        "TE: gzip\r\n",
        "Trailer: Authorization\r\n",
        "X-HTTP-Method-Override: DELETE\r\n",
        "X-HTTP-Method: DELETE\r\n",
        "X-Method-Override: DELETE\r\n",
        "X-Original-URL: /pay\r\n",
        "X-Rewrite-URL: /pay\r\n",
        "X_HTTP_Method_Override: DELETE\r\n",
        "X_Original_URL: /pay\r\n",
        "Proxy_Authorization: x\r\n",
        "X-Forwarded-For: 1.2.3.4\r\n",
        "X-Forwarded-Host: evil.example\r\n",
        "X-Forwarded-Proto: https\r\n",
        "Forwarded: for=x\r\n",
        "X-Real-IP: 1.2.3.4\r\n",
        "Host_: x\r\n",
        "Content_Length: 5\r\n",
        "Transfer_Encoding: chunked\r\n",
    ] {
        let seen = rig.passes(with(fields), "GET /files/x HTTP/1.1", "").await;
        let head = seen.head.to_ascii_lowercase();
        for gone in [
            "theirs",
            "edp5",
            "gone",
            "delete",
            "/pay",
            "1.2.3.4",
            "evil",
            "proxy",
            "keep-alive",
            "timeout",
            "gzip",
            "trailer:",
            "content_",
            "transfer",
            "for=x",
        ] {
            let told = head.replace("via: 1.1 bearer-proxy", "");
            assert!(!told.contains(gone), "{gone} after {fields}\n{}", seen.head);
        }
        assert_eq!(seen.header("host").len(), 1, "{}", seen.head);
    }
    let seen = rig.passes(with("X-A: kept\r\nx-a: too\r\nCookie: c\r\nIdempotency-Key: k\r\nTraceparent: t\r\nAccept: */*\r\nX-B:\r\n"), "GET /files/x HTTP/1.1", "").await;
    assert_eq!(seen.header("x-a"), ["kept", "too"]);
    for (name, value) in [
        ("cookie", "c"),
        ("idempotency-key", "k"),
        ("traceparent", "t"),
        ("accept", "*/*"),
        ("x-b", ""),
    ] {
        assert_eq!(seen.header(name), [value]);
    }
}

#[tokio::test]
async fn heads_are_bounded() {
    let rig = Rig::start(ROUTES).await;
    let many = |count: usize| with(&"X-A: b\r\n".repeat(count));
    let long = |length: usize| with(&format!("X-A: {}\r\n", "y".repeat(length)));
    rig.passes(many(99), "GET /files/x HTTP/1.1", "").await;
    rig.passes(long(31 * 1024), "GET /files/x HTTP/1.1", "").await;
    rig.refuses_somehow(many(100)).await;
    rig.refuses_somehow(many(3000)).await;
    rig.refuses_somehow(long(33 * 1024)).await;
    rig.refuses_somehow(long(400 * 1024)).await;
    rig.refuses_somehow(with(&format!("{}: y\r\n", "x".repeat(40 * 1024)))).await;
}

/// Whoever forwards to us, we do not forward to ourselves.
#[tokio::test]
async fn a_request_that_passed_through_us_goes_no_further() {
    let rig = Rig::start(ROUTES).await;
    for via in [
        "1.1 bearer-proxy",
        "1.0 a, 1.1 bearer-proxy",
        "1.1 BEARER-PROXY",
        "HTTP/1.1 bearer-proxy (x)",
    ] {
        rig.declines(with(&format!("Via: {via}\r\n")), 508, "loop").await;
    }
    rig.passes(with("Via: 1.1 other\r\n"), "GET /files/x HTTP/1.1", "").await;
}
