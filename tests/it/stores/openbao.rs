//! OpenBao itself: who may read a secret, what is told to others, and the life of the token and the
//! secret. Its own client sets it up.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::KeyPair;
use serde_json::json;
use tempfile::TempDir;

use super::{bank, config, echoed_id, rotate, tool};
use crate::support::{Proxy, client, issued, secret_file, soon};

/// The policy of the roles: one secret, in each of the engines.
const POLICY: &str = r#"path "secret/data/erp/bank" { capabilities = ["read"] }
path "kv1/bank" { capabilities = ["read"] }
path "nowhere/data/bank" { capabilities = ["read"] }
"#;

/// A server in memory, with TLS, and a folder for what it is asked with.
struct OpenBao {
    program: String,
    server: Child,
    address: String,
    unseal_key: String,
    dir: TempDir,
}

impl OpenBao {
    /// Starts one, with the roles `erp` of AppRole and JWT. `None` where no OpenBao is named.
    async fn start(ttl: &str, max_ttl: &str) -> Option<Self> {
        let program = tool("BEARER_PROXY_BAO")?;
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let listen = format!("-dev-listen-address=127.0.0.1:{port}");
        let files = format!("-dev-tls-cert-dir={}", dir.path().display());
        let mut command = Command::new(&program);
        command.args(["server", "-dev", "-dev-tls", "-dev-no-store-token"]);
        command.args(["-dev-root-token-id=root", &listen, &files]).env("HOME", dir.path());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = command.spawn().unwrap();
        let words = crate::support::collect(server.stdout.take().unwrap());
        let address = format!("https://localhost:{port}");
        let mut bao = Self { program, server, address, unseal_key: String::new(), dir };
        bao.unseal_key = bao.ready(words).await;
        bao.run(&["policy", "write", "erp", &bao.file("policy.hcl", POLICY)]);
        bao.run(&["auth", "enable", "approle"]);
        let (ttl, max) = (format!("token_ttl={ttl}"), format!("token_max_ttl={max_ttl}"));
        let policies = "token_policies=erp";
        bao.run(&["write", "auth/approle/role/erp", policies, &ttl, &max]);
        bao.run(&["auth", "enable", "jwt"]);
        bao.run(&["secrets", "enable", "-path=kv1", "-version=1", "kv"]);
        Some(bao)
    }

    /// The key that unseals it, once it has told everything about itself.
    async fn ready(&self, mut words: tokio::sync::watch::Receiver<Vec<String>>) -> String {
        let told = async {
            loop {
                let lines = words.borrow_and_update().clone();
                let key = lines.iter().find_map(|line| line.strip_prefix("Unseal Key: "));
                if let (Some(key), true) =
                    (key, lines.iter().any(|line| line.contains("Development mode")))
                {
                    return key.to_owned();
                }
                words.changed().await.unwrap();
            }
        };
        soon(told).await
    }

    /// Writes a file that only its owner may read, and tells its path.
    fn file(&self, name: &str, text: &str) -> String {
        secret_file(self.dir.path(), name, text).display().to_string()
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("vault-ca.pem")
    }

    /// Runs its own client as root, and gives what that says.
    fn run(&self, args: &[&str]) -> String {
        self.run_as("root", args)
    }

    fn run_as(&self, token: &str, args: &[&str]) -> String {
        let mut command = Command::new(&self.program);
        command.args(args).env("BAO_ADDR", &self.address).env("BAO_TOKEN", token);
        command.env("BAO_CACERT", self.ca()).env("HOME", self.dir.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn put(&self, secret: &str) {
        self.run(&["kv", "put", "-mount=secret", "erp/bank", &format!("client_secret={secret}")]);
    }

    /// The head of a configuration with this login, and further keys of `[vault]`.
    fn head(&self, login: &str) -> String {
        let (ca, address) = (self.ca(), &self.address);
        format!("tls.extra_ca_file = {ca:?}\n[vault]\naddress = \"{address}\"\n{login}\n")
    }

    /// A login by AppRole with a new secret id.
    fn approle(&self) -> String {
        let role = self.run(&["read", "-field=role_id", "auth/approle/role/erp/role-id"]);
        let secret = ["write", "-f", "-field=secret_id", "auth/approle/role/erp/secret-id"];
        let secret = self.file("secret_id", &self.run(&secret));
        format!("approle = {{ role_id = \"{role}\", secret_id.file = {secret:?} }}")
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ended = self.server.kill();
        let _reaped = self.server.wait();
    }
}

/// A port at which nothing listens now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn reference(more: &str) -> String {
    format!("vault = {{ path = \"erp/bank\", field = \"client_secret\"{more} }}")
}

/// A JWT for this audience that ends so many seconds from now.
fn jwt(key: &KeyPair, audience: &str, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let ends = now.checked_add_signed(seconds).unwrap();
    let claims = json!({ "sub": "erp", "aud": audience, "iat": ends - 300, "exp": ends });
    let header = json!({ "alg": "ES256", "typ": "JWT" });
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der());
    let signature = pair.unwrap().sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn each_login_reads_the_secret_and_others_are_told_why_not() {
    let bank = bank().await;
    let Some(bao) = OpenBao::start("10m", "20m").await else { return };
    bao.put(bank.auth.client_secret());
    let check = async |login: &str, reference: &str, expected: Result<(), &str>| {
        super::check(&config(&bank, &bao.head(login), &echoed_id(&bank), reference), expected)
            .await;
    };
    let plain = reference("");
    let approle = bao.approle();
    check(&approle, &plain, Ok(())).await;
    let wrong = bao.file("wrong", "canary");
    let role = approle.split(", secret_id").next().unwrap();
    let refused = format!("{role}, secret_id.file = {wrong:?} }}");
    check(&refused, &plain, Err("role_id or secret_id is wrong, used up or expired")).await;
    let elsewhere = approle.replace(" }", ", mount = \"nowhere\" }");
    check(&elsewhere, &plain, Err("refused the login at auth/nowhere")).await;

    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let public = bao.file("public.pem", &key.public_key_pem());
    bao.run(&["write", "auth/jwt/config", &format!("jwt_validation_pubkeys=@{public}")]);
    let claims = ["user_claim=sub", "bound_audiences=vault", "token_policies=erp"];
    let role = ["write", "auth/jwt/role/erp", "role_type=jwt"];
    bao.run(&[&role[..], &claims].concat());
    let with_jwt = |token: &str| {
        let file = bao.file("jwt", token);
        format!("jwt = {{ role = \"erp\", token.file = {file:?} }}")
    };
    check(&with_jwt(&jwt(&key, "vault", 300)), &plain, Ok(())).await;
    let expired = with_jwt(&jwt(&key, "vault", -600));
    check(&expired, &plain, Err("auth/jwt: what proves it has expired")).await;
    let others = with_jwt(&jwt(&key, "canary", 300));
    check(&others, &plain, Err("does not accept the issuer, audience, subject")).await;

    let new = ["token", "create", "-policy=erp", "-field=token"];
    let stated = bao.run(&new);
    let with_token = format!("token.file = {:?}", bao.file("token", &stated));
    check(&with_token, &plain, Ok(())).await;
    bao.run(&["token", "revoke", &stated]);
    check(&with_token, &plain, Err("Vault does not accept the token of [vault]")).await;

    let other = plain.replace("erp/bank", "erp/other");
    let denied = "path \"secret/data/erp/other\" { capabilities = [\"read\"] }";
    check(&approle, &other, Err(denied)).await;
    let field = plain.replace("client_secret", "password");
    check(&approle, &field, Err("the secret has the fields client_secret")).await;
    let mount = reference(", mount = \"nowhere\"").replace("erp/bank", "bank");
    check(&approle, &mount, Err("nothing is mounted at `nowhere`")).await;
    let namespace = format!("{approle}\nnamespace = \"nowhere\"");
    check(&namespace, &plain, Err("Vault has no such namespace")).await;

    bao.put("the-second-canary");
    check(&approle, &reference(", version = 1"), Ok(())).await;
    bao.run(&["kv", "delete", "-mount=secret", "erp/bank"]);
    check(&approle, &plain, Err("version 2 was deleted; restore it")).await;
    bao.run(&["kv", "destroy", "-mount=secret", "-versions=2", "erp/bank"]);
    check(&approle, &plain, Err("version 2 was destroyed for good")).await;
    check(&approle, &reference(", version = 7"), Err("does not exist; create it")).await;
    let secret = format!("client_secret={}", bank.auth.client_secret());
    bao.run(&["kv", "put", "-mount=kv1", "bank", &secret]);
    let first = reference(", mount = \"kv1\", kv_version = 1").replace("erp/bank", "bank");
    check(&approle, &first, Ok(())).await;
    bao.run(&["operator", "seal"]);
    check(&approle, &plain, Err("Vault is sealed; have it unsealed")).await;
    let elsewhere = format!("https://localhost:{}", free_port());
    let head = bao.head(&approle).replace(&bao.address, &elsewhere);
    let unreachable = config(&bank, &head, &echoed_id(&bank), &plain);
    super::check(&unreachable, Err("cannot be reached: ")).await;
}

#[tokio::test]
async fn a_secret_is_rotated_and_outlives_tokens_and_a_seal() {
    let bank = bank().await;
    let Some(bao) = OpenBao::start("2s", "5s").await else { return };
    bao.put(bank.auth.client_secret());
    let approle = bao.approle();
    let text =
        config(&bank, &bao.head(&approle), &echoed_id(&bank), &reference(", cache = \"1h\""));
    let proxy = Proxy::start(&text).await;
    proxy.wait_ready().await;
    rotate(&bank, &proxy, |secret| bao.put(secret)).await;
    drop(proxy);

    let text = text.replace("1h", "1ms");
    let proxy = Proxy::start(&text).await;
    proxy.wait_ready().await;
    // No token lives longer than five seconds, so that later readings are those of another login.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(8) {
        issued(&bank, 1).await;
    }
    // Every token is revoked; the next reading finds out, and logs in.
    bao.run(&["token", "revoke", "-mode=path", "auth/approle"]);
    issued(&bank, 2).await;
    assert!(!proxy.log().contains("read last stays in use"), "{}", proxy.log());
    bao.run(&["operator", "seal"]);
    let stale = |line: &str| line.contains("read last stays in use").then(|| line.to_owned());
    let line = proxy.wait_log(stale).await;
    assert!(line.contains("Vault is sealed"), "{line}");
    issued(&bank, 1).await;
    assert_eq!(client(proxy.addr).await.get("/v1/balances/42").await.status, 200);
    bao.run(&["operator", "unseal", &bao.unseal_key]);
    bao.put("another-secret-canary");
    bank.auth.accept_secrets(["another-secret-canary".to_owned()]);
    proxy.wait_log(|line| line.contains("client secret is accepted").then_some(())).await;
    for hidden in ["canary", "hvs.", &*std::fs::read_to_string(secret_id(&bao)).unwrap()] {
        assert!(!proxy.log().contains(hidden), "{hidden}: {}", proxy.log());
    }
}

fn secret_id(bao: &OpenBao) -> PathBuf {
    Path::new(bao.dir.path()).join("secret_id")
}
