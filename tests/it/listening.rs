//! Where the program listens, with how many workers, and for whom.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bearer_proxy::sandbox::{Persona, Reply, Sandbox};
use tempfile::TempDir;

use crate::support::{Proxy, client, config, soon};

const BALANCE: &str = "/qbank/v1/balances/42";

/// The sandbox's configuration with more lines in `[server]`.
fn with_server(text: &str, lines: &str) -> String {
    text.replace("[server]\n", &format!("[server]\n{lines}\n"))
}

/// Runs a further instance, which is expected to end by itself.
async fn instance(dir: &Path, config: &str) -> Output {
    let path = dir.join("second.toml");
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
    command.arg("run").arg("--config").arg(path).stdin(Stdio::null());
    soon(tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap()
}

#[tokio::test]
async fn two_workers_share_a_port_and_the_limits_but_no_second_instance_joins() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let secrets = TempDir::new().unwrap();
    let text = with_server(&config(&sandbox, &secrets), "workers = 2\nmax_in_flight = 1");
    let proxy = Proxy::start(&text).await;
    proxy.wait_ready().await;

    let api = &sandbox.bank(Persona::QBank).api;
    api.set_replies([Reply::Hold]);
    let mut slow = client(proxy.addr).await;
    slow.send(format!("GET {BALANCE} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    soon(api.wait_seen(1)).await;
    // The kernel spreads connections over both workers, and both know of the one request.
    for _ in 0..16 {
        let answer = client(proxy.addr).await.get(BALANCE).await;
        assert_eq!(answer.json()["code"], "overloaded");
    }
    api.release(1);
    assert_eq!(slow.read("GET").await.status, 200);

    let taken = text.replacen("127.0.0.1:0", &proxy.addr.to_string(), 1);
    for config in [&taken, &taken.replace("workers = 2", "workers = 1")] {
        let ended = instance(secrets.path(), config).await;
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(71), "{said}");
        assert!(said.contains("in use") && said.contains("ss -ltnp"), "{said}");
    }
}
