//! Ways out through a corporate proxy.

use std::net::SocketAddr;

use crate::support::corporate::{Corporate, Verdict};
use crate::support::secured::{Secured, Special};
use crate::support::{Proxy, client, soon};

/// A corporate proxy that lets whoever logs in reach the two hosts of a bank.
async fn corporate(bank: &Secured) -> Corporate {
    let (auth, api): (SocketAddr, SocketAddr) = (bank.auth.addr, bank.api.addr);
    Corporate::start(move |head| {
        if !head.contains("\r\nProxy-Authorization: Basic ZXJwOm9wZW4gc2VzYW1l\r\n") {
            return Verdict::Say(
                "HTTP/1.1 407 Who Are You\r\nProxy-Authenticate: Basic realm=\"corp\"\r\n\r\n",
            );
        }
        match head.split(' ').nth(1) {
            Some("auth.bank.test:443") => Verdict::Lead(auth),
            Some("api.bank.test:443") => Verdict::Lead(api),
            _ => Verdict::Say("HTTP/1.1 403 Forbidden\r\n\r\n"),
        }
    })
    .await
}

/// A configuration whose bank is beyond the proxy, with this login.
fn beyond(bank: &Secured, proxy: &Corporate, password: &str) -> String {
    std::fs::write(bank.ca.file("user"), "erp\n").unwrap();
    std::fs::write(bank.ca.file("password"), password).unwrap();
    for name in ["user", "password"] {
        use std::os::unix::fs::PermissionsExt;
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(bank.ca.file(name), private).unwrap();
    }
    let tables = format!(
        "[egress]\nproxy = \"http://{}\"\nusername.file = \"{}\"\npassword.file = \"{}\"\n",
        proxy.addr,
        bank.ca.file("user").display(),
        bank.ca.file("password").display(),
    );
    bank.config(&Special {
        auth_origin: Some("https://auth.bank.test"),
        api_origin: Some("https://api.bank.test"),
        tables: &tables,
        ..Special::default()
    })
}

#[tokio::test]
async fn tokens_and_requests_go_through_the_corporate_proxy_and_it_sees_neither() {
    let bank = Secured::start().await;
    let corporate = corporate(&bank).await;
    let proxy = Proxy::start(&beyond(&bank, &corporate, "open sesame")).await;
    proxy.wait_ready().await;
    let answer = soon(client(proxy.addr).await.get("/v1/balances/42")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let heads = corporate.heads();
    let asked: Vec<_> = heads.iter().filter_map(|head| head.lines().next()).collect();
    let expected = ["CONNECT auth.bank.test:443 HTTP/1.1", "CONNECT api.bank.test:443 HTTP/1.1"];
    assert_eq!(asked, expected);
    for issued in bank.bank.auth.ledger().issued() {
        assert!(!heads.concat().contains(&issued.token));
    }
    assert!(!heads.concat().contains("\r\nAuthorization"), "{heads:?}");
}

#[tokio::test]
async fn what_the_corporate_proxy_refuses_is_told_with_its_status_line() {
    let bank = Secured::start().await;
    let corporate = corporate(&bank).await;
    let config = beyond(&bank, &corporate, "open sesame").replace("api.bank", "other.bank");
    let proxy = Proxy::start(&config).await;
    proxy.wait_ready().await;
    let answer = soon(client(proxy.addr).await.get("/v1/balances/42")).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (502, Some("connect")));
    let status = answer.header("proxy-status").unwrap();
    assert!(status.contains("received-status=403"), "{status}");
    assert!(status.contains("the egress proxy answered 403 Forbidden"), "{status}");
    let detail = answer.json()["detail"].to_string();
    assert!(detail.contains("made no tunnel to other.bank.test:443: it answered 403"), "{detail}");
    assert_eq!(answer.header("bearer-proxy-forwarded"), Some("no"));
}

#[tokio::test]
async fn a_login_that_the_corporate_proxy_refuses_is_told_and_never_shown() {
    let bank = Secured::start().await;
    let corporate = corporate(&bank).await;
    let proxy = Proxy::start(&beyond(&bank, &corporate, "canary")).await;
    proxy.wait_log(|line| line.contains("407 Who Are You").then_some(())).await;
    assert!(!proxy.log().contains("canary"), "{}", proxy.log());
    // The login is read anew for each connection: a mended one needs no restart.
    std::fs::write(bank.ca.file("password"), "open sesame").unwrap();
    proxy.wait_ready().await;
}

/// Checks a bank beyond the proxy, with the proxy in a variable of the environment.
async fn check_with_variable(bank: &Secured, corporate: &Corporate, tables: &str) -> String {
    let config = bank.config(&Special {
        auth_origin: Some("https://auth.bank.test"),
        api_origin: Some("https://api.bank.test"),
        tables,
        ..Special::default()
    });
    std::fs::write(bank.ca.file("bearer-proxy.toml"), config).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
    command.args(["check", "--live"]).current_dir(bank.ca.file(""));
    command.env("HTTPS_PROXY", format!("http://erp:open%20sesame@{}", corporate.addr));
    command.env_remove("https_proxy").env_remove("NO_PROXY").env_remove("no_proxy");
    let ended = soon(tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    text(ended.stdout) + &text(ended.stderr)
}

#[tokio::test]
async fn the_environment_names_a_proxy_only_where_the_configuration_says_so() {
    let bank = Secured::start().await;
    let corporate = corporate(&bank).await;
    let said = check_with_variable(&bank, &corporate, "").await;
    assert!(said.contains("HTTPS_PROXY is set and not used"), "{said}");
    assert!(corporate.heads().is_empty(), "{said}");
    let said = check_with_variable(&bank, &corporate, "[egress]\nproxy = \"env\"").await;
    assert!(said.contains("everything answers"), "{said}");
    assert!(!said.contains("sesame"), "{said}");
    assert_eq!(corporate.heads().len(), 3, "two connections to look at, and one for the token");
}

#[tokio::test]
async fn token_endpoint_and_upstream_have_ways_of_their_own() {
    let bank = Secured::start().await;
    let (for_tokens, for_api) = (corporate(&bank).await, corporate(&bank).await);
    let config = beyond(&bank, &for_tokens, "open sesame");
    let login =
        config.lines().filter(|line| line.starts_with("username") || line.starts_with("password"));
    let login = login.collect::<Vec<_>>().join(", ");
    let own = format!(
        "credential = \"qbank\"\negress = {{ proxy = \"http://{}\", {login} }}",
        for_api.addr
    );
    let proxy = Proxy::start(&config.replace("credential = \"qbank\"", &own)).await;
    proxy.wait_ready().await;
    let answer = soon(client(proxy.addr).await.get("/v1/balances/42")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let asked = |proxy: &Corporate| {
        let heads = proxy.heads();
        heads.iter().map(|head| head.lines().next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(asked(&for_tokens), ["CONNECT auth.bank.test:443 HTTP/1.1"]);
    assert_eq!(asked(&for_api), ["CONNECT api.bank.test:443 HTTP/1.1"]);
}
