//! Where the program listens, with how many workers, and for whom.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bearer_proxy::sandbox::{Persona, Sandbox, ScriptedResponse};
use rustix::process::{Signal, geteuid};
use tempfile::TempDir;
use tokio::net::UnixStream;

use crate::support::{Client, Proxy, client, config, soon};

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
    api.set_responses([ScriptedResponse::Hold]);
    let mut slow = client(proxy.addr).await;
    slow.send(format!("GET {BALANCE} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    soon(api.wait_requests(1)).await;
    // The kernel spreads connections over both workers, and both know of the one request.
    for _ in 0..16 {
        let answer = client(proxy.addr).await.get(BALANCE).await;
        assert_eq!(answer.json()["code"], "overloaded");
    }
    api.release(1);
    assert_eq!(slow.read("GET").await.status, 200);

    // Each worker has upstream connections of its own; the token is one.
    for _ in 0..16 {
        assert_eq!(client(proxy.addr).await.get(BALANCE).await.status, 200);
    }
    let seen = api.requests();
    let connections: BTreeSet<_> = seen.iter().map(|seen| seen.connection).collect();
    let tokens: BTreeSet<_> = seen.iter().map(|seen| seen.token.clone()).collect();
    assert_eq!((connections.len(), tokens.len()), (2, 1));

    let taken = text.replacen("127.0.0.1:0", &proxy.addr.to_string(), 1);
    for config in [&taken, &taken.replace("workers = 2", "workers = 1")] {
        let ended = instance(secrets.path(), config).await;
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(71), "{said}");
        assert!(said.contains("in use") && said.contains("ss -ltnp"), "{said}");
    }
}

/// A client of a Unix socket.
pub async fn unix_client(path: &Path) -> Client {
    let stream = soon(UnixStream::connect(path)).await.unwrap();
    Client::over(stream, "127.0.0.1:80".parse().unwrap())
}

#[tokio::test]
async fn a_unix_socket_has_its_mode_and_serves_those_it_names() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let (secrets, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = folder.path().join("proxy.sock");
    let uid = geteuid().as_raw();
    let line = |uids: &str| {
        format!(
            "listen = {{ unix = {path:?}, mode = \"0600\", owner = {uid}, peer_uids = [{uids}] }}"
        )
    };
    let (mine, others) = (line(&uid.to_string()), line(&(uid + 1).to_string()));
    let upstream = "[upstreams.qbank]\n";
    let text = config(&sandbox, &secrets).replace(upstream, &format!("{upstream}{mine}\n"));
    let mut proxy = Proxy::start(&text).await;
    proxy.wait_ready().await;

    let mut app = unix_client(&path).await;
    assert_eq!(app.get(BALANCE).await.status, 200);
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // It has routes of its own: the other listener knows nothing of them.
    assert_eq!(client(proxy.addr).await.get(BALANCE).await.json()["code"], "no_route");

    // Another list is in force for connections that are open, and for the same socket.
    std::fs::write(&proxy.config_path, text.replace(&mine, &others)).unwrap();
    proxy.signal(Signal::HUP);
    soon(proxy.wait_log(|line| line.contains("configuration reloaded").then_some(()))).await;
    for app in [&mut app, &mut unix_client(&path).await] {
        let answer = app.get(BALANCE).await;
        assert_eq!((answer.status, &answer.json()["code"]), (403, &"peer_not_allowed".into()));
    }

    proxy.signal(Signal::INT);
    assert_eq!(soon(proxy.wait_exit()).await.code(), Some(0));
    assert!(!path.exists());
}

#[tokio::test]
async fn what_is_more_than_probes_moves_to_the_control_socket() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let secrets = TempDir::new().unwrap();
    let path = secrets.path().join("control.sock");
    let text = config(&sandbox, &secrets);
    let text =
        text.replace("[admin]\n", &format!("[admin]\ncontrol = \"unix:{}\"\n", path.display()));
    let proxy = Proxy::start(&text).await;
    proxy.wait_ready().await;
    assert_eq!(client(proxy.admin_addr).await.get("/status").await.status, 404);
    assert_eq!(unix_client(&path).await.get("/status").await.status, 200);
    let mut status = Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
    status.arg("status").arg("--config").arg(&proxy.config_path);
    let shown = soon(tokio::task::spawn_blocking(move || status.output().unwrap())).await.unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success() && text.contains(&*path.to_string_lossy()), "{text}");
}

/// The loopback addresses of this machine, of which it may lack the one for IPv6.
fn loopbacks() -> Vec<IpAddr> {
    let all = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    all.into_iter().filter(|ip| TcpListener::bind((*ip, 0)).is_ok()).collect()
}

/// The port of another listener for apps than the one with this port, from the line that tells it.
fn second_port(line: &str, first: u16) -> Option<u16> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let address: SocketAddr = line["addr"].as_str()?.parse().ok()?;
    (line["listener"] == "proxy" && address.port() != first).then_some(address.port())
}

#[tokio::test]
async fn every_listener_takes_both_families_and_lists() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let (secrets, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    sandbox.write_secrets(secrets.path()).unwrap();
    let [own, control] = ["own.sock", "control.sock"].map(|name| folder.path().join(name));
    let text = sandbox.config_toml("*:0", "*:0", secrets.path());
    let text = with_server(&text, "clients = \"anyone\"");
    let admin = format!(
        "allow_remote = true\ncontrol = [\"unix:{}\", \"127.0.0.1:0\"]\n",
        control.display()
    );
    let text = text.replace("[admin]\n", &format!("[admin]\n{admin}"));
    let upstream = "[upstreams.qbank]\n";
    let text = text
        .replace(upstream, &format!("{upstream}listen = [\"unix:{}\", \"*:0\"]\n", own.display()));
    let proxy = Proxy::start(&text).await;
    proxy.wait_ready().await;

    for ip in loopbacks() {
        let at = |port| SocketAddr::new(ip, port);
        let refused = client(at(proxy.addr.port())).await.get(BALANCE).await;
        assert_eq!(refused.json()["code"], "no_route", "{ip}");
        let mut probe = client(at(proxy.admin_addr.port())).await;
        assert_eq!(probe.get("/livez").await.status, 200, "{ip}");
        assert_eq!(probe.get("/status").await.status, 404, "{ip} is beyond loopback");
    }
    // Routes of an upstream with listeners of its own are behind all of these, and nowhere else.
    let port = proxy.wait_log(|line| second_port(line, proxy.addr.port())).await;
    for ip in loopbacks() {
        assert_eq!(client(SocketAddr::new(ip, port)).await.get(BALANCE).await.status, 200, "{ip}");
    }
    assert_eq!(unix_client(&own).await.get(BALANCE).await.status, 200);
    assert_eq!(unix_client(&control).await.get("/status").await.status, 200);
    let mut status = Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
    status.arg("status").arg("--config").arg(&proxy.config_path);
    let shown = soon(tokio::task::spawn_blocking(move || status.output().unwrap())).await.unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
}

#[tokio::test]
async fn an_address_of_a_list_stays_when_others_come_and_go() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    let (secrets, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = folder.path().join("proxy.sock");
    let text = config(&sandbox, &secrets);
    let listen = |list: &str| text.replacen("\"127.0.0.1:0\"", list, 1);
    let proxy = Proxy::start(&listen("[\"127.0.0.1:0\"]")).await;
    proxy.wait_ready().await;
    let mut app = client(proxy.addr).await;
    assert_eq!(app.get(BALANCE).await.status, 200);

    let reload = async |list: &str, times: usize| {
        std::fs::write(&proxy.config_path, listen(list)).unwrap();
        proxy.signal(Signal::HUP);
        let done = || proxy.log().matches("configuration reloaded").count() == times;
        soon(proxy.wait_log(|_| done().then_some(()))).await;
    };
    reload(&format!("[\"unix:{}\", \"127.0.0.1:0\"]", path.display()), 1).await;
    assert_eq!(app.get(BALANCE).await.status, 200);
    assert_eq!(client(proxy.addr).await.get(BALANCE).await.status, 200);
    let mut local = unix_client(&path).await;
    assert_eq!(local.get(BALANCE).await.status, 200);

    reload(&format!("\"unix:{}\"", path.display()), 2).await;
    assert_eq!(local.get(BALANCE).await.status, 200);
    assert!(tokio::net::TcpStream::connect(proxy.addr).await.is_err());
}
