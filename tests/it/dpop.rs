//! Tokens that are bound to a key (RFC 9449): proofs, nonces, and what an app sees of them.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bearer_proxy::sandbox::{
    AuthOptions, AuthServer, CallOutcome, Persona, ProofFault, RecordedRequest, ScriptedResponse,
    Upstream, UpstreamOptions,
};
use bytes::Bytes;
use http::{Request, Response};
use serde_json::Value;

use crate::support::service::Service;
use crate::support::{Proxy, client, ed25519_jwk, secret_file, soon};
use crate::verbs::verb;

/// A bank that demands proofs with these nonces, and the configuration of a proxy in front of it.
struct Bank {
    auth: AuthServer,
    api: Upstream,
    config: String,
    secrets: tempfile::TempDir,
}

impl Bank {
    /// `dpop` is the line of the credential, `route` further lines of the route.
    async fn start(nonces: [Option<&str>; 2], dpop: &str, route: &str) -> Self {
        let auth = AuthServer::start(Persona::Sqr, AuthOptions::for_persona(Persona::Sqr));
        let auth = auth.await.unwrap();
        let ledgers = vec![auth.ledger().clone()];
        let options = UpstreamOptions { persona: Persona::Sqr, ledgers, port: 0 };
        let api = Upstream::start(options).await.unwrap();
        auth.dpop().demand(nonces[0]);
        api.dpop().demand(nonces[1]);
        let secrets = tempfile::tempdir().unwrap();
        let config = format!(
            r#"version = 1
[server]
listen = "127.0.0.1:0"
replay_buffer = "1KiB"
[admin]
listen = "127.0.0.1:0"
[log]
level = "debug"
[credentials.a]
preset = "sqr"
token_url = "{token_url}"
client_id.file = {id:?}
client_secret.file = {key:?}
{dpop}
[upstreams.a]
url = "{url}"
credential = "a"
mount = "/a"
[[upstreams.a.routes]]
name = "all"
path = "/**"
methods = ["GET", "POST"]
{route}
"#,
            token_url = auth.token_url(),
            url = api.base_url(),
            id = secret_file(secrets.path(), "id", auth.client_id()),
            key = secret_file(secrets.path(), "key", auth.client_secret()),
        );
        Self { auth, api, config, secrets }
    }

    async fn proxy(&self) -> Proxy {
        let proxy = Proxy::start(&self.config).await;
        soon(proxy.wait_ready()).await;
        proxy
    }

    /// The outcomes of the requests that arrived at the API.
    fn faults(&self) -> Vec<Option<ProofFault>> {
        self.api.requests().iter().map(|request| request.proof_fault).collect()
    }
}

const ES256: &str = "dpop.algorithm = \"ES256\"";

fn proof(request: &RecordedRequest) -> &str {
    request.headers["dpop"].to_str().unwrap()
}

/// One part of a proof: 0 is its header, 1 its claims.
fn part(proof: &str, index: usize) -> Value {
    let part = URL_SAFE_NO_PAD.decode(proof.split('.').nth(index).unwrap()).unwrap();
    serde_json::from_slice(&part).unwrap()
}

async fn metric(proxy: &Proxy, name: &str) -> String {
    let text = soon(client(proxy.admin_addr).await.get("/metrics")).await.text();
    let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
    line.unwrap_or_else(|| panic!("{name} is not in: {text}"))
}

#[tokio::test]
async fn each_attempt_proves_the_key_of_its_token() {
    for dpop in [ES256, "dpop = {}", "dpop.algorithm = \"EdDSA\""] {
        let bank = Bank::start([None, None], dpop, "").await;
        let proxy = bank.proxy().await;
        let mut app = client(proxy.addr).await;
        for target in ["/a/one?query=1", "/a/two", "/a/two"] {
            assert_eq!(soon(app.get(target)).await.status, 200, "{dpop}");
        }
        assert_eq!(bank.faults(), [None, None, None]);
        let requests = bank.api.requests();
        let ids: HashSet<_> =
            requests.iter().map(|request| part(proof(request), 1)["jti"].to_string()).collect();
        assert_eq!(ids.len(), 3);
        let htu = &part(proof(&requests[0]), 1)["htu"];
        assert_eq!(*htu, format!("{}/one", bank.api.base_url()));
    }
}

#[tokio::test]
async fn a_nonce_of_each_server_is_learned_and_renewed() {
    let bank = Bank::start([Some("auth-1"), Some("api-1")], ES256, "").await;
    let proxy = bank.proxy().await;
    let calls = bank.auth.ledger().calls();
    assert!(matches!(calls[0].outcome, CallOutcome::Refused(400, _)), "{calls:?}");
    assert!(matches!(calls[1].outcome, CallOutcome::Issued(_)), "{calls:?}");
    let mut app = client(proxy.addr).await;
    let body = [b'x'; 1000];
    let answer = soon(app.request("POST", "/a/pay", &[], &body)).await;
    assert_eq!((answer.status, answer.header("dpop-nonce")), (200, None), "{}", answer.text());
    assert_eq!(bank.faults(), [Some(ProofFault::Nonce), None], "sent again once");
    let requests = bank.api.requests();
    assert!(requests.iter().all(|request| request.body == body.as_slice()));
    assert_eq!(part(proof(&requests[1]), 1)["nonce"], "api-1");
    assert_eq!(soon(app.get("/a/x")).await.status, 200);
    assert_eq!(bank.api.requests().len(), 3, "the nonce is known");
    // A nonce that changes in mid-flight.
    bank.api.dpop().demand(Some("api-2"));
    assert_eq!(soon(app.request("POST", "/a/pay", &[], b"again")).await.status, 200);
    let changed = [Some(ProofFault::Nonce), None];
    assert_eq!(bank.faults()[3..], changed);
    // A nonce that comes with a success is used without being asked for.
    let next = vec![("DPoP-Nonce", "api-3".to_owned())];
    let given = ScriptedResponse::Exactly { status: 200, headers: next, body: "{}".into() };
    bank.api.set_responses([given]);
    let answer = soon(app.get("/a/x")).await;
    assert_eq!((answer.status, answer.header("dpop-nonce")), (200, None));
    // The token server changes its nonce between two token requests.
    bank.auth.dpop().demand(Some("auth-2"));
    let before = bank.auth.ledger().calls().len();
    soon(client(proxy.admin_addr).await.request("POST", "/refresh?credential=a", &[], b"")).await;
    let calls = soon(bank.auth.ledger().wait_calls(before + 2)).await;
    assert!(matches!(calls[before].outcome, CallOutcome::Refused(400, _)), "{calls:?}");
    assert_eq!(part(calls[before + 1].headers["dpop"].to_str().unwrap(), 1)["nonce"], "auth-2");
    let retries = "bearer_proxy_dpop_nonce_retries_total{route=\"all\",upstream=\"a\"} 2";
    assert_eq!(metric(&proxy, "bearer_proxy_dpop_nonce_retries_total").await, retries);
    let refused = metric(&proxy, "bearer_proxy_upstream_unauthorized_total").await;
    assert!(refused.ends_with(" 0"), "{refused}");
}

#[tokio::test]
async fn a_request_that_cannot_be_repeated_whole_gets_the_401() {
    let bank = Bank::start([None, Some("api-1")], ES256, "").await;
    let proxy = bank.proxy().await;
    let mut app = client(proxy.addr).await;
    let large = [b'x'; 1025];
    let answer = soon(app.request("POST", "/a/pay", &[], &large)).await;
    assert_eq!((answer.status, answer.header("dpop-nonce")), (401, None));
    assert_eq!(bank.faults(), [Some(ProofFault::Nonce)]);
    assert_eq!(soon(app.request("POST", "/a/pay", &[], &large)).await.status, 200, "learned");
}

#[tokio::test]
async fn a_route_may_pass_the_401_and_an_upstream_that_insists_is_asked_twice() {
    let off = "retry = { dpop_nonce = false }";
    for (route, sent) in [(off, 1), ("", 2)] {
        let bank = Bank::start([None, None], ES256, route).await;
        let proxy = bank.proxy().await;
        let insists = || ScriptedResponse::Exactly {
            status: 401,
            headers: vec![
                ("WWW-Authenticate", "DPoP error=\"use_dpop_nonce\"".to_owned()),
                ("DPoP-Nonce", "another".to_owned()),
            ],
            body: "{}".into(),
        };
        bank.api.set_responses([insists(), insists(), insists()]);
        let mut app = client(proxy.addr).await;
        assert_eq!(soon(app.request("POST", "/a/pay", &[], b"x")).await.status, 401, "{route}");
        assert_eq!(bank.api.requests().len(), sent, "{route}");
    }
}

#[tokio::test]
async fn a_rejected_token_is_renewed_and_the_proof_with_it() {
    let bank = Bank::start([None, Some("api-1")], ES256, "").await;
    let proxy = bank.proxy().await;
    let mut app = client(proxy.addr).await;
    bank.api.set_responses([ScriptedResponse::Challenge]);
    // The first answer rejects the token, the second asks the newer one for a nonce.
    assert_eq!(soon(app.get("/a/x")).await.status, 200);
    let requests = bank.api.requests();
    assert!(requests.len() >= 2, "{requests:?}");
    let last = requests.last().unwrap();
    assert_eq!(last.proof_fault, None);
    assert_ne!(last.token, requests[0].token);
    let proofs: HashSet<_> = requests.iter().map(|request| proof(request).to_owned()).collect();
    assert_eq!(proofs.len(), requests.len(), "none was sent twice");
    // An unsafe request with a rejected token is not repeated, as without DPoP.
    bank.api.set_responses([ScriptedResponse::Challenge]);
    let before = bank.api.requests().len();
    assert_eq!(soon(app.request("POST", "/a/x", &[], b"x")).await.status, 401);
    assert_eq!(bank.api.requests().len(), before + 1);
}

#[tokio::test]
async fn another_connection_means_another_proof() {
    let bank = Bank::start([None, None], ES256, "").await;
    let proxy = bank.proxy().await;
    let mut app = client(proxy.addr).await;
    assert_eq!(soon(app.get("/a/x")).await.status, 200);
    bank.api.set_responses([ScriptedResponse::DropConnection]);
    assert_eq!(soon(app.get("/a/x")).await.status, 200);
    let requests = bank.api.requests();
    assert_eq!(requests.len(), 3);
    assert_ne!(proof(&requests[1]), proof(&requests[2]));
}

#[tokio::test]
async fn an_apps_own_proof_never_arrives() {
    let bank = Bank::start([None, None], ES256, "").await;
    let proxy = bank.proxy().await;
    let mut app = client(proxy.addr).await;
    let own = [
        ("DPoP", "mine"),
        ("dpop-", "mine"),
        ("HTTP_DPOP", "mine"),
        ("DPoP_Nonce", "mine"),
        ("Connection", "dpop"),
    ];
    let answer = soon(app.request("GET", "/a/x", &own, b"")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = bank.api.requests().pop().unwrap();
    assert_eq!(request.headers.get_all("dpop").iter().count(), 1);
    let arrived = |value: &http::HeaderValue| value.as_bytes() == b"mine";
    assert!(!request.headers.values().any(arrived), "{:?}", request.headers);
}

#[tokio::test]
async fn echoes_of_token_and_proof_are_redacted() {
    let bank = Bank::start([None, None], ES256, "").await;
    let echo = Service::start(None, |request: &Request<Bytes>| {
        let [token, proof] = ["authorization", "dpop"].map(|name| request.headers()[name].clone());
        let answer = Response::builder().header("x-token", token).header("x-proof", proof);
        answer.header("dpop-nonce", "secret-nonce").body(String::new()).unwrap()
    })
    .await;
    let config = bank.config.replace(&bank.api.base_url(), &format!("http://{}", echo.addr));
    let proxy = Proxy::start(&config).await;
    soon(proxy.wait_ready()).await;
    let answer = soon(client(proxy.addr).await.get("/a/x")).await;
    assert_eq!(answer.header("x-token"), Some("[redacted]"));
    assert_eq!(answer.header("x-proof"), Some("[redacted]"));
    assert_eq!(answer.header("dpop-nonce"), None);
}

#[tokio::test]
async fn routes_without_dpop_do_not_forward_a_proof_either() {
    let bank = Bank::start([None, None], "", "").await;
    let plain = AuthServer::start(Persona::Sqr, AuthOptions::for_persona(Persona::Sqr)).await;
    let plain = plain.unwrap();
    let ledgers = vec![plain.ledger().clone()];
    let options = UpstreamOptions { persona: Persona::Sqr, ledgers, port: 0 };
    let api = Upstream::start(options).await.unwrap();
    secret_file(bank.secrets.path(), "id", plain.client_id());
    secret_file(bank.secrets.path(), "key", plain.client_secret());
    let config = bank.config.replace(&bank.auth.base_url(), &plain.base_url());
    let proxy = Proxy::start(&config.replace(&bank.api.base_url(), &api.base_url())).await;
    soon(proxy.wait_ready()).await;
    let mut app = client(proxy.addr).await;
    let answer = soon(app.request("GET", "/a/x", &[("DPoP", "mine")], b"")).await;
    assert_eq!(answer.status, 200);
    let request = api.requests().pop().unwrap();
    assert!(!request.headers.contains_key("dpop"), "{:?}", request.headers);
}

#[tokio::test]
async fn a_token_for_anybody_is_refused() {
    let bank = Bank::start([None, None], ES256, "").await;
    // A server that ignores proofs, and issues tokens of type Bearer.
    let plain = AuthServer::start(Persona::Sqr, AuthOptions::for_persona(Persona::Sqr)).await;
    let plain = plain.unwrap();
    secret_file(bank.secrets.path(), "id", plain.client_id());
    secret_file(bank.secrets.path(), "key", plain.client_secret());
    let proxy = Proxy::start(&bank.config.replace(&bank.auth.base_url(), &plain.base_url())).await;
    let said = |log: &str| log.contains("its token type is not DPoP").then_some(());
    soon(proxy.wait_log(said)).await;
    let answer = soon(client(proxy.addr).await.get("/a/x")).await;
    assert_eq!(answer.json()["code"], "token_unavailable");
    assert!(bank.api.requests().is_empty());
}

#[tokio::test]
async fn a_server_that_demands_proofs_says_so_without_them() {
    let bank = Bank::start([None, None], "", "").await;
    let proxy = Proxy::start(&bank.config).await;
    let said = |log: &str| log.contains("invalid_dpop_proof").then_some(());
    soon(proxy.wait_log(said)).await;
}

#[tokio::test]
async fn a_key_is_replaced_without_a_restart() {
    let pem = || {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        pair.serialize_pem()
    };
    let bank = Bank::start([None, None], "dpop.key.file = \"KEY\"", "").await;
    let key = secret_file(bank.secrets.path(), "dpop", &pem());
    let config = bank.config.replace("KEY", &key.display().to_string());
    let proxy = Proxy::start(&config).await;
    soon(proxy.wait_ready()).await;
    let mut app = client(proxy.addr).await;
    assert_eq!(soon(app.get("/a/x")).await.status, 200);
    secret_file(bank.secrets.path(), "dpop", &pem());
    assert_eq!(soon(app.get("/a/x")).await.status, 200, "the token keeps its key");
    bank.api.set_responses([ScriptedResponse::Challenge]);
    assert_eq!(soon(app.get("/a/x")).await.status, 200);
    assert!(bank.faults().iter().all(Option::is_none), "{:?}", bank.faults());
    let requests = bank.api.requests();
    let jwk = |index: usize| part(proof(&requests[index]), 0)["jwk"].clone();
    assert_eq!(jwk(0), jwk(1));
    assert_ne!(jwk(0), jwk(requests.len() - 1));
}

#[tokio::test]
async fn a_key_may_be_a_jwk() {
    let bank =
        Bank::start([None, None], "dpop = { algorithm = \"EdDSA\", key.file = \"KEY\" }", "").await;
    let (jwk, public) = ed25519_jwk();
    let key = secret_file(bank.secrets.path(), "dpop", &jwk);
    let proxy = Proxy::start(&bank.config.replace("KEY", &key.display().to_string())).await;
    soon(proxy.wait_ready()).await;
    assert_eq!(soon(client(proxy.addr).await.get("/a/x")).await.status, 200);
    let request = bank.api.requests().pop().unwrap();
    let x = part(proof(&request), 0)["jwk"]["x"].clone();
    assert_eq!(x, URL_SAFE_NO_PAD.encode(public));
}

#[tokio::test]
async fn neither_proofs_nor_nonces_are_in_log_or_metrics() {
    let bank = Bank::start([Some("nonce-canary-1"), Some("nonce-canary-2")], ES256, "").await;
    let proxy = bank.proxy().await;
    let mut app = client(proxy.addr).await;
    for _ in 0..2 {
        assert_eq!(soon(app.request("POST", "/a/x", &[], b"x")).await.status, 200);
    }
    let mut secrets = vec!["nonce-canary".to_owned()];
    for request in bank.api.requests() {
        secrets.extend(proof(&request).split('.').map(str::to_owned));
        secrets.extend(request.token);
    }
    for call in bank.auth.ledger().calls() {
        secrets.extend(call.headers["dpop"].to_str().unwrap().split('.').map(str::to_owned));
    }
    let metrics = soon(client(proxy.admin_addr).await.get("/metrics")).await.text();
    let status = soon(client(proxy.admin_addr).await.get("/status")).await.text();
    for secret in secrets {
        for text in [&proxy.log(), &metrics, &status] {
            assert!(!text.contains(&secret), "{secret} is in {text}");
        }
    }
}

#[tokio::test]
async fn check_live_tells_the_causes_apart() {
    let check = async |bank: &Bank, config: &str| {
        std::fs::write(bank.secrets.path().join("bearer-proxy.toml"), config).unwrap();
        let ended = verb(bank.secrets.path(), &["check", "--live"]).await;
        (ended.code, ended.stdout + &ended.stderr)
    };
    let bank = Bank::start([Some("auth-1"), None], ES256, "").await;
    let (_, said) = check(&bank, &bank.config).await;
    assert!(said.contains("the server asks for a nonce"), "{said}");
    let without = bank.config.replace(ES256, "");
    let (code, said) = check(&bank, &without).await;
    assert!(code == 3 && said.contains("invalid_dpop_proof"), "{said}");
    assert!(said.contains("clock") && said.contains("dpop of the credential"), "{said}");
    let key = secret_file(bank.secrets.path(), "dpop", "no key");
    let keyed = bank.config.replace(ES256, &format!("dpop.key.file = {key:?}"));
    let (code, said) = check(&bank, &keyed).await;
    assert!(code == 3 && said.contains("dpop.key"), "{said}");
    let plain = AuthServer::start(Persona::Sqr, AuthOptions::for_persona(Persona::Sqr)).await;
    let plain = plain.unwrap();
    secret_file(bank.secrets.path(), "id", plain.client_id());
    secret_file(bank.secrets.path(), "key", plain.client_secret());
    let bearer = bank.config.replace(&bank.auth.base_url(), &plain.base_url());
    let (code, said) = check(&bank, &bearer).await;
    assert!(code == 3 && said.contains("token type is not DPoP"), "{said}");
}
