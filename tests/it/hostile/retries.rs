//! How often a request arrives: once, and twice only where its method or its route allows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::recorder::{Act, ok};
use super::{Rig, Seen, refusal};
use crate::support::{Client, Extra, client, in_front_of, raw_server, soon};

const ALL: &[&str] = &["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "REPORT"];
const SAFE: &[&str] = &["GET", "HEAD", "OPTIONS"];

/// Tables of one upstream that is waited for so long, with one route for all methods.
fn tables(timeout: &str, route: &str) -> (String, String) {
    let tables =
        format!("[upstreams.bank]\nurl = \"{{url}}\"\ntimeouts.response = \"{timeout}\"\nROUTES");
    let methods = ["GET", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "REPORT"];
    (tables, format!(r#"{{ name = "all", path = "/**", methods = {methods:?}, {route} }}"#))
}

async fn rig(timeout: &str, route: &str) -> Rig {
    let (tables, routes) = tables(timeout, route);
    Rig::with(&tables, &routes).await
}

/// The story's app: one connection a request.
async fn ask(rig: &Rig, method: &str, path: &str, fields: &str, body: &str) -> Client {
    let mut app = client(rig.proxy.addr).await;
    let length = match body {
        "" => String::new(),
        body => format!("Content-Length: {}\r\n", body.len()),
    };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    app.send(format!("{head}{fields}{length}\r\n{body}")).await;
    app
}

/// Status, code and whether it was forwarded; no code where the answer is the upstream's.
async fn told(app: &mut Client, method: &str) -> (u16, String, String) {
    let answer = app.read(method).await;
    let forwarded = answer.header("bearer-proxy-forwarded").unwrap_or_default().to_owned();
    let code = match (method, answer.header("content-type")) {
        ("HEAD", Some("application/problem+json")) => {
            let status = answer.header("proxy-status").unwrap();
            status.split('"').nth(1).unwrap().to_owned()
        }
        _ => refusal(&answer),
    };
    (answer.status, code, forwarded)
}

fn arrivals(rig: &Rig, path: &str) -> Vec<Seen> {
    rig.upstream.seen().into_iter().filter(|seen| seen.path() == path).collect()
}

/// What goes wrong with a request, from the table below: how the upstream acts at its first arrival,
/// what the app is told, and whether the failure says that the connection may have been dead.
struct Fault {
    name: &'static str,
    act: fn() -> Act,
    told: (u16, &'static str, &'static str),
    stale: bool,
}

const RESET: (u16, &str, &str) = (502, "upstream_reset", "unknown");
const LATE: (u16, &str, &str) = (504, "upstream_timeout", "unknown");

const FAULTS: &[Fault] = &[
    Fault { name: "closed", act: || Act::Last(vec![]), told: RESET, stale: true },
    Fault { name: "reset", act: || Act::Reset(vec![]), told: RESET, stale: true },
    Fault {
        name: "garbage",
        act: || Act::Last(b"\x16\x03\x01 no HTTP\r\n\r\n".into()),
        told: RESET,
        stale: false,
    },
    Fault {
        name: "a-head-without-sense",
        act: || Act::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n".into()),
        told: RESET,
        stale: false,
    },
    Fault {
        name: "unasked-upgrade",
        act: || Act::Answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".into()),
        told: RESET,
        stale: false,
    },
    Fault { name: "silence", act: || Act::Hold(vec![]), told: LATE, stale: false },
    Fault {
        name: "half-a-head",
        act: || Act::Hold(b"HTTP/1.1 200 OK\r\nContent-".into()),
        told: LATE,
        stale: false,
    },
];

/// Fault by method by state of the connection.
#[tokio::test]
async fn a_request_is_sent_again_only_where_that_cannot_do_it_twice() {
    let rig = rig("1s", "").await;
    let acts: Vec<_> = FAULTS.iter().map(|fault| (fault.name, fault.act)).collect();
    rig.upstream.play(move |seen| {
        let (state, name) = seen.path().rsplit_once('/').unwrap_or_default();
        // A second try of what is kept is the first request of its connection.
        let faulty = !state.starts_with("/kept") || seen.nth > 1;
        match acts.iter().find(|(known, _)| *known == name) {
            _ if name == "last" => Act::Last(closing()),
            Some((_, act)) if faulty => act(),
            _ if seen.line().starts_with("HEAD") => {
                Act::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".into())
            }
            _ => ok("ok"),
        }
    });
    for fault in FAULTS {
        for method in ALL {
            for state in ["fresh", "kept", "always"] {
                // Each of these takes its time, and none knows of the connection.
                if fault.told == LATE && (state != "kept" || !matches!(*method, "GET" | "POST")) {
                    continue;
                }
                // Nothing is kept from the row before.
                for path in ["/last", "/prime"].iter().take(if state == "fresh" { 1 } else { 2 }) {
                    let mut app = ask(&rig, "GET", path, "", "").await;
                    assert_eq!(app.read("GET").await.status, 200);
                }
                let path = format!("/{state}/{method}/{}", fault.name);
                let body = if SAFE.contains(method) { "" } else { "pay" };
                let mut app = ask(&rig, method, &path, "", body).await;
                let found = told(&mut app, method).await;
                let again = fault.stale && state != "fresh" && SAFE.contains(method);
                let (status, code, forwarded) = fault.told;
                let expected = match (again, state) {
                    (true, "kept") => (200, String::new(), String::new()),
                    _ => (status, code.to_owned(), forwarded.to_owned()),
                };
                let arrived = arrivals(&rig, &path);
                rig.check(found == expected, path.as_bytes(), format!("{found:?}"));
                let expected = if again { 2 } else { 1 };
                rig.check(arrived.len() == expected, path.as_bytes(), arrived.len());
                if again {
                    let apart = arrived[0].connection != arrived[1].connection;
                    rig.check(apart && arrived[1].nth == 1, path.as_bytes(), "not a new one");
                }
            }
        }
    }
}

/// A 200 that ends its connection.
fn closing() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok".into()
}

#[tokio::test]
async fn what_cannot_be_reached_was_not_sent() {
    let nobody = raw_server().await;
    let closed = format!("[upstreams.bank]\nurl = \"http://{}\"\nROUTES", nobody.addr);
    drop(nobody);
    let rig = Rig::with(&closed, &tables("1s", "").1).await;
    for method in ALL {
        let mut app = ask(&rig, method, "/pay", "", "").await;
        let expected = (502, "connect".to_owned(), "no".to_owned());
        assert_eq!(told(&mut app, method).await, expected, "{method}");
    }
}

/// Nobody waits for an answer while there is no connection: that has a time-out of its own, and what
/// it ends was not sent.
#[tokio::test]
async fn what_found_no_connection_in_time_was_not_sent() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    // Whoever comes now is not answered: nobody accepts, and there is no room to wait.
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        waiting.push(stream);
    }
    let refusing = format!(
        "[upstreams.bank]\nurl = \"http://{address}\"\n\
         timeouts = {{ connect = \"1s\", response = \"100ms\" }}\nROUTES"
    );
    let rig = Rig::with(&refusing, &tables("1s", "").1).await;
    for method in ["GET", "POST"] {
        let mut app = ask(&rig, method, "/pay", "", "").await;
        let expected = (502, "connect".to_owned(), "no".to_owned());
        assert_eq!(told(&mut app, method).await, expected, "{method}");
    }
}

/// A connection that its server closes while it is idle is never written to, or at worst costs a
/// second try of a safe request: nothing fails, and no payment comes twice.
#[tokio::test]
async fn idle_connections_that_end_cost_no_request() {
    let rig = rig("1s", "").await;
    rig.upstream.play(|_| Act::Last(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into()));
    for round in 0..40 {
        for method in ["GET", "POST"] {
            let path = format!("/{round}/{method}");
            let mut app = ask(&rig, method, &path, "", "").await;
            let status = app.read(method).await.status;
            let arrived = arrivals(&rig, &path).len();
            assert!(arrived == 1 || method == "GET", "{path} arrived {arrived} times");
            assert!(status == 200 || method == "POST", "{path}: {status}");
        }
    }
}

/// A reset in the middle of a body: what was sent may have been read.
#[tokio::test]
async fn a_reset_while_the_body_is_sent_is_no_reason_to_send_it_again() {
    let rig = rig("1s", "").await;
    rig.upstream.play(|seen| match seen.path() {
        "/reset" => Act::EarlyReset(vec![]),
        _ => ok("ok"),
    });
    for method in ["POST", "PUT"] {
        let mut app = client(rig.proxy.addr).await;
        let head = format!("{method} /reset HTTP/1.1\r\nHost: localhost\r\n");
        app.send(format!("{head}Content-Length: 100\r\n\r\nhalf")).await;
        let found = told(&mut app, method).await;
        assert_eq!(found, (502, "upstream_reset".to_owned(), "unknown".to_owned()));
        assert_eq!(app.read_to_close().await, b"");
    }
    assert_eq!(arrivals(&rig, "/reset").len(), 2);
}

/// One challenge, one renewal, one second try for each of those that may have one.
#[tokio::test]
async fn a_renewal_is_shared_by_all_who_were_challenged() {
    let rig = rig("1s", "").await;
    let first = rig.passes(plain("GET", "/first"), "GET /first HTTP/1.1", "").await;
    let refused = first.header("authorization")[0].to_owned();
    rig.upstream.play(move |seen| match seen.header("authorization")[..] {
        [token] if token == refused => Act::Answer(challenge(401, "invalid_token")),
        _ => ok("ok"),
    });
    let calls = rig.auth.ledger().calls().len();
    let mut apps = Vec::new();
    for number in 0..50 {
        apps.push(ask(&rig, "GET", &format!("/all/{number}"), "", "").await);
    }
    for app in &mut apps {
        assert_eq!(app.read("GET").await.status, 200);
    }
    assert_eq!(rig.auth.ledger().calls().len(), calls + 1);
    for number in 0..50 {
        let arrived = arrivals(&rig, &format!("/all/{number}"));
        let tokens: Vec<_> = arrived.iter().map(|seen| seen.header("authorization")).collect();
        assert!(tokens.iter().all(|all| all.len() == 1), "{tokens:?}");
        assert!(tokens.len() <= 2 && tokens.first() != tokens.get(1), "{tokens:?}");
    }
}

fn plain(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// An answer that blames the token.
fn challenge(status: u16, error: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} No\r\nWWW-Authenticate: Bearer error=\"{error}\"");
    format!("{head}\r\nContent-Length: 4\r\n\r\nbank").into()
}

/// The bank's answer is the app's, and the renewal is for the next request.
#[tokio::test]
async fn an_unsafe_request_is_not_repeated_after_a_challenge() {
    let rig = rig("1s", "").await;
    rig.upstream.play(|_| Act::Answer(challenge(401, "invalid_token")));
    let calls = rig.auth.ledger().calls().len();
    let mut app = ask(&rig, "POST", "/pay", "", "pay").await;
    let answer = app.read("POST").await;
    assert_eq!((answer.status, answer.text().as_str()), (401, "bank"));
    assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"));
    assert_eq!(answer.header("bearer-proxy-forwarded"), None);
    assert_eq!(arrivals(&rig, "/pay").len(), 1);
    // A read waits for the renewal that has begun; it is the only one.
    rig.upstream.play(|_| ok("ok"));
    let blamed = arrivals(&rig, "/pay")[0].header("authorization")[0].to_owned();
    soon(async {
        while rig.passes(plain("GET", "/x"), "GET /x HTTP/1.1", "").await.header("authorization")
            == [blamed.as_str()]
        {}
    })
    .await;
    assert_eq!(rig.auth.ledger().calls().len(), calls + 1);
}

/// Which answers are followed by a second try, and with which body.
#[tokio::test]
async fn a_route_may_allow_a_second_try_after_a_challenge() {
    let check = async |setting: &str, request: &str, body: &str, twice: bool| {
        let rig = rig("1s", setting).await;
        let count = AtomicUsize::new(0);
        rig.upstream.play(move |seen| match count.fetch_add(1, Ordering::Relaxed) {
            0 => Act::Answer(challenge(401, "invalid_token")),
            _ => ok(seen.path()),
        });
        let mut app = client(rig.proxy.addr).await;
        app.send(format!("{request}\r\n{body}")).await;
        let status = app.read("POST").await.status;
        let arrived = arrivals(&rig, "/pay");
        let expected = if twice { (200, 2) } else { (401, 1) };
        assert_eq!((status, arrived.len()), expected, "{setting} {request}");
        let same = arrived.iter().all(|seen| seen.body == arrived[0].body && seen.whole);
        assert!(same, "{setting} {request}");
        let tokens: Vec<_> = arrived.iter().map(|seen| seen.header("authorization")).collect();
        assert!(tokens.iter().all(|all| all.len() == 1), "{tokens:?}");
        assert!(!twice || tokens[0] != tokens[1], "{tokens:?}");
    };
    let post = "POST /pay HTTP/1.1\r\nHost: localhost\r\n";
    let short = format!("{post}Content-Length: 3\r\n");
    let keyed = format!("{short}Idempotency-Key: \"k1\"\r\n");
    let (never, keys, always) = (
        r#"retry = { unsafe = "never" }"#,
        r#"retry = { unsafe = "idempotency_key" }"#,
        r#"retry = { unsafe = "always" }"#,
    );
    check(never, &keyed, "pay", false).await;
    check(keys, &short, "pay", false).await;
    check(keys, &keyed, "pay", true).await;
    check(always, &short, "pay", true).await;
    check(always, post, "", true).await;
    // What was not read whole beforehand is sent once.
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n");
    check(always, &chunked, "3\r\npay\r\n0\r\n\r\n", false).await;
    let large = "x".repeat(64 * 1024 + 1);
    check(always, &format!("{post}Content-Length: {}\r\n", large.len()), &large, false).await;
    let small = "x".repeat(64 * 1024);
    check(always, &format!("{post}Content-Length: {}\r\n", small.len()), &small, true).await;
    let get = "GET /pay HTTP/1.1\r\nHost: localhost\r\n";
    check(never, get, "", true).await;
    check(never, &format!("{get}Content-Length: 3\r\n"), "pay", true).await;
}

/// A token that lacks a scope is as good as a newer one would be.
#[tokio::test]
async fn a_lack_of_scope_is_counted_apart_and_tried_once() {
    let rig = rig("1s", r#"retry = { unsafe = "always" }"#).await;
    let calls = rig.auth.ledger().calls().len();
    let answers =
        [(403, "insufficient_scope"), (401, "insufficient_scope"), (401, "invalid_request")];
    for (status, error) in answers {
        rig.upstream.play(move |_| Act::Answer(challenge(status, error)));
        for method in ["GET", "POST"] {
            let before = rig.upstream.count();
            let mut app = ask(&rig, method, "/x", "", "").await;
            let answer = app.read(method).await;
            assert_eq!((answer.status, answer.text().as_str()), (status, "bank"));
            assert_eq!(rig.upstream.count(), before + 1, "{method} {status} {error}");
        }
    }
    assert_eq!(rig.auth.ledger().calls().len(), calls);
    let metrics = client(rig.proxy.admin_addr).await.get("/metrics").await.text();
    for (name, count) in [("insufficient_scope", 4), ("unauthorized", 2)] {
        let line = format!(
            "bearer_proxy_upstream_{name}_total{{route=\"all\",upstream=\"bank\"}} {count}\n"
        );
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

/// An API that takes none of our tokens costs a few calls, not one for each request.
#[tokio::test]
async fn renewals_for_refused_tokens_come_to_rest() {
    let rig = rig("1s", "").await;
    rig.upstream.play(|_| Act::Answer(challenge(401, "invalid_token")));
    let calls = rig.auth.ledger().calls().len();
    for number in 0..12 {
        let path = format!("/{number}");
        let mut app = ask(&rig, "GET", &path, "", "").await;
        assert_eq!(app.read("GET").await.status, 401);
        let arrived = arrivals(&rig, &path).len();
        assert!((1..=2).contains(&arrived), "{path} arrived {arrived} times");
    }
    let calls = rig.auth.ledger().calls().len() - calls;
    assert!((1..=3).contains(&calls), "{calls} calls");
}

/// A reader that leaves costs the upstream no work.
#[tokio::test]
async fn a_safe_request_ends_when_its_caller_leaves() {
    let rig = rig("60s", "").await;
    rig.upstream.play(|_| Act::Hold(vec![]));
    for (number, reset) in [false, true].into_iter().enumerate() {
        let app = ask(&rig, "GET", "/slow", "", "").await;
        let seen = rig.upstream.wait(number + 1).await;
        if reset {
            app.reset();
        } else {
            drop(app);
        }
        rig.upstream.wait_closed(seen.connection).await;
    }
    assert_eq!(rig.upstream.count(), 2);
}

/// A payment that was sent is followed to its end, whoever is left to hear of it.
#[tokio::test]
async fn an_unsafe_request_goes_on_when_its_caller_leaves() {
    let rig = rig("1s", "").await;
    let told = Arc::new(Notify::new());
    let answering = Arc::clone(&told);
    rig.upstream.play(move |_| {
        Act::When(
            Arc::clone(&answering),
            b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n".into(),
        )
    });
    let app = ask(&rig, "POST", "/pay", "X-Request-Id: left-1\r\n", "pay").await;
    assert!(rig.upstream.wait(1).await.whole);
    app.reset();
    told.notify_one();
    let logged = |id: &'static str, status: &'static str| {
        rig.proxy.wait_log(move |line| {
            (line.contains(id) && line.contains(status)).then(|| line.to_owned())
        })
    };
    let line = logged("left-1", "201").await;
    assert!(line.contains("yes"), "{line}");

    // Nor is one forgotten that nobody answers.
    rig.upstream.play(|_| Act::Hold(vec![]));
    let app = ask(&rig, "POST", "/pay", "X-Request-Id: left-2\r\n", "pay").await;
    assert!(rig.upstream.wait(2).await.whole);
    app.reset();
    let line = logged("left-2", "504").await;
    assert!(line.contains("upstream_timeout") && line.contains("unknown"), "{line}");
    let metrics = client(rig.proxy.admin_addr).await.get("/metrics").await.text();
    assert!(metrics.contains("bearer_proxy_http_requests_in_flight 0\n"), "{metrics}");
    assert_eq!(rig.upstream.count(), 2);
}

/// Half a payment is none.
/// Requests that came together, of which the upstream has the first and not yet answered it.
async fn pipelined(
    rig: &Rig,
    first: impl Fn() -> Act + Send + Sync + 'static,
    requests: &str,
) -> Client {
    rig.upstream.play(move |seen| if seen.path() == "/first" { first() } else { ok("next") });
    let mut app = client(rig.proxy.addr).await;
    app.send(requests).await;
    rig.upstream.wait(1).await;
    app
}

/// The upstream has heard of the first request, and now of this one, and of nothing between them.
async fn nothing_between(rig: &Rig) {
    let mut app = ask(rig, "GET", "/next", "", "").await;
    assert_eq!(app.read("GET").await.text(), "next");
    let paths: Vec<_> = rig.upstream.seen().iter().map(|seen| seen.path().to_owned()).collect();
    assert_eq!(paths, ["/first", "/next"]);
}

const FIRST: &str = "GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Nobody would be there to hear whether money has moved.
#[tokio::test]
async fn what_is_not_safe_is_not_begun_for_a_caller_that_has_closed_its_side() {
    for method in ["POST", "PUT", "PATCH", "DELETE", "REPORT"] {
        for rest in ["Content-Length: 2\r\n\r\nhi", "\r\n"] {
            let rig = rig("10s", "").await;
            let second = format!("{method} /pay HTTP/1.1\r\nHost: localhost\r\n{rest}");
            let told = Arc::new(Notify::new());
            let answering = Arc::clone(&told);
            let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst";
            let first = move || Act::When(Arc::clone(&answering), whole.into());
            let mut app = pipelined(&rig, first, &format!("{FIRST}{second}")).await;
            app.finish().await;
            told.notify_one();
            assert_eq!(app.read("GET").await.text(), "first", "a safe request is served");
            let answer = app.read(method).await;
            assert_eq!((answer.status, refusal(&answer).as_str()), (499, "client_left"));
            assert_eq!(answer.header("bearer-proxy-forwarded"), Some("no"));
            assert_eq!(answer.header("connection"), Some("close"));
            assert_eq!(app.read_to_close().await, b"", "{method}");
            nothing_between(&rig).await;
            let metrics = client(rig.proxy.admin_addr).await.get("/metrics").await.text();
            let line = "bearer_proxy_requests_rejected_total{reason=\"client_left\"} 1\n";
            assert!(metrics.contains(line), "{metrics}");
        }
    }
}

#[tokio::test]
async fn nothing_is_begun_for_a_caller_that_is_gone() {
    for method in ["GET", "POST"] {
        let rig = rig("10s", "").await;
        let second = format!("{method} /pay HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let first = || Act::Hold(vec![]);
        let app = pipelined(&rig, first, &format!("{FIRST}{second}")).await;
        app.reset();
        rig.upstream.wait_closed(1).await;
        nothing_between(&rig).await;
    }
}

#[tokio::test]
async fn a_body_that_its_caller_cuts_is_cut_upstream() {
    let bank = raw_server().await;
    let proxy = in_front_of(&format!("http://{}", bank.addr), Extra::default()).await;
    for (framing, half) in [
        ("Content-Length: 10\r\n\r\nhalf", "half"),
        ("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "4\r\nhalf\r\n"),
    ] {
        for reset in [false, true] {
            let mut app = client(proxy.addr).await;
            app.send(format!("POST /pay HTTP/1.1\r\nHost: localhost\r\n{framing}")).await;
            // One that had not been begun would never be.
            let mut bank = bank.accept().await;
            assert!(bank.read_head().await.starts_with("POST /pay HTTP/1.1\r\n"));
            assert_eq!(bank.read_bytes(half.len()).await, half.as_bytes());
            if reset {
                app.reset();
            } else {
                drop(app);
            }
            assert_eq!(bank.read_to_close().await, b"", "{framing} {reset}");
        }
    }
}

/// Whatever is reloaded, a request keeps the plan that it began with.
#[tokio::test]
async fn a_reload_in_the_middle_changes_no_request_under_way() {
    let rig = rig("60s", "").await;
    let told = Arc::new(Notify::new());
    let answering = Arc::clone(&told);
    rig.upstream.play(move |_| {
        Act::When(Arc::clone(&answering), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into())
    });
    let mut paying = ask(&rig, "POST", "/pay", "", "pay").await;
    rig.upstream.wait(1).await;
    let text = std::fs::read_to_string(&rig.proxy.config_path).unwrap();
    let nobody = raw_server().await;
    let moved = text.replace(&rig.upstream.addr.to_string(), &nobody.addr.to_string());
    std::fs::write(&rig.proxy.config_path, moved).unwrap();
    rig.proxy.signal(rustix::process::Signal::HUP);
    rig.proxy.wait_log(|line| line.contains("configuration reloaded").then_some(())).await;
    let mut reading = ask(&rig, "GET", "/moved", "", "").await;
    let mut arrived = nobody.accept().await;
    assert!(arrived.read_head().await.contains("\r\nauthorization: Bearer "));
    arrived.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(reading.read("GET").await.status, 200);
    told.notify_one();
    assert_eq!(paying.read("POST").await.text(), "ok");
    assert_eq!(arrivals(&rig, "/pay").len(), 1);
}

/// What is under way is finished; what cannot be finished in time is not sent again.
#[tokio::test]
async fn leaving_in_the_middle_sends_nothing_twice() {
    let mut rig = rig("60s", "").await;
    let told = Arc::new(Notify::new());
    let answering = Arc::clone(&told);
    rig.upstream.play(move |_| {
        Act::When(Arc::clone(&answering), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into())
    });
    let mut paying = ask(&rig, "POST", "/pay", "", "pay").await;
    let left = ask(&rig, "POST", "/left", "X-Request-Id: left-3\r\n", "pay").await;
    rig.upstream.wait(2).await;
    left.reset();
    rig.proxy.signal(rustix::process::Signal::INT);
    rig.proxy.wait_log(|line| line.contains("drain").then_some(())).await;
    told.notify_waiters();
    assert_eq!(paying.read("POST").await.text(), "ok");
    assert_eq!(rig.proxy.wait_exit().await.code(), Some(0));
    assert_eq!((arrivals(&rig, "/pay").len(), arrivals(&rig, "/left").len()), (1, 1));
    assert!(rig.proxy.log().contains("left-3"), "{}", rig.proxy.log());
}
