//! Whom we trust over TLS: upstreams and token endpoints with certificates of a private CA.

use http::{Response, Version};
use rcgen::date_time_ymd;

use crate::support::secured::{Secured, Special};
use crate::support::service::Service;
use crate::support::tls::{Authority, Front, Identity};
use crate::support::{Answer, Proxy, client, soon};

/// What a proxy answers whose upstream is `identity`, in front of the bank's API.
async fn over(identity: Option<Identity>, upstream: &str) -> (Secured, Proxy, Answer) {
    let mut bank = Secured::start().await;
    if let Some(identity) = identity {
        bank.api = Front::start(&identity, None, bank.bank.api.addr()).await;
    }
    let proxy = Proxy::start(&bank.config(&Special { upstream, ..<_>::default() })).await;
    proxy.wait_ready().await;
    let answer = soon(client(proxy.addr).await.get("/v1/balances/42")).await;
    (bank, proxy, answer)
}

#[tokio::test]
async fn a_private_ca_is_trusted_by_its_file() {
    let (bank, _proxy, answer) = over(None, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(bank.bank.auth.ledger().issued().len(), 1);
}

#[tokio::test]
async fn an_upstream_that_is_not_who_it_should_be_gets_no_token() {
    let check = async |identity: Identity, expected: &str| {
        let (bank, _proxy, answer) = over(Some(identity), "").await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (502, Some("connect")));
        assert_eq!(answer.header("bearer-proxy-forwarded"), Some("no"));
        let detail = answer.json()["detail"].to_string();
        assert!(detail.contains(expected), "{expected}: {detail}");
        let status = answer.header("proxy-status").unwrap();
        assert!(status.contains("tls_certificate_error"), "{status}");
        assert_eq!(bank.bank.api.requests().len(), 0);
    };
    let other = Authority::new("Another CA");
    check(other.issue(&["localhost"], |_| {}), "UnknownIssuer").await;
    // The rest are issued by an authority of the same name, which is trusted all the same.
    let bank = Authority::new("Bank Test CA");
    check(bank.issue(&["localhost"], |_| {}), "BadSignature").await;
}

#[tokio::test]
async fn names_and_dates_of_a_trusted_certificate_count() {
    let check = async |names: &[&str], ended: bool, expected: &str| {
        let mut bank = Secured::start().await;
        let identity = bank.ca.issue(names, |params| {
            if ended {
                params.not_before = date_time_ymd(2020, 1, 1);
                params.not_after = date_time_ymd(2020, 2, 1);
            }
        });
        bank.api = Front::start(&identity, None, bank.bank.api.addr()).await;
        let proxy = Proxy::start(&bank.config(&Special::default())).await;
        proxy.wait_ready().await;
        let answer = soon(client(proxy.addr).await.get("/v1/balances/42")).await;
        assert_eq!(answer.status, 502, "{expected}");
        let detail = answer.json()["detail"].to_string();
        assert!(detail.contains(expected), "{expected}: {detail}");
        assert_eq!(bank.bank.api.requests().len(), 0);
    };
    check(&["other.bank.test"], false, "not valid for name").await;
    check(&[], false, "not valid for name").await;
    check(&["localhost"], true, "expired").await;
}

#[tokio::test]
async fn a_token_endpoint_that_is_not_who_it_should_be_gets_no_secret() {
    let mut bank = Secured::start().await;
    let other = Authority::new("Another CA").issue(&["localhost"], |_| {});
    bank.auth = Front::start(&other, None, bank.bank.auth.addr()).await;
    let proxy = Proxy::start(&bank.config(&Special::default())).await;
    let said = proxy.wait_log(|line| line.contains("UnknownIssuer").then(|| line.to_owned())).await;
    assert!(said.contains("set tls.extra_ca_file"), "{said}");
    let answer = soon(client(proxy.addr).await.get("/v1/balances/42")).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("token_unavailable")));
    assert_eq!(bank.bank.auth.ledger().calls().len(), 0);
}

#[tokio::test]
async fn only_the_pinned_key_is_spoken_to() {
    let wrong = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let upstream = format!("tls = {{ pin_sha256 = \"{wrong}\" }}");
    let (bank, proxy, answer) = over(None, &upstream).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (502, Some("connect")));
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    let (_, found) = detail.split_once("it is ").expect("the found key is told");
    let found = &found[..wrong.len()];
    assert_eq!(bank.bank.api.requests().len(), 0);
    let pinned = format!("tls = {{ pin_sha256 = [\"{wrong}\", \"sha256//{found}\"] }}");
    let config = bank.config(&Special { upstream: &pinned, ..<_>::default() });
    drop(proxy);
    let proxy = Proxy::start(&config).await;
    proxy.wait_ready().await;
    let answer = soon(client(proxy.addr).await.get("/v1/balances/42")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // Openssl, as the README has it, finds the same.
    let made = std::process::Command::new("sh")
        .args([
            "-c",
            "openssl x509 -in \"$0\" -pubkey -noout | openssl pkey -pubin -outform der | \
                      openssl dgst -sha256 -binary | openssl base64",
        ])
        .arg(bank.ca.file("server.pem"))
        .output();
    if let Some(made) = made.ok().filter(|made| made.status.success()) {
        assert_eq!(String::from_utf8(made.stdout).unwrap().trim(), found);
    }
}

#[tokio::test]
async fn http2_is_spoken_where_alpn_agrees_on_it() {
    let check = async |alpn: &[&str], http: &str, expected: &str| {
        let bank = Secured::start().await;
        let tls = bank.ca.issue(&["localhost"], |_| {}).acceptor(None, alpn);
        let api = Service::start(Some(tls), |request| {
            let has_token = request.headers().contains_key("authorization");
            let version = match request.version() {
                Version::HTTP_2 => "h2",
                _ => "http/1.1",
            };
            Response::new(format!("{version} {has_token}"))
        })
        .await;
        let origin = format!("https://localhost:{}", api.addr.port());
        let special = Special { api_origin: Some(&origin), upstream: http, ..<_>::default() };
        let proxy = Proxy::start(&bank.config(&special)).await;
        proxy.wait_ready().await;
        let answer = soon(client(proxy.addr).await.get("/v1/balances/42")).await;
        assert!(answer.text().contains(expected), "{alpn:?} {http}: {}", answer.text());
        let metrics = client(proxy.admin_addr).await.get("/metrics").await.text();
        let connected = answer.status == 200;
        for gauge in [
            "bearer_proxy_tls_upstream_certificate_expiry_timestamp_seconds{",
            "bearer_proxy_upstream_last_answer_timestamp_seconds{",
        ] {
            assert_eq!(metrics.contains(gauge), connected, "{alpn:?} {http}: {gauge}");
        }
        let open = metrics.lines().any(|line| {
            line.starts_with("bearer_proxy_upstream_connections{") && line.ends_with(" 1")
        });
        assert_eq!(open, connected, "{alpn:?} {http}");
    };
    check(&["h2", "http/1.1"], "", "h2 true").await;
    check(&["h2"], "http = \"2\"", "h2 true").await;
    check(&["h2", "http/1.1"], "http = \"1.1\"", "http/1.1 true").await;
    check(&[], "", "http/1.1 true").await;
    check(&["http/1.1"], "http = \"2\"", "\"connect\"").await;
}

#[tokio::test]
async fn a_token_endpoint_may_speak_http2_too() {
    let bank = Secured::start().await;
    let tls = bank.ca.issue(&["localhost"], |_| {}).acceptor(None, &["h2"]);
    let token = Service::start(Some(tls), |request| {
        assert_eq!(request.version(), Version::HTTP_2);
        let body = r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#.to_owned();
        Response::builder().header("content-type", "application/json").body(body).unwrap()
    })
    .await;
    let origin = format!("https://localhost:{}", token.addr.port());
    let config = bank.config(&Special { auth_origin: Some(&origin), ..<_>::default() });
    Proxy::start(&config).await.wait_ready().await;
}
