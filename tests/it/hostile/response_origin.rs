//! Answers that cannot be mistaken: whose they are, which request they belong to, and what became of
//! it.

use super::recorder::Act;
use super::{ROUTES, Rig, refusal};
use crate::support::{Answer, client};

async fn ask(rig: &Rig, target: &str, fields: &str) -> Answer {
    let mut app = client(rig.proxy.addr).await;
    app.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).await;
    app.read("GET").await
}

/// An id of the app's is its own again where it is fit for a log, and never where it is not.
#[tokio::test]
async fn a_request_is_known_by_one_id() {
    let rig = Rig::start(ROUTES).await;
    let long = "a".repeat(128);
    for id in ["abc-1", "~!#$%&'()*+,-./:;<=>?@[]^_`{|}", "0", long.as_str()] {
        let answer = ask(&rig, "/none", &format!("X-Request-Id: {id}\r\n")).await;
        assert_eq!(refusal(&answer), "no_route");
        assert_eq!(answer.header("x-request-id"), Some(id));
        rig.proxy.wait_log(|line| line.contains(id).then_some(())).await;
    }
    let longer = "a".repeat(129);
    let mut made = Vec::new();
    for id in ["", "a b", "a\"b", "a\\b", "\u{e9}", "a\tb", longer.as_str()] {
        let answer = ask(&rig, "/none", &format!("X-Request-Id: {id}\r\n")).await;
        assert_eq!(refusal(&answer), "no_route");
        made.push(answer.header("x-request-id").unwrap().to_owned());
    }
    made.push(ask(&rig, "/none", "").await.header("x-request-id").unwrap().to_owned());
    let hex = |id: &String| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(made.iter().all(hex), "{made:?}");
    let count = made.len();
    made.sort();
    made.dedup();
    assert_eq!(made.len(), count, "each has its own");
}

/// Only we say whether a request was forwarded: an app decides by it whether to pay again.
#[tokio::test]
async fn an_upstream_cannot_speak_for_us() {
    let rig = Rig::start(ROUTES).await;
    for (name, value) in [
        ("Bearer-Proxy-Forwarded", "no"),
        ("bearer-proxy-forwarded", "yes"),
        ("BEARER-PROXY-FORWARDED", "unknown"),
    ] {
        let answer = format!("HTTP/1.1 502 Bad\r\n{name}: {value}\r\nContent-Length: 2\r\n\r\nno");
        rig.upstream.play(move |_| Act::Answer(answer.clone().into()));
        let answer = ask(&rig, "/files/x", "").await;
        assert_eq!((answer.status, answer.header(name)), (502, None));
        let trailer = format!(
            "HTTP/1.1 502 Bad\r\nTrailer: {name}\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nno\r\n0\r\n{name}: {value}\r\n\r\n"
        );
        rig.upstream.play(move |_| Act::Answer(trailer.clone().into()));
        let mut app = client(rig.proxy.addr).await;
        app.send("GET /files/x HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\n").await;
        app.send("Connection: close, te\r\n\r\n").await;
        let all = String::from_utf8(app.read_to_close().await).unwrap().to_ascii_lowercase();
        assert!(
            all.starts_with("http/1.1 502") && !all.contains("bearer-proxy-forwarded"),
            "{all}"
        );
    }
}

/// A bank's own failure is the bank's, byte for byte, and a 401 of the bank's is no refusal of ours.
#[tokio::test]
async fn what_the_upstream_says_is_not_ours() {
    let rig = Rig::start(ROUTES).await;
    for status in [400, 401, 403, 404, 409, 429, 500, 502, 503, 504] {
        let answer = format!(
            "HTTP/1.1 {status} Its own\r\nContent-Type: application/problem+json\r\n\
             Retry-After: 7\r\nContent-Length: 17\r\n\r\n{{\"code\":\"theirs\"}}"
        );
        rig.upstream.play(move |_| Act::Answer(answer.clone().into()));
        let answer = ask(&rig, "/files/x", "").await;
        assert_eq!((answer.status, answer.text().as_str()), (status, "{\"code\":\"theirs\"}"));
        assert_eq!(answer.header("retry-after"), Some("7"));
        for name in ["bearer-proxy-forwarded", "proxy-status"] {
            assert_eq!(answer.header(name), None, "{status} {name}");
        }
        let id = answer.header("bearer-proxy-request-id");
        assert!(id.is_some_and(|id| id.len() == 32), "{id:?}");
        assert_eq!(answer.header("x-request-id"), id, "the upstream has none of its own");
    }
}

/// A redirect is the app's to follow: our token goes to no place that a bank only names.
#[tokio::test]
async fn redirects_are_not_followed() {
    let rig = Rig::start(ROUTES).await;
    let elsewhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = format!("http://{}/files/y", elsewhere.local_addr().unwrap());
    for status in [300, 301, 302, 303, 307, 308] {
        for (target, expected) in [(place.clone(), place.as_str()), ("/files/y".into(), "/files/y")]
        {
            let answer = format!(
                "HTTP/1.1 {status} There\r\nLocation: {target}\r\nContent-Length: 5\r\n\r\nthere"
            );
            rig.upstream.play(move |_| Act::Answer(answer.clone().into()));
            let before = rig.upstream.count();
            let answer = ask(&rig, "/files/x", "").await;
            assert_eq!((answer.status, answer.text().as_str()), (status, "there"));
            assert_eq!(answer.header("location"), Some(expected));
            assert_eq!(rig.upstream.count(), before + 1);
        }
    }
    let visitor = std::future::poll_fn(|cx| std::task::Poll::Ready(elsewhere.poll_accept(cx)));
    assert!(visitor.await.is_pending(), "somebody went there");
}
