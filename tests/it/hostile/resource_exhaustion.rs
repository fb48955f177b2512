//! What runs out passes, and costs no payment its name.

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::recorder::Act;
use super::{ROUTES, Rig, refusal};
use crate::support::{client, soon};

/// Lets a process open so many more descriptors than it has now.
fn leave(process: u32, more: u64) {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count() as u64;
    let limit = Rlimit { current: Some(open + more), maximum: Some(open + more) };
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    prlimit(process, Resource::Nofile, limit).unwrap();
}

/// Connections that cannot be accepted wait; requests that cannot be sent were not sent.
#[tokio::test]
async fn a_shortage_of_descriptors_passes() {
    const PAY: &str = "POST /pay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\npay";
    let rig = Rig::start(ROUTES).await;
    // Each request needs a connection of its own.
    let closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok".to_vec();
    rig.upstream.play(move |_| Act::Last(closing.clone()));
    leave(rig.proxy.id(), 4);
    let mut apps = Vec::new();
    for _ in 0..30 {
        let mut app = client(rig.proxy.addr).await;
        app.send(PAY).await;
        apps.push(app);
    }
    // Whoever is served makes room for the next when it leaves.
    let (mut paid, mut unsent) = (0, 0);
    for mut app in apps {
        let answer = app.read("POST").await;
        match answer.status {
            200 => paid += 1,
            _ => {
                assert_eq!((answer.status, refusal(&answer).as_str()), (502, "connect"));
                assert_eq!(answer.header("bearer-proxy-forwarded"), Some("no"));
                // The limit is this process', and the upstream is not to blame.
                let error = answer.header("proxy-status").unwrap_or_default();
                assert!(error.contains("error=proxy_internal_error"), "{error}");
                assert!(answer.text().contains("raise the limit of open files"));
                unsent += 1;
            }
        }
    }
    assert_eq!((paid + unsent, rig.upstream.count()), (30, paid), "{}", rig.proxy.log());
    let metrics = client(rig.proxy.admin_addr).await.get("/metrics").await.text();
    let blamed = |line: &&str| {
        line.starts_with("bearer_proxy_upstream_errors_total{") && !line.ends_with(" 0")
    };
    assert_eq!(metrics.lines().find(blamed), None);
    let mut app = client(rig.proxy.addr).await;
    soon(app.send(PAY)).await;
    assert_eq!(app.read("POST").await.status, 200);
}
