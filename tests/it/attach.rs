//! Tokens in another header than Authorization: the rules that hold there hold here.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};

use crate::support::service::Service;
use crate::support::{Extra, Fronted, client, in_front_of, soon};

/// A proxy whose tokens travel in `X-Auth-Token`, and the requests that its upstream saw. The upstream
/// refuses the first token, and echoes what it gets.
async fn fronted(upstream: &str) -> (Fronted, Arc<Mutex<Vec<Request<()>>>>, Service) {
    let seen = Arc::new(Mutex::new(Vec::<Request<()>>::new()));
    let ledger = Arc::clone(&seen);
    let service = Service::start(None, move |request: &Request<Bytes>| {
        let mut seen = ledger.lock().unwrap();
        let token = request.headers().get("x-auth-token").cloned();
        let mut copy = Request::new(());
        *copy.headers_mut() = request.headers().clone();
        let status = if seen.is_empty() { 401 } else { 200 };
        seen.push(copy);
        let response = Response::builder().status(status);
        let echo = token.unwrap_or_else(|| http::HeaderValue::from_static("none"));
        response.header("x-echo", echo).body(String::new()).unwrap()
    })
    .await;
    let extra = Extra { credential: ATTACH, upstream, ..Extra::default() };
    let fronted = in_front_of(&format!("http://{}", service.addr), extra).await;
    (fronted, seen, service)
}

const ATTACH: &str = "attach = { header = \"X-Auth-Token\", scheme = \"\" }";

#[tokio::test]
async fn the_token_stands_alone_in_its_header_and_the_apps_own_is_removed_in_any_spelling() {
    let (fronted, seen, _service) = fronted("").await;
    let mut app = client(fronted.proxy.addr).await;
    let sent = [
        ("X-Auth-Token", "mine"),
        ("X_Auth_Token", "mine"),
        ("HTTP_X_AUTH_TOKEN", "mine"),
        ("Authorization", "Bearer mine"),
        ("Connection", "x-auth-token"),
    ];
    let answer = soon(app.request("GET", "/x", &sent, b"")).await;
    assert_eq!(answer.status, 200, "sent again with a newer token");
    assert_eq!(answer.header("x-echo"), Some("[redacted]"));
    let issued = fronted.auth.ledger().issued();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    let mut tokens = Vec::new();
    for request in seen.iter() {
        let headers = request.headers();
        assert!(!headers.contains_key("authorization"), "{headers:?}");
        assert!(headers.values().all(|value| !value.as_bytes().ends_with(b"mine")), "{headers:?}");
        let lines: Vec<_> = headers.get_all("x-auth-token").iter().collect();
        assert_eq!(lines.len(), 1);
        tokens.push(lines[0].to_str().unwrap().to_owned());
    }
    assert_ne!(tokens[0], tokens[1]);
    assert!(issued.len() >= 2);
    let log = fronted.proxy.log();
    assert!(tokens.iter().all(|token| !token.contains(' ') && !log.contains(token)));
}

#[tokio::test]
async fn the_apps_own_is_refused_where_its_authorization_would_be() {
    let (fronted, seen, _service) = fronted("incoming_authorization = \"reject\"").await;
    let mut app = client(fronted.proxy.addr).await;
    let answer = soon(app.request("GET", "/x", &[("X-Auth-Token", "mine")], b"")).await;
    assert_eq!(answer.json()["code"], "authorization");
    assert!(seen.lock().unwrap().is_empty());
    assert_eq!(soon(app.request("GET", "/x", &[], b"")).await.status, 200);
}
