//! Token servers that revoke the old token when they issue a new one, under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bearer_proxy::sandbox::{Bank, Fault, Persona, Quirk, ScriptedResponse, TokenValidity};
use tempfile::TempDir;

use crate::support::{Proxy, client, soon};

/// Renewals over all banks of a story, of which the long run makes 1,000.
fn renewals() -> usize {
    let asked = std::env::var("BEARER_PROXY_RENEWALS").ok();
    asked.map_or(200, |text| text.parse().expect("a number of renewals"))
}

/// Banks that keep one live token each, and one proxy in front of all of them.
struct Story {
    banks: Vec<Bank>,
    proxy: Proxy,
    _secrets: TempDir,
}

impl Story {
    async fn begin(count: usize, keys: &str, wait: &str) -> Self {
        Self::with_upstream(count, keys, "", wait).await
    }

    async fn with_upstream(count: usize, keys: &str, upstream: &str, wait: &str) -> Self {
        let secrets = TempDir::new().unwrap();
        let mut text = "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\nworkers = 2\n\
                        [admin]\nlisten = \"127.0.0.1:0\"\n"
            .to_owned();
        let mut banks = Vec::new();
        for number in 0..count {
            let bank = Bank::start(Persona::Sqr, Duration::from_secs(600)).await.unwrap();
            bank.auth.set_quirk(Quirk::OneLiveToken);
            let dir = secrets.path().join(number.to_string());
            std::fs::create_dir(&dir).unwrap();
            bank.write_secrets(&dir).unwrap();
            let (id, secret) = (dir.join("sqr_client_id"), dir.join("sqr_client_secret"));
            let (token_url, url) = (bank.auth.token_url(), bank.api.base_url());
            text += &format!(
                "[credentials.b{number}]\npreset = \"sqr\"\ntoken_url = \"{token_url}\"\n\
                 client_id.file = {id:?}\nclient_secret.file = {secret:?}\n\
                 timeouts.wait = \"{wait}\"\n{keys}\n\
                 [upstreams.b{number}]\nmount = \"/b{number}\"\nurl = \"{url}\"\ncredential = \"b{number}\"\n\
                 {upstream}\n[[upstreams.b{number}.routes]]\nname = \"all\"\npath = \"/**\"\nmethods = [\"GET\", \"POST\"]\n"
            );
            banks.push(bank);
        }
        let proxy = Proxy::start(&text).await;
        proxy.wait_ready().await;
        Self { banks, proxy, _secrets: secrets }
    }

    async fn refresh(&self, bank: usize) {
        let target = format!("/refresh?credential=b{bank}");
        let mut admin = client(self.proxy.admin_addr).await;
        assert_eq!(admin.request("POST", &target, &[], b"").await.status, 202);
    }

    /// Renews the token of each bank this many times, at the pace that the proxy allows, under load.
    /// Returns how many apps saw each status other than 200, and how often a bank saw a revoked token.
    async fn renew_under_load(&self, times: usize) -> (Vec<u16>, usize) {
        let stop = Arc::new(AtomicBool::new(false));
        let apps: Vec<_> = (0..3 * self.banks.len())
            .map(|number| tokio::spawn(app(self.proxy.addr, number, Arc::clone(&stop))))
            .collect();
        let renewing = self.banks.iter().enumerate().map(|(number, bank)| async move {
            for count in 2..2 + times {
                self.refresh(number).await;
                soon(bank.auth.ledger().wait_answered(count)).await;
            }
        });
        futures_util::future::join_all(renewing).await;
        stop.store(true, Ordering::Relaxed);
        let mut others = Vec::new();
        for app in apps {
            others.extend(soon(app).await.unwrap());
        }
        let revoked = |bank: &Bank| bank.api.count(|found| *found == TokenValidity::Revoked);
        (others, self.banks.iter().map(revoked).sum())
    }
}

/// An app that sends GET and POST in turn until it is stopped; returns the statuses other than 200.
async fn app(proxy: std::net::SocketAddr, number: usize, stop: Arc<AtomicBool>) -> Vec<u16> {
    let (mut connection, mut others) = (client(proxy).await, Vec::new());
    let target = format!("/b{}/v1/x", number / 3);
    let mut post = number.is_multiple_of(2);
    while !stop.load(Ordering::Relaxed) {
        let (method, body) = if post { ("POST", &b"{}"[..]) } else { ("GET", &b""[..]) };
        let status = soon(connection.request(method, &target, &[], body)).await.status;
        others.extend((status != 200).then_some(status));
        post = !post;
    }
    others
}

/// Slow enough that each renewal meets requests under way.
fn slow_down(banks: &[Bank]) {
    for bank in banks {
        bank.auth.set_latency(Duration::from_millis(30));
        bank.api.set_latency(Duration::from_millis(80));
    }
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the long run shows its numbers")]
async fn no_request_notices_a_renewal() {
    let story = Story::begin(20, "one_live_token = true", "20s").await;
    slow_down(&story.banks);
    let (others, revoked) = story.renew_under_load(renewals() / 20).await;
    assert_eq!((others, revoked), (vec![], 0));
    let metrics = client(story.proxy.admin_addr).await.get("/metrics").await.text();
    let value = |name: &str| {
        let of = metrics.lines().filter(|line| line.starts_with(name));
        of.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
    };
    let waited = value("bearer_proxy_token_handover_wait_seconds_count");
    assert!(waited > 0.0, "no request waited: the load was none");
    assert_eq!(value("bearer_proxy_token_handover_timeouts_total"), 0.0);
    let seconds = value("bearer_proxy_token_handover_wait_seconds_sum");
    println!(
        "{} renewals, {waited} requests waited {:.0} ms on average",
        renewals(),
        1000.0 * seconds / waited
    );
}

#[tokio::test]
async fn without_the_setting_the_same_load_notices_each_renewal() {
    let story = Story::begin(4, "", "20s").await;
    slow_down(&story.banks);
    let (others, revoked) = story.renew_under_load(3).await;
    assert!(others.contains(&401) && revoked > 3, "{others:?}, {revoked} revoked tokens");
}

#[tokio::test]
async fn a_renewal_that_fails_gives_the_old_token_back() {
    let story = Story::begin(1, "one_live_token = true", "20s").await;
    let auth = &story.banks[0].auth;
    auth.set_faults([Fault::Status(503)]);
    story.refresh(0).await;
    soon(auth.ledger().wait_answered(2)).await;
    let mut app = client(story.proxy.addr).await;
    assert_eq!(app.request("POST", "/b0/v1/x", &[], b"{}").await.status, 200);
}

#[tokio::test]
async fn a_request_that_waits_for_a_connection_goes_out_with_the_new_token() {
    let story =
        Story::with_upstream(1, "one_live_token = true", "max_connections = 2", "20s").await;
    let Bank { auth, api } = &story.banks[0];
    // Two workers with one connection each.
    api.set_responses([ScriptedResponse::Hold, ScriptedResponse::Hold]);
    let send = || async {
        let mut app = client(story.proxy.addr).await;
        app.request("POST", "/b0/v1/x", &[], b"{}").await.status
    };
    let watch = async {
        let mut admin = client(story.proxy.admin_addr).await;
        let mut in_phase = async |phase: &str, count: usize| loop {
            let status = admin.get("/status").await.json();
            let requests = status["requests"].as_array().cloned().unwrap_or_default();
            if requests.iter().filter(|request| request["phase"] == phase).count() >= count {
                break;
            }
        };
        soon(in_phase("connecting", 1)).await;
        story.refresh(0).await;
        soon(auth.ledger().wait_issued(2)).await;
        api.release(2);
    };
    let sending = futures_util::future::join_all((0..3).map(|_| send()));
    let (statuses, ()) = tokio::join!(sending, watch);
    assert_eq!(statuses, [200, 200, 200]);
    assert_eq!(api.count(|found| *found == TokenValidity::Revoked), 0);
}

#[tokio::test]
async fn a_renewal_that_hangs_makes_requests_wait_and_says_so() {
    let story = Story::begin(1, "one_live_token = true", "100ms").await;
    let Bank { auth, api } = &story.banks[0];
    auth.set_faults([Fault::Hold]);
    story.refresh(0).await;
    soon(auth.ledger().wait_calls(2)).await;
    let mut app = client(story.proxy.addr).await;
    let answer = app.request("POST", "/b0/v1/x", &[], b"{}").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("token_unavailable")));
    assert_eq!(answer.header("bearer-proxy-forwarded"), Some("no"));
    assert!(answer.header("retry-after").is_some());
    assert!(answer.text().contains("one_live_token"), "{}", answer.text());
    assert_eq!(api.requests().len(), 0);
    let status = client(story.proxy.admin_addr).await.get("/status").await.json();
    assert_eq!(status["tokens"][0]["handing_over"], true);
    auth.release(1);
    soon(auth.ledger().wait_issued(2)).await;
    soon(async { while app.get("/b0/v1/x").await.status != 200 {} }).await;
    assert_eq!(api.count(|found| *found == TokenValidity::Revoked), 0);
}
