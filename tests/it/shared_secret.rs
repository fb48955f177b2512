//! Replicas that share a token through one Kubernetes Secret, at a bank that keeps one live token.

use tempfile::TempDir;

use self::api_server::ApiServer;
use crate::shared_tokens::{Story, no_request_notices_a_renewal};
use crate::support::{client, soon};

#[path = "../../src/share/kubernetes_store/testing.rs"]
#[expect(dead_code, reason = "the tests of the store use more of it")]
mod api_server;

const SECRET: &str = "bearer-proxy-tokens";

/// Three replicas and their API server.
async fn begin() -> (Story, ApiServer) {
    let (dir, server) = (TempDir::new().unwrap(), ApiServer::start("erp", "canary-sa").await);
    let token = dir.path().join("service_account_token");
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.write(true).create_new(true).open(&token).unwrap();
    std::io::Write::write_all(&mut file, b"canary-sa").unwrap();
    let lines = format!(
        "store = \"kubernetes\"\nurl = \"{}\"\nnamespace = \"erp\"\ntoken.file = {token:?}\n\
         timeouts.operation = \"5s\"",
        server.url(),
    );
    (Story::with_share(dir, &lines).await, server)
}

#[tokio::test]
async fn three_replicas_hold_one_token_and_no_request_notices_a_renewal() {
    let (story, server) = begin().await;
    no_request_notices_a_renewal(&story).await;
    let data = server.data(SECRET);
    assert_eq!(data.len(), 4, "a token, and the check value of name_key: {:?}", data.keys());
    let kept: Vec<u8> =
        data.into_iter().flat_map(|(key, value)| [key.into_bytes(), value].concat()).collect();
    let secret = std::fs::read(story.dir.path().join("sqr_client_secret")).unwrap();
    let id = std::fs::read(story.dir.path().join("sqr_client_id")).unwrap();
    let host = story.bank.auth.token_url().into_bytes();
    for text in [&*secret, &*id, &*host] {
        assert!(!kept.windows(text.len()).any(|window| window == text));
    }
}

#[tokio::test]
async fn without_the_api_server_the_last_leader_goes_on_and_then_offers_its_token() {
    let (story, server) = begin().await;
    let generation = story.one_generation(1).await;
    let shares = story.shares().await;
    let leader = shares.iter().position(|share| share["leads"] == true).unwrap();
    server.stop();
    // Its renewal needs no store, and the others do not renew.
    for replica in 0..3 {
        story.refresh(replica).await;
    }
    soon(story.bank.auth.ledger().wait_answered(2)).await;
    let mut app = client(story.replicas[leader].addr).await;
    assert_eq!(soon(app.get("/v1/x")).await.status, 200);
    // It comes back empty.
    server.lose();
    server.start_again().await;
    assert!(story.one_generation(generation + 1).await > generation);
    for replica in &story.replicas {
        let mut app = client(replica.addr).await;
        assert_eq!(soon(app.get("/v1/x")).await.status, 200);
    }
    assert_eq!(story.bank.auth.ledger().calls().len(), 2);
}

#[tokio::test]
async fn check_live_goes_through_the_secret_and_the_tokens_in_it() {
    let (story, server) = begin().await;
    story.one_generation(1).await;
    let steps = story.live().await;
    let names: Vec<&str> = steps.iter().map(|[name, ..]| &**name).collect();
    let references = ["token", "name_key", "encryption.k"];
    let all = ["server", "dns", "tcp", "login", "watch", "round trip", "clock", "rights"];
    assert_eq!(names, [&references[..], &all[..], &["names", "token bank"]].concat(), "{steps:?}");
    assert!(steps.iter().all(|[_, status, _]| status == "ok"), "{steps:?}");
    assert_eq!(story.bank.auth.ledger().calls().len(), 1, "it revokes the token of no replica");
    server.set_rights(&["watch", "patch"]);
    let steps = story.live().await;
    let [.., [name, status, found]] = &*steps else { panic!("{steps:?}") };
    assert_eq!((&**name, &**status), ("login", "failed"), "{found}");
    assert!(found.contains("to get secrets/bearer-proxy-tokens in the namespace erp"), "{found}");
}
