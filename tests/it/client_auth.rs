//! How a client proves itself to servers that look: by certificate (RFC 8705) and by JWT (RFC 7523).

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
    SignatureAlgorithm,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::secured::{Secured, Special};
use crate::support::service::Service;
use crate::support::tls::{Authority, Front};
use crate::support::{Proxy, client, ed25519_jwk, secret_file, soon};
use crate::verbs::verb;

const TOKEN: &str = "one-token-of-this-story";

fn issued() -> Response<String> {
    let body = format!(r#"{{"access_token":"{TOKEN}","token_type":"Bearer","expires_in":3600}}"#);
    Response::builder().header("content-type", "application/json").body(body).unwrap()
}

fn refused(why: &str) -> Response<String> {
    let body = format!(r#"{{"error":"invalid_client","error_description":"{why}"}}"#);
    let answer = Response::builder().status(401).header("content-type", "application/json");
    answer.body(body).unwrap()
}

/// A field of a form, decoded.
fn field(form: &[u8], name: &str) -> Option<String> {
    let form = std::str::from_utf8(form).ok()?;
    let pairs = form.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.into_iter().find(|(key, _)| *key == name)?;
    let spaced = value.replace('+', " ");
    Some(percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// Lines that name a client certificate.
fn shown(bank: &Secured) -> String {
    let file = |name: &str| bank.ca.file(name).display().to_string();
    let (certificate, key) = (file("erp.pem"), file("erp.key"));
    format!("tls = {{ client_certificate_file = \"{certificate}\", client_key_file = \"{key}\" }}")
}

#[tokio::test]
async fn a_certificate_proves_the_client_to_token_endpoint_and_api() {
    for method in ["tls_client_auth", "self_signed_tls_client_auth"] {
        let clients = Authority::new("Client CA");
        let mut bank = Secured::demanding(Some(clients.roots())).await;
        let server = bank.ca.issue(&["localhost"], |_| {});
        let id = bank.bank.auth.client_id().to_owned();
        let token = Service::start(None, move |request| {
            let known = field(request.body(), "client_id") == Some(id.clone());
            let bare = field(request.body(), "client_secret").is_none()
                && !request.headers().contains_key("authorization");
            if known && bare { issued() } else { refused("no client_id, or a secret") }
        })
        .await;
        let api = Service::start(None, |request| {
            let authorization = request.headers().get("authorization").cloned();
            Response::new(
                authorization.map_or_else(String::new, |value| value.to_str().unwrap().into()),
            )
        })
        .await;
        bank.auth = Front::start(&server, Some(clients.roots()), token.addr).await;
        bank.api = Front::start(&server, Some(clients.roots()), api.addr).await;
        let erp = clients.issue(&["erp"], |_| {});
        bank.ca.write("erp", &erp);
        let certificate = shown(&bank);
        let credential = format!("client_auth = \"{method}\"\n{certificate}");
        let special = Special { credential: &credential, upstream: &certificate, ..<_>::default() };
        let proxy = Proxy::start(&bank.config(&special)).await;
        proxy.wait_ready().await;
        let answer = soon(client(proxy.addr).await.get("/v1/balances/42")).await;
        assert_eq!((answer.status, answer.text()), (200, format!("Bearer {TOKEN}")), "{method}");
        assert_eq!(bank.auth.clients(), [Some(erp.der())]);
        assert_eq!(bank.api.clients(), [Some(erp.der())]);
    }
}

#[tokio::test]
async fn a_certificate_that_the_server_does_not_know_brings_no_token() {
    let clients = Authority::new("Client CA");
    let bank = Secured::demanding(Some(clients.roots())).await;
    bank.ca.write("erp", &Authority::new("Another CA").issue(&["erp"], |_| {}));
    let credential = format!("client_auth = \"tls_client_auth\"\n{}", shown(&bank));
    let proxy =
        Proxy::start(&bank.config(&Special { credential: &credential, ..<_>::default() })).await;
    proxy.wait_log(|line| line.contains("received fatal alert").then_some(())).await;
    let answer = soon(client(proxy.addr).await.get("/v1/balances/42")).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("token_unavailable")));
    assert!(bank.bank.auth.ledger().calls().is_empty());
}

/// Whether a message has this signature.
type Verify = dyn Fn(&[u8], &[u8]) -> bool + Send + Sync;

/// What a token server knows of its one client, and which assertions it has seen.
struct Judge {
    id: String,
    audience: String,
    algorithm: &'static str,
    verify: Box<Verify>,
    seen: Mutex<HashSet<String>>,
}

impl Judge {
    /// RFC 7523 section 3, point by point.
    fn judge(&self, form: &[u8]) -> Result<(), String> {
        let of = |name: &str| field(form, name).ok_or_else(|| format!("no {name}"));
        let expect = |good: bool, why: &str| if good { Ok(()) } else { Err(why.to_owned()) };
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        expect(of("client_assertion_type")? == kind, "another type of assertion")?;
        expect(field(form, "client_secret").is_none(), "the secret itself")?;
        let assertion = of("client_assertion")?;
        let parts: Vec<&str> = assertion.split('.').collect();
        let [head, claims, signature] = parts[..] else { return Err("no JWT".into()) };
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|error| error.to_string());
        let json = |part: &str| -> Result<Value, String> {
            serde_json::from_slice(&bytes(part)?).map_err(|error| error.to_string())
        };
        let (signed, head, claims) = (format!("{head}.{claims}"), json(head)?, json(claims)?);
        expect(head["alg"] == self.algorithm, "another algorithm")?;
        expect((self.verify)(signed.as_bytes(), &bytes(signature)?), "a wrong signature")?;
        expect(claims["iss"] == *self.id && claims["sub"] == *self.id, "another client")?;
        expect(claims["aud"] == *self.audience, "another audience")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let (issued, ends) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
        expect(issued <= now && now < ends && ends - issued <= 300, "another time")?;
        let fresh = self.seen.lock().unwrap().insert(claims["jti"].as_str().unwrap().to_owned());
        expect(fresh, "an assertion that was seen before")
    }

    fn answer(&self, request: &Request<Bytes>) -> Response<String> {
        self.judge(request.body()).map_or_else(|why| refused(&why), |()| issued())
    }
}

/// A token server that verifies, and a client whose secret is in the file `key`.
async fn judged(
    method: &str,
    algorithm: &'static str,
    key: &str,
    verify: impl Fn(&[u8], &[u8]) -> bool + Send + Sync + 'static,
) {
    let mut bank = Secured::start().await;
    secret_file(&bank.ca.file(""), "key", key);
    let judge = Judge {
        id: bank.bank.auth.client_id().to_owned(),
        audience: "https://auth.bank.test".to_owned(),
        algorithm,
        verify: Box::new(verify),
        seen: Mutex::default(),
    };
    let server = Service::start(None, move |request| judge.answer(request)).await;
    let identity = bank.ca.issue(&["localhost"], |_| {});
    bank.auth = Front::start(&identity, None, server.addr).await;
    let signing = match algorithm {
        "HS256" => String::new(),
        _ => format!("signing_algorithm = \"{algorithm}\"\n"),
    };
    let credential = format!(
        "client_auth = \"{method}\"\n{signing}client_secret.file = \"{}\"\n\
         assertion = {{ audience = \"https://auth.bank.test\" }}",
        bank.ca.file("key").display()
    );
    let config = bank.config(&Special { credential: &credential, ..<_>::default() });
    let proxy = Proxy::start(&config).await;
    proxy.wait_ready().await;
    drop(proxy);
    // Another call brings another assertion, or the server would refuse it.
    std::fs::write(bank.ca.file("bearer-proxy.toml"), config).unwrap();
    for _ in 0..2 {
        let flags = ["token", "qbank", "--scopes", "balances.read", "--reveal"];
        let ended = verb(&bank.ca.file(""), &flags).await;
        assert_eq!((ended.code, ended.stdout.trim()), (0, TOKEN), "{method}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn an_assertion_signed_with_the_secret_is_accepted_by_a_server_that_verifies() {
    let secret = "a shared secret of more than thirty-two bytes";
    for (name, algorithm) in [("HS256", hmac::HMAC_SHA256), ("HS512", hmac::HMAC_SHA512)] {
        let key = hmac::Key::new(algorithm, secret.as_bytes());
        let verify = move |message: &[u8], tag: &[u8]| hmac::verify(&key, message, tag).is_ok();
        judged("client_secret_jwt", name, secret, verify).await;
    }
}

#[tokio::test]
async fn assertions_signed_with_a_private_key_are_accepted_by_a_server_that_verifies() {
    let rows: [(_, &'static SignatureAlgorithm, &'static dyn VerificationAlgorithm); 7] = [
        ("ES256", &PKCS_ECDSA_P256_SHA256, &ECDSA_P256_SHA256_FIXED),
        ("ES384", &PKCS_ECDSA_P384_SHA384, &ECDSA_P384_SHA384_FIXED),
        ("EdDSA", &PKCS_ED25519, &ED25519),
        ("Ed25519", &PKCS_ED25519, &ED25519),
        ("RS256", &PKCS_RSA_SHA256, &RSA_PKCS1_2048_8192_SHA256),
        ("PS256", &PKCS_RSA_SHA256, &RSA_PSS_2048_8192_SHA256),
        ("PS512", &PKCS_RSA_SHA256, &RSA_PSS_2048_8192_SHA512),
    ];
    for (name, kind, algorithm) in rows {
        let pair = KeyPair::generate_for(kind).unwrap();
        let public = pair.public_key_raw().to_vec();
        let verify = move |message: &[u8], signature: &[u8]| {
            UnparsedPublicKey::new(algorithm, &public).verify(message, signature).is_ok()
        };
        judged("private_key_jwt", name, &pair.serialize_pem(), verify).await;
    }
}

#[tokio::test]
async fn a_private_key_may_be_a_jwk() {
    let (jwk, public) = ed25519_jwk();
    let verify = move |message: &[u8], signature: &[u8]| {
        UnparsedPublicKey::new(&ED25519, &public).verify(message, signature).is_ok()
    };
    judged("private_key_jwt", "EdDSA", &jwk, verify).await;
}

/// A server that knows one public key at a time, and the assertions that it was sent.
#[derive(Default)]
struct Registered {
    public: Mutex<Vec<u8>>,
    assertions: Mutex<Vec<String>>,
    failures: AtomicUsize,
    granted: watch::Sender<usize>,
}

impl Registered {
    fn answer(&self, request: &Request<Bytes>) -> Response<String> {
        let assertion = field(request.body(), "client_assertion").unwrap();
        self.assertions.lock().unwrap().push(assertion.clone());
        let failures = &self.failures;
        let counted = |left: usize| left.checked_sub(1);
        if failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, counted).is_ok() {
            return Response::builder().status(503).body(String::new()).unwrap();
        }
        let (message, signature) = assertion.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let public = self.public.lock().unwrap().clone();
        let known = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &public);
        match known.verify(message.as_bytes(), &signature) {
            Ok(()) => {
                self.granted.send_modify(|granted| *granted += 1);
                let answer = issued();
                let count = *self.granted.borrow();
                answer.map(|body| body.replace(TOKEN, &format!("{TOKEN}-{count}")))
            }
            Err(_) => refused("no such key"),
        }
    }

    fn identifiers(&self) -> Vec<String> {
        let claims = |assertion: &String| {
            let claims = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap()).unwrap();
            let claims: Value = serde_json::from_slice(&claims).unwrap();
            claims["jti"].as_str().unwrap().to_owned()
        };
        self.assertions.lock().unwrap().iter().map(claims).collect()
    }
}

#[tokio::test]
async fn a_private_key_is_replaced_while_the_proxy_runs_and_the_old_one_serves_until_the_new_works()
{
    let [old, new] = [(); 2].map(|()| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
    let mut bank = Secured::start().await;
    secret_file(&bank.ca.file(""), "key", &old.serialize_pem());
    let registered = Arc::new(Registered::default());
    *registered.public.lock().unwrap() = old.public_key_raw().to_vec();
    registered.failures.store(1, Ordering::SeqCst);
    let server = Arc::clone(&registered);
    let server = Service::start(None, move |request| server.answer(request)).await;
    let identity = bank.ca.issue(&["localhost"], |_| {});
    bank.auth = Front::start(&identity, None, server.addr).await;
    let credential = format!(
        "client_auth = \"private_key_jwt\"\nsigning_algorithm = \"ES256\"\n\
         client_secret.file = \"{}\"",
        bank.ca.file("key").display()
    );
    let config = bank.config(&Special { credential: &credential, ..<_>::default() });
    let proxy = Proxy::start(&config).await;
    proxy.wait_ready().await;
    let calls = || registered.assertions.lock().unwrap().len();
    assert!(calls() >= 2, "the first call failed and was made again");
    let renew = async || {
        let before = (calls(), *registered.granted.borrow());
        let path = "/refresh?credential=qbank";
        let answer = client(proxy.admin_addr).await.request("POST", path, &[], b"").await;
        assert_eq!(answer.status, 202);
        let mut granted = registered.granted.subscribe();
        soon(granted.wait_for(|granted| *granted > before.1)).await.unwrap();
        calls() - before.0
    };

    // The server does not know the new key yet, and then the file is no key at all.
    for (text, expected) in [(new.serialize_pem(), 2), ("half a key".to_owned(), 1)] {
        secret_file(&bank.ca.file(""), "key", &text);
        assert_eq!(renew().await, expected);
    }
    let unknown = "the new private key does not work; the one before it stays in use";
    proxy.wait_log(|line| line.contains(unknown).then_some(())).await;
    assert!(!proxy.log().contains("half a key"));

    secret_file(&bank.ca.file(""), "key", &new.serialize_pem());
    *registered.public.lock().unwrap() = new.public_key_raw().to_vec();
    assert_eq!(renew().await, 1, "the new key works at once");
    let identifiers = registered.identifiers();
    assert_eq!(identifiers.iter().collect::<HashSet<_>>().len(), identifiers.len());
}

/// What a server must know to judge the assertion of a grant, and the header and claims of the last one.
struct Granting {
    public: Mutex<Vec<u8>>,
    expected: Value,
    last: Mutex<(Value, String)>,
    seen: Mutex<HashSet<String>>,
}

impl Granting {
    fn answer(&self, request: &Request<Bytes>) -> Response<String> {
        let form = request.body();
        let assertion = field(form, "assertion").unwrap();
        let (message, signature) = assertion.rsplit_once('.').unwrap();
        let json = |part: &str| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        let (header, claims) = message.split_once('.').unwrap();
        let mut claims = json(claims);
        let public = self.public.lock().unwrap().clone();
        let known = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &public);
        let good = known.verify(message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap());
        let kind = "urn:ietf:params:oauth:grant-type:jwt-bearer";
        let claims = claims.as_object_mut().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let [issued_at, ends, id] = ["iat", "exp", "jti"].map(|name| claims.remove(name).unwrap());
        let lives = issued_at.as_u64().unwrap() <= now && now < ends.as_u64().unwrap();
        let fresh = self.seen.lock().unwrap().insert(id.as_str().unwrap().to_owned());
        let expected = Value::Object(claims.clone()) == self.expected;
        let rest = String::from_utf8(form.to_vec()).unwrap().replace(&assertion, "");
        *self.last.lock().unwrap() = (json(header), rest);
        if good.is_ok()
            && field(form, "grant_type").as_deref() == Some(kind)
            && lives
            && fresh
            && expected
        {
            return issued();
        }
        let body = r#"{"error":"invalid_grant","error_description":"Invalid JWT"}"#;
        let answer = Response::builder().status(400).header("content-type", "application/json");
        answer.body(body.into()).unwrap()
    }
}

/// A server that grants by assertion, behind the token endpoint of the bank.
async fn granting(bank: &mut Secured, key: &KeyPair, expected: Value) -> (Arc<Granting>, Service) {
    let granting = Arc::new(Granting {
        public: Mutex::new(key.public_key_raw().to_vec()),
        expected,
        last: Mutex::default(),
        seen: Mutex::default(),
    });
    let server = Arc::clone(&granting);
    let server = Service::start(None, move |request| server.answer(request)).await;
    let identity = bank.ca.issue(&["localhost"], |_| {});
    bank.auth = Front::start(&identity, None, server.addr).await;
    (granting, server)
}

#[tokio::test]
async fn the_key_file_of_a_google_service_account_brings_a_token_as_it_is_downloaded() {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let mut bank = Secured::start().await;
    let email = "erp@project.iam.gserviceaccount.com";
    let audience = "https://oauth2.googleapis.com/token";
    let expected = json!({ "iss": email, "aud": audience, "scope": "balances.read" });
    let (granting, _server) = granting(&mut bank, &key, expected).await;
    let file = json!({
        "type": "service_account", "project_id": "project", "private_key_id": "k1",
        "private_key": key.serialize_pem(), "client_email": email, "client_id": "1042",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth", "token_uri": audience,
    });
    let path = secret_file(&bank.ca.file(""), "key.json", &file.to_string());
    let config = bank.config(&Special::default());
    let credential = |audience: &str| {
        let url = format!("https://localhost:{}/token", bank.auth.addr.port());
        format!(
            "preset = \"google-service-account\"\ntoken_url = \"{url}\"\n\
             grant_assertion = {{ key.file = {path:?}{audience} }}\n"
        )
    };
    let with = |audience: &str| replace_credential(&config, &credential(audience));
    let dir = bank.ca.file("");
    let flags = ["token", "qbank", "--scopes", "balances.read", "--reveal"];

    // The key is for Google, and this is another server: a mistake, unless it is written.
    std::fs::write(dir.join("bearer-proxy.toml"), with("")).unwrap();
    let ended = verb(&dir, &flags).await;
    assert!(ended.code != 0 && ended.stderr.contains("another token_uri"), "{}", ended.stderr);
    std::fs::write(dir.join("bearer-proxy.toml"), with(&format!(", audience = \"{audience}\"")))
        .unwrap();
    let ended = verb(&dir, &flags).await;
    assert_eq!((ended.code, ended.stdout.trim()), (0, TOKEN), "{}", ended.stderr);
    let (header, rest) = granting.last.lock().unwrap().clone();
    assert_eq!(header, json!({ "alg": "RS256", "typ": "JWT", "kid": "k1" }));
    let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
    assert_eq!(rest, grant, "neither scope nor client in the form");

    let proxy = Proxy::start(&with(&format!(", audience = \"{audience}\""))).await;
    proxy.wait_ready().await;
    assert!(!proxy.log().contains("PRIVATE KEY"));
    secret_file(&dir, "key.json", r#"{"type":"authorized_user"}"#);
    let ended = verb(&dir, &["token", "qbank", "--fresh"]).await;
    assert!(ended.stderr.contains("no key file of a Google service account"), "{}", ended.stderr);
}

/// A configuration whose credential has these lines and no others.
fn replace_credential(config: &str, lines: &str) -> String {
    let start = config.find("[credentials.qbank]\n").unwrap() + "[credentials.qbank]\n".len();
    let end = start + config[start..].find("\n[").unwrap();
    format!("{}{lines}{}", &config[..start], &config[end..])
}

#[tokio::test]
async fn the_assertion_of_another_issuer_is_read_for_each_token_request() {
    let mut bank = Secured::start().await;
    let path = secret_file(&bank.ca.file(""), "projected", "ey.first.x\n");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let ledger = Arc::clone(&seen);
    let server = Service::start(None, move |request| {
        let of = |name: &str| field(request.body(), name);
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let good = of("client_assertion_type").as_deref() == Some(kind)
            && of("client_id").is_some()
            && of("client_secret").is_none();
        ledger.lock().unwrap().extend(of("client_assertion"));
        if good { issued() } else { refused("no assertion") }
    })
    .await;
    let identity = bank.ca.issue(&["localhost"], |_| {});
    bank.auth = Front::start(&identity, None, server.addr).await;
    let config = bank.config(&Special::default());
    let url = format!("https://localhost:{}/token", bank.auth.addr.port());
    let lines =
        format!("token_url = \"{url}\"\nclient_id = \"erp\"\nclient_assertion.file = {path:?}\n");
    let dir = bank.ca.file("");
    std::fs::write(dir.join("bearer-proxy.toml"), replace_credential(&config, &lines)).unwrap();
    let proxy = Proxy::start(&replace_credential(&config, &lines)).await;
    proxy.wait_ready().await;
    secret_file(&dir, "projected", "ey.second.y\n");
    let flags = ["token", "qbank", "--scopes", "balances.read", "--reveal"];
    let ended = verb(&dir, &flags).await;
    assert_eq!((ended.code, ended.stdout.trim()), (0, TOKEN), "{}", ended.stderr);
    assert_eq!(*seen.lock().unwrap(), ["ey.first.x", "ey.second.y"]);
    assert!(!proxy.log().contains("ey.first"));
}
