//! The access log: one line for each request, written when its fate is known, that says what became of it
//! at the bank and what of its answer reached the app.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::http2::{DATA, END_HEADERS, END_STREAM, HEADERS, frames, head};
use crate::support::{Client, Extra, Fronted, RawServer, client, in_front_of, raw_server};

const LOG: &str = "[log]\naccess = \"all\"\nformat = \"json\"";
const POST: &str = "POST /pay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\npay";
const CREATED: &str = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok";

async fn logged(url: &str, more: &str) -> Fronted {
    let more = format!("{LOG}\n{more}");
    in_front_of(url, Extra { more: &more, ..Extra::default() }).await
}

/// Lines of the access log, as JSON.
fn lines(log: &str) -> Vec<Value> {
    let access = log.lines().filter(|line| line.contains("\"target\":\"bearer_proxy::access\""));
    access.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The one line of the one request; waits for it.
async fn line(proxy: &Fronted) -> Value {
    proxy.wait_log(|line| line.contains("bearer_proxy::access").then_some(())).await;
    let found = lines(&proxy.log());
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[track_caller]
fn check(line: &Value, expected: &[(&str, Value)]) {
    for (name, value) in expected {
        assert_eq!(&line[*name], value, "{name} of {line}");
    }
}

/// Has the payment taken by the bank, which has not answered yet.
async fn paid(bank: &RawServer) -> Client {
    let mut serving = bank.accept().await;
    serving.read_head().await;
    assert_eq!(serving.read_bytes(3).await, b"pay");
    serving
}

/// A payment that the bank has taken and not answered.
struct Payment {
    bank: RawServer,
    proxy: Fronted,
    app: Client,
    serving: Client,
}

async fn payment() -> Payment {
    let bank = raw_server().await;
    let proxy = logged(&format!("http://{}", bank.addr), "").await;
    let mut app = client(proxy.addr).await;
    app.send(POST).await;
    let serving = paid(&bank).await;
    Payment { bank, proxy, app, serving }
}

#[tokio::test]
async fn a_payment_that_went_well_leaves_one_line_that_says_all() {
    let Payment { bank, proxy, mut app, mut serving } = payment().await;
    assert_eq!(lines(&proxy.log()).len(), 0, "its fate is not known yet");
    serving.send(CREATED).await;
    assert_eq!(app.read("POST").await.text(), "ok");
    let line = line(&proxy).await;
    check(
        &line,
        &[
            ("level", "INFO".into()),
            ("status", 201.into()),
            ("code", "".into()),
            ("forwarded", "yes".into()),
            ("delivered", "yes".into()),
            ("complete", true.into()),
            ("bytes_in", 3.into()),
            ("bytes_out", 2.into()),
            ("attempts", 1.into()),
            ("method", "POST".into()),
            ("path", "/**".into()),
            ("upstream_addr", bank.addr.to_string().into()),
            ("detail", Value::Null),
        ],
    );
    assert!(line["token"].as_str().is_some_and(|token| !token.is_empty()), "{line}");
    let number = |name: &str| line[name].as_f64().unwrap();
    assert!(number("upstream_ms") + number("proxy_ms") <= number("duration_ms") + 0.001, "{line}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_warning_and_an_error_of_the_upstream() {
    let Payment { proxy, mut app, mut serving, .. } = payment().await;
    serving.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
    drop(serving);
    app.read_to_end().await.ok();
    let line = line(&proxy).await;
    check(
        &line,
        &[
            ("level", "WARN".into()),
            ("status", 200.into()),
            ("forwarded", "yes".into()),
            ("delivered", "partly".into()),
            ("complete", false.into()),
            ("bytes_out", 4.into()),
        ],
    );
    let detail = line["detail"].as_str().unwrap();
    // hyper's words, and the cause below them.
    assert!(detail.contains("broke off") && detail.contains("end of file"), "{line}");
    let mut admin = client(proxy.admin_addr).await;
    let metrics = admin.get("/metrics").await.text();
    let counted = "bearer_proxy_upstream_errors_total{reason=\"upstream_reset\",upstream=\"a\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

/// It was not the bank that ended it.
#[tokio::test]
async fn an_answer_that_rests_too_long_is_cut_by_the_proxy() {
    let bank = raw_server().await;
    let upstream = "timeouts = { idle = \"300ms\" }";
    let extra = Extra { more: LOG, upstream, ..Extra::default() };
    let proxy = in_front_of(&format!("http://{}", bank.addr), extra).await;
    let mut app = client(proxy.addr).await;
    app.send(POST).await;
    let mut serving = paid(&bank).await;
    serving.send("HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\nhalf").await;
    app.read_to_end().await.ok();
    let line = line(&proxy).await;
    let detail = "bearer-proxy cut the upstream's answer after its status 201: no byte of it arrived within \
                  timeouts.idle, 300ms";
    check(&line, &[("delivered", "partly".into()), ("detail", detail.into())]);
    let mut admin = client(proxy.admin_addr).await;
    let metrics = admin.get("/metrics").await.text();
    let counted = |reason, count| {
        let line = format!(
            "bearer_proxy_upstream_errors_total{{reason=\"{reason}\",upstream=\"a\"}} {count}"
        );
        assert!(metrics.contains(&line), "{line}: {metrics}");
    };
    counted("timeout", 1);
    counted("upstream_reset", 0);
    let status = admin.get("/status").await.json();
    let error = &status["upstreams"][0]["last_error"];
    check(error, &[("code", "upstream_timeout".into()), ("forwarded", "yes".into())]);
    let hint = status["attention"][0]["hint"].as_str().unwrap();
    assert!(hint.contains("the app lacks the rest"), "{status}");
}

#[tokio::test]
async fn the_time_of_an_app_that_stalls_its_body_is_not_the_upstreams() {
    let bank = raw_server().await;
    let upstream = "timeouts = { idle = \"300ms\" }";
    let extra = Extra { more: LOG, upstream, ..Extra::default() };
    let proxy = in_front_of(&format!("http://{}", bank.addr), extra).await;
    let mut app = client(proxy.addr).await;
    app.send("POST /pay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\npay").await;
    let _serving = paid(&bank).await;
    assert_eq!(app.read("POST").await.status, 408);
    let line = line(&proxy).await;
    check(&line, &[("forwarded", "unknown".into()), ("bytes_in", 3.into())]);
    let number = |name: &str| line[name].as_f64().unwrap();
    assert!(number("app_ms") >= 299.0, "{line}");
    let (upstream, own) = (number("upstream_ms"), number("proxy_ms"));
    assert!(upstream + own + number("app_ms") <= number("duration_ms") + 0.001, "{line}");
    assert!(upstream < number("app_ms") && own < number("app_ms"), "{line}");
}

#[tokio::test]
async fn an_answer_for_which_nobody_waits_any_more_is_not_delivered() {
    let Payment { proxy, app, mut serving, .. } = payment().await;
    app.reset();
    serving.send(CREATED).await;
    let line = line(&proxy).await;
    let expected = [
        ("level", "WARN".into()),
        ("status", 201.into()),
        ("forwarded", "yes".into()),
        ("delivered", "no".into()),
    ];
    check(&line, &expected);
    assert!(line["detail"].as_str().unwrap().contains("did not get the whole answer"), "{line}");
}

/// A close sends the same FIN as an app that has sent all and waits. Only the reset that answers our bytes
/// tells that nobody reads them.
#[tokio::test]
async fn an_answer_to_an_app_that_has_closed_its_connection_is_not_delivered() {
    for waits in [false, true] {
        let Payment { proxy, mut app, mut serving, .. } = payment().await;
        app.finish().await;
        let app = waits.then_some(app);
        serving.send(CREATED).await;
        if let Some(mut app) = app {
            assert_eq!(app.read("POST").await.text(), "ok");
        }
        let line = line(&proxy).await;
        let (level, delivered) = if waits { ("INFO", "yes") } else { ("WARN", "no") };
        let expected = [
            ("level", level.into()),
            ("status", 201.into()),
            ("forwarded", "yes".into()),
            ("delivered", delivered.into()),
        ];
        check(&line, &expected);
    }
}

/// The app's leaving ended the reading of an answer that the bank had sent whole.
#[tokio::test]
async fn an_answer_that_nobody_waited_for_is_not_called_incomplete() {
    let Payment { proxy, app, mut serving, .. } = payment().await;
    app.reset();
    serving
        .send(format!("HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n{}", "x".repeat(90_000)))
        .await;
    let line = line(&proxy).await;
    check(&line, &[("forwarded", "yes".into()), ("delivered", "no".into())]);
    assert_ne!(line["complete"], false, "{line}");
    let metrics = client(proxy.admin_addr).await.get("/metrics").await.text();
    let counted = "bearer_proxy_requests_undelivered_total{route=\"all\",upstream=\"a\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn a_request_whose_app_leaves_is_counted_as_it_is_logged() {
    let bank = raw_server().await;
    let proxy = logged(&format!("http://{}", bank.addr), "").await;
    let mut app = client(proxy.addr).await;
    app.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut serving = bank.accept().await;
    serving.read_head().await;
    app.reset();
    check(&line(&proxy).await, &[("status", 499.into()), ("code", "client_left".into())]);
    let mut admin = client(proxy.admin_addr).await;
    let metrics = admin.get("/metrics").await.text();
    for counted in [
        "bearer_proxy_requests_rejected_total{reason=\"client_left\"} 1",
        "bearer_proxy_http_requests_total{code=\"499\",method=\"GET\",route=\"all\",upstream=\"a\"} 1",
        "bearer_proxy_requests_undelivered_total{route=\"all\",upstream=\"a\"} 0",
    ] {
        assert!(metrics.contains(counted), "{counted}: {metrics}");
    }
    let status = admin.get("/status").await.json();
    assert!(status.to_string().contains("\"client_left\""), "{status}");
    assert_eq!(status["routes"][0]["requests"], 1, "{status}");
}

/// By default a read leaves a line if its answer concerns the token or a limit, and none for a plain 4xx.
#[tokio::test]
async fn an_answer_that_refuses_the_token_is_logged_whatever_the_method() {
    const SCOPE: &str = "WWW-Authenticate: Bearer error=\"insufficient_scope\"\r\n";
    const GET: &str = "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let refusing = [(403, SCOPE), (429, "")];
    for (status, header) in [(404, ""), (403, "")].into_iter().chain(refusing) {
        let bank = raw_server().await;
        let extra = Extra { more: "[log]\nformat = \"json\"", ..Extra::default() };
        let proxy = in_front_of(&format!("http://{}", bank.addr), extra).await;
        let mut app = client(proxy.addr).await;
        app.send(GET).await;
        let mut serving = bank.accept().await;
        serving.read_head().await;
        serving.send(format!("HTTP/1.1 {status} X\r\n{header}Content-Length: 0\r\n\r\n")).await;
        assert_eq!(app.read("GET").await.status, status);
        // A line that is always there comes after it.
        assert_eq!(app.request("DELETE", "/x", &[], b"").await.status, 405);
        proxy.wait_log(|line| line.contains("\"DELETE\"").then_some(())).await;
        let found = lines(&proxy.log());
        let expected = 1 + usize::from(refusing.contains(&(status, header)));
        assert_eq!(found.len(), expected, "{status} {header}: {found:?}");
    }
}

#[tokio::test]
async fn an_answer_that_the_app_takes_in_part_is_delivered_partly() {
    const LONG: usize = 64 * 1024 * 1024;
    let Payment { proxy, mut app, mut serving, .. } = payment().await;
    serving.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n")).await;
    let sending = tokio::spawn(async move {
        // More than all buffers between the bank and the app hold; it ends when the proxy hangs up.
        for _ in 0..LONG / (1024 * 1024) {
            serving.send(vec![b'x'; 1024 * 1024]).await;
        }
    });
    app.read_head().await;
    app.read_bytes(100_000).await;
    app.reset();
    let line = line(&proxy).await;
    check(&line, &[("delivered", "partly".into()), ("complete", false.into())]);
    sending.abort();
}

#[tokio::test]
async fn over_http2_an_answer_is_delivered_once_its_stream_has_ended() {
    let bank = raw_server().await;
    let proxy = logged(&format!("http://{}", bank.addr), "").await;
    let mut app = frames(proxy.addr).await;
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/pay"),
        (":authority", "localhost"),
        ("content-length", "3"),
    ];
    app.frame(HEADERS, END_HEADERS, 1, &head(&fields)).await;
    app.frame(DATA, END_STREAM, 1, b"pay").await;
    let mut serving = paid(&bank).await;
    serving.send(CREATED).await;
    assert!(app.reply(1).await.ended);
    check(&line(&proxy).await, &[("delivered", "yes".into()), ("bytes_in", 3.into())]);
}

#[tokio::test]
async fn what_a_second_signal_or_the_drain_timeout_cuts_is_in_the_log() {
    // Signals, and what the program waits for before it ends.
    for (signals, more) in [(2, ""), (1, "[shutdown]\ndrain_timeout = \"1s\"")] {
        let bank = raw_server().await;
        let mut proxy = logged(&format!("http://{}", bank.addr), more).await;
        let mut app = client(proxy.addr).await;
        app.send(POST).await;
        let _serving = paid(&bank).await;
        proxy.signal(Signal::INT);
        proxy.wait_log(|line| line.contains("finishing requests").then_some(())).await;
        if signals == 2 {
            proxy.signal(Signal::INT);
        }
        proxy.wait_exit().await;
        let log = proxy.log();
        let stopped = log.lines().find(|line| line.contains("\"stopped\"")).unwrap();
        let outcome = if signals == 2 { "interrupted" } else { "cut" };
        let stopped: Value = serde_json::from_str(stopped).unwrap();
        let expected =
            [("level", "WARN".into()), ("outcome", outcome.into()), ("requests_cut", 1.into())];
        check(&stopped, &expected);
        assert_eq!(stopped["request_ids"], lines(&log)[0]["request_id"], "{log}");
        assert_eq!(log.contains("second signal: ending at once"), signals == 2, "{log}");
        let found = lines(&proxy.log());
        assert_eq!(found.len(), 1, "{signals}: {found:?}");
        let expected = [
            ("level", "WARN".into()),
            ("code", "cut_by_shutdown".into()),
            ("forwarded", "unknown".into()),
            ("delivered", "no".into()),
        ];
        check(&found[0], &expected);
        let detail = found[0]["detail"].as_str().unwrap();
        assert!(detail.ends_with("and the app got no answer"), "{detail}");
        // It was the bank that was waited for.
        assert!(found[0]["upstream_ms"].as_f64().unwrap() > 0.0, "{}", found[0]);
    }
}

#[tokio::test]
async fn nothing_is_finished_after_a_second_signal() {
    let more = "[shutdown]\nlame_duck = \"20s\"";
    let bank = raw_server().await;
    let mut proxy = logged(&format!("http://{}", bank.addr), more).await;
    proxy.signal(Signal::TERM);
    proxy.wait_log(|line| line.contains("still accepting").then_some(())).await;
    proxy.signal(Signal::TERM);
    proxy.wait_exit().await;
    let log = proxy.log();
    assert!(log.contains("second signal: ending at once"), "{log}");
    assert!(!log.contains("finishing requests in flight"), "{log}");
}

#[tokio::test]
async fn an_answer_that_is_the_upstreams_or_the_tokens_fault_is_a_warning() {
    const SCOPE: &str =
        "WWW-Authenticate: Bearer error=\"insufficient_scope\", scope=\"admin\"\r\n";
    for (status, header, detail) in [
        (503, "", Some("answered with status 503")),
        (401, "", Some("does not accept the token")),
        (403, SCOPE, Some("insufficient_scope")),
        (429, "", Some("wants fewer requests")),
        (403, "Retry-After: 60\r\n", Some("wants fewer requests")),
        (403, "", None),
        (409, "", None),
    ] {
        let Payment { proxy, mut app, mut serving, .. } = payment().await;
        let answer = format!("HTTP/1.1 {status} X\r\n{header}Content-Length: 0\r\n\r\n");
        serving.send(answer).await;
        assert_eq!(app.read("POST").await.status, status);
        let line = line(&proxy).await;
        let level = if detail.is_some() { "WARN" } else { "INFO" };
        check(&line, &[("level", level.into()), ("forwarded", "yes".into()), ("code", "".into())]);
        let said = line["detail"].as_str();
        assert!(detail.is_none_or(|words| said.is_some_and(|said| said.contains(words))), "{line}");
        assert_eq!(said.is_some(), detail.is_some(), "{line}");
        let status_page = client(proxy.admin_addr).await.get("/status").await.json();
        let error = status_page["upstreams"][0]["last_error"]["detail"].as_str();
        let expected = (status >= 500).then_some("the upstream answered with status 503");
        assert_eq!(error, expected, "{status_page}");
        assert_eq!(status_page["upstreams"][0]["failing"], status >= 500, "{status_page}");
    }
}

#[tokio::test]
async fn a_refusal_says_in_the_log_what_it_says_to_the_app() {
    let closed = raw_server().await;
    let url = format!("http://{}", closed.addr);
    drop(closed);
    let proxy = logged(&url, "").await;
    let mut app = client(proxy.addr).await;
    let answer = app.request("POST", "/pay", &[], b"pay").await;
    assert_eq!(answer.status, 502);
    let line = line(&proxy).await;
    let told = answer.json();
    check(
        &line,
        &[
            ("level", "WARN".into()),
            ("code", told["code"].clone()),
            ("detail", told["detail"].clone()),
            ("request_id", told["request_id"].clone()),
            ("forwarded", "no".into()),
            ("delivered", "yes".into()),
            ("attempts", 0.into()),
        ],
    );
    // The operator is told what to do as well.
    let status = client(proxy.admin_addr).await.get("/status").await.json();
    let hint = &status["attention"][0]["hint"];
    assert!(hint.as_str().unwrap().contains("check host and port"), "{status}");
    tokio::time::timeout(Duration::from_millis(300), async {
        while lines(&proxy.log()).len() == 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_err();
}

#[tokio::test]
async fn what_was_being_sent_when_the_process_was_killed_is_in_the_log() {
    const PAYMENTS: usize = 100;
    let bank = raw_server().await;
    let log = "[log]\nbegin = \"unsafe\"\nformat = \"json\"";
    let extra = Extra { more: log, ..Extra::default() };
    let mut proxy = in_front_of(&format!("http://{}", bank.addr), extra).await;
    let (mut apps, mut banks) = (Vec::new(), Vec::new());
    for payment in 0..PAYMENTS {
        let mut app = client(proxy.addr).await;
        app.send(POST.replace("Host", &format!("X-Request-Id: pay-{payment}-\r\nHost"))).await;
        apps.push(app);
        banks.push(paid(&bank).await);
    }
    proxy.signal(Signal::KILL);
    proxy.wait_exit().await;
    let log = proxy.log();
    for payment in 0..PAYMENTS {
        let id = format!("\"request_id\":\"pay-{payment}-\"");
        let begun: Vec<_> = log.lines().filter(|line| line.contains(&id)).collect();
        assert_eq!(begun.len(), 1, "{payment}: {begun:?}");
        let line: Value = serde_json::from_str(begun[0]).unwrap();
        let expected = [("message", "sending".into()), ("target", "bearer_proxy::begin".into())];
        check(&line, &expected);
    }
}

#[tokio::test]
async fn requests_in_flight_and_the_state_of_upstreams_are_in_the_status() {
    let bank = raw_server().await;
    let proxy = logged(&format!("http://{}", bank.addr), "").await;
    let mut admin = client(proxy.admin_addr).await;
    let mut app = client(proxy.addr).await;
    app.send(POST.replace("Host", "X-Request-Id: pay-1\r\nHost")).await;
    let mut serving = paid(&bank).await;
    let status = admin.get("/status").await.json();
    assert_eq!(status["requests_in_flight"], 1, "{status}");
    let expected = [
        ("request_id", "pay-1".into()),
        ("method", "POST".into()),
        ("upstream", "a".into()),
        ("route", "all".into()),
        ("phase", "sent".into()),
    ];
    check(&status["requests"][0], &expected);
    assert_eq!(status["upstreams"][0]["connections_open"], 1, "{status}");
    assert_eq!(status["upstreams"][0]["last_success"], Value::Null, "{status}");
    let told = std::process::Command::new(env!("CARGO_BIN_EXE_bearer-proxy"))
        .args(["status", "--admin", &proxy.admin_addr.to_string()])
        .output()
        .unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("\n  a         connections: 1 open, 0 idle\n"), "{told}");
    let request = told.lines().find(|line| line.starts_with("  pay-1    ")).unwrap();
    assert!(request.ends_with("  sent   POST a.all"), "{told}");

    let challenge = "Bearer error=\"insufficient_scope\"";
    serving
        .send(format!(
            "HTTP/1.1 403 No\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    assert_eq!(app.read("POST").await.status, 403);
    line(&proxy).await;
    let status = admin.get("/status").await.json();
    assert_eq!(status["requests_in_flight"], 0, "{status}");
    let upstream = &status["upstreams"][0];
    assert!(upstream["last_success"].is_string(), "{upstream}");
    let expected = [("forbidden", 1.into()), ("last_challenge", challenge.into())];
    check(upstream, &expected);
    assert_eq!(status["routes"][0]["requests"], 1, "{status}");

    // The upstream goes away, and what failed stands with its words.
    drop((serving, bank));
    let refused = app.request("POST", "/pay", &[], b"pay").await;
    let status = admin.get("/status").await.json();
    assert_eq!(status["upstreams"][0]["failing"], true, "{status}");
    check(&status["upstreams"][0]["last_error"], &[("detail", refused.json()["detail"].clone())]);
    let expected = [
        ("code", refused.json()["code"].clone()),
        ("request_id", refused.json()["request_id"].clone()),
    ];
    check(&status["refusals"][0], &expected);
    let page = admin.get("/").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
}

#[tokio::test]
async fn a_download_that_its_app_gives_up_is_no_failure() {
    let bank = raw_server().await;
    let log = "[log]\nformat = \"json\"";
    let extra = Extra { more: log, ..Extra::default() };
    let proxy = in_front_of(&format!("http://{}", bank.addr), extra).await;
    let mut app = client(proxy.addr).await;
    app.send("GET /file HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut serving = bank.accept().await;
    serving.read_head().await;
    serving.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
    app.read_head().await;
    app.reset();
    serving.read_to_close().await;
    // A line of another request comes after where a line of this one would have been.
    let mut other = client(proxy.addr).await;
    other.request("DELETE", "/none", &[], b"").await;
    proxy.wait_log(|line| line.contains("bearer_proxy::access").then_some(())).await;
    let found = lines(&proxy.log());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["method"], "DELETE");
}

#[tokio::test]
async fn the_upstream_is_told_the_id_of_a_request_where_a_setting_says_so() {
    let bank = raw_server().await;
    let url = format!("http://{}", bank.addr);
    let told = async |proxy: &Fronted, fields: &str| {
        let mut app = client(proxy.addr).await;
        app.send(format!("GET /x HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).await;
        let mut serving = bank.accept().await;
        let head = serving.read_head().await;
        serving.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        let id = app.read("GET").await.header("bearer-proxy-request-id").unwrap().to_owned();
        let field = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            let found = lines.find(|(found, _)| found.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_owned())
        };
        (id, field("x-request-id"), field("x-trace"))
    };
    let proxy = in_front_of(&url, Extra::default()).await;
    let (_, request_id, trace) = told(&proxy, "").await;
    assert_eq!((request_id, trace), (None, None), "off by default");
    let upstream = "request_id_header = \"X-Trace\"";
    let proxy = in_front_of(&url, Extra { upstream, ..Extra::default() }).await;
    let (id, request_id, trace) = told(&proxy, "").await;
    assert_eq!((request_id, trace), (None, Some(id)));
    let (id, _, trace) = told(&proxy, "X-Trace: of-the-app\r\n").await;
    assert_eq!(trace, Some(id), "an id that was made here replaces it");
    let (id, request_id, trace) = told(&proxy, "X-Request-Id: pay-1\r\n").await;
    assert_eq!((id.as_str(), request_id.as_deref()), ("pay-1", Some("pay-1")));
    assert_eq!(trace.as_deref(), Some("pay-1"));
    let (_, _, trace) = told(&proxy, "X-Request-Id: pay-1\r\nX-Trace: t-1\r\n").await;
    assert_eq!(trace.as_deref(), Some("t-1"));
}
