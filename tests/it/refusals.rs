//! `check --live` at token servers that refuse what proves the client: which part of it is wrong, by the
//! server's words, by its clock, by its metadata, and what was sent where none of them tells.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::service::{ClientLeaf, Service};
use crate::support::tls::Authority;
use crate::support::{Proxy, client, ed25519_jwk, secret_file, soon};
use crate::verbs::verb;

const AUDIENCE: &str = "https://auth.bank.test";

/// A token server that knows one key of one client, and the rules of RFC 7523 section 3.
struct Judge {
    public: Vec<u8>,
    /// The seconds by which its clock is ahead.
    ahead: i64,
    /// Set to give no description.
    silent: bool,
    seen: Mutex<HashSet<String>>,
}

fn field(form: &[u8], name: &str) -> String {
    let form = std::str::from_utf8(form).unwrap();
    let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.find(|(key, _)| *key == name).map_or("", |(_, value)| value);
    percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned()
}

fn part(jwt: &str, index: usize) -> Value {
    let part = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(index).unwrap()).unwrap();
    serde_json::from_slice(&part).unwrap()
}

impl Judge {
    fn new(key: &KeyPair) -> Self {
        let public = key.public_key_raw().to_vec();
        Self { public, ahead: 0, silent: false, seen: Mutex::default() }
    }

    fn now(&self) -> SystemTime {
        let ahead = Duration::from_secs(self.ahead.unsigned_abs());
        let now = SystemTime::now();
        if self.ahead < 0 { now - ahead } else { now + ahead }
    }

    fn judge(&self, request: &Request<Bytes>) -> Result<(), &'static str> {
        let jwt = field(request.body(), "client_assertion");
        let (header, claims) = (part(&jwt, 0), part(&jwt, 1));
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let known = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.public);
        let now = self.now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let time = |name: &str| claims[name].as_u64().unwrap();
        match () {
            () if claims["iss"] != "erp" => Err("no such client"),
            () if header["kid"] != "k1" => Err("there is no key with this kid"),
            () if known.verify(signed.as_bytes(), &signature).is_err() => {
                Err("signature verification failed")
            }
            () if claims["aud"] != AUDIENCE => Err("unexpected aud claim"),
            () if time("exp") <= now => Err("the assertion has expired"),
            () if time("iat") > now => Err("iat is in the future"),
            () if !self.seen.lock().unwrap().insert(claims["jti"].to_string()) => Err("jti"),
            () => Ok(()),
        }
    }

    fn answer(&self, request: &Request<Bytes>) -> Response<String> {
        match self.judge(request) {
            Ok(()) => {
                answer(200, self.now(), json!({ "access_token": "t", "token_type": "Bearer" }))
            }
            Err(_) if self.silent => answer(401, self.now(), json!({ "error": "invalid_client" })),
            Err(why) => refusal(401, self.now(), "invalid_client", why),
        }
    }
}

fn answer(status: u16, now: SystemTime, body: Value) -> Response<String> {
    let answer = Response::builder().status(status).header("content-type", "application/json");
    answer.header("date", httpdate::fmt_http_date(now)).body(body.to_string()).unwrap()
}

fn refusal(status: u16, now: SystemTime, error: &str, why: &str) -> Response<String> {
    answer(status, now, json!({ "error": error, "error_description": why }))
}

/// A configuration with one credential and one route.
fn config(credential: &str) -> String {
    format!(
        "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [credentials.bank]\nclient_id = \"erp\"\n{credential}\n\
         [upstreams.bank]\nurl = \"http://127.0.0.1:9\"\ncredential = \"bank\"\n\
         routes = [{{ name = \"all\", path = \"/**\", methods = [\"GET\"] }}]\n"
    )
}

/// What `check --live` says of the token: its hint, and the parts that were sent, in one text.
async fn checked(dir: &TempDir, config: &str) -> String {
    std::fs::write(dir.path().join("bearer-proxy.toml"), config).unwrap();
    let ended = verb(dir.path(), &["check", "--live", "-o", "json"]).await;
    let all: Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}", ended.stderr));
    let checks = all["checks"].as_array().unwrap();
    let credential = checks.iter().find(|part| part["kind"] == "credential").unwrap();
    let mut said = String::new();
    for step in credential["steps"].as_array().unwrap() {
        let sent = step["found"].as_str().unwrap().starts_with("sent: ");
        if step["step"] == "token" || sent {
            let hint = step["hint"].as_str().unwrap_or_default();
            let (name, found) = (step["step"].as_str(), step["found"].as_str());
            said += &format!("{hint}\n{}: {}\n", name.unwrap(), found.unwrap());
        }
    }
    assert!(!said.contains("PRIVATE KEY"), "{said}");
    said
}

/// Checks the words about one refusal; the first begin the hint.
fn expect(said: &str, words: &[&str]) {
    assert!(said.starts_with(words[0]), "{} is not the start of: {said}", words[0]);
    for word in words {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
}

/// A credential with `private_key_jwt`, its key in the file `key`.
fn signed(dir: &TempDir, url: &str, assertion: &str) -> String {
    let key = dir.path().join("key");
    config(&format!(
        "token_url = \"{url}\"\nclient_auth = \"private_key_jwt\"\nsigning_algorithm = \"ES256\"\n\
         client_secret.file = {key:?}\nassertion = {{ {assertion} }}"
    ))
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

/// The thumbprint of a key on P-256 (RFC 7638).
fn thumbprint(key: &KeyPair) -> String {
    let (x, y) = key.public_key_raw()[1..].split_at(32);
    let [x, y] = [x, y].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()))
}

const GOOD: &str = "key_id = \"k1\", audience = \"https://auth.bank.test\"";

#[tokio::test]
async fn each_part_of_a_refused_assertion_has_its_own_words() {
    let (dir, mine, other) = (TempDir::new().unwrap(), key(), key());
    for (ahead, file, assertion, words) in [
        (0, &mine, GOOD, &["\ntoken: valid for 300 s"][..]),
        (
            0,
            &mine,
            "key_id = \"k1\", audience = \"https://other.test\"",
            &["audience: ", "aud https://other.test", "iss erp, sub erp"],
        ),
        (0, &mine, "key_id = \"k1\"", &["audience: ", "/token, iat"]),
        (
            0,
            &mine,
            "key_id = \"k9\", audience = \"https://auth.bank.test\"",
            &["key id: ", "kid k9"],
        ),
        (0, &mine, "audience = \"https://auth.bank.test\"", &["key id: ", "kid (none)"]),
        (0, &other, GOOD, &["key: ", "alg ES256, kid k1, key thumbprint "]),
        (600, &mine, GOOD, &["clock: ", " s before the server's Date"]),
        (-600, &mine, GOOD, &["clock: ", " s after the server's Date"]),
    ] {
        secret_file(dir.path(), "key", &file.serialize_pem());
        let judge = Judge { ahead, ..Judge::new(&mine) };
        let server = Service::start(None, move |request| judge.answer(request)).await;
        let url = format!("http://{}/token", server.addr);
        let said = checked(&dir, &signed(&dir, &url, assertion)).await;
        expect(&said, words);
        if words[0] == "key: " {
            assert!(said.contains(&thumbprint(&other)), "{said}");
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_tell_leaves_what_was_sent_to_be_compared() {
    let (dir, mine, other) = (TempDir::new().unwrap(), key(), key());
    let unknown = "the answer does not say which part is wrong";
    for (ahead, assertion, words) in [
        // The key is another one, and the server does not say so.
        (
            0,
            GOOD,
            &[unknown, "client id, client_auth, certificate", "aud https://auth.bank.test"][..],
        ),
        // Its clock tells without words.
        (600, GOOD, &["clock: ", " s before the server's Date"]),
        (-600, GOOD, &["clock: ", " s after the server's Date"]),
    ] {
        secret_file(dir.path(), "key", &other.serialize_pem());
        let judge = Judge { ahead, silent: true, ..Judge::new(&mine) };
        let server = Service::start(None, move |request| judge.answer(request)).await;
        let url = format!("http://{}/token", server.addr);
        let said = checked(&dir, &signed(&dir, &url, assertion)).await;
        expect(&said, words);
        assert!(said.contains(&thumbprint(&other)), "{said}");
    }
}

#[tokio::test]
async fn an_id_from_a_source_of_secrets_is_not_shown() {
    let (dir, mine) = (TempDir::new().unwrap(), key());
    secret_file(dir.path(), "key", &mine.serialize_pem());
    let id = secret_file(dir.path(), "id", "id-canary");
    let judge = Judge::new(&mine);
    let server = Service::start(None, move |request| judge.answer(request)).await;
    let url = format!("http://{}/token", server.addr);
    let config = signed(&dir, &url, GOOD);
    let config = config.replace("client_id = \"erp\"", &format!("client_id.file = {id:?}"));
    let said = checked(&dir, &config).await;
    expect(&said, &["registration: ", "iss (the client id), sub (the client id)"]);
    assert!(!said.contains("canary"), "{said}");
}

#[tokio::test]
async fn another_certificate_than_the_registered_one_is_named_with_its_thumbprint() {
    let (dir, ca) = (TempDir::new().unwrap(), Authority::new("Bank Test CA"));
    let server = ca.issue(&["localhost"], |_| {});
    let (old, new) = (ca.issue(&["erp.bank.test"], |_| {}), ca.issue(&["erp.bank.test"], |_| {}));
    ca.write("erp", &new);
    for (described, expected) in
        [(true, "certificate: "), (false, "the answer does not say which part is wrong")]
    {
        let registered = old.der();
        let judge = move |request: &Request<Bytes>| {
            let ClientLeaf(leaf) = request.extensions().get().unwrap();
            let now = SystemTime::now();
            match (*leaf == *registered, described) {
                (true, _) => {
                    answer(200, now, json!({ "access_token": "t", "token_type": "Bearer" }))
                }
                (_, true) => refusal(401, now, "invalid_client", "unknown client certificate"),
                (_, false) => answer(401, now, json!({ "error": "invalid_client" })),
            }
        };
        let acceptor = server.acceptor(Some(ca.roots()), &[]);
        let service = Service::start(Some(acceptor), judge).await;
        let said = checked(
            &dir,
            &config(&format!(
                "token_url = \"https://localhost:{}/token\"\nclient_auth = \"tls_client_auth\"\n\
                 tls = {{ roots = \"only-extra\", extra_ca_file = {:?}, client_certificate_file = {:?}, \
                 client_key_file = {:?} }}",
                service.addr.port(),
                ca.file("ca.pem"),
                ca.file("erp.pem"),
                ca.file("erp.key"),
            )),
        )
        .await;
        let sent = URL_SAFE_NO_PAD.encode(digest(&SHA256, &new.der()));
        expect(&said, &[expected, "certificate: sent: subject ", &format!("x5t#S256 {sent}")]);
    }
}

#[tokio::test]
async fn each_part_of_a_refused_proof_of_dpop_has_its_own_words() {
    let dir = TempDir::new().unwrap();
    let nonce = ("use_dpop_nonce", "", 0, &["nonce: "][..]);
    for (error, why, ahead, words) in [
        nonce,
        (
            "invalid_dpop_proof",
            "htu does not match",
            0,
            &["URL: ", "htm POST, htu http://127.0.0.1:"],
        ),
        ("invalid_dpop_proof", "DPoP proof iat is not recent enough", 0, &["clock: ", "iat "]),
        ("invalid_dpop_proof", "this jti has already been used", 0, &["replay: "]),
        ("invalid_dpop_proof", "", 600, &["clock: ", " s before the server's Date"]),
        (
            "invalid_dpop_proof",
            "",
            0,
            &["the answer does not say which part of the proof", "alg ES256, jkt "],
        ),
    ] {
        let server = Service::start(None, move |request| {
            assert!(request.headers().contains_key("dpop"));
            let now = SystemTime::now() + Duration::from_secs(ahead);
            let mut answer = refusal(400, now, error, why);
            answer.headers_mut().insert("dpop-nonce", "n1".parse().unwrap());
            answer
        })
        .await;
        let secret = secret_file(dir.path(), "secret", "s3cret");
        let said = checked(
            &dir,
            &config(&format!(
                "token_url = \"http://{}/token\"\nclient_secret.file = {secret:?}\ndpop = {{}}",
                server.addr
            )),
        )
        .await;
        expect(&said, words);
        assert!(said.contains("proof of DPoP: sent: "), "{said}");
    }
}

#[tokio::test]
async fn a_refused_secret_is_about_no_proof() {
    let dir = TempDir::new().unwrap();
    let server = Service::start(None, |_| {
        refusal(401, SystemTime::now(), "invalid_client", "the signature, aud and kid are wrong")
    })
    .await;
    let secret = secret_file(dir.path(), "secret", "s3cret");
    let lines = format!("token_url = \"http://{}/\"\nclient_secret.file = {secret:?}", server.addr);
    let said = checked(&dir, &config(&lines)).await;
    expect(&said, &["check client_id, client_secret and client_auth"]);
    assert!(!said.contains("sent: "), "{said}");
}

/// A key that others may read is not used: no call is made with it, and the reason is told.
#[tokio::test]
async fn a_key_that_others_may_read_signs_nothing() {
    let dir = TempDir::new().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let server = Service::start(None, move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        let bound = request.headers().contains_key("dpop");
        let kind = if bound { "DPoP" } else { "Bearer" };
        answer(200, SystemTime::now(), json!({ "access_token": "t", "token_type": kind }))
    })
    .await;
    let path = secret_file(dir.path(), "key", &key().serialize_pem());
    let secret = secret_file(dir.path(), "secret", "s3cret");
    let mode =
        |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    for lines in [
        format!(
            "client_auth = \"private_key_jwt\"\nsigning_algorithm = \"ES256\"\n\
             client_secret.file = {path:?}"
        ),
        format!(
            "grant = \"jwt_bearer\"\ngrant_assertion = {{ key.file = {path:?}, subject = \"erp\", \
             signing_algorithm = \"ES256\" }}"
        ),
        format!("client_secret.file = {secret:?}\ndpop.key.file = {path:?}"),
    ] {
        mode(0o644);
        let text = config(&format!("token_url = \"http://{}/token\"\n{lines}", server.addr));
        std::fs::write(dir.path().join("bearer-proxy.toml"), &text).unwrap();
        let ended = verb(dir.path(), &["check", "--live"]).await;
        assert!(ended.code == 3 && ended.stdout.contains("0644"), "{}", ended.stdout);
        let proxy = Proxy::start(&text).await;
        let said = |log: &str| log.contains("secret_unreadable").then_some(());
        soon(proxy.wait_log(said)).await;
        assert_eq!(calls.swap(0, Ordering::SeqCst), 0, "{lines}");
        mode(0o600);
        soon(proxy.wait_ready()).await;
        assert!(calls.swap(0, Ordering::SeqCst) > 0, "{lines}");
    }
}

/// Keys, assertions, proofs and nonces of a run in which servers quote them are looked for in all that is
/// said.
#[tokio::test]
async fn keys_assertions_and_proofs_are_never_said() {
    let (dir, mine) = (TempDir::new().unwrap(), key());
    let (jwk, _) = ed25519_jwk();
    let (pem, own) = (mine.serialize_pem(), serde_json::from_str::<Value>(&jwk).unwrap());
    let (signing, proving) =
        (secret_file(dir.path(), "key", &pem), secret_file(dir.path(), "dpop", &jwk));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ledger = Arc::clone(&heard);
    let auth = Service::start(None, move |request| {
        let assertion = field(request.body(), "client_assertion");
        let proof = request.headers()["dpop"].to_str().unwrap().to_owned();
        let mut ledger = ledger.lock().unwrap();
        let first = ledger.is_empty();
        // A description is cut, so that the end of the assertion is quoted.
        let quoted = format!("alg: {}", &assertion[assertion.len() - 150..]);
        ledger.extend([assertion, proof]);
        let now = SystemTime::now();
        let mut answer = match ledger.len() {
            // The proxy must not give up on its client, which the verbs then may.
            _ if first => refusal(503, now, "temporarily_unavailable", &quoted),
            0..=6 => {
                answer(200, now, json!({ "access_token": "tok-canary", "token_type": "DPoP" }))
            }
            _ => refusal(401, now, "invalid_client", &quoted),
        };
        answer.headers_mut().insert("dpop-nonce", "nonce-canary".parse().unwrap());
        answer
    })
    .await;
    let ledger = Arc::clone(&heard);
    let api = Service::start(None, move |request| {
        let proof = request.headers()["dpop"].to_str().unwrap();
        ledger.lock().unwrap().push(proof.to_owned());
        Response::builder().status(401).header("x-quoted", proof).body(String::new()).unwrap()
    })
    .await;
    let text = config(&format!(
        "token_url = \"http://{}/token\"\nclient_auth = \"private_key_jwt\"\n\
         signing_algorithm = \"ES256\"\nclient_secret.file = {signing:?}\n\
         dpop = {{ algorithm = \"EdDSA\", key.file = {proving:?} }}",
        auth.addr
    ));
    let text = text.replace("http://127.0.0.1:9", &format!("http://{}", api.addr));
    let text = format!("log = {{ level = \"trace\", access = \"all\" }}\n{text}");
    std::fs::write(dir.path().join("bearer-proxy.toml"), &text).unwrap();
    let proxy = Proxy::start(&text).await;
    soon(proxy.wait_ready()).await;
    let answer = soon(client(proxy.addr).await.get("/x")).await;
    let mut said = vec![format!("{:?} {}", answer.headers, answer.text())];
    for path in ["/metrics", "/status"] {
        said.push(soon(client(proxy.admin_addr).await.get(path)).await.text());
    }
    for words in [&["token", "bank", "--fresh"][..], &["check", "--live", "--fresh"], &["status"]] {
        for _ in 0..3 {
            let ended = verb(dir.path(), words).await;
            said.push(ended.stdout + &ended.stderr);
        }
    }
    said.push(proxy.log());
    let heard = heard.lock().unwrap().clone();
    assert!(heard.len() > 8, "{heard:?}");
    let mut secrets =
        vec!["nonce-canary".into(), "tok-canary".into(), own["d"].as_str().unwrap().into()];
    secrets.extend(pem.lines().filter(|line| !line.starts_with("---")).map(str::to_owned));
    // The signature of a JWT, and a part of it.
    secrets.extend(heard.iter().map(|jwt| jwt.rsplit_once('.').unwrap().1[..20].to_owned()));
    secrets.extend(heard.iter().map(|jwt| jwt[jwt.len() - 20..].to_owned()));
    assert!(said.iter().any(|words| words.contains("is not shown")), "{said:?}");
    for words in &said {
        for secret in &secrets {
            assert!(!words.contains(secret.as_str()), "{secret} is in {words}");
        }
    }
}
