//! Stories against an authorization server that none of us wrote: npm `oidc-provider`, which
//! `.ci/run` installs. Where it is missing they are skipped, and say so.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bearer_proxy::sandbox::{Persona, ScriptedResponse, Upstream, UpstreamOptions};
use http::Response;
use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::service::{ClientLeaf, Service};
use crate::support::tls::Authority;
use crate::support::{Proxy, client, collect, secret_file, soon};
use crate::verbs::verb;

const SCOPE: &str = "balances.read";
/// Each of these characters means something else where it is not encoded.
const ID: &str = "app+%&: x";
const SECRET: &str = "s+%&:= y\"z and at least 32 bytes for HS256";

/// The server's program beside its modules, if these are installed.
static PROGRAM: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oidc-provider");
    if !home.join("node_modules/oidc-provider").is_dir() {
        let why = "skipped: oidc-provider is not installed; .ci/run does it, where there is npm";
        let _ = writeln!(std::io::stderr(), "{why}");
        return None;
    }
    let program = home.join("oidc.mjs");
    std::fs::write(&program, include_str!("oidc_provider/oidc.mjs")).unwrap();
    Some(program)
});

/// A running server; killed when dropped.
struct Server {
    issuer: String,
    told: watch::Receiver<Vec<String>>,
    child: Child,
}

impl Server {
    /// Starts one that knows these clients.
    async fn start(clients: Value) -> Option<Self> {
        Self::start_in(clients, None).await
    }

    /// Starts one that speaks TLS with the files of a folder, if there is one.
    async fn start_in(clients: Value, folder: Option<&Path>) -> Option<Self> {
        let mut command = Command::new("node");
        command.arg(PROGRAM.as_ref()?).arg(clients.to_string()).args(folder);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let told = collect(child.stdout.take().unwrap());
        let mut server = Self { issuer: String::new(), told, child };
        let up = server.wait_told("up", 1).await;
        server.issuer = up.split_once(' ').unwrap().1.to_owned();
        Some(server)
    }

    /// Waits until it has said a word so many times; gives the last line.
    async fn wait_told(&self, word: &str, times: usize) -> String {
        let mut told = self.told.clone();
        let of_word = |lines: &Vec<String>| {
            lines.iter().filter(|line| line.starts_with(word)).nth(times - 1).cloned()
        };
        let found = soon(told.wait_for(|lines| of_word(lines).is_some())).await;
        of_word(&found.unwrap()).unwrap()
    }

    /// Whether it still knows a token (RFC 7662).
    async fn is_active(&self, token: &str) -> bool {
        let addr: SocketAddr = self.issuer.strip_prefix("http://").unwrap().parse().unwrap();
        let body = format!("client_id=judge&client_secret=judge&token={token}");
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let path = "/token/introspection";
        let answer = client(addr).await.request("POST", path, &form, body.as_bytes()).await;
        answer.json()["active"] == true
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A proxy with one credential and route for each `client_auth`, all to one API that takes anything.
struct Story {
    server: Server,
    proxy: Proxy,
    api: Upstream,
    _secrets: tempfile::TempDir,
}

impl Story {
    /// `keys` are further lines of each credential.
    async fn begin(methods: &[&str], keys: &str) -> Option<Self> {
        let secrets = tempfile::tempdir().unwrap();
        let mut clients = vec![json!({
            "client_id": "judge", "client_secret": "judge", "token_endpoint_auth_method": "client_secret_post",
        })];
        for method in methods {
            let mut known = json!({ "client_id": format!("{ID} {method}"), "token_endpoint_auth_method": method });
            match *method {
                "private_key_jwt" => {
                    known["key_file"] = secrets.path().join(method).display().to_string().into();
                }
                _ => known["client_secret"] = SECRET.into(),
            }
            clients.push(known);
        }
        let server = Server::start(clients.into()).await?;
        let options = UpstreamOptions { persona: Persona::Sqr, ledgers: Vec::new(), port: 0 };
        let api = Upstream::start(options).await.unwrap();
        let mut text =
            "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n"
                .to_owned();
        for method in methods {
            let id =
                secret_file(secrets.path(), &format!("{method}.id"), &format!("{ID} {method}"));
            let mut key = secrets.path().join(method);
            if *method != "private_key_jwt" {
                key = secret_file(secrets.path(), method, SECRET);
            }
            text += &credential(&server, &api, method, &id, &key, keys);
        }
        let proxy = Proxy::start(&text).await;
        soon(proxy.wait_ready()).await;
        Some(Self { server, proxy, api, _secrets: secrets })
    }

    /// The token with which a request arrives at the API.
    async fn token(&self, method: &str) -> String {
        let good =
            ScriptedResponse::Exactly { status: 200, headers: Vec::new(), body: "{}".into() };
        self.api.set_responses([good]);
        let answer = soon(client(self.proxy.addr).await.get(&format!("/{method}/a"))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.api.requests().last().unwrap().token.clone().unwrap()
    }
}

fn credential(
    server: &Server,
    api: &Upstream,
    method: &str,
    id: &Path,
    key: &Path,
    keys: &str,
) -> String {
    let issuer = &server.issuer;
    let algorithm = match method {
        "private_key_jwt" => "signing_algorithm = \"ES256\"",
        _ => "",
    };
    let keys = keys.replace("ISSUER", issuer);
    format!(
        "[credentials.{method}]\ntoken_url = \"{issuer}/token\"\nclient_id.file = {id:?}\n\
         client_secret.file = {key:?}\nclient_auth = \"{method}\"\n{algorithm}\n{keys}\n\
         [upstreams.{method}]\nurl = \"{api}\"\ncredential = \"{method}\"\nmount = \"/{method}\"\n\
         [[upstreams.{method}.routes]]\nname = \"all\"\npath = \"/**\"\nmethods = [\"GET\"]\n\
         scopes = [\"{SCOPE}\"]\n",
        api = api.base_url(),
    )
}

/// The claims of a JWT, which are not verified.
fn claims(token: &str) -> Value {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&claims).unwrap()
}

#[tokio::test]
async fn its_metadata_lead_to_tokens_that_are_bound_to_the_client_certificate() {
    let ca = Authority::new("Bank Test CA");
    let server = ca.issue(&["localhost"], |_| {});
    ca.write("server", &server);
    ca.write("tls_client_auth", &ca.issue(&["erp.bank.test"], |_| {}));
    let own = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["erp.bank.test".to_owned()]).unwrap();
    let certificate = params.self_signed(&own).unwrap();
    let method = "self_signed_tls_client_auth";
    std::fs::write(ca.file(&format!("{method}.pem")), certificate.pem()).unwrap();
    std::fs::write(ca.file(&format!("{method}.key")), own.serialize_pem()).unwrap();
    let client = |method: &str| {
        json!({
            "client_id": method, "token_endpoint_auth_method": method,
            "tls_client_certificate_bound_access_tokens": true,
        })
    };
    let (mut issued, mut own) = (client("tls_client_auth"), client(method));
    issued["tls_client_auth_san_dns"] = json!("erp.bank.test");
    own["certificate_file"] = json!(ca.file(&format!("{method}.pem")));
    let folder = ca.file("");
    let server_of = Server::start_in(json!([issued, own]), Some(&folder)).await;
    let Some(oidc) = server_of else { return };
    // The API trusts both, and tells which certificate it saw and which one the token names.
    let mut roots = ca.roots();
    roots.add(certificate.der().clone()).unwrap();
    let api = Service::start(Some(server.acceptor(Some(roots), &["h2"])), |request| {
        let ClientLeaf(leaf) = request.extensions().get().unwrap();
        let seen = URL_SAFE_NO_PAD.encode(digest(&SHA256, leaf));
        let token = request.headers()["authorization"].to_str().unwrap();
        let named = claims(token)["cnf"]["x5t#S256"].as_str().unwrap_or_default().to_owned();
        Response::new(format!("{} {seen}", seen == named))
    })
    .await;
    let mut text = format!(
        "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [tls]\nroots = \"only-extra\"\nextra_ca_file = {:?}\n",
        ca.file("ca.pem")
    );
    for method in ["tls_client_auth", method] {
        text += &format!(
            "[credentials.{method}]\nissuer = \"{issuer}\"\nclient_id = \"{method}\"\n\
             client_auth = \"{method}\"\nbound = \"certificate\"\nresource = \"urn:api\"\n\
             tls = {{ client_certificate_file = {pem:?}, client_key_file = {key:?} }}\n\
             [upstreams.{method}]\nurl = \"https://localhost:{api}\"\ncredential = \"{method}\"\n\
             mount = \"/{method}\"\n[[upstreams.{method}.routes]]\nname = \"all\"\npath = \"/**\"\n\
             methods = [\"GET\"]\nscopes = [\"{SCOPE}\"]\n",
            issuer = oidc.issuer,
            pem = ca.file(&format!("{method}.pem")),
            key = ca.file(&format!("{method}.key")),
            api = api.addr.port(),
        );
    }
    let proxy = Proxy::start(&text).await;
    soon(proxy.wait_ready()).await;
    let mut seen = Vec::new();
    for method in ["tls_client_auth", method] {
        let answer =
            soon(crate::support::client(proxy.addr).await.get(&format!("/{method}/a"))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().starts_with("true "), "{method}: {}", answer.text());
        seen.push(answer.text());
    }
    assert_ne!(seen[0], seen[1]);
}

#[tokio::test]
async fn every_proof_of_a_client_is_accepted_and_its_token_lives() {
    let methods =
        ["client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt"];
    let Some(story) = Story::begin(&methods, "").await else { return };
    for method in methods {
        assert!(story.server.is_active(&story.token(method).await).await, "{method}");
    }
}

#[tokio::test]
async fn a_refused_assertion_is_explained_although_the_server_gives_no_reason() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key.json");
    let client = json!({
        "client_id": "erp", "token_endpoint_auth_method": "private_key_jwt", "key_file": key,
        "kid": "k1", "token_endpoint_auth_signing_alg": "ES256",
    });
    let Some(server) = Server::start(json!([client])).await else { return };
    let other = secret_file(dir.path(), "other.pem", &KeyPair::generate().unwrap().serialize_pem());
    let unknown = "the answer does not say which part is wrong";
    for (file, assertion, words) in [
        // The kid of the JWK leads to the key.
        (&key, "", &["valid for 4 s"][..]),
        (&key, "key_id = \"k9\"", &[unknown, "kid k9", "aud http://127.0.0.1:"]),
        (&other, "key_id = \"k1\"", &[unknown, "kid k1", "key thumbprint "]),
        // Its metadata tell which audience it takes.
        (&key, "audience = \"https://other.test\"", &["audience: ", "aud https://other.test"]),
    ] {
        let text = format!(
            "version = 1\n[credentials.erp]\nissuer = \"{}\"\nclient_id = \"erp\"\n\
             client_auth = \"private_key_jwt\"\nsigning_algorithm = \"ES256\"\n\
             client_secret.file = {file:?}\nassertion = {{ {assertion} }}\n\
             [upstreams.erp]\nurl = \"http://127.0.0.1:9\"\ncredential = \"erp\"\n\
             [[upstreams.erp.routes]]\nname = \"all\"\npath = \"/**\"\nmethods = [\"GET\"]\n\
             scopes = [\"{SCOPE}\"]\n",
            server.issuer
        );
        std::fs::write(dir.path().join("bearer-proxy.toml"), text).unwrap();
        let ended = verb(dir.path(), &["check", "--live"]).await;
        for word in words {
            assert!(ended.stdout.contains(word), "{word} is not in: {}", ended.stdout);
        }
    }
}

#[tokio::test]
async fn tokens_of_four_seconds_are_live_when_they_arrive() {
    let Some(story) = Story::begin(&["client_secret_basic"], "").await else { return };
    for round in 1..4 {
        story.server.wait_told("issued", round).await;
        // The server counts in whole seconds, so that the token before may be dead a little before
        // the new one, which it has just issued, is in use: what is asked next carries that.
        let mut active = false;
        for _ in 0..3 {
            active |= story.server.is_active(&story.token("client_secret_basic").await).await;
        }
        assert!(active, "{round}");
    }
}

#[tokio::test]
async fn a_resource_is_what_the_token_is_for() {
    let keys = "resource = \"urn:api\"";
    let Some(story) = Story::begin(&["client_secret_post"], keys).await else { return };
    let token = story.token("client_secret_post").await;
    let claims = claims(&token);
    assert_eq!((&claims["aud"], &claims["scope"]), (&json!("urn:api"), &json!(SCOPE)));
}

#[tokio::test]
async fn tokens_are_revoked_at_the_end() {
    let keys = "revocation_url = \"ISSUER/token/revocation\"";
    let Some(mut story) = Story::begin(&["client_secret_basic"], keys).await else { return };
    let token = story.token("client_secret_basic").await;
    story.proxy.signal(Signal::TERM);
    assert!(soon(story.proxy.wait_exit()).await.success());
    assert!(!story.server.is_active(&token).await);
}

#[tokio::test]
async fn tokens_are_bound_to_a_key_that_each_request_proves() {
    let secrets = tempfile::tempdir().unwrap();
    let clients = ["ES256", "EdDSA"].map(|id| {
        json!({
            "client_id": id, "client_secret": SECRET, "dpop_bound_access_tokens": true,
            "token_endpoint_auth_method": "client_secret_post",
        })
    });
    let Some(server) = Server::start(clients.to_vec().into()).await else { return };
    let key = secret_file(secrets.path(), "key", SECRET);
    let mut text =
        "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n"
            .to_owned();
    for id in ["ES256", "EdDSA"] {
        text += &format!(
            "[credentials.{id}]\ntoken_url = \"{issuer}/token\"\nclient_id = \"{id}\"\n\
             client_secret.file = {key:?}\nclient_auth = \"client_secret_post\"\n\
             dpop.algorithm = \"{id}\"\n\
             [upstreams.{id}]\nurl = \"{issuer}/api\"\ncredential = \"{id}\"\nmount = \"/{id}\"\n\
             [[upstreams.{id}.routes]]\nname = \"all\"\npath = \"/**\"\nmethods = [\"POST\"]\n\
             scopes = [\"{SCOPE}\"]\n",
            issuer = server.issuer,
        );
    }
    let proxy = Proxy::start(&text).await;
    soon(proxy.wait_ready()).await;
    // The token server asked for a nonce before it issued a token.
    server.wait_told("refused", 1).await;
    let mut app = client(proxy.addr).await;
    for id in ["ES256", "EdDSA"] {
        for round in 0..2 {
            let target = format!("/{id}/pay?round={round}");
            let answer = soon(app.request("POST", &target, &[], b"42 EUR")).await;
            assert_eq!((answer.status, answer.text()), (200, "42 EUR".to_owned()), "{id} {round}");
            assert_eq!(answer.header("dpop-nonce"), None);
        }
    }
    // Each key was asked for a nonce once.
    server.wait_told("api", 6).await;
    let told = server.told.borrow().clone();
    let asked: Vec<_> = told.iter().filter(|line| line.starts_with("api")).collect();
    let once = ["api use_dpop_nonce", "api served", "api served"];
    assert_eq!(asked, [once, once].concat());
}
