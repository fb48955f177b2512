//! `run -- CMD…`: an app that comes and goes with its proxy.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bearer_proxy::sandbox::{Persona, Sandbox};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Proxy, config, secret_file, soon};

/// Runs a shell command beside the proxy to its end.
async fn beside(sandbox: &Sandbox, secrets: &TempDir, script: &str) -> (Output, String) {
    let path = secret_file(secrets.path(), "bearer-proxy.toml", &config(sandbox, secrets));
    let mut run = Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
    run.args(["run", "--config"]).arg(path).args(["--", "sh", "-c", script]);
    run.stdin(Stdio::null());
    let ended = soon(tokio::task::spawn_blocking(move || run.output().unwrap())).await.unwrap();
    let log = String::from_utf8_lossy(&ended.stderr).into_owned();
    (ended, log)
}

#[tokio::test]
async fn a_command_finds_the_proxy_and_its_end_is_ours() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let secrets = TempDir::new().unwrap();
    let script = "curl -sf \"$BEARER_PROXY_URL_QBANK/v1/balances/42\" && echo && \
                  curl -sf \"$BEARER_PROXY_ADMIN_URL/livez\" && echo \"$BEARER_PROXY_URL\"; exit 42";
    let (ended, log) = beside(&sandbox, &secrets, script).await;
    let said = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(42), "{log}");
    assert!(said.contains("alive") && said.contains("http://127.0.0.1:"), "{said}\n{log}");
    assert_eq!(sandbox.bank(Persona::QBank).api.requests().len(), 1);
}

#[tokio::test]
async fn a_command_that_is_killed_or_missing_is_told_by_the_exit_code() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let secrets = TempDir::new().unwrap();
    let (ended, log) = beside(&sandbox, &secrets, "kill -KILL $$").await;
    assert_eq!(ended.status.code(), Some(137), "{log}");
    let (ended, log) = beside(&sandbox, &secrets, "exec /no/such/program 2>/dev/null").await;
    assert_eq!(ended.status.code(), Some(127), "{log}");
}

#[tokio::test]
async fn signals_reach_the_command_and_its_last_request_is_served() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let secrets = TempDir::new().unwrap();
    let api = &sandbox.bank(Persona::QBank).api;
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT")] {
        let script = format!(
            "trap 'kill $!; curl -sf \"$BEARER_PROXY_URL_QBANK/v1/balances/42\" >/dev/null && exit 7' {name}
             sleep 60 >/dev/null 2>&1 & echo up >&2; wait $!"
        );
        let mut proxy =
            Proxy::start_beside(&config(&sandbox, &secrets), &["sh", "-c", &script]).await;
        soon(proxy.wait_log(|line| (line == "up").then_some(()))).await;
        proxy.wait_ready().await;
        proxy.signal(signal);
        assert_eq!(soon(proxy.wait_exit()).await.code(), Some(7), "{}", proxy.log());
    }
    assert_eq!(api.requests().len(), 2);
}
