//! A request's way: what arrives upstream, with which token, and what never does.

use std::time::Duration;

use bearer_proxy::sandbox::{Persona, Sandbox, TokenValidity};
use tempfile::TempDir;

use crate::support::{Proxy, client, config, soon};

/// A proxy in front of the four pretended vendors.
pub async fn sidecar(lifetime: Duration) -> (Sandbox, Proxy, TempDir) {
    let sandbox = Sandbox::start(lifetime).await.unwrap();
    let secrets = TempDir::new().unwrap();
    let proxy = Proxy::start(&config(&sandbox, &secrets)).await;
    proxy.wait_ready().await;
    (sandbox, proxy, secrets)
}

#[tokio::test]
async fn each_vendor_gets_its_own_token_with_the_routes_scopes() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let mut app = client(proxy.addr).await;
    for (persona, target, scopes) in [
        (Persona::QBank, "/qbank/v1/balances/42", vec!["balances.read"]),
        (Persona::QBank, "/qbank/v1/transactions/a/b", vec!["transactions.read"]),
        (Persona::CoreBanking, "/corebank/accounts", vec![]),
        (Persona::DataCrunch, "/datacrunch/v1/balance", vec!["fullAccess"]),
    ] {
        let answer = app.get(target).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        let seen = sandbox.bank(persona).api.requests();
        let seen = seen.last().unwrap();
        assert_eq!(
            seen.validity,
            TokenValidity::Valid(scopes.iter().map(|s| s.to_string()).collect())
        );
    }
}

#[tokio::test]
async fn what_no_route_claims_is_refused_without_a_token() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let mut app = client(proxy.addr).await;
    for (method, target, status, code) in [
        ("GET", "/qbank/v1/admin", 404, "no_route"),
        ("DELETE", "/qbank/v1/balances/42", 405, "method"),
    ] {
        let answer = app.request(method, target, &[], b"").await;
        assert_eq!(answer.status, status, "{target}");
        assert_eq!(answer.json()["code"], code);
        assert_eq!(answer.header("bearer-proxy-forwarded"), Some("no"));
    }
    for bank in sandbox.banks() {
        assert_eq!(bank.api.requests().len(), 0);
    }
}

#[tokio::test]
async fn the_apps_own_authorization_never_travels() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let mut app = client(proxy.addr).await;
    let fields = [
        ("authorization", "Basic c2VjcmV0"),
        ("connection", "authorization, x-hop"),
        ("x-hop", "1"),
    ];
    let answer = app.request("GET", "/qbank/v1/balances/42", &fields, b"").await;
    assert_eq!(answer.status, 200);
    let seen = sandbox.bank(Persona::QBank).api.requests();
    let headers = &seen.last().unwrap().headers;
    let all: Vec<_> = headers.get_all("authorization").iter().collect();
    assert_eq!(all.len(), 1);
    assert!(all[0].to_str().unwrap().starts_with("Bearer "));
    assert!(!headers.contains_key("x-hop"));
}

#[tokio::test]
async fn foreign_hosts_and_web_pages_are_refused() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let mut app = client(proxy.addr).await;
    app.send(b"GET /qbank/v1/balances/42 HTTP/1.1\r\nhost: evil.example\r\n\r\n").await;
    let answer = app.read("GET").await;
    assert_eq!(answer.status, 421);
    let told = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(told.contains("is addressed to ") && told.contains("allowed_hosts"), "{told}");
    let mut app = client(proxy.addr).await;
    let answer = app
        .request("GET", "/qbank/v1/balances/42", &[("origin", "https://evil.example")], b"")
        .await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("cross_site")));
    assert_eq!(sandbox.bank(Persona::QBank).api.requests().len(), 0);
}

#[tokio::test]
async fn a_payment_is_sent_once_whatever_the_answer() {
    use bearer_proxy::sandbox::ScriptedResponse;
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let api = &sandbox.bank(Persona::QBank).api;
    api.set_responses([ScriptedResponse::Challenge, ScriptedResponse::DropConnection]);
    let mut app = client(proxy.addr).await;
    let answer = app.request("POST", "/qbank/v1/payments/ach", &[], b"{}").await;
    assert_eq!(answer.status, 401, "the upstream's own answer passes");
    let answer = app.request("POST", "/qbank/v1/payments/ach", &[], b"{}").await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("bearer-proxy-forwarded"), Some("unknown"));
    assert_eq!(api.requests().len(), 2);
}

#[tokio::test]
async fn a_read_that_is_challenged_is_tried_once_more_with_a_newer_token() {
    use bearer_proxy::sandbox::ScriptedResponse;
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let api = &sandbox.bank(Persona::QBank).api;
    api.set_responses([ScriptedResponse::Challenge]);
    let mut app = client(proxy.addr).await;
    assert_eq!(app.get("/qbank/v1/balances/42").await.status, 200);
    let seen = api.requests();
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0].token, seen[1].token);
}
