//! Metadata of an issuer (RFC 8414, OpenID Connect Discovery): they name the token endpoint, within what the
//! configuration allows.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::support::service::{ClientLeaf, Service};
use crate::support::tls::{Authority, Identity};
use crate::support::{Answer, Proxy, client, secret_file, soon};
use crate::verbs::verb;

/// The answers of a server by path, and the requests that it had.
#[derive(Default)]
struct Book {
    answers: Vec<(String, u16, Value)>,
    requests: Vec<(String, Vec<u8>)>,
}

type Shared = Arc<Mutex<Book>>;

impl Book {
    fn set(&mut self, path: &str, status: u16, body: Value) {
        self.answers.retain(|(known, ..)| known != path);
        self.answers.push((path.to_owned(), status, body));
    }
}

fn answer(book: &Shared, request: &Request<Bytes>) -> Response<String> {
    let mut book = book.lock().unwrap();
    let path = request.uri().path().to_owned();
    let found = book.answers.iter().find(|(known, ..)| *known == path).cloned();
    book.requests.push((path, request.body().to_vec()));
    let (_, status, body) = found.unwrap_or_else(|| (String::new(), 404, json!({})));
    let body = match body["leaf"] == true && request.extensions().get::<ClientLeaf>().is_none() {
        true => json!({ "error": "invalid_client" }),
        false => body,
    };
    let answer = Response::builder().status(status).header("content-type", "application/json");
    answer.body(body.to_string()).unwrap()
}

fn token(text: &str) -> Value {
    json!({ "access_token": text, "token_type": "Bearer", "expires_in": 3600 })
}

struct Story {
    ca: Authority,
    identity: Identity,
    book: Shared,
    /// Token server and API, at one host.
    server: Service,
}

const RFC8414: &str = "/.well-known/oauth-authorization-server/realm";
const OPENID: &str = "/realm/.well-known/openid-configuration";

impl Story {
    async fn begin() -> Self {
        let ca = Authority::new("Bank Test CA");
        let identity = ca.issue(&["localhost"], |_| {});
        let book = Shared::default();
        book.lock().unwrap().set("/token", 200, token("first"));
        let answers = Arc::clone(&book);
        let tls = identity.acceptor(None, &[]);
        let server = Service::start(Some(tls), move |request| answer(&answers, request)).await;
        secret_file(&ca.file(""), "secret", "s3cret");
        Self { ca, identity, book, server }
    }

    fn origin(&self) -> String {
        format!("https://localhost:{}", self.server.addr.port())
    }

    /// Metadata of this issuer with these changes.
    fn metadata(&self, change: Value) -> Value {
        let mut all = json!({
            "issuer": format!("{}/realm", self.origin()),
            "token_endpoint": format!("{}/token", self.origin()),
            "token_endpoint_auth_methods_supported": ["client_secret_post", "tls_client_auth"],
        });
        for (name, value) in change.as_object().unwrap() {
            all[name] = value.clone();
        }
        all
    }

    fn set(&self, path: &str, status: u16, body: Value) {
        self.book.lock().unwrap().set(path, status, body);
    }

    fn paths(&self) -> Vec<String> {
        self.book.lock().unwrap().requests.iter().map(|(path, _)| path.clone()).collect()
    }

    fn config(&self, credential: &str) -> String {
        let secret = match credential.contains("tls_client_auth") {
            true => String::new(),
            false => format!("client_secret.file = {:?}\n", self.ca.file("secret")),
        };
        format!(
            "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [tls]\nroots = \"only-extra\"\nextra_ca_file = {ca:?}\n\
             [credentials.bank]\nissuer = \"{origin}/realm\"\nclient_id = \"erp\"\n{secret}{credential}\n\
             [upstreams.bank]\nurl = \"{origin}\"\ncredential = \"bank\"\n\
             [[upstreams.bank.routes]]\nname = \"all\"\npath = \"/**\"\nmethods = [\"GET\"]\n",
            ca = self.ca.file("ca.pem"),
            origin = self.origin(),
        )
    }

    /// What is said where the metadata cannot be used: in the log, to the app, and by `check --live`.
    async fn refused(&self, change: Value, credential: &str, words: &str) {
        self.set(RFC8414, 200, self.metadata(change));
        let proxy = Proxy::start(&self.config(credential)).await;
        proxy.wait_log(|line| line.contains(words).then_some(())).await;
        let answer = get(&proxy, "/a").await;
        let code = answer.json()["code"].as_str().map(str::to_owned);
        assert_eq!((answer.status, code.as_deref()), (503, Some("token_unavailable")));
        assert!(answer.text().contains("the issuer's metadata"), "{}", answer.text());
        let config = proxy.config_path.display().to_string();
        let args = ["check", "--live", "--config", &config];
        let said = verb(proxy.config_path.parent().unwrap(), &args).await.stdout;
        let step = said.lines().find(|line| line.contains("issuer ")).unwrap_or_default();
        assert!(step.contains(words), "{words}: {said}");
        assert!(!self.paths().contains(&"/token".to_owned()), "{words}");
    }
}

async fn get(proxy: &Proxy, path: &str) -> Answer {
    soon(client(proxy.addr).await.get(path)).await
}

#[tokio::test]
async fn the_metadata_are_found_where_either_standard_puts_them() {
    for (place, asked) in [(RFC8414, &[RFC8414][..]), (OPENID, &[RFC8414, OPENID])] {
        let story = Story::begin().await;
        story.set(place, 200, story.metadata(json!({})));
        story.set("/a", 200, json!("the API"));
        let proxy = Proxy::start(&story.config("")).await;
        proxy.wait_ready().await;
        assert_eq!(story.paths(), [asked, &["/token"]].concat());
        assert_eq!(get(&proxy, "/a").await.status, 200);
        // The endpoint that was found is never forwarded, however it is spelled.
        for path in ["/token", "/%74oken"] {
            let answer = get(&proxy, path).await;
            assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("token_endpoint")));
        }
        let status = soon(client(proxy.admin_addr).await.get("/status")).await.json();
        let token = &status["tokens"][0];
        assert_eq!(token["token_url"], format!("{}/token", story.origin()));
        assert_eq!(token["issuer"], format!("{}/realm", story.origin()));
        let admin = format!("[admin]\nlisten = \"{}\"", proxy.admin_addr);
        let text = story.config("").replace("[admin]\nlisten = \"127.0.0.1:0\"", &admin);
        let folder = proxy.config_path.parent().unwrap();
        std::fs::write(folder.join("live.toml"), text).unwrap();
        let said = verb(folder, &["check", "--live", "--config", "live.toml"]).await.stdout;
        let step =
            format!("token endpoint {}/token, client_auth client_secret_post", story.origin());
        assert!(said.contains(&step), "{said}");
        // The running instance was asked, and no token call was made for it.
        assert_eq!(story.paths().iter().filter(|path| *path == "/token").count(), 1, "{said}");
    }
}

#[tokio::test]
async fn without_metadata_both_addresses_are_named() {
    let story = Story::begin().await;
    let proxy = Proxy::start(&story.config("")).await;
    let words = "answered 404 and .well-known/openid-configuration 404";
    proxy.wait_log(|line| line.contains(words).then_some(())).await;
}

#[tokio::test]
async fn metadata_never_widen_what_the_configuration_allows() {
    let story = Story::begin().await;
    let other = json!({ "issuer": format!("{}/realm/", story.origin()) });
    story.refused(other, "", "is not the configured one").await;
    let cleartext = json!({ "token_endpoint": "http://127.0.0.1:9/token" });
    story.refused(cleartext, "", "is no https:// URL").await;
    let foreign = json!({ "token_endpoint": "https://localhost:9/token" });
    let words = "is at localhost:9, which is neither the issuer's host nor in token_hosts";
    story.refused(foreign, "", words).await;
    let methods = json!({ "token_endpoint_auth_methods_supported": ["private_key_jwt"] });
    let words = "does not list client_auth client_secret_post";
    story.refused(methods, "client_auth = \"client_secret_post\"", words).await;
}

#[tokio::test]
async fn without_a_configured_method_the_listed_one_is_used() {
    let story = Story::begin().await;
    let methods = json!({ "token_endpoint_auth_methods_supported": ["client_secret_basic"] });
    story.set(RFC8414, 200, story.metadata(methods));
    let proxy = Proxy::start(&story.config("")).await;
    proxy.wait_ready().await;
    let requests = story.book.lock().unwrap().requests.clone();
    let body = String::from_utf8(requests.last().unwrap().1.clone()).unwrap();
    assert!(body.contains("grant_type=client_credentials") && !body.contains("s3cret"), "{body}");
}

#[tokio::test]
async fn after_a_failed_token_request_the_endpoint_is_looked_up_again() {
    let story = Story::begin().await;
    story.set(RFC8414, 200, story.metadata(json!({})));
    story.set("/a", 200, json!("the API"));
    let proxy = Proxy::start(&story.config("")).await;
    proxy.wait_ready().await;
    let moved = json!({ "token_endpoint": format!("{}/moved", story.origin()) });
    story.set(RFC8414, 200, story.metadata(moved));
    story.set("/token", 404, json!({}));
    story.set("/moved", 200, token("second"));
    soon(client(proxy.admin_addr).await.request("POST", "/refresh?credential=bank", &[], b""))
        .await;
    soon(async {
        while !story.paths().contains(&"/moved".to_owned()) {
            get(&proxy, "/a").await;
        }
    })
    .await;
    assert_eq!(get(&proxy, "/moved").await.json()["code"], "token_endpoint");
    // The last good metadata stay in use.
    story.set(RFC8414, 500, json!({}));
    story.set(OPENID, 500, json!({}));
    story.set("/moved", 503, json!({}));
    soon(client(proxy.admin_addr).await.request("POST", "/refresh?credential=bank", &[], b""))
        .await;
    let words = "cannot be fetched again; the last good ones stay in use";
    proxy.wait_log(|line| line.contains(words).then_some(())).await;
    assert_eq!(get(&proxy, "/a").await.status, 200);
}

#[tokio::test]
async fn the_alias_for_client_certificates_is_used_where_its_host_is_allowed() {
    let story = Story::begin().await;
    let answers = Arc::clone(&story.book);
    let tls = story.identity.acceptor(Some(story.ca.roots()), &[]);
    let mtls = Service::start(Some(tls), move |request| answer(&answers, request)).await;
    story.ca.write("erp", &story.ca.issue(&["erp.bank.test"], |_| {}));
    let host = format!("localhost:{}", mtls.addr.port());
    let mut issued = token("bound");
    issued["leaf"] = json!(true);
    story.set("/mtls/token", 200, issued);
    let alias = json!({ "mtls_endpoint_aliases": { "token_endpoint": format!("https://{host}/mtls/token") } });
    let certificate = format!(
        "client_auth = \"tls_client_auth\"\n\
         tls = {{ client_certificate_file = {:?}, client_key_file = {:?} }}",
        story.ca.file("erp.pem"),
        story.ca.file("erp.key"),
    );
    let words = format!("is at {host}, which is neither");
    story.refused(alias.clone(), &certificate, &words).await;
    let allowed = format!("token_hosts = [\"{host}\"]\n{certificate}");
    let proxy = Proxy::start(&story.config(&allowed)).await;
    proxy.wait_ready().await;
    assert!(story.paths().contains(&"/mtls/token".to_owned()));
}
