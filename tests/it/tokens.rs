//! A token's life as requests see it.

use std::time::Duration;

use bearer_proxy::sandbox::{Fault, Persona, Quirk, Sandbox};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::forwarding::sidecar;
use crate::sandbox::ask;
use crate::support::{Proxy, client, config, soon};

/// A proxy in front of the pretended vendors, with further keys for one credential.
async fn with_keys(persona: Persona, life: u64, quirk: Quirk, keys: &str) -> Story {
    let sandbox = Sandbox::start(Duration::from_secs(life)).await.unwrap();
    let auth = &sandbox.bank(persona).auth;
    auth.set_quirk(quirk);
    let secrets = TempDir::new().unwrap();
    let table = format!("[credentials.{}]\n", persona.mount());
    let keys = keys.replace("REVOCATION", &auth.revocation_url());
    let text = config(&sandbox, &secrets).replace(&table, &format!("{table}{keys}\n"));
    let proxy = Proxy::start(&text).await;
    Story { sandbox, proxy, persona, _secrets: secrets }
}

struct Story {
    sandbox: Sandbox,
    proxy: Proxy,
    persona: Persona,
    _secrets: TempDir,
}

impl Story {
    fn auth(&self) -> &bearer_proxy::sandbox::AuthServer {
        &self.sandbox.bank(self.persona).auth
    }

    async fn metric(&self, name: &str) -> Option<String> {
        let text = client(self.proxy.admin_addr).await.get("/metrics").await.text();
        let of = format!("credential=\"{}\"", self.persona.mount());
        let line = text.lines().find(|line| line.starts_with(name) && line.contains(&of))?;
        line.rsplit(' ').next().map(str::to_owned)
    }
}

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
    assert_eq!(sandbox.bank(Persona::Sqr).api.requests().len(), 0);
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

#[tokio::test]
async fn a_forced_refresh_brings_a_new_token() {
    let story = soon(with_keys(Persona::DataCrunch, 60, Quirk::None, "")).await;
    soon(story.proxy.wait_ready()).await;
    let mut admin = client(story.proxy.admin_addr).await;
    let answer = admin.request("POST", "/refresh?credential=datacrunch", &[], b"").await;
    assert_eq!((answer.status, answer.json()["tokens"].as_u64()), (202, Some(1)));
    let issued = soon(story.auth().ledger().wait_issued(2)).await;
    let api = &story.sandbox.bank(Persona::DataCrunch).api;
    let mut app = client(story.proxy.addr).await;
    soon(async {
        while api.requests().last().and_then(|seen| seen.token.clone())
            != Some(issued[1].token.clone())
        {
            assert_eq!(app.get("/datacrunch/v1/balance").await.status, 200);
        }
    })
    .await;
    let page = [("origin", "http://evil.example")];
    assert_eq!(
        admin.request("POST", "/refresh?credential=datacrunch", &page, b"").await.status,
        403
    );
    assert_eq!(admin.request("POST", "/refresh?credential=nobody", &[], b"").await.status, 404);
}

#[tokio::test]
async fn a_lazy_credential_costs_nothing_until_it_is_used() {
    let story = soon(with_keys(Persona::Sqr, 60, Quirk::None, "lazy = \"10m\"")).await;
    soon(story.proxy.wait_ready()).await;
    assert_eq!(story.auth().ledger().calls().len(), 0);
    let mut app = client(story.proxy.addr).await;
    for _ in 0..3 {
        let answer = app.request("POST", "/sqr/v1/user-status", &[], b"{}").await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(story.auth().ledger().calls().len(), 1);
}

#[tokio::test]
async fn a_spent_budget_is_a_code_of_its_own() {
    let story = soon(with_keys(Persona::Sqr, 2, Quirk::None, "token_budget = 1")).await;
    soon(story.proxy.wait_ready()).await;
    let mut app = client(story.proxy.addr).await;
    let last = soon(async {
        loop {
            let answer = app.request("POST", "/sqr/v1/user-status", &[], b"{}").await;
            if answer.status != 200 {
                return answer;
            }
        }
    });
    let last = last.await;
    assert_eq!((last.status, last.json()["code"].as_str()), (503, Some("token_budget")));
    assert!(last.header("retry-after").unwrap().parse::<u64>().unwrap() > 3000);
    assert_eq!(story.auth().ledger().calls().len(), 1);
    assert_eq!(story.metric("bearer_proxy_token_budget_left").await.as_deref(), Some("0"));
    assert_eq!(story.sandbox.bank(Persona::Sqr).api.expired_tokens(), 0);
}

#[tokio::test]
async fn a_server_that_repeats_its_token_is_not_asked_without_end() {
    let story = soon(with_keys(Persona::Sqr, 6, Quirk::SameToken, "")).await;
    soon(story.proxy.wait_ready()).await;
    let mut app = client(story.proxy.addr).await;
    soon(async {
        while story.auth().ledger().issued().len() < 2 {
            app.request("POST", "/sqr/v1/user-status", &[], b"{}").await;
        }
    })
    .await;
    let calls = story.auth().ledger().calls().len();
    assert!(calls <= 6, "{calls} calls for two tokens of 6 s");
    assert_eq!(story.sandbox.bank(Persona::Sqr).api.expired_tokens(), 0);
}

#[tokio::test]
async fn another_instance_that_revokes_our_token_is_named_and_not_fought() {
    let story = soon(with_keys(Persona::DataCrunch, 60, Quirk::OneLiveToken, "")).await;
    soon(story.proxy.wait_ready()).await;
    let mut app = client(story.proxy.addr).await;
    for _ in 0..3 {
        assert_eq!(ask(story.auth(), "").await.status, 200);
        soon(app.get("/datacrunch/v1/balance")).await;
    }
    soon(story.proxy.wait_log(|line| line.contains("contended").then_some(()))).await;
    assert_eq!(story.metric("bearer_proxy_token_contended_total").await.as_deref(), Some("1"));
    let status = client(story.proxy.admin_addr).await.get("/status").await.json();
    let tokens = status["tokens"].as_array().unwrap();
    let contended = tokens.iter().find(|token| token["contended"] == true).unwrap();
    assert_eq!(contended["contended_cause"], "another_instance");
    assert!(contended["hint"].as_str().unwrap().contains("a client id of its own"), "{contended}");
    let calls = story.auth().ledger().calls().len();
    assert_eq!(soon(app.get("/datacrunch/v1/balance")).await.status, 401, "it passes unchanged");
    assert_eq!(story.auth().ledger().calls().len(), calls);
}

#[tokio::test]
async fn a_refresh_token_whose_answer_is_lost_is_not_shown_twice() {
    let story = soon(with_keys(Persona::DataCrunch, 3, Quirk::LosesRefreshed, "")).await;
    soon(story.proxy.wait_ready()).await;
    let calls = soon(story.auth().ledger().wait_answered(3)).await;
    let refreshed: Vec<bool> = calls
        .iter()
        .map(|call| String::from_utf8_lossy(&call.body).contains("refresh_token"))
        .collect();
    assert_eq!(refreshed[..3], [false, true, false]);
    let mut app = client(story.proxy.addr).await;
    assert_eq!(soon(app.get("/datacrunch/v1/balance")).await.status, 200);
}

#[tokio::test]
async fn a_page_of_html_is_the_servers_fault_and_not_our_logins() {
    let story = soon(with_keys(Persona::Sqr, 60, Quirk::HtmlErrors, "")).await;
    soon(story.proxy.wait_ready()).await;
    let secret = story.auth().client_secret().to_owned();
    story.auth().accept_secrets(["another".to_owned()]);
    let mut admin = client(story.proxy.admin_addr).await;
    admin.request("POST", "/refresh?credential=sqr", &[], b"").await;
    soon(story.proxy.wait_log(|line| line.contains("renewal failed").then_some(()))).await;
    assert!(!story.proxy.log().contains("html"));
    story.auth().accept_secrets([secret]);
    let issued = story.auth().ledger().issued().len();
    admin.request("POST", "/refresh?credential=sqr", &[], b"").await;
    soon(story.auth().ledger().wait_issued(issued + 1)).await;
}

#[tokio::test]
async fn scopes_that_are_not_granted_are_told_or_refused() {
    for (keys, status) in [("", 200), ("missing_scopes = \"refuse\"", 503)] {
        let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
        let secrets = TempDir::new().unwrap();
        let text = config(&sandbox, &secrets)
            .replace("[credentials.sqr]\n", &format!("[credentials.sqr]\n{keys}\n"))
            .replace("read:users", "read:users\", \"delete:users");
        let proxy = Proxy::start(&text).await;
        soon(proxy.wait_ready()).await;
        let mut app = client(proxy.addr).await;
        let answer = soon(app.request("POST", "/sqr/v1/user-status", &[], b"{}")).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        let metrics = client(proxy.admin_addr).await.get("/metrics").await.text();
        let gauge = "bearer_proxy_token_missing_scopes{credential=\"sqr\",scopes=\"delete:users read:users\"} 1";
        assert!(metrics.contains(gauge), "{metrics}");
        assert_eq!(answer.text().contains("delete:users"), status == 503);
        assert_eq!(sandbox.bank(Persona::Sqr).api.requests().len(), usize::from(status == 200));
    }
}

#[tokio::test]
async fn tokens_are_revoked_when_it_leaves_in_peace() {
    let keys = "revocation_url = \"REVOCATION\"";
    let mut story = soon(with_keys(Persona::DataCrunch, 60, Quirk::None, keys)).await;
    soon(story.proxy.wait_ready()).await;
    story.proxy.signal(Signal::TERM);
    assert!(soon(story.proxy.wait_exit()).await.success());
    let issued = story.auth().ledger().issued();
    assert!(issued.iter().all(|token| token.revoked && token.refresh_token.is_none()));
}

#[tokio::test]
async fn one_token_can_serve_all_routes() {
    let story = soon(with_keys(Persona::QBank, 60, Quirk::None, "tokens = \"union\"")).await;
    soon(story.proxy.wait_ready()).await;
    let mut app = client(story.proxy.addr).await;
    for target in ["/qbank/v1/balances/42", "/qbank/v1/transactions/a", "/qbank/v1/payments/ach/7"]
    {
        assert_eq!(soon(app.get(target)).await.status, 200, "{target}");
    }
    let issued = story.auth().ledger().issued();
    assert_eq!((issued.len(), issued[0].scopes.len()), (1, 3));
}
