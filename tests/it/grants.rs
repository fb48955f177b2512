//! Grants beside client credentials, against servers that look at each parameter: token exchange
//! (RFC 8693) and a user's password (RFC 6749 section 4.3).

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use tempfile::TempDir;

use crate::support::service::Service;
use crate::support::{Proxy, client, secret_file, soon};
use crate::verbs::verb;

/// The fields of a form, decoded, in their order.
type Form = Vec<(String, String)>;

fn form(body: &[u8]) -> Form {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    let pairs = std::str::from_utf8(body).unwrap().split('&').filter_map(|one| one.split_once('='));
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}

fn of<'a>(form: &'a Form, name: &str) -> &'a str {
    form.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
}

fn json(status: u16, body: &str) -> Response<String> {
    let answer = Response::builder().status(status).header("content-type", "application/json");
    answer.body(body.to_owned()).unwrap()
}

/// A token server that gives its forms to a function, the forms, and an API that echoes the token.
struct World {
    dir: TempDir,
    forms: Arc<Mutex<Vec<Form>>>,
    auth: Service,
    api: Service,
}

impl World {
    async fn start(answer: impl Fn(&Form) -> Response<String> + Send + Sync + 'static) -> Self {
        let forms = Arc::new(Mutex::new(Vec::new()));
        let ledger = Arc::clone(&forms);
        let auth = Service::start(None, move |request: &Request<Bytes>| {
            let form = form(request.body());
            let answer = answer(&form);
            ledger.lock().unwrap().push(form);
            answer
        })
        .await;
        let api = Service::start(None, |request: &Request<Bytes>| {
            let token = request.headers().get("authorization").unwrap().to_str().unwrap();
            Response::new(token.trim_start_matches("Bearer ").to_owned())
        })
        .await;
        Self { dir: tempfile::tempdir().unwrap(), forms, auth, api }
    }

    /// A file of a secret; its name in quotes.
    fn secret(&self, name: &str, text: &str) -> String {
        format!("{:?}", secret_file(self.dir.path(), name, text))
    }

    /// Writes the configuration for the verbs, and returns it.
    fn config(&self, credential: &str) -> String {
        let text = format!(
            "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [credentials.a]\ntoken_url = \"http://{}/token\"\n{credential}\n\
             [upstreams.a]\nurl = \"http://{}\"\ncredential = \"a\"\n\
             [[upstreams.a.routes]]\nname = \"all\"\npath = \"/**\"\nmethods = [\"GET\"]\n",
            self.auth.addr, self.api.addr
        );
        std::fs::write(self.dir.path().join("bearer-proxy.toml"), &text).unwrap();
        text
    }

    fn last(&self) -> Form {
        self.forms.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

/// Forces a new token.
async fn refresh(proxy: &Proxy) {
    let mut admin = client(proxy.admin_addr).await;
    let answer = soon(admin.request("POST", "/refresh?credential=a", &[], b"")).await;
    assert_eq!(answer.status, 202);
}

const EXCHANGED: &str = r#"{"access_token":"exchanged","token_type":"Bearer","expires_in":3600,
    "issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}"#;

#[tokio::test]
async fn a_subject_token_is_exchanged_and_read_again_for_each_request() {
    let world = World::start(|form| match of(form, "subject_token") {
        "ey.first.x" | "ey.second.x" => json(200, EXCHANGED),
        _ => json(400, r#"{"error":"invalid_request","error_description":"expired"}"#),
    })
    .await;
    let config = world.config(&format!(
        "grant = \"token_exchange\"\nsubject_token.file = {}\nsubject_token_type = \"jwt\"\n\
         actor_token.file = {}\nactor_token_type = \"access_token\"\n\
         requested_token_type = \"access_token\"\naudience = \"https://api.example\"\n\
         resource = \"https://api.example/v1\"\n",
        world.secret("subject", "ey.first.x\n"),
        world.secret("actor", "ey.actor.x\n"),
    ));
    let proxy = Proxy::start(&config).await;
    proxy.wait_ready().await;
    let answer = soon(client(proxy.addr).await.request("GET", "/x", &[], b"")).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"exchanged".as_slice()));
    let expected: Form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", "ey.first.x"),
        ("actor_token", "ey.actor.x"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("actor_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("audience", "https://api.example"),
        ("resource", "https://api.example/v1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    assert_eq!(world.last(), expected, "neither id nor secret");

    world.secret("subject", "ey.second.x");
    refresh(&proxy).await;
    proxy.wait_log(|line| line.contains("same token again").then_some(())).await;
    assert_eq!(of(&world.last(), "subject_token"), "ey.second.x");
    assert!(!proxy.log().contains("changed client secret"), "it changes by itself");

    // A subject token that is refused is told as such, and another one is tried at once.
    world.secret("subject", "ey.third.x");
    let ended = verb(world.dir.path(), &["check", "--live", "--fresh"]).await;
    assert_eq!(ended.code, 3, "{}", ended.stdout);
    assert!(ended.stdout.contains("does not accept the subject token"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("ey."), "{}", ended.stdout);
    assert!(["ey.first", "ey.second", "ey.actor"].iter().all(|part| !proxy.log().contains(part)));
}

#[tokio::test]
async fn a_token_that_is_no_access_token_is_refused_in_words() {
    let kind = Arc::new(Mutex::new(("N_A", "access_token")));
    let issued = Arc::clone(&kind);
    let world = World::start(move |_| {
        let (token_type, issued) = *issued.lock().unwrap();
        json(
            200,
            &format!(
                r#"{{"access_token":"exchanged","token_type":"{token_type}","expires_in":60,
                "issued_token_type":"urn:ietf:params:oauth:token-type:{issued}"}}"#
            ),
        )
    })
    .await;
    world.config(&format!(
        "grant = \"token_exchange\"\nsubject_token.file = {}\nsubject_token_type = \"saml2\"\n",
        world.secret("subject", "PHNhbWw"),
    ));
    let flags = ["token", "a", "--reveal"];
    for (found, words) in [
        (("N_A", "access_token"), "no access token (token_type N_A)"),
        (("Bearer", "id_token"), "issued_token_type is neither access_token"),
    ] {
        *kind.lock().unwrap() = found;
        let ended = verb(world.dir.path(), &flags).await;
        assert!(ended.code == 1 && ended.stderr.contains(words), "{}", ended.stderr);
        assert!(ended.stderr.contains("set requested_token_type"), "{}", ended.stderr);
    }
    *kind.lock().unwrap() = ("bearer", "jwt");
    let ended = verb(world.dir.path(), &flags).await;
    assert_eq!((ended.code, ended.stdout.trim()), (0, "exchanged"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_users_password_is_the_grant_with_a_warning_and_a_wrong_one_rests_as_a_wrong_secret_does()
{
    let right = Arc::new(Mutex::new("p+s&word"));
    let known = Arc::clone(&right);
    let world = World::start(move |form| {
        let good = of(form, "username") == "erp@example.com"
            && of(form, "password") == *known.lock().unwrap()
            && of(form, "client_id") == "erp"
            && of(form, "client_secret") == "s";
        match good {
            true => json(200, r#"{"access_token":"of-the-user","token_type":"Bearer"}"#),
            false => json(400, r#"{"error":"invalid_grant"}"#),
        }
    })
    .await;
    let config = world.config(&format!(
        "grant = \"password\"\nclient_id = \"erp\"\nclient_secret.file = {}\n\
         username.file = {}\npassword.file = {}\n",
        world.secret("key", "s"),
        world.secret("user", "erp@example.com\n"),
        world.secret("password", "p+s&word\n"),
    ));
    let ended = verb(world.dir.path(), &["check"]).await;
    assert!(
        ended.code == 0 && ended.stderr.contains("RFC 9700"),
        "{}{}",
        ended.stdout,
        ended.stderr
    );
    let proxy = Proxy::start(&config).await;
    proxy.wait_ready().await;
    proxy.wait_log(|line| line.contains("the password grant is insecure").then_some(())).await;
    assert_eq!(of(&world.last(), "grant_type"), "password");

    *right.lock().unwrap() = "changed";
    refresh(&proxy).await;
    proxy
        .wait_log(|line| {
            let told = line.contains("check username and password");
            // The pause after a refused login, so that the user is not locked out.
            (told && line.contains("refusals_of_this_secret")).then_some(())
        })
        .await;
    assert!(!proxy.log().contains("p+s&word"));
}

/// An API that accepts one token, and a proxy whose token is the file `token`.
async fn static_token(dir: &TempDir, accepted: &Arc<Mutex<&'static str>>) -> (Proxy, Service) {
    let accepted = Arc::clone(accepted);
    let api = Service::start(None, move |request: &Request<Bytes>| {
        let token = request.headers().get("authorization").map(|value| value.to_str().unwrap());
        let known = token.and_then(|token| token.strip_prefix("Bearer "));
        let status = if known == Some(*accepted.lock().unwrap()) { 200 } else { 401 };
        Response::builder().status(status).body(String::new()).unwrap()
    })
    .await;
    let config = format!(
        "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [credentials.a]\ngrant = \"static\"\ntoken.file = {:?}\ndefault_lifetime = \"1s\"\n\
         [upstreams.a]\nurl = \"http://{}\"\ncredential = \"a\"\n\
         [[upstreams.a.routes]]\nname = \"all\"\npath = \"/**\"\nmethods = [\"GET\"]\n\
         scopes = [\"read\"]\n",
        dir.path().join("token"),
        api.addr
    );
    std::fs::write(dir.path().join("bearer-proxy.toml"), &config).unwrap();
    (Proxy::start(&config).await, api)
}

#[tokio::test]
async fn a_token_is_read_from_its_file_and_again_at_a_401() {
    let dir = tempfile::tempdir().unwrap();
    secret_file(dir.path(), "token", "by.hand.1\n");
    let accepted = Arc::new(Mutex::new("by.hand.1"));
    let (proxy, _api) = static_token(&dir, &accepted).await;
    proxy.wait_ready().await;
    let mut app = client(proxy.addr).await;
    let get =
        async |app: &mut crate::support::Client| soon(app.request("GET", "/x", &[], b"")).await;
    assert_eq!(get(&mut app).await.status, 200);

    // The source holds another token by the time of the 401: the request is sent again with it.
    *accepted.lock().unwrap() = "by.hand.2";
    secret_file(dir.path(), "token", "by.hand.2\n");
    assert_eq!(get(&mut app).await.status, 200);

    // It holds the refused one still: the 401 goes to the app, and the token stays in use.
    *accepted.lock().unwrap() = "by.hand.3";
    assert_eq!(get(&mut app).await.status, 401);
    proxy
        .wait_log(|line| line.contains("an upstream refuses the static token").then_some(()))
        .await;
    assert_eq!(get(&mut app).await.status, 401);

    // A changed file is read without a request.
    secret_file(dir.path(), "token", "by.hand.3\n");
    let obtained = || proxy.log().matches("token obtained").count();
    assert_eq!(obtained(), 2);
    proxy.wait_log(|_| (obtained() == 3).then_some(())).await;
    assert_eq!(get(&mut app).await.status, 200);

    let mut admin = client(proxy.admin_addr).await;
    let status = soon(admin.request("GET", "/status", &[], b"")).await.json();
    let token = &status["tokens"][0];
    assert!(token["token_url"].as_str().unwrap().starts_with("file "), "{token}");
    assert!(token["usable"] == true && token["expires"].is_null(), "{token}");
    let metrics = soon(admin.request("GET", "/metrics", &[], b"")).await;
    let metrics = String::from_utf8(metrics.body.clone()).unwrap();
    let calls = "bearer_proxy_token_requests_total{credential=\"a\",result=\"ok\"} 0";
    assert!(metrics.contains(calls) && metrics.contains("bearer_proxy_token_usable"), "{metrics}");
    assert!(!proxy.log().contains("by.hand"));
}

#[tokio::test]
async fn a_static_token_that_cannot_be_read_or_sent_fails_its_credential_only() {
    let dir = tempfile::tempdir().unwrap();
    let accepted = Arc::new(Mutex::new("by.hand.1"));
    secret_file(dir.path(), "token", "Bearer by.hand.1");
    let (proxy, _api) = static_token(&dir, &accepted).await;
    proxy.wait_log(|line| line.contains("write the token alone").then_some(())).await;
    let mut app = client(proxy.addr).await;
    let answer = soon(app.request("GET", "/x", &[], b"")).await;
    assert_eq!((answer.status, &answer.json()["code"]), (503, &"token_unavailable".into()));
    let flags = ["check", "--live", "--fresh"];
    let ended = verb(dir.path(), &flags).await;
    assert!(ended.code == 3 && !ended.stdout.contains("by.hand"), "{}", ended.stdout);

    secret_file(dir.path(), "token", "by.hand.1");
    proxy.wait_ready().await;
    assert_eq!(soon(app.request("GET", "/x", &[], b"")).await.status, 200);
    let ended = verb(dir.path(), &flags).await;
    assert!(ended.code == 0 && ended.stdout.contains("static token"), "{}", ended.stdout);
    let ended = verb(dir.path(), &["token", "a", "--reveal"]).await;
    assert_eq!((ended.code, ended.stdout.trim(), &*ended.stderr), (0, "by.hand.1", ""));
}

/// A token server of two steps: `/inner` issues tokens, and `/outer` takes the newest of them by GET.
struct TwoSteps {
    issued: Arc<Mutex<usize>>,
    /// Authorization headers that reached `/outer` and the API, in their order.
    seen: Arc<Mutex<Vec<String>>>,
    auth: Service,
    api: Service,
}

impl TwoSteps {
    async fn start() -> Self {
        let (issued, seen) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (count, ledger) = (Arc::clone(&issued), Arc::clone(&seen));
        let auth = Service::start(None, move |request: &Request<Bytes>| {
            let sent = request.headers().get("authorization").map(|value| value.to_str().unwrap());
            if request.uri().path() == "/inner" {
                assert_eq!((sent, of(&form(request.body()), "client_id")), (None, "erp"));
                *count.lock().unwrap() += 1;
                let number = count.lock().unwrap();
                return json(
                    200,
                    &format!(r#"{{"access_token":"in.{number}","token_type":"bearer","expires_in":3600}}"#),
                );
            }
            let bare = request.body().is_empty() && !request.headers().contains_key("content-type");
            assert!(request.method() == "GET" && bare && request.uri().query().is_none());
            ledger.lock().unwrap().push(format!("outer {}", sent.unwrap_or("")));
            match sent == Some(&format!("Bearer in.{}", count.lock().unwrap())) {
                true => json(
                    200,
                    r#"{"authTokens":[{"type":"Bearer","value":"out.1","expires_in":"3600"}]}"#,
                ),
                false => json(401, "{}"),
            }
        })
        .await;
        let ledger = Arc::clone(&seen);
        let api = Service::start(None, move |request: &Request<Bytes>| {
            let token = request.headers().get("authorization").unwrap().to_str().unwrap();
            ledger.lock().unwrap().push(format!("api {token}"));
            Response::new(String::new())
        })
        .await;
        Self { issued, seen, auth, api }
    }

    fn config(&self, dir: &TempDir, outer: &str) -> String {
        let key = secret_file(dir.path(), "key", "s3cr3t");
        let (auth, api) = (self.auth.addr, self.api.addr);
        let text = format!(
            "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [credentials.inner]\ntoken_url = \"http://{auth}/inner\"\nclient_id = \"erp\"\n\
             client_secret.file = {key:?}\n\
             [credentials.a]\npreset = \"sap-destination\"\ntoken_url = \"http://{auth}/outer\"\n\
             token_via = \"inner\"\n{outer}\n\
             [upstreams.a]\nurl = \"http://{api}\"\ncredential = \"a\"\n\
             [[upstreams.a.routes]]\nname = \"all\"\npath = \"/**\"\nmethods = [\"GET\"]\n"
        );
        std::fs::write(dir.path().join("bearer-proxy.toml"), &text).unwrap();
        text
    }

    fn take_seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

#[tokio::test]
async fn a_token_is_fetched_with_the_token_of_another_credential() {
    let (dir, world) = (tempfile::tempdir().unwrap(), TwoSteps::start().await);
    let text = world.config(&dir, "");
    let proxy = Proxy::start(&text).await;
    proxy.wait_ready().await;
    let mut app = client(proxy.addr).await;
    assert_eq!(soon(app.request("GET", "/x", &[], b"")).await.status, 200);
    // The inner token never reaches the API, and the outer one never a token server.
    assert_eq!(world.take_seen(), ["outer Bearer in.1", "api Bearer out.1"]);

    // The server knows a newer token of the other credential: that one is renewed, and the call repeated.
    *world.issued.lock().unwrap() += 1;
    refresh(&proxy).await;
    proxy.wait_log(|line| line.contains("same token again").then_some(())).await;
    assert_eq!(world.take_seen(), ["outer Bearer in.1", "outer Bearer in.3"]);

    let ended = verb(dir.path(), &["check", "--live", "--fresh"]).await;
    assert_eq!(ended.code, 0, "{}", ended.stdout);
    let ended = verb(dir.path(), &["token", "a", "--reveal"]).await;
    assert_eq!((ended.code, ended.stdout.trim()), (0, "out.1"), "{}", ended.stderr);

    // A reload that replaces the other credential gives the outer one its new reader.
    world.take_seen();
    let changed = text.replace("/inner\"\n", "/inner\"\nmax_token_bytes = \"1KiB\"\n");
    assert_ne!(changed, text);
    std::fs::write(&proxy.config_path, changed).unwrap();
    proxy.signal(rustix::process::Signal::HUP);
    proxy.wait_log(|line| line.contains("configuration reloaded").then_some(())).await;
    proxy.wait_ready().await;
    assert_eq!(soon(app.request("GET", "/x", &[], b"")).await.status, 200);
    let seen = world.take_seen();
    assert!(seen[0].starts_with("outer Bearer in.") && seen[0] != "outer Bearer in.3", "{seen:?}");
    assert!(!["in.1", "out.1", "s3cr3t"].iter().any(|secret| proxy.log().contains(secret)));
}

#[tokio::test]
async fn without_the_other_token_no_request_is_made_and_the_cause_is_told() {
    let (dir, world) = (tempfile::tempdir().unwrap(), TwoSteps::start().await);
    let text = world.config(&dir, "timeouts = { total = \"1s\", connect = \"1s\" }\n");
    std::fs::remove_file(dir.path().join("key")).unwrap();
    let proxy = Proxy::start(&text).await;
    let words = "there is no token of the credential inner, which token_via names";
    proxy.wait_log(|line| line.contains(words).then_some(())).await;
    let mut app = client(proxy.addr).await;
    let answer = soon(app.request("GET", "/x", &[], b"")).await;
    assert_eq!((answer.status, &answer.json()["code"]), (503, &"token_unavailable".into()));
    assert!(world.take_seen().is_empty());
    let ended = verb(dir.path(), &["token", "a"]).await;
    assert!(ended.code == 1 && ended.stderr.contains(words), "{}", ended.stderr);
}
