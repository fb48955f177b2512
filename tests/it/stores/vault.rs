//! Vault as a fake: what OpenBao cannot be brought to say, and the requests as they are sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{bank, config, echoed_id};
use crate::support::service::Service;
use crate::support::{Proxy, issued, secret_file, soon};

/// A Vault that answers as it is told, and the requests that it got.
struct FakeVault {
    service: Service,
    state: Arc<Mutex<State>>,
    /// The number of requests.
    seen: watch::Receiver<usize>,
}

#[derive(Default)]
struct State {
    /// Answers by method and path; others are 404.
    answers: BTreeMap<String, (u16, Value)>,
    /// Each request: method and path, namespace, token, body.
    requests: Vec<(String, String, String, Value)>,
}

impl FakeVault {
    async fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let (told, seen) = watch::channel(0);
        let answer = move |request: &Request<Bytes>| {
            let answer = answer(&mut shared.lock().unwrap(), request);
            told.send_modify(|count| *count += 1);
            answer
        };
        Self { service: Service::start(None, answer).await, state, seen }
    }

    fn says(&self, request: &str, status: u16, body: Value) {
        self.state.lock().unwrap().answers.insert(request.to_owned(), (status, body));
    }

    fn count(&self, wanted: &str) -> usize {
        self.state.lock().unwrap().requests.iter().filter(|request| request.0 == wanted).count()
    }

    /// Waits until it got this request so many times.
    async fn wait(&self, wanted: &str, count: usize) {
        let mut seen = self.seen.clone();
        let counted = seen.wait_for(|_| self.count(wanted) >= count);
        soon(counted).await.unwrap();
    }

    /// Lets a login at this method bring a token.
    fn logs_in(&self, method: &str, lease: u64) {
        let auth =
            json!({ "client_token": "hvs.canary", "lease_duration": lease, "renewable": true });
        self.says(&format!("POST /v1/auth/{method}/login"), 200, json!({ "auth": auth }));
    }

    /// Puts a secret in place.
    fn holds(&self, secret: &str) {
        let fields = json!({ "client_secret": secret, "other": "canary", "port": 8200 });
        let metadata = json!({ "version": 1, "destroyed": false, "deletion_time": "" });
        let data = json!({ "data": { "data": fields, "metadata": metadata } });
        self.says("GET /v1/kv/erp/data/bank", 200, data);
    }

    /// `[vault]` with this login.
    fn section(&self, login: &str) -> String {
        let addr = self.service.addr;
        format!("[vault]\naddress = \"http://{addr}\"\nnamespace = \"banking\"\n{login}\n")
    }
}

fn answer(state: &mut State, request: &Request<Bytes>) -> Response<String> {
    let field = |name: &str| {
        let value = request.headers().get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default().to_owned()
    };
    assert_eq!(field("x-vault-request"), "true");
    let target = format!("{} {}", request.method(), request.uri());
    let body = serde_json::from_slice(request.body()).unwrap_or_default();
    let (namespace, token) = (field("x-vault-namespace"), field("x-vault-token"));
    state.requests.push((target.clone(), namespace, token, body));
    let nothing = (404, json!({ "errors": [] }));
    let (status, body) = state.answers.get(&target).unwrap_or(&nothing);
    Response::builder().status(*status).body(body.to_string()).unwrap()
}

const REFERENCE: &str =
    "vault = { mount = \"kv/erp\", path = \"bank\", field = \"client_secret\", cache = \"1ms\" }";

#[tokio::test]
async fn a_pod_logs_in_with_its_service_account_and_renews_its_token() {
    let (bank, vault) = (bank().await, FakeVault::start().await);
    vault.logs_in("k8s/erp", 2);
    vault.holds(bank.auth.client_secret());
    let renewed =
        json!({ "auth": { "client_token": "hvs.canary", "lease_duration": 2, "renewable": true } });
    vault.says("POST /v1/auth/token/renew-self", 200, renewed);
    let dir = tempfile::tempdir().unwrap();
    let account = secret_file(dir.path(), "token", "service-account-canary\n");
    let login =
        format!("kubernetes = {{ role = \"erp\", mount = \"k8s/erp\", token.file = {account:?} }}");
    let text = config(&bank, &vault.section(&login), &echoed_id(&bank), REFERENCE);
    let proxy = Proxy::start(&text).await;
    proxy.wait_ready().await;
    vault.wait("POST /v1/auth/token/renew-self", 2).await;
    issued(&bank, 2).await;
    assert_eq!(vault.count("POST /v1/auth/k8s/erp/login"), 1, "its token stays alive");
    let sent = vault.state.lock().unwrap().requests.clone();
    let login = json!({ "role": "erp", "jwt": "service-account-canary" });
    assert_eq!((&sent[0].2, &sent[0].3), (&String::new(), &login));
    assert!(sent.iter().all(|request| request.1 == "banking"));
    assert!(sent[1..].iter().all(|request| request.2 == "hvs.canary"));

    // The token ends and a new login brings the next one.
    vault.says("POST /v1/auth/token/renew-self", 403, json!({ "errors": ["permission denied"] }));
    vault.wait("POST /v1/auth/k8s/erp/login", 2).await;
    issued(&bank, 1).await;
    assert!(!proxy.log().contains("canary"), "{}", proxy.log());
}

#[tokio::test]
async fn a_token_is_read_from_its_source_and_its_end_is_told() {
    let (bank, vault) = (bank().await, FakeVault::start().await);
    vault.holds(bank.auth.client_secret());
    let lookup = json!({ "data": { "ttl": 3, "renewable": false } });
    vault.says("GET /v1/auth/token/lookup-self", 200, lookup);
    let dir = tempfile::tempdir().unwrap();
    let file = secret_file(dir.path(), "token", "first-canary\n");
    let section = vault.section(&format!("token.file = {file:?}"));
    let proxy = Proxy::start(&config(&bank, &section, &echoed_id(&bank), REFERENCE)).await;
    proxy.wait_ready().await;
    let ends = "the token of [vault] cannot be renewed and ends soon";
    proxy.wait_log(|line| line.contains(ends).then_some(())).await;
    let used = || vault.state.lock().unwrap().requests.last().unwrap().2.clone();
    assert_eq!(used(), "first-canary");
    secret_file(dir.path(), "token", "second-canary");
    issued(&bank, 2).await;
    assert_eq!(used(), "second-canary");
    assert!(!proxy.log().contains("canary"), "{}", proxy.log());
}

#[tokio::test]
async fn the_answers_of_a_vault_are_told_in_words() {
    let (bank, vault) = (bank().await, FakeVault::start().await);
    let dir = tempfile::tempdir().unwrap();
    let secret = secret_file(dir.path(), "secret_id", "secret-id-canary");
    let login = format!("approle = {{ role_id = \"erp\", secret_id.file = {secret:?} }}");
    let check = async |reference: &str, expected: Result<(), &str>| {
        let text = config(&bank, &vault.section(&login), &echoed_id(&bank), reference);
        super::check(&text, expected).await;
    };
    let refused = |text: &str| json!({ "errors": [format!("{text} canary")] });
    vault.says("POST /v1/auth/approle/login", 400, refused("invalid role or secret ID"));
    check(REFERENCE, Err("refused the login at auth/approle: role_id or secret_id is wrong")).await;
    vault.says("POST /v1/auth/approle/login", 404, refused("no handler for route"));
    check(REFERENCE, Err("nothing is mounted at `auth/approle`")).await;
    vault.says("POST /v1/auth/approle/login", 503, refused("Vault is sealed"));
    check(REFERENCE, Err("was refused: 503")).await;
    vault.says("GET /v1/sys/seal-status", 200, json!({ "initialized": false, "sealed": true }));
    check(REFERENCE, Err("Vault is not initialized; run `vault operator init`")).await;
    vault.says("GET /v1/sys/seal-status", 200, json!({ "initialized": true, "sealed": true }));
    check(REFERENCE, Err("Vault is sealed; have it unsealed")).await;
    vault.says("POST /v1/auth/approle/login", 307, json!({}));
    check(REFERENCE, Err("name the active node")).await;
    vault.says("POST /v1/auth/approle/login", 429, refused("rate limit"));
    check(REFERENCE, Err("was refused: 429")).await;
    vault.says("POST /v1/auth/approle/login", 200, json!("canary"));
    check(REFERENCE, Err("Vault gave an answer that cannot be read")).await;

    vault.logs_in("approle", 3600);
    check(REFERENCE, Err("field client_secret of Vault secret kv/erp/bank does not exist")).await;
    vault.holds(bank.auth.client_secret());
    check(REFERENCE, Ok(())).await;
    let port = REFERENCE.replace("client_secret", "port");
    check(&port, Err("field port of Vault secret kv/erp/bank is not a string")).await;
    let absent = REFERENCE.replace("client_secret", "password");
    check(&absent, Err("the secret has the fields client_secret, other, port")).await;
    vault.says("GET /v1/kv/erp/data/bank", 404, refused("namespace not found"));
    check(REFERENCE, Err("Vault has no such namespace")).await;
    vault.says("GET /v1/kv/erp/data/bank", 403, refused("permission denied"));
    let denied = "path \"kv/erp/data/bank\" { capabilities = [\"read\"] }";
    check(REFERENCE, Err(denied)).await;
    std::fs::remove_file(&secret).unwrap();
    check(REFERENCE, Err("cannot be asked for without a login: file ")).await;
}
