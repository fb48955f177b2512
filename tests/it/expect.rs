//! `Expect: 100-continue`: the app is asked for its body when the bank asks, and by nobody else.

use crate::support::{Client, Extra, Fronted, RawServer, client, in_front_of, raw_server};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

async fn front() -> (RawServer, Fronted) {
    let bank = raw_server().await;
    let proxy = in_front_of(&format!("http://{}", bank.addr), Extra::default()).await;
    (bank, proxy)
}

/// A payment of five bytes whose body waits.
async fn asks(proxy: &Fronted, more: &str) -> Client {
    let mut app = client(proxy.addr).await;
    let head = "POST /pay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n";
    app.send(format!("{head}{more}\r\n")).await;
    app
}

#[tokio::test]
async fn the_bank_asks_and_the_app_is_asked() {
    let (bank, proxy) = front().await;
    let mut app = asks(&proxy, "Expect: 100-Continue\r\n").await;
    let mut bank = bank.accept().await;
    assert!(bank.read_head().await.to_lowercase().contains("\r\nexpect: 100-continue\r\n"));
    bank.send(CONTINUE).await;
    assert_eq!(app.read("POST").await.status, 100);
    app.send("money").await;
    assert_eq!(bank.read_bytes(5).await, b"money");
    bank.send(OK).await;
    assert_eq!(app.read("POST").await.text(), "ok");
    // Both connections are as good as before.
    app.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(!bank.read_head().await.to_lowercase().contains("expect"));
    bank.send(OK).await;
    assert_eq!(app.read("GET").await.status, 200);
}

#[tokio::test]
async fn a_body_that_the_bank_does_not_want_stays_with_the_app() {
    for (line, status) in [("417 Expectation Failed", 417), ("403 Forbidden", 403)] {
        let (bank, proxy) = front().await;
        let mut app = asks(&proxy, "Expect: 100-continue\r\n").await;
        let mut bank = bank.accept().await;
        bank.read_head().await;
        // The app sends its body although nobody asked; none of it gets to the bank.
        app.send("money").await;
        bank.send(format!("HTTP/1.1 {line}\r\nContent-Length: 2\r\n\r\nno")).await;
        let answer = app.read("POST").await;
        assert_eq!((answer.status, answer.text().as_str()), (status, "no"), "nothing before it");
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(bank.read_to_close().await, b"");
        assert_eq!(app.read_to_close().await, b"");
    }
}

#[tokio::test]
async fn a_bank_that_does_not_know_the_field_is_sent_the_body_after_a_while() {
    let (bank, proxy) = front().await;
    let mut app = asks(&proxy, "Expect: 100-continue\r\n").await;
    let mut bank = bank.accept().await;
    bank.read_head().await;
    assert_eq!(app.read("POST").await.status, 100);
    app.send("money").await;
    assert_eq!(bank.read_bytes(5).await, b"money");
    bank.send(OK).await;
    assert_eq!(app.read("POST").await.status, 200);
}

#[tokio::test]
async fn what_is_refused_here_is_refused_before_the_body_is_asked_for() {
    let (_bank, proxy) = front().await;
    let expected = asks(&proxy, "Expect: a-miracle\r\n").await.read("POST").await;
    assert_eq!((expected.status, expected.json()["code"].as_str()), (417, Some("expectation")));
    let more = "Expect: 100-continue\r\nOrigin: http://evil.example\r\n";
    assert_eq!(asks(&proxy, more).await.read("POST").await.status, 403);
}

#[tokio::test]
async fn where_it_means_nothing_it_is_ignored() {
    let (bank, proxy) = front().await;
    let mut app = client(proxy.addr).await;
    app.send("GET /a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n").await;
    let mut bank = bank.accept().await;
    assert!(!bank.read_head().await.to_lowercase().contains("expect"));
    bank.send(OK).await;
    assert_eq!(app.read("GET").await.status, 200);
    let empty =
        "POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n";
    app.send(empty).await;
    assert!(!bank.read_head().await.to_lowercase().contains("expect"));
    bank.send(OK).await;
    assert_eq!(app.read("POST").await.status, 200);
    let mut old = client(proxy.addr).await;
    old.send("POST /a HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nmoney").await;
    assert!(!bank.read_head().await.to_lowercase().contains("expect"));
    assert_eq!(bank.read_bytes(5).await, b"money");
    bank.send(OK).await;
    assert_eq!(old.read("POST").await.status, 200);
}
