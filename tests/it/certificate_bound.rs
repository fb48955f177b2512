//! Certificate-bound tokens (RFC 8705 section 3): the certificate of the token request is the one that
//! the API sees beside the token, on each connection and through each renewal.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use tokio::task::JoinSet;

use crate::support::service::{ClientLeaf, Service};
use crate::support::tls::Authority;
use crate::support::{Answer, Proxy, client, soon};
use crate::verbs::verb;

/// A token server that binds each token to the certificate of its request, and an API that takes a
/// token with that certificate only.
struct Story {
    ca: Authority,
    auth: Service,
    api: Service,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    tokens: AtomicUsize,
    /// The certificate of each request at the API.
    requests: Mutex<Vec<String>>,
    /// Requests whose token is bound to another certificate.
    mismatches: AtomicUsize,
}

/// The certificate of a request's connection, `x5t#S256`.
fn thumbprint(request: &Request<Bytes>) -> String {
    let leaf = request.extensions().get::<ClientLeaf>();
    leaf.map_or_else(|| "none".to_owned(), |ClientLeaf(der)| hash(der))
}

fn hash(der: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, der))
}

fn token(text: &str) -> Response<String> {
    let body = format!(r#"{{"access_token":"{text}","token_type":"Bearer","expires_in":3600}}"#);
    Response::builder().header("content-type", "application/json").body(body).unwrap()
}

impl Story {
    async fn begin(alpn: &[&str]) -> Self {
        let issue = |mine: &str, number| format!("{number}.{mine}.token");
        Self::issuing(alpn, issue).await
    }

    /// `issue` makes a token of the certificate of its request and of its number.
    async fn issuing(
        alpn: &[&str],
        issue: impl Fn(&str, usize) -> String + Send + Sync + 'static,
    ) -> Self {
        let ca = Authority::new("Bank Test CA");
        let server = ca.issue(&["localhost"], |_| {});
        let seen = Arc::new(Seen::default());
        let book = Arc::clone(&seen);
        let auth = Service::start(Some(server.acceptor(Some(ca.roots()), &[])), move |request| {
            let number = book.tokens.fetch_add(1, Ordering::SeqCst);
            token(&issue(&thumbprint(request), number))
        })
        .await;
        let book = Arc::clone(&seen);
        let api = Service::start(Some(server.acceptor(Some(ca.roots()), alpn)), move |request| {
            let presented = thumbprint(request);
            let carried = request.headers()["authorization"].to_str().unwrap();
            if carried.split('.').nth(1) != Some(&presented) {
                book.mismatches.fetch_add(1, Ordering::SeqCst);
            }
            book.requests.lock().unwrap().push(presented.clone());
            Response::new(presented)
        })
        .await;
        Self { ca, auth, api, seen }
    }

    /// Issues the certificate of a client; gives its `x5t#S256`.
    fn certificate(&self, name: &str) -> String {
        let identity = self.ca.issue(&["erp.bank.test"], |_| {});
        self.ca.write(name, &identity);
        hash(&identity.der())
    }

    /// A configuration with one credential, upstream and route for each certificate.
    fn config(&self, names: &[&str], upstream: &str) -> String {
        let file = |name: &str| self.ca.file(name).display().to_string();
        let mut text = format!(
            "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [reload]\nwatch = \"1s\"\n[tls]\nroots = \"only-extra\"\nextra_ca_file = \"{}\"\n",
            file("ca.pem")
        );
        for name in names {
            text += &format!(
                "[credentials.{name}]\ntoken_url = \"https://localhost:{auth}/token\"\n\
                 client_id = \"erp\"\nclient_auth = \"tls_client_auth\"\nbound = \"certificate\"\n\
                 tls = {{ client_certificate_file = \"{certificate}\", client_key_file = \"{key}\" }}\n\
                 [upstreams.{name}]\nurl = \"https://localhost:{api}\"\ncredential = \"{name}\"\n\
                 mount = \"/{name}\"\n{upstream}\n\
                 [[upstreams.{name}.routes]]\nname = \"all\"\npath = \"/**\"\nmethods = [\"GET\"]\n",
                auth = self.auth.addr.port(),
                api = self.api.addr.port(),
                certificate = file(&format!("{name}.pem")),
                key = file(&format!("{name}.key")),
            );
        }
        text
    }

    fn mismatches(&self) -> usize {
        self.seen.mismatches.load(Ordering::SeqCst)
    }
}

#[cfg(feature = "pkcs12")]
#[tokio::test]
async fn a_container_that_openssl_makes_serves_as_certificate() {
    for kind in ["", "-legacy"] {
        let story = Story::begin(&[]).await;
        let mine = story.certificate("erp");
        let made = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!(
                "umask 077; openssl pkcs12 -export {kind} -inkey erp.key -in erp.pem -out erp.p12 \
                 -passout pass:geheim"
            ))
            .current_dir(story.ca.file(""))
            .status();
        if !made.is_ok_and(|status| status.success()) {
            continue;
        }
        crate::support::secret_file(&story.ca.file(""), "password", "geheim\n");
        let files = format!(
            "tls = {{ client_certificate_file = \"{}\", client_key_file = \"{}\" }}",
            story.ca.file("erp.pem").display(),
            story.ca.file("erp.key").display()
        );
        let container = format!(
            "client_certificate.pkcs12.file = {:?}\nclient_certificate.password.file = {:?}",
            story.ca.file("erp.p12"),
            story.ca.file("password")
        );
        let config = story.config(&["erp"], "").replace(&files, &container);
        let proxy = Proxy::start(&config).await;
        proxy.wait_ready().await;
        assert_eq!(get(&proxy, "/erp/a").await.text(), mine);
        // Nothing is sent with a password that is wrong, and the pair that is in use stays in use.
        crate::support::secret_file(&story.ca.file(""), "password", "another");
        proxy.wait_log(|line| line.contains("its password is another one").then_some(())).await;
        assert_eq!(get(&proxy, "/erp/a").await.text(), mine);
    }
}

#[cfg(feature = "pkcs12")]
#[tokio::test]
async fn an_upstream_has_its_own_certificate_from_a_container() {
    let story = Story::begin(&[]).await;
    let mine = story.certificate("erp");
    let made = std::process::Command::new("sh")
        .arg("-c")
        .arg(
            "umask 077; openssl pkcs12 -export -inkey erp.key -in erp.pem -out own.p12 \
             -passout pass:geheim",
        )
        .current_dir(story.ca.file(""))
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return;
    }
    // The token requests present another certificate.
    let other = story.certificate("erp");
    let password = |text: &str| {
        crate::support::secret_file(&story.ca.file(""), "password", text);
    };
    password("geheim\n");
    let container = format!(
        "tls = {{ client_pkcs12_file = {:?}, client_pkcs12_password_file = {:?} }}",
        story.ca.file("own.p12"),
        story.ca.file("password")
    );
    let config = story.config(&["erp"], &container).replace("bound = \"certificate\"\n", "");
    let proxy = Proxy::start(&config).await;
    proxy.wait_ready().await;
    let seen = get(&proxy, "/erp/a").await.text();
    assert!(seen == mine && seen != other, "{seen}");
    std::fs::write(story.ca.file("bearer-proxy.toml"), &config).unwrap();
    let ended = verb(&story.ca.file(""), &["check", "--live"]).await;
    assert!(ended.stdout.contains("own.p12: "), "{}", ended.stdout);
    password("another");
    let ended = verb(&story.ca.file(""), &["check", "--live"]).await;
    assert!(
        ended.code == 3 && ended.stdout.contains("its password is another one"),
        "{}",
        ended.stdout
    );
}

#[tokio::test]
async fn a_certificate_by_reference_is_renewed_as_files_are() {
    let story = Story::begin(&[]).await;
    let old = story.certificate("erp");
    let in_place = |name: &str| {
        let text = std::fs::read_to_string(story.ca.file(name)).unwrap();
        crate::support::secret_file(&story.ca.file(""), &format!("by-{name}"), &text);
    };
    ["erp.pem", "erp.key"].into_iter().for_each(in_place);
    let config = story.config(&["erp"], "").replace(
        "tls = { client_certificate_file = ",
        "client_certificate = { certificate.file = ",
    );
    let config = config.replace("client_key_file = ", "key.file = ");
    let config = config.replace("/erp.pem", "/by-erp.pem").replace("/erp.key", "/by-erp.key");
    let proxy = Proxy::start(&config).await;
    proxy.wait_ready().await;
    assert_eq!(get(&proxy, "/erp/a").await.text(), old);
    let newest = story.certificate("erp");
    ["erp.pem", "erp.key"].into_iter().for_each(in_place);
    soon(async { while get(&proxy, "/erp/a").await.text() != newest {} }).await;
    assert_eq!(story.mismatches(), 0);
}

async fn get(proxy: &Proxy, path: &str) -> Answer {
    soon(client(proxy.addr).await.get(path)).await
}

#[tokio::test]
async fn the_api_sees_the_certificate_of_the_token_request() {
    for alpn in [&["http/1.1"], &["h2"]] {
        let story = Story::begin(alpn).await;
        let mine = story.certificate("erp");
        let proxy = Proxy::start(&story.config(&["erp"], "")).await;
        proxy.wait_ready().await;
        for _ in 0..3 {
            let answer = get(&proxy, "/erp/a").await;
            assert_eq!((answer.status, answer.text()), (200, mine.clone()), "{alpn:?}");
        }
        assert_eq!(story.mismatches(), 0, "{alpn:?}");
    }
}

#[tokio::test]
async fn a_renewed_certificate_comes_with_a_new_token_and_never_with_the_old_one() {
    for alpn in [&["http/1.1"], &["h2"]] {
        let story = Story::begin(alpn).await;
        let old = story.certificate("erp");
        let proxy = Proxy::start(&story.config(&["erp"], "")).await;
        proxy.wait_ready().await;
        assert_eq!(get(&proxy, "/erp/a").await.text(), old);
        let mut certificates = vec![old];
        for _ in 0..2 {
            let newest = story.certificate("erp");
            certificates.push(newest.clone());
            let mut load = JoinSet::new();
            for _ in 0..4 {
                let (addr, newest) = (proxy.addr, newest.clone());
                load.spawn(async move {
                    let mut app = client(addr).await;
                    loop {
                        let answer = soon(app.get("/erp/a")).await;
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        if answer.text() == newest {
                            return;
                        }
                    }
                });
            }
            soon(load.join_all()).await;
        }
        assert_eq!(story.mismatches(), 0, "{alpn:?}");
        // Each in its turn, and none of them again.
        let mut seen = story.seen.requests.lock().unwrap().clone();
        seen.dedup();
        assert_eq!(seen, certificates, "{alpn:?}");
    }
}

#[tokio::test]
async fn without_a_usable_certificate_nothing_is_sent() {
    let story = Story::begin(&[]).await;
    let old = story.certificate("erp");
    let key = std::fs::read(story.ca.file("erp.key")).unwrap();
    // The key of another certificate, as in the middle of a renewal.
    story.certificate("other");
    std::fs::copy(story.ca.file("other.key"), story.ca.file("erp.key")).unwrap();
    let proxy = Proxy::start(&story.config(&["erp"], "")).await;
    let why = "the client certificate cannot be used";
    proxy.wait_log(|line| line.contains(why).then_some(())).await;
    let answer = get(&proxy, "/erp/a").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("token_unavailable")));
    assert!(answer.text().contains(why), "{}", answer.text());
    assert_eq!(story.seen.tokens.load(Ordering::SeqCst), 0);
    std::fs::write(story.ca.file("erp.key"), key).unwrap();
    proxy.wait_ready().await;
    assert_eq!(get(&proxy, "/erp/a").await.text(), old);
    // The pair that is in use stays in use.
    std::fs::write(story.ca.file("erp.pem"), "no certificate").unwrap();
    proxy.wait_log(|line| line.contains("erp.pem: holds none").then_some(())).await;
    assert_eq!(get(&proxy, "/erp/a").await.text(), old);
    let status = get_admin(&proxy, "/status").await;
    assert!(status.contains("The client certificate of credential erp cannot be used"), "{status}");
    assert_eq!(story.mismatches(), 0);
}

async fn get_admin(proxy: &Proxy, path: &str) -> String {
    soon(client(proxy.admin_addr).await.get(path)).await.text()
}

#[tokio::test]
async fn two_certificates_at_one_host_never_mix() {
    for (alpn, upstream) in
        [(["http/1.1"], ""), (["h2"], ""), (["http/1.1"], "max_connections = 1")]
    {
        let story = Story::begin(&alpn).await;
        let mine = ["erp", "pay"].map(|name| story.certificate(name));
        // A second route of the first upstream leads to the second certificate: one pool, two groups.
        let config = story.config(&["erp", "pay"], upstream)
            + "[[upstreams.erp.routes]]\nname = \"pay\"\npath = \"/pay/**\"\nmethods = [\"GET\"]\n\
               credential = \"pay\"\n";
        let config = config.replace("[upstreams.pay]", "[upstreams.other]");
        let config = config.replace("[[upstreams.pay.routes]]", "[[upstreams.other.routes]]");
        let proxy = Proxy::start(&config).await;
        proxy.wait_ready().await;
        let mut load = JoinSet::new();
        for turn in 0..4 {
            let (addr, mine) = (proxy.addr, mine.clone());
            load.spawn(async move {
                let mut app = client(addr).await;
                for round in 0..20 {
                    let which = (turn + round) % 2;
                    let path = ["/erp/a", "/erp/pay/a"][which];
                    let answer = soon(app.get(path)).await;
                    assert_eq!((answer.status, &answer.text()), (200, &mine[which]));
                }
            });
        }
        soon(load.join_all()).await;
        assert_eq!(story.mismatches(), 0, "{alpn:?}");
    }
}

#[tokio::test]
async fn a_token_that_names_another_certificate_is_refused() {
    let claims = URL_SAFE_NO_PAD
        .encode(r#"{"cnf":{"x5t#S256":"bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}}"#);
    let issue = move |_: &str, _| format!("e30.{claims}.c2ln");
    let story = Story::issuing(&[], issue).await;
    story.certificate("erp");
    let proxy = Proxy::start(&story.config(&["erp"], "")).await;
    let why = "its token is bound to another certificate";
    proxy.wait_log(|line| line.contains(why).then_some(())).await;
    let answer = get(&proxy, "/erp/a").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("token_unavailable")));
    let metrics = get_admin(&proxy, "/metrics").await;
    let refused = "bearer_proxy_token_requests_total{credential=\"erp\",result=\"malformed\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(refused)).unwrap();
    assert_ne!(count, "0");
    assert_eq!(story.seen.requests.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_told_everywhere() {
    let story = Story::begin(&[]).await;
    let soon_over = std::time::SystemTime::now() + std::time::Duration::from_secs(20 * 86_400 + 60);
    let identity = story.ca.issue(&["erp.bank.test"], |params| params.not_after = soon_over.into());
    story.ca.write("erp", &identity);
    let proxy = Proxy::start(&story.config(&["erp"], "")).await;
    let line = proxy
        .wait_log(|line| {
            line.contains("a client certificate expires soon").then(|| line.to_owned())
        })
        .await;
    assert!(line.contains("20") && line.contains("erp"), "{line}");
    let status = get_admin(&proxy, "/status").await;
    let told = "The client certificate of credential erp expires in 20 days.";
    assert!(status.contains(told), "{status}");
    let name = "bearer_proxy_tls_client_certificate_expiry_timestamp_seconds";
    let metrics = get_admin(&proxy, "/metrics").await;
    assert!(metrics.contains(&format!("{name}{{kind=\"credential\",name=\"erp\"}}")), "{metrics}");
    let config = proxy.config_path.display().to_string();
    let args = ["check", "--live", "--config", &config];
    let said = verb(proxy.config_path.parent().unwrap(), &args).await.stdout;
    assert!(said.contains("20 days left") && said.contains("it ends soon"), "{said}");
}
