//! Request lines: whatever two servers could read differently is refused before it is matched, and
//! what was matched is what is sent.

use super::{ROUTES, Rig};

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// A route for all that is below `/files`, so that only the reading of the target can refuse.
#[tokio::test]
async fn ambiguous_targets_are_refused_before_anything_is_matched() {
    let rig = Rig::start(ROUTES).await;
    for target in [
        // Dot segments in any spelling.
        "/files/../pay",
        "/files/..",
        "/files/.",
        "/files/./x",
        "/..",
        "/.",
        "/../files/x",
        "/files/x/../../pay",
        "/files/%2e%2e/pay",
        "/files/%2E%2E/pay",
        "/files/.%2e/pay",
        "/files/%2e./pay",
        "/files/%2e/x",
        "/files/%2e",
        "/files/%252e%252e/pay",
        "/files/..;/pay",
        "/files/..;a=b/pay",
        "/files/.;/x",
        "/files/..%3b/pay",
        "/files/..%2fpay",
        "/files/..%2Fpay",
        "/files/..%5cpay",
        "/files/..\\pay",
        "/files/..%00/pay",
        "/files/..%09/pay",
        "/files/..%20/../pay",
        "/files/...%2f..",
        "/files/%c0%ae%c0%ae/../pay",
        "/files/..%c0%afpay/..",
        // Slashes in any spelling.
        "//files/x",
        "///files/x",
        "/files//x",
        "/files///x",
        "/files/x//",
        "//",
        "/files//",
        "/files/a%2fb",
        "/files/a%2Fb",
        "/files/%2f",
        "/files/%2F",
        "/%2ffiles/x",
        "/files%2fx",
        "/files%2Fx",
        "/files/a%252fb",
        "/files/a%25252fb",
        "/files/a%5cb",
        "/files/a%5Cb",
        "/files/a\\b",
        "\\files\\x",
        "/files/a%255cb",
        "/files\\x",
        "/\\files/x",
        // Parameters.
        "/files/x;y",
        "/files/x;y=z",
        "/files/;x",
        "/files;x/y",
        "/;/files/x",
        "/files/x;",
        "/files/x%3By",
        "/files/x%3by",
        "/files/x%253by",
        "/pay;x",
        "/v1/items/1;jsessionid=2",
        // Paths that are encoded twice.
        "/files/%2570ay",
        "/files/%2541",
        "/files/%25%32%65",
        // No two hexadecimal digits.
        "/files/%",
        "/files/%2",
        "/files/%zz",
        "/files/%2g",
        "/files/%g2",
        "/files/%%",
        "/files/%u002e",
        "/files/%u2215",
        "/files/% 2e",
        "/files/%-1",
        "/files/%+1",
        "/files/a%",
        // Control bytes.
        "/files/%00",
        "/files/x%00.txt",
        "/files/%0a",
        "/files/%0d%0aX:y",
        "/files/%09",
        "/files/%1f",
        "/files/%7f",
        "/files/%0D",
        // What RFC 3986 does not allow plainly.
        "/files/<x>",
        "/files/\"x\"",
        "/files/{x}",
        "/files/|",
        "/files/^",
        "/files/`x`",
        "/files/[1]",
        // A fragment hides nothing of what is before it.
        "/files/..#x",
        "/files/%2e%2e#/files/x",
        "/files/a%2fb#",
        "//#/files/x",
        "#",
        // No path of ours.
        "*",
        "files/x",
        "pay",
        "?x",
        "?",
        "http://localhost",
        "http://localhost?x",
    ] {
        match target {
            // The parser itself refuses what no URI holds.
            "#" | "\\files\\x" | "?x" | "?" | "files/x" | "/files/% 2e" | "/files/<x>"
            | "/files/\"x\"" | "/files/{x}" | "/files/|" | "/files/^" | "/files/`x`" => {
                rig.refuses_somehow(get(target)).await;
            }
            "pay" => rig.refuses_somehow(get(target)).await,
            "http://localhost" => {
                rig.declines(get(target), 404, "no_route").await;
            }
            _ => rig.refuses(get(target), 400, "bad_target").await,
        }
    }
}

#[tokio::test]
async fn bytes_beyond_ascii_are_refused() {
    let rig = Rig::start(ROUTES).await;
    for path in [
        &b"/files/\xe9"[..],
        b"/files/\xc3\xa9",
        b"/files/x?q=\xc3\xa9",
        b"/files/\xff\xfe",
        b"/files/\xc0\xae\xc0\xae/pay",
        b"/\x80",
        b"/files/\xef\xbc\x8e\xef\xbc\x8e/pay",
        b"/files/x?\xff",
    ] {
        let bytes = [b"GET ", path, b" HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat();
        rig.refuses_somehow(bytes).await;
    }
    for path in [
        &b"/files/\x00"[..],
        b"/files/\x01x",
        b"/files/x\x7f",
        b"/files/\x1b",
        b"/files/\tx",
        b"/files/x\x0bx",
        b"/files/x\ry",
        b"/files/x?\x00",
    ] {
        let bytes = [b"GET ", path, b" HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat();
        rig.refuses_somehow(bytes).await;
    }
}

#[tokio::test]
async fn what_is_matched_is_sent_byte_for_byte() {
    let rig = Rig::start(ROUTES).await;
    for target in [
        "/files",
        "/files/",
        "/files/x",
        "/files/x/",
        "/files/x/y/z",
        "/files/..x",
        "/files/x..",
        "/files/...",
        "/files/.x",
        "/files/x.",
        "/files/a%20b",
        "/files/%C3%A9",
        "/files/%c3%a9",
        "/files/a:b@c",
        "/files/a,b",
        "/files/a!$&'()*+=b",
        "/files/~user",
        "/files/a-b_c.d",
        "/files/%3A",
        "/files/%3a",
        "/files/%40",
        "/files/%E2%88%95",
        "/files/%C0%AF",
        "/files/x?",
        "/files/x?a=b",
        "/files/x?a=/../b",
        "/files/x?a=%2e%2e%2f",
        "/files/x??",
        "/files/x?a=//",
        "/files/x?;a",
        "/files/x?a=%00",
        "/files/x?a=http://b",
        "/files/x?a\\b",
        "/files/x?%",
        "/files?x",
        "/files/?x",
        "/v1/items/1",
        "/v1/items/1?x=1&y=2",
        "/v1/items/a%20b",
        "/v1/items/%C3%A9",
    ] {
        rig.passes(get(target), &format!("GET {target} HTTP/1.1"), "").await;
    }
    // Encoded letters, digits, `-`, `_` and `~` are decoded, and a percent sign may be encoded.
    for (target, sent) in [
        ("/%66iles/x", "/files/x"),
        ("/files/%78?y=%78", "/files/x?y=%78"),
        ("/files/%7Euser", "/files/~user"),
        ("/files/%7euser/%2a", "/files/~user/%2a"),
        ("/files/a%2Db", "/files/a-b"),
        ("/files/a%5fb", "/files/a_b"),
        ("/files/%30", "/files/0"),
        ("/files/%25", "/files/%25"),
        ("/files/100%25", "/files/100%25"),
        ("/files/50%25off", "/files/50%25off"),
        ("/v1/%69tems/%41", "/v1/items/A"),
        ("http://localhost/%66iles/%78?y", "/files/x?y"),
    ] {
        rig.passes(get(target), &format!("GET {sent} HTTP/1.1"), "").await;
    }
    rig.declines(get("/%70ay"), 405, "method").await;
    // But for a fragment, which is for nobody but the app.
    for (target, sent) in [
        ("/files/x#", "/files/x"),
        ("/files/x#y", "/files/x"),
        ("/files/#", "/files/"),
        ("/files#/../pay", "/files"),
        ("/files/x?y#z", "/files/x?y"),
        ("/files/x?#z", "/files/x?"),
        ("/files/x#?y", "/files/x"),
        ("/files/x#y#z", "/files/x"),
        ("/files/x#/../../pay", "/files/x"),
        ("http://localhost/files/x#y", "/files/x"),
    ] {
        rig.passes(get(target), &format!("GET {sent} HTTP/1.1"), "").await;
    }
    // The target in absolute form is that of our own authority, and is sent in origin form.
    for (target, sent) in [
        ("http://localhost/files/x", "/files/x"),
        ("http://localhost:80/files/x?y", "/files/x?y"),
        ("http://LOCALHOST/files/x", "/files/x"),
        ("HTTP://localhost/files/x", "/files/x"),
    ] {
        let host = target.split('/').nth(2).unwrap();
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        rig.passes(bytes, &format!("GET {sent} HTTP/1.1"), "").await;
    }
}

#[tokio::test]
async fn what_no_route_claims_is_not_sent() {
    let rig = Rig::start(ROUTES).await;
    for target in [
        "/",
        "/pay/",
        "/pay/x",
        "/Pay",
        "/PAY",
        "/payx",
        "/pa",
        "/v1/items",
        "/v1/items/",
        "/v1/items/1/",
        "/v1/items/1/2",
        "/V1/items/1",
        "/v1/Items/1",
        "/file",
        "/filesx",
        "/Files/x",
        "/files%20/x",
        "/files.",
        "/files,x",
        "/?/files/x",
        "/pay%20",
        "/pay,x",
        "/v1",
        "/v1/",
    ] {
        rig.declines(get(target), 404, "no_route").await;
    }
    for method in [
        "DELETE", "PATCH", "TRACE", "get", "Get", "post", "GETT", "G", "PURGE", "PRI", "SEARCH",
        "GET!", "M-SEARCH", "X_Y",
    ] {
        let bytes = format!("{method} /files/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
        rig.declines(bytes, 405, "method").await;
    }
    rig.declines(get("/pay"), 405, "method").await;
    // What a fragment says claims nothing.
    rig.declines(get("/#"), 404, "no_route").await;
    rig.declines(get("/#/files/x"), 404, "no_route").await;
    rig.declines(get("/pay#/files/x"), 405, "method").await;
}

#[tokio::test]
async fn other_forms_of_the_target_are_refused() {
    let rig = Rig::start(ROUTES).await;
    let line = |line: &str| format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for (text, status, code) in [
        ("CONNECT localhost:443", 400, "bad_target"),
        ("CONNECT bank.example:443", 400, "bad_target"),
        ("CONNECT /files/x", 400, "bad_target"),
        ("OPTIONS *", 400, "bad_target"),
        ("GET *", 400, "bad_target"),
        ("GET localhost:80", 400, "bad_target"),
        ("GET localhost", 400, "bad_target"),
        ("POST localhost:80", 400, "bad_target"),
    ] {
        rig.refuses(line(text), status, code).await;
    }
    for target in [
        "http://evil.example/files/x",
        "http://evil.example:80/files/x",
        "http://localhost.evil.example/files/x",
        "http://127.0.0.2/files/x",
        "http://169.254.169.254/latest/meta-data",
        "http://0.0.0.0/files/x",
        "https://evil.example/files/x",
        "http://localhost.:80.evil/files/x",
    ] {
        rig.refuses_somehow(line(&format!("GET {target}"))).await;
    }
    // A scheme that is not ours, and user information, which no Host holds.
    for target in [
        "ftp://localhost/files/x",
        "file:///files/x",
        "http://user@localhost/files/x",
        "http://localhost@evil.example/files/x",
        "http://user:pw@localhost/files/x",
        "http://localhost:99999/files/x",
        "http://localhost:x/files/x",
        "http:///files/x",
        "http:/files/x",
        "http:files/x",
        "ws://localhost/files/x",
        "javascript:/files/x",
        "http://[::1/files/x",
        "http://localhost%00/files/x",
        "http://localhost\\@evil.example/files/x",
    ] {
        rig.refuses_somehow(line(&format!("GET {target}"))).await;
    }
    // Whatever host is named beside an absolute target, the target wins (RFC 9112 section 3.2.2);
    // there is still one, and it is a host.
    let beside = |hosts: &str| format!("GET http://localhost:80/files/x HTTP/1.1\r\n{hosts}\r\n");
    for host in ["localhost", "evil.example", "127.0.0.1", "localhost:1", "localhost:81", "[::2]"] {
        let bytes = beside(&format!("Host: {host}\r\n"));
        let seen = rig.passes(bytes, "GET /files/x HTTP/1.1", "").await;
        assert_eq!(seen.header("host"), [rig.upstream.addr.to_string()], "{host}");
        assert!(!seen.head.contains("evil"), "{}", seen.head);
    }
    for hosts in [
        "",
        "Host:\r\n",
        "Host: a b\r\n",
        "Host: user@localhost\r\n",
        "Host: localhost:99999\r\n",
        "Host: localhost\r\nHost: localhost\r\n",
        "Host: localhost\r\nHost: evil.example\r\n",
    ] {
        rig.refuses(beside(hosts), 400, "bad_request").await;
    }
    for host in ["localhost", "evil.example"] {
        let target = "http://evil.example/files/x";
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        rig.declines(bytes, 421, "foreign_host").await;
    }
}

#[tokio::test]
async fn request_lines_have_one_spelling() {
    let rig = Rig::start(ROUTES).await;
    for line in [
        "GET  /files/x HTTP/1.1",
        "GET /files/x  HTTP/1.1",
        "GET\t/files/x HTTP/1.1",
        "GET /files/x\tHTTP/1.1",
        " GET /files/x HTTP/1.1",
        "\tGET /files/x HTTP/1.1",
        "GET /files/x HTTP/1.1 ",
        "GET /files/x HTTP/1.1\t",
        "GET /files/x",
        "GET /files/x ",
        "GET",
        "",
        "GET /files/x HTTP/0.9",
        "GET /files/x HTTP/1.2",
        "GET /files/x HTTP/2",
        "GET /files/x HTTP/2.0",
        "GET /files/x HTTP/3.0",
        "GET /files/x HTTP/1",
        "GET /files/x HTTP/1.",
        "GET /files/x HTTP/1.10",
        "GET /files/x HTTP/01.1",
        "GET /files/x HTTP/1.01",
        "GET /files/x http/1.1",
        "GET /files/x Http/1.1",
        "GET /files/x HTTPS/1.1",
        "GET /files/x HTTP/11",
        "GET /files/x HTTP /1.1",
        "GET /files/x HTTP/1.1 x",
        "GET /files/x HTTP/1.1\r",
        "GET /files/x HTTP/-1.1",
        "GET /files/x ICAP/1.0",
        "GET /files/x RTSP/1.0",
        "GET /files/x  ",
        "GET HTTP/1.1",
        "HTTP/1.1 200 OK",
        "/files/x HTTP/1.1",
        "GET/files/x HTTP/1.1",
        "GET /files/x/HTTP/1.1",
        "G\0T /files/x HTTP/1.1",
        "G(T /files/x HTTP/1.1",
        "GET: /files/x HTTP/1.1",
        "\"GET\" /files/x HTTP/1.1",
        "GE\x7fT /files/x HTTP/1.1",
        "GET /files/ x HTTP/1.1",
        "GET /files/x HTTP/1.1\0",
        "GET\u{a0}/files/x HTTP/1.1",
        "GET /files/x\u{b} HTTP/1.1",
        "GET /files/x\u{c}HTTP/1.1",
        "{} /files/x HTTP/1.1",
        "GET,POST /files/x HTTP/1.1",
        "GET\r/files/x HTTP/1.1",
    ] {
        rig.refuses_somehow(format!("{line}\r\nHost: localhost\r\n\r\n")).await;
    }
    rig.refuses_somehow(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").await;
    rig.refuses_somehow("SSH-2.0-OpenSSH_9.6\r\n\r\n").await;
    rig.refuses_somehow("\0\0\0\0\r\n\r\n").await;
    rig.refuses_somehow([0xff; 300]).await;
    let long = |length: usize| get(&format!("/files/{}", "x".repeat(length)));
    rig.passes(long(8000), &format!("GET /files/{} HTTP/1.1", "x".repeat(8000)), "").await;
    rig.refuses(long(8 * 1024), 414, "uri_too_long").await;
    rig.refuses_somehow(long(40 * 1024)).await;
    rig.refuses_somehow(long(70 * 1024)).await;
    let method = "M".repeat(9000);
    rig.declines(format!("{method} /files/x HTTP/1.1\r\nHost: localhost\r\n\r\n"), 405, "method")
        .await;
    // One empty line before a request is skipped (RFC 9112 section 2.2).
    rig.passes(format!("\r\n{}", get("/files/x")), "GET /files/x HTTP/1.1", "").await;
}

#[tokio::test]
async fn mounts_are_taken_off_and_their_roots_are_found() {
    let rig = Rig::with(
        "[upstreams.a]\nurl = \"{url}\"\nmount = \"/qbank\"\nROUTES\n[upstreams.b]\nurl = \"{url}/api\"\nmount = \"/core\"\nROUTES",
        r#"{ name = "root", path = "/", methods = ["GET"] }, { name = "v1", path = "/v1/**", methods = ["GET"] }"#,
    )
    .await;
    for (target, sent) in [
        ("/qbank/", "/"),
        ("/qbank/?x", "/?x"),
        ("/qbank/v1", "/v1"),
        ("/qbank/v1/x?y", "/v1/x?y"),
        ("/core/", "/api/"),
        ("/core/v1/x", "/api/v1/x"),
        ("/core/v1", "/api/v1"),
        ("/qbank/v1/qbank/v1", "/v1/qbank/v1"),
        ("/core/v1/..x", "/api/v1/..x"),
        ("/core/v1/#/x", "/api/v1/"),
    ] {
        rig.passes(get(target), &format!("GET {sent} HTTP/1.1"), "").await;
    }
    for target in [
        "/qbank",
        "/core",
        "/qbank?x",
        "/v1/x",
        "/qbankv1/x",
        "/qbank/x",
        "/",
        "/api/v1/x",
        "/QBANK/v1/x",
        "/core/api/v1/x",
    ] {
        rig.declines(get(target), 404, "no_route").await;
    }
    for target in [
        "/qbank//v1/x",
        "/qbank/../core/v1/x",
        "/qbank/..",
        "/qbank/%2e%2e/core/v1",
        "/qbank%2fv1/x",
        "/core/v1/../../x",
        "/core/v1/..%2fx",
        "/core/..;/v1/x",
        "//qbank/v1/x",
        "/qbank\\v1\\x",
        "/core/v1/..#/x",
    ] {
        rig.refuses(get(target), 400, "bad_target").await;
    }
}

/// What a route allows is sent as it came, but never past what another route claims.
#[tokio::test]
async fn a_route_allows_what_servers_read_differently() {
    let routes = r#"
        { name = "slash", path = "/slash/{vhost}/{name}", methods = ["GET"], allow_encoded_slash = true },
        { name = "percent", path = "/percent/**", methods = ["GET"], allow_encoded_percent = true },
        { name = "empty", path = "/empty/**", methods = ["GET"], allow_empty_segments = true },
        { name = "all", path = "/all/**", methods = ["GET"], allow_empty_segments = true,
          allow_encoded_slash = true, allow_encoded_percent = true },
        { name = "pay", path = "/all/pay/{id}", methods = ["GET"] },
        { name = "vhost", path = "/slash/{vhost}", methods = ["GET"], allow_encoded_slash = true }"#;
    let rig = Rig::with("[upstreams.bank]\nurl = \"{url}\"\nROUTES", routes).await;
    for target in [
        "/slash/%2F/q",
        "/slash/%2f/q",
        "/slash/%2Fa/q",
        "/slash/a%2F/q",
        "/slash/a%2F%2Fb/q",
        "/slash/%2F%2F/%2F",
        "/percent/%252F",
        "/percent/a%253D%253D",
        "/percent/%252Fab%252F%252Fc%253D",
        "/percent/100%2525",
        "/empty//x",
        "/empty///",
        "/empty/x//y//",
        "/all//x%2F%2F%252Fy",
        "/slash/%2F",
        "/slash/a%2F",
    ] {
        rig.passes(get(target), &format!("GET {target} HTTP/1.1"), "").await;
    }
    for target in [
        "/slash/..%2F/q",
        "/slash/%2F../q",
        "/slash/%2F%2e/q",
        "/slash/%252F/q",
        "/slash//q",
        "/percent/%252e%252e%252Fpay",
        "/percent/x%252F..%252Fpay",
        "/percent/%255C",
        "/percent/%2500",
        "/percent/%25252F",
        "/percent/a%2Fb",
        "/empty//../x",
        "/empty/%2F",
        // Another route claims them once they are decoded or merged.
        "/all//pay/1",
        "/all/pay//1",
        "/all/pay%2F1",
        "/all/pay%252F1",
        "//all/x/../pay/1",
    ] {
        rig.refuses(get(target), 400, "bad_target").await;
    }
}

/// Whoever could reach it through a route would get tokens of their own.
#[tokio::test]
async fn a_token_endpoint_is_not_reached_under_any_of_its_names() {
    let opted = "allow_semicolon = true, allow_encoded_slash = true, \
                 allow_encoded_percent = true, allow_empty_segments = true";
    let routes = format!(
        r#"{{ name = "plain", path = "/**", methods = ["GET", "POST"] }},
        {{ name = "opted", path = "/api/**", methods = ["GET", "POST"], {opted} }}"#
    );
    let tables = "[credentials.b]\ntoken_url = \"{url}/api/OAuth/token\"\nclient_id.file = \"{id}\"\n\
         client_secret.file = \"{id}\"\n[upstreams.bank]\nurl = \"{url}\"\nROUTES\n\
         [upstreams.based]\nurl = \"{url}/api\"\nmount = \"/based\"\nROUTES";
    let rig = Rig::with(tables, &routes).await;
    for path in [
        "/api/OAuth/token",
        "/api/oauth/token",
        "/API/OAUTH/TOKEN",
        "/api/OAuth/token/",
        "/api/OAuth/token?x=/y",
        "/api/OAuth/token/?x",
        "/api/OAuth/token.",
        "/api/OAuth/token%20",
        "/based/OAuth/token",
        "/based/oauth/Token/",
    ] {
        for method in ["GET", "POST"] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            rig.declines(request, 404, "token_endpoint").await;
        }
    }
    for path in [
        "/api/OAuth/token;x",
        "/api/OAuth/token;x=y/",
        "/api/OAuth;x/token",
        "/api/OAuth%2Ftoken",
        "/api/oauth%2ftoken;v=1?q",
        "/api/OAuth/token%3bx",
        "/api/OAuth/token%3Bx%2Fy",
        "/api/OAuth/token;x%2Fy",
        "/api/OAuth/%74oken",
        "/api/OAuth%252Ftoken",
        "/api/OAuth%2F%2Ftoken",
        "/api/OAuth/token%2F",
        "/api/OAuth//token",
        "/api//OAuth/token",
        "/api/OAuth/token#x",
        "/api/OAuth/token#/../tokens",
        "/api/oauth/token;v=1#/api/OAuth/tokens",
    ] {
        rig.declines(get(path), 404, "token_endpoint").await;
    }
    for path in [
        "/api/./OAuth/token",
        "/api/x/../OAuth/token",
        "/api/OAuth/token/.",
        "/api/OAuth/token/x/..",
        "/api/OAuth/token%2e",
        "/api/OAuth\\token",
        "/api/OAuth%5ctoken",
        "/based/../api/OAuth/token",
        "/OAuth/token;x",
        "/based/OAuth;x/token",
    ] {
        rig.refuses(get(path), 400, "bad_target").await;
    }
    for path in ["/api/OAuth/tokens", "/api/OAuth", "/OAuth/token", "/api/OAuth/token/x"] {
        rig.passes(get(path), &format!("GET {path} HTTP/1.1"), "").await;
    }
}

/// A wide route's token must not reach what a narrow one claims, under a name in another case.
#[tokio::test]
async fn an_upstream_that_ignores_case_gets_no_path_of_another_route() {
    let routes = r#"
        { name = "all", path = "/v1/**", methods = ["GET"] },
        { name = "item", path = "/v1/items/{id}", methods = ["GET"] },
        { name = "pay", path = "/v1/Pay", methods = ["GET"] },
        { name = "post", path = "/v1/post", methods = ["POST"] }"#;
    let tables = "[upstreams.bank]\nurl = \"{url}\"\ncase_insensitive_upstream = true\nROUTES";
    let rig = Rig::with(tables, routes).await;
    for path in ["/v1/Pay", "/v1/items/A", "/v1/other", "/v1/OTHER", "/v1/items", "/v1/Post"] {
        rig.passes(get(path), &format!("GET {path} HTTP/1.1"), "").await;
    }
    for path in ["/v1/pay", "/v1/PAY", "/v1/ITEMS/a", "/v1/Items/A"] {
        rig.refuses(get(path), 400, "bad_target").await;
    }
    for path in ["/V1/Pay", "/V1/other"] {
        rig.declines(get(path), 404, "no_route").await;
    }
}
