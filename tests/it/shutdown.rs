//! Leaving: signals, what is finished first, and what an exit code says.

use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use bearer_proxy::sandbox::{Persona, Sandbox, ScriptedResponse};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::forwarding::sidecar;
use crate::support::{Proxy, client, config, soon};

const HOUR: Duration = Duration::from_secs(3600);

/// What a client got for the requests that it sent.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    answered: usize,
    lost: usize,
}

/// Sends requests, each as soon as the last is answered, until no connection can be made.
async fn busy_client(addr: std::net::SocketAddr) -> Tally {
    let mut tally = Tally::default();
    while let Ok(mut stream) = TcpStream::connect(addr).await {
        loop {
            let request = b"GET /qbank/v1/balances/42 HTTP/1.1\r\nHost: localhost\r\n\r\n";
            let head = match stream.write_all(request).await {
                Ok(()) => read_answer(&mut stream).await,
                Err(_) => None,
            };
            let Some(head) = head else {
                tally.lost += 1;
                break;
            };
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            tally.answered += 1;
            if head.to_ascii_lowercase().contains("\r\nconnection: close\r\n") {
                break;
            }
        }
    }
    tally
}

/// Reads one answer with a Content-Length and returns its head.
async fn read_answer(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let lower = head.to_ascii_lowercase();
    let length = lower.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
    stream.read_exact(&mut vec![0; length]).await.ok()?;
    Some(head)
}

#[tokio::test]
async fn sigterm_under_load_loses_no_request() {
    let (sandbox, mut proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let clients: Vec<_> = (0..8).map(|_| tokio::spawn(busy_client(proxy.addr))).collect();
    soon(sandbox.bank(Persona::QBank).api.wait_requests(50)).await;
    proxy.signal(Signal::TERM);
    for client in clients {
        let tally = soon(client).await.unwrap();
        assert!(tally.answered > 0 && tally.lost == 0, "{tally:?}\n{}", proxy.log());
    }
    assert_eq!(soon(proxy.wait_exit()).await.code(), Some(0));
}

#[tokio::test]
async fn a_payment_whose_caller_left_is_finished_before_the_program_ends() {
    let (sandbox, mut proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let api = &sandbox.bank(Persona::QBank).api;
    api.set_responses([ScriptedResponse::Hold]);
    let mut app = client(proxy.addr).await;
    let head =
        "POST /qbank/v1/payments/ach HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    app.send(head).await;
    soon(api.wait_requests(1)).await;
    drop(app);
    proxy.signal(Signal::INT);
    soon(proxy.wait_log(|line| line.contains("finishing requests").then_some(()))).await;
    // A listener that refuses shows that the workers have been told.
    soon(async { while TcpStream::connect(proxy.addr).await.is_ok() {} }).await;
    assert!(!proxy.log().contains("stopped"), "{}", proxy.log());
    api.release(1);
    assert_eq!(soon(proxy.wait_exit()).await.code(), Some(0));
    assert!(!proxy.log().contains("dropped"), "{}", proxy.log());
}

#[tokio::test]
async fn sigint_drains_and_ends_with_0() {
    let (_sandbox, mut proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    proxy.signal(Signal::INT);
    let status = soon(proxy.wait_exit()).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_second_interrupt_ends_at_once_with_130() {
    let (sandbox, mut proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let api = &sandbox.bank(Persona::QBank).api;
    api.set_responses([ScriptedResponse::Hold]);
    let mut app = client(proxy.addr).await;
    app.send("GET /qbank/v1/balances/42 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    soon(api.wait_requests(1)).await;
    proxy.signal(Signal::INT);
    soon(proxy.wait_log(|line| line.contains("finishing requests").then_some(()))).await;
    proxy.signal(Signal::INT);
    assert_eq!(soon(proxy.wait_exit()).await.code(), Some(130));
}

#[tokio::test]
async fn a_closed_terminal_leaves_nothing_behind() {
    let (sandbox, secrets) = (Sandbox::start(HOUR).await.unwrap(), TempDir::new().unwrap());
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let shell = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(OpenptFlags::NOCTTY.bits().cast_signed())
        .open(name.to_str().unwrap())
        .unwrap();
    let mut proxy = Proxy::start_reading(&config(&sandbox, &secrets), shell).await;
    // The window closes; a shell passes the signal on when the terminal is gone already.
    drop(terminal);
    proxy.signal(Signal::HUP);
    assert_eq!(soon(proxy.wait_exit()).await.code(), Some(0));
}

#[tokio::test]
async fn leaving_is_told_at_once_and_takes_no_longer_than_configured() {
    let (sandbox, secrets) = (Sandbox::start(HOUR).await.unwrap(), TempDir::new().unwrap());
    let text =
        config(&sandbox, &secrets) + "\n[shutdown]\nlame_duck = \"1s\"\ndrain_timeout = \"1s\"\n";
    let mut proxy = Proxy::start(&text).await;
    proxy.wait_ready().await;
    let api = &sandbox.bank(Persona::QBank).api;
    api.set_responses([ScriptedResponse::Hold]);
    let mut app = client(proxy.addr).await;
    app.send("GET /qbank/v1/balances/42 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    soon(api.wait_requests(1)).await;
    let told = Instant::now();
    proxy.signal(Signal::TERM);
    soon(proxy.wait_log(|line| line.contains("still accepting").then_some(()))).await;
    let readiness = client(proxy.admin_addr).await.get("/readyz").await;
    assert_eq!((readiness.status, readiness.text().as_str()), (503, "leaving\n"));
    assert_eq!(client(proxy.admin_addr).await.get("/livez").await.status, 200);
    let late = client(proxy.addr).await.get("/qbank/v1/balances/42").await;
    assert_eq!((late.status, late.header("connection")), (200, Some("close")));
    assert_eq!(soon(proxy.wait_exit()).await.code(), Some(0));
    let took = told.elapsed();
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(4), "{took:?}");
    assert_eq!(app.read_to_close().await, b"", "it was cut");
}
