//! Reloading and leaving.

use std::time::Duration;

use bearer_proxy::sandbox::Persona;
use rustix::process::Signal;

use crate::forwarding::sidecar;
use crate::support::{client, soon};

#[tokio::test]
async fn a_bad_file_changes_nothing_and_tokens_survive_a_good_one() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let calls = sandbox.bank(Persona::QBank).auth.ledger().calls().len();
    let good = std::fs::read_to_string(&proxy.config_path).unwrap();
    std::fs::write(&proxy.config_path, "nonsense = [").unwrap();
    proxy.signal(Signal::HUP);
    soon(proxy.wait_log(|line| line.contains("refused").then_some(()))).await;
    let mut app = client(proxy.addr).await;
    assert_eq!(app.get("/qbank/v1/balances/42").await.status, 200);
    std::fs::write(&proxy.config_path, good).unwrap();
    proxy.signal(Signal::HUP);
    soon(proxy.wait_log(|line| line.contains("configuration reloaded").then_some(()))).await;
    assert_eq!(app.get("/qbank/v1/balances/42").await.status, 200);
    assert_eq!(sandbox.bank(Persona::QBank).auth.ledger().calls().len(), calls);
}

#[tokio::test]
async fn sigint_drains_and_ends_with_0() {
    let (_sandbox, mut proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    proxy.signal(Signal::INT);
    let status = soon(proxy.wait_exit()).await;
    assert_eq!(status.code(), Some(0));
}
