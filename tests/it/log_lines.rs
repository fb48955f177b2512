//! The log lines of a start and of a token: what happened, to which token, and what it means for requests.

use std::time::Duration;

use bearer_proxy::sandbox::{Fault, Persona, Sandbox};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Proxy, client, config, soon};

/// Waits for a line about the token of SQR, as JSON, whose message begins so.
async fn line(proxy: &Proxy, message: &str) -> Value {
    proxy
        .wait_log(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let found = line["message"].as_str()?.starts_with(message)
                && line["credential"] == Persona::Sqr.mount();
            found.then_some(line)
        })
        .await
}

/// A proxy whose one slow, failing or expiring token server is that of SQR.
async fn start(life: u64, faults: impl IntoIterator<Item = Fault>) -> (Sandbox, Proxy, TempDir) {
    let sandbox = Sandbox::start(Duration::from_secs(life)).await.unwrap();
    sandbox.bank(Persona::Sqr).auth.set_faults(faults);
    let secrets = TempDir::new().unwrap();
    let proxy = Proxy::start(&config(&sandbox, &secrets)).await;
    (sandbox, proxy, secrets)
}

#[tokio::test]
async fn a_start_says_what_runs_and_when_it_is_ready() {
    let (sandbox, proxy, _secrets) = soon(start(60, [])).await;
    let begins = |message: &'static str| {
        proxy.wait_log(move |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == message).then_some(line)
        })
    };
    let starting = begins("starting").await;
    assert_eq!(starting["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(starting["config"], proxy.config_path.to_str().unwrap());
    assert_eq!(starting["log_begin"], "off");
    assert_eq!(starting["credentials"], sandbox.banks().len());
    assert!(starting["routes"].as_u64() >= starting["tokens"].as_u64(), "{starting}");
    let ready = begins("ready").await;
    assert!(ready["after_s"].is_f64(), "{ready}");
    let log = proxy.log();
    let at = |message: &str| log.find(&format!("\"message\":\"{message}\"")).unwrap();
    assert!(at("starting") < at("listening") && at("listening") < at("ready"), "{log}");
}

#[tokio::test]
async fn a_token_that_becomes_unusable_and_recovers_leaves_one_line_each() {
    let (_sandbox, proxy, _secrets) = soon(start(60, [Fault::Html500, Fault::Html500])).await;
    let unusable = line(&proxy, "token unusable").await;
    assert_eq!((&unusable["level"], &unusable["scopes"]), (&"ERROR".into(), &"read:users".into()));
    assert_eq!(unusable["cause"], "error");
    let failed = line(&proxy, "token request failed").await;
    assert_eq!((&failed["usable"], &failed["scopes"]), (&false.into(), &"read:users".into()));
    assert!(failed["took_ms"].is_u64(), "{failed}");
    soon(proxy.wait_ready()).await;
    let again = line(&proxy, "token usable again").await;
    assert!(again["unusable_s"].as_f64().unwrap() >= 1.0, "{again}");
    let obtained = line(&proxy, "token obtained").await;
    assert_eq!(obtained["scopes"], "read:users");
    assert_eq!(proxy.log().matches("token unusable").count(), 1, "{}", proxy.log());
}

#[tokio::test]
async fn a_renewal_that_fails_says_until_when_the_held_token_serves() {
    let (sandbox, proxy, _secrets) = soon(start(60, [])).await;
    soon(proxy.wait_ready()).await;
    sandbox.bank(Persona::Sqr).auth.set_faults([Fault::Html500]);
    let mut admin = client(proxy.admin_addr).await;
    let path = format!("/refresh?credential={}", Persona::Sqr.mount());
    assert_eq!(admin.request("POST", &path, &[], b"").await.status, 202);
    let line =
        line(&proxy, "token request failed: renewal failed, the held token serves until 20").await;
    assert_eq!((&line["usable"], &line["level"]), (&true.into(), &"WARN".into()));
    assert!(!proxy.log().contains("token unusable"), "{}", proxy.log());
}

#[tokio::test]
async fn a_run_of_refusals_is_one_warning_and_a_405_names_the_routes() {
    let (_sandbox, proxy, _secrets) = soon(start(60, [])).await;
    let mut app = client(proxy.addr).await;
    let mut detail = String::new();
    for _ in 0..25 {
        let answer = app.request("DELETE", "/datacrunch/v1/balance", &[], b"").await;
        assert_eq!(answer.status, 405);
        detail = answer.json()["detail"].as_str().unwrap().to_owned();
    }
    let (_, named) = detail.split_once("none of them lists this method: ").unwrap();
    assert!(named.contains("(GET"), "{detail}");
    let warning = |line: &str| line.contains("requests are refused").then(|| line.to_owned());
    let line: Value = serde_json::from_str(&proxy.wait_log(warning).await).unwrap();
    assert_eq!((&line["level"], &line["code"]), (&"WARN".into(), &"method".into()));
    assert_eq!(line["detail"], detail);
    assert_eq!(proxy.log().matches("requests are refused").count(), 1);
}

/// Before it ends, and requests get 503 all the while.
#[tokio::test]
async fn a_token_request_that_hangs_leaves_a_line_after_two_seconds() {
    let hangs = Fault::Delay(Duration::from_secs(60));
    let (_sandbox, proxy, _secrets) = soon(start(60, [hangs])).await;
    let hanging = line(&proxy, "token request not answered yet").await;
    assert_eq!((&hanging["level"], &hanging["under_way_s"]), (&"WARN".into(), &2.into()));
    assert!(hanging["token_url"].as_str().unwrap().starts_with("http://"), "{hanging}");
}

#[tokio::test]
async fn a_slow_token_request_leaves_a_line() {
    let late = Fault::Delay(Duration::from_millis(2100));
    let (_sandbox, proxy, _secrets) = soon(start(60, [late])).await;
    let slow = line(&proxy, "slow token request").await;
    assert_eq!(slow["level"], "WARN");
    assert!(slow["took_ms"].as_u64().unwrap() >= 2100, "{slow}");
}

#[tokio::test]
async fn equal_failures_of_token_requests_leave_one_line_with_their_number() {
    let (sandbox, proxy, _secrets) = soon(start(60, vec![Fault::Html500; 8])).await;
    let auth = &sandbox.bank(Persona::Sqr).auth;
    let first = line(&proxy, "token request failed").await;
    assert_eq!(first["suppressed"], 0, "{first}");
    // Requests that wait for a token bring the next try forward.
    while auth.ledger().calls().len() < 4 {
        client(proxy.addr).await.get("/sqr/v1/user-status").await;
    }
    let log = proxy.log();
    let of_this = |line: &&str| {
        line.contains("\"token request failed\"") && line.contains(Persona::Sqr.mount())
    };
    let lines = log.lines().filter(of_this).count();
    assert!(lines < 3, "{log}");
}

#[tokio::test]
async fn a_forced_refresh_says_when_a_refused_secret_is_tried_again() {
    let (sandbox, proxy, _secrets) = soon(start(60, [])).await;
    soon(proxy.wait_ready()).await;
    sandbox.bank(Persona::Sqr).auth.accept_secrets([]);
    let mut admin = client(proxy.admin_addr).await;
    let path = format!("/refresh?credential={}", Persona::Sqr.mount());
    let accepted = admin.request("POST", &path, &[], b"").await.json();
    assert_eq!(accepted.get("next_try"), None, "{accepted}");
    line(&proxy, "token request failed: renewal failed").await;
    let accepted = admin.request("POST", &path, &[], b"").await.json();
    assert!(accepted["next_try"].as_str().unwrap().ends_with('Z'), "{accepted}");
    assert!(accepted["hint"].as_str().unwrap().contains("next_try"), "{accepted}");
}
