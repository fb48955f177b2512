//! What a service manager is told: over a datagram socket, and by lines for its journal.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use bearer_proxy::sandbox::Sandbox;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixDatagram};

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

/// The same configuration with the socket of systemd in place of the port.
fn activated(listener: &TcpListener) -> String {
    let address = format!("\"{}\"", listener.local_addr().unwrap());
    taken_port(listener).replace(&address, "\"systemd:proxy\"\nserver.clients = \"anyone\"")
}

/// A request that any instance answers, without a token.
async fn ask(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("POST / HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn status(stream: &mut TcpStream) -> String {
    let mut head = [0; 12];
    soon(stream.read_exact(&mut head)).await.unwrap();
    String::from_utf8_lossy(&head[9..]).into_owned()
}

#[tokio::test]
async fn a_call_between_two_lives_waits_in_the_socket_that_systemd_holds() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let config = activated(&held);
    let mut first = Proxy::start_inheriting(&config, &held).await;
    assert_eq!(first.addr, address);
    assert_eq!(status(&mut ask(address).await).await, "405");

    first.signal(Signal::TERM);
    assert_eq!(soon(first.wait_exit()).await.code(), Some(0));
    let mut between = ask(address).await;
    let second = Proxy::start_inheriting(&config, &held).await;
    assert_eq!(status(&mut between).await, "405");

    // A reload leaves the socket open.
    second.signal(Signal::HUP);
    second.wait_log(|line| line.contains("reload").then_some(())).await;
    assert_eq!(status(&mut ask(address).await).await, "405");
}

#[test]
fn a_socket_that_was_not_passed_is_explained() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let said = said_to_the_journal(&activated(&taken), 0);
    assert!(said.contains("systemd:proxy") && said.contains("FileDescriptorName=proxy"), "{said}");
}

/// Runs a verb with a file as its stderr, which `JOURNAL_STREAM` names, or names wrongly.
fn said_to_the_journal(config: &str, inode_offset: u64) -> String {
    let folder = TempDir::new().unwrap();
    let (path, log) = (folder.path().join("bearer-proxy.toml"), folder.path().join("log"));
    std::fs::write(&path, config).unwrap();
    let file = File::create(&log).unwrap();
    let stat = file.metadata().unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_bearer-proxy"))
        .args(["run", "--config"])
        .arg(&path)
        .env("JOURNAL_STREAM", format!("{}:{}", stat.dev(), stat.ino() + inode_offset))
        .stderr(file)
        .status();
    assert!(!ended.unwrap().success());
    std::fs::read_to_string(&log).unwrap()
}

/// A configuration whose only fault is that its port is taken.
fn taken_port(taken: &TcpListener) -> String {
    let port = taken.local_addr().unwrap().port();
    format!(
        "version = 1\nserver.listen = \"127.0.0.1:{port}\"\nadmin.listen = \"127.0.0.1:0\"\n\
         [credentials.bank]\ntoken_url = \"https://127.0.0.1:1/token\"\n\
         client_id.env = \"BANK_ID\"\nclient_secret.env = \"BANK_SECRET\"\n\
         [upstreams.bank]\nurl = \"https://127.0.0.1:1\"\ncredential = \"bank\"\n\
         routes = [{{ name = \"all\", path = \"/**\", methods = [\"GET\"], scopes = [] }}]\n"
    )
}

#[test]
fn lines_for_the_journal_have_priorities() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    for format in ["json", "pretty"] {
        let config = format!("{}[log]\nformat = \"{format}\"\n", taken_port(&taken));
        let said = said_to_the_journal(&config, 0);
        let refused = said.lines().find(|line| line.contains("cannot start"));
        assert!(refused.is_some_and(|line| line.starts_with("<3>")), "{said}");
        assert!(said.lines().all(|line| line.starts_with('<')), "{said}");
    }
    let said = said_to_the_journal("version = 1\nlisen = 1\n", 0);
    assert!(!said.is_empty() && said.lines().all(|line| line.starts_with("<3>")), "{said}");
}

#[test]
fn a_stderr_that_is_not_the_journal_gets_no_priorities() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let said = said_to_the_journal(&taken_port(&taken), 1);
    assert!(said.contains("cannot start") && !said.contains("<3>"), "{said}");
    let said = said_to_the_journal("version = 1\nlisen = 1\n", 1);
    assert!(said.starts_with("error") && !said.contains("<3>"), "{said}");
}
