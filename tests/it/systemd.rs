//! What a service manager is told, over a datagram socket of our own.

use std::time::Duration;

use bearer_proxy::sandbox::Sandbox;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::UnixDatagram;

use crate::support::{Proxy, config, soon};

#[tokio::test]
async fn each_step_of_a_life_is_told() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000")];
    let mut proxy = Proxy::start_in(&config(&sandbox, &folder), &environment).await;
    let told = async |wanted: &str| {
        let mut bytes = [0; 512];
        loop {
            let length = soon(manager.recv(&mut bytes)).await.unwrap();
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.lines().any(|line| line == wanted) {
                return text;
            }
        }
    };
    told("READY=1").await;
    told("WATCHDOG=1").await;
    told("WATCHDOG=1").await;
    proxy.signal(Signal::HUP);
    assert!(told("RELOADING=1").await.contains("MONOTONIC_USEC="));
    told("READY=1").await;
    proxy.signal(Signal::TERM);
    told("STOPPING=1").await;
    assert_eq!(soon(proxy.wait_exit()).await.code(), Some(0));
}
