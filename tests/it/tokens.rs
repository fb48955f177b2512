//! A token's life as requests see it.

use std::time::Duration;

use bearer_proxy::sandbox::{Fault, Persona, Sandbox};
use tempfile::TempDir;

use crate::forwarding::sidecar;
use crate::support::{Proxy, client, config, soon};

#[tokio::test]
async fn forty_first_requests_share_one_call() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let auth = &sandbox.bank(Persona::DataCrunch).auth;
    auth.set_faults([Fault::Hold]);
    let secrets = TempDir::new().unwrap();
    let proxy = Proxy::start(&config(&sandbox, &secrets)).await;
    soon(auth.ledger().wait_calls(1)).await;
    let asking: Vec<_> = (0..40)
        .map(|_| {
            let addr = proxy.addr;
            tokio::spawn(
                async move { client(addr).await.get("/datacrunch/v1/balance").await.status },
            )
        })
        .collect();
    auth.release(1);
    for one in asking {
        assert_eq!(soon(one).await.unwrap(), 200);
    }
    assert_eq!(auth.ledger().calls().len(), 1);
}

#[tokio::test]
async fn without_a_token_the_answer_is_503_and_nothing_is_sent() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    sandbox.bank(Persona::Sqr).auth.set_down(true);
    let secrets = TempDir::new().unwrap();
    let proxy = Proxy::start(&config(&sandbox, &secrets)).await;
    let mut app = client(proxy.addr).await;
    let answer = soon(app.request("POST", "/sqr/v1/user-status", &[], b"{}")).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("token_unavailable")));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(sandbox.bank(Persona::Sqr).api.seen().len(), 0);
    sandbox.bank(Persona::Sqr).auth.set_down(false);
    soon(proxy.wait_ready()).await;
    assert_eq!(app.request("POST", "/sqr/v1/user-status", &[], b"{}").await.status, 200);
}

#[tokio::test]
async fn short_tokens_are_renewed_before_they_end() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(3))).await;
    let auth = &sandbox.bank(Persona::DataCrunch).auth;
    let mut app = client(proxy.addr).await;
    while auth.ledger().issued().len() < 3 {
        assert_eq!(soon(app.get("/datacrunch/v1/balance")).await.status, 200);
    }
    let api = &sandbox.bank(Persona::DataCrunch).api;
    assert_eq!((api.expired_tokens(), api.missing_tokens()), (0, 0));
}

#[tokio::test]
async fn neither_secret_nor_token_is_in_any_output() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    sandbox.bank(Persona::QBank).auth.set_faults([Fault::Malformed, Fault::InvalidClient]);
    let mut app = client(proxy.addr).await;
    app.request("POST", "/qbank/v1/payments/ach?secret=query", &[], b"{}").await;
    let metrics = client(proxy.admin_addr).await.get("/metrics").await.text().to_owned();
    let status = client(proxy.admin_addr).await.get("/status").await.text().to_owned();
    let output = format!("{}{metrics}{status}", proxy.log());
    for bank in sandbox.banks() {
        assert!(!output.contains(bank.auth.client_secret()));
        for issued in bank.auth.ledger().issued() {
            assert!(!output.contains(&issued.token));
        }
    }
    assert!(!output.contains("secret=query"));
    assert!(metrics.contains("bearer_proxy_token_usable{credential=\"qbank\""));
}
