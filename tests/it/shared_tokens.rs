//! Replicas that share a token through a real `redis-server`, at a bank that keeps one live token. Without a
//! `redis-server` on this machine the stories do nothing, and say so.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bearer_proxy::sandbox::{Bank, Persona, Quirk, TokenValidity};
use tempfile::TempDir;

use crate::support::{Proxy, client, soon};
use crate::verbs::verb;

pub const PASSWORD: &str = "canary-password";

/// A `redis-server` on a Unix socket; killed when dropped.
struct Redis {
    child: Child,
    socket: PathBuf,
    _log: BufReader<std::process::ChildStdout>,
}

impl Redis {
    #[expect(clippy::print_stderr, reason = "a story that does nothing says so")]
    fn start(dir: &Path) -> Option<Self> {
        let socket = dir.join("redis.sock");
        let (file, guide) =
            (dir.join("redis.conf"), include_str!("../../docs/src/guide/valkey.md"));
        // The rights that the guide names are all that it has.
        let rights = guide.lines().find(|line| line.starts_with("user bearer-proxy ")).unwrap();
        let rights = rights.replace("PASSWORD", PASSWORD);
        let text = format!(
            "port 0\nsave \"\"\nunixsocket {}\nuser default off\n{rights}\n",
            socket.display()
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(&file);
        let Ok(mut child) = command.current_dir(dir).stdout(Stdio::piped()).spawn() else {
            eprintln!("SKIPPED: redis-server is not installed");
            return None;
        };
        let mut log = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("eady to accept connections") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "redis-server ended");
        }
        Some(Self { child, socket, _log: log })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three replicas, their bank and their store.
pub struct Story {
    pub bank: Bank,
    redis: Option<Redis>,
    pub replicas: Vec<Proxy>,
    pub dir: TempDir,
}

impl Story {
    async fn begin() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let redis = Redis::start(dir.path())?;
        let store =
            format!("url = \"unix:{}\"\nusername = \"bearer-proxy\"", redis.socket.display());
        Some(Self { redis: Some(redis), ..Self::with_store(dir, &store).await })
    }

    /// Three replicas with a store in Redis that these lines name. Its password is [`PASSWORD`].
    pub async fn with_store(dir: TempDir, store: &str) -> Self {
        let password = dir.path().join("redis_password");
        let lines = format!("store = \"redis\"\n{store}\npassword.file = {password:?}");
        Self::with_share(dir, &lines).await
    }

    /// Three replicas with a store that these lines of `[share]` name.
    pub async fn with_share(dir: TempDir, store: &str) -> Self {
        let bank = Bank::start(Persona::Sqr, Duration::from_secs(600)).await.unwrap();
        bank.auth.set_quirk(Quirk::OneLiveToken);
        // Requests of other replicas that are under way get there meanwhile, also on a busy machine.
        bank.auth.set_latency(Duration::from_millis(500));
        bank.api.set_latency(Duration::from_millis(20));
        bank.write_secrets(dir.path()).unwrap();
        let secret = |name: &str, text: &str| {
            let path = dir.path().join(name);
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).mode(0o600).open(&path).unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
            path
        };
        let key = secret("share_key", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n");
        secret("redis_password", PASSWORD);
        let name_key = secret("name_key", "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8=\n");
        let (id, own) = (dir.path().join("sqr_client_id"), dir.path().join("sqr_client_secret"));
        let text = format!(
            "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [share]\n{store}\npoll = \"1s\"\n\
             encryption = [{{ id = \"k\", key.file = {key:?} }}]\nname_key.file = {name_key:?}\n\
             [credentials.bank]\npreset = \"sqr\"\ntoken_url = \"{}\"\nclient_id.file = {id:?}\n\
             client_secret.file = {own:?}\none_live_token = true\nshare = true\ntimeouts.wait = \"20s\"\n\
             [upstreams.bank]\nurl = \"{}\"\ncredential = \"bank\"\n\
             [[upstreams.bank.routes]]\nname = \"all\"\npath = \"/**\"\nmethods = [\"GET\", \"POST\"]\n",
            bank.auth.token_url(),
            bank.api.base_url(),
        );
        std::fs::write(dir.path().join("bearer-proxy.toml"), &text).unwrap();
        let mut replicas = Vec::new();
        for _ in 0..3 {
            replicas.push(Proxy::start(&text).await);
        }
        for replica in &replicas {
            replica.wait_ready().await;
        }
        Self { bank, redis: None, replicas, dir }
    }

    pub async fn refresh(&self, replica: usize) {
        let mut admin = client(self.replicas[replica].admin_addr).await;
        assert_eq!(admin.request("POST", "/refresh?credential=bank", &[], b"").await.status, 202);
    }

    /// `share` in the status of each replica.
    pub async fn shares(&self) -> Vec<serde_json::Value> {
        let mut found = Vec::new();
        for replica in &self.replicas {
            let text = client(replica.admin_addr).await.get("/status").await.text();
            let status: serde_json::Value = serde_json::from_str(&text).unwrap();
            found.push(status["tokens"][0]["share"].clone());
        }
        found
    }

    /// Waits until all replicas hold one generation, and returns it.
    pub async fn one_generation(&self, least: u64) -> u64 {
        soon(async {
            loop {
                let shares = self.shares().await;
                let generation = shares[0]["generation"].as_u64().unwrap();
                let same = shares.iter().all(|share| share["generation"] == generation);
                let leads = shares.iter().filter(|share| share["leads"] == true).count();
                if same && generation >= least && leads == 1 {
                    return generation;
                }
            }
        })
        .await
    }

    /// The steps of `check --live` about the store: name, status, and what was found.
    pub async fn live(&self) -> Vec<[String; 3]> {
        let ended = verb(self.dir.path(), &["check", "--live", "-o", "json"]).await;
        let all: serde_json::Value = serde_json::from_str(&ended.stdout).expect(&ended.stderr);
        let parts = all["checks"].as_array().unwrap();
        let part = parts.iter().find(|part| part["kind"] == "share").unwrap();
        let texts = |step: &serde_json::Value| {
            ["step", "status", "found"].map(|key| step[key].as_str().unwrap().to_owned())
        };
        part["steps"].as_array().unwrap().iter().map(texts).collect()
    }

    fn revoked(&self) -> usize {
        self.bank.api.count(|found| *found == TokenValidity::Revoked)
    }
}

/// An app that sends POST until it is stopped; returns the statuses other than 200.
async fn app(proxy: SocketAddr, stop: Arc<AtomicBool>) -> Vec<u16> {
    let (mut connection, mut others) = (client(proxy).await, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let status = soon(connection.request("POST", "/v1/x", &[], b"{}")).await.status;
        others.extend((status != 200).then_some(status));
    }
    others
}

#[tokio::test]
async fn three_replicas_hold_one_token_and_no_request_notices_a_renewal() {
    let Some(story) = Story::begin().await else { return };
    no_request_notices_a_renewal(&story).await;
}

/// Six renewals under load, of which each costs one token call and no request an answer.
pub async fn no_request_notices_a_renewal(story: &Story) {
    assert_eq!(story.bank.auth.ledger().calls().len(), 1, "a cold start costs one call");
    let stop = Arc::new(AtomicBool::new(false));
    let apps: Vec<_> = (0..9)
        .map(|number| tokio::spawn(app(story.replicas[number % 3].addr, Arc::clone(&stop))))
        .collect();
    // Each replica leads in turn.
    for renewal in 0..6 {
        story.refresh(renewal % 3).await;
        soon(story.bank.auth.ledger().wait_answered(renewal + 2)).await;
        story.one_generation(renewal as u64 + 2).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut others = Vec::new();
    for app in apps {
        others.extend(soon(app).await.unwrap());
    }
    assert_eq!((others, story.revoked()), (vec![], 0));
    assert_eq!(story.bank.auth.ledger().calls().len(), 7, "one call for each renewal");
    let metrics = client(story.replicas[0].admin_addr).await.get("/metrics").await.text();
    for line in [
        "bearer_proxy_share_connected 1",
        "bearer_proxy_share_generation{credential=\"bank\",scopes=\"\"} 7",
        "bearer_proxy_share_alone{credential=\"bank\",scopes=\"\"} 0",
        "bearer_proxy_share_adopted_total{credential=\"bank\"} ",
    ] {
        assert!(metrics.lines().any(|found| found.starts_with(line)), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn without_the_store_the_last_leader_goes_on_and_then_offers_its_token() {
    let Some(mut story) = Story::begin().await else { return };
    let generation = story.one_generation(1).await;
    let shares = story.shares().await;
    let leader = shares.iter().position(|share| share["leads"] == true).unwrap();
    story.redis = None;
    // Its renewal needs no store, and the others do not renew.
    for replica in 0..3 {
        story.refresh(replica).await;
    }
    soon(story.bank.auth.ledger().wait_answered(2)).await;
    let mut app = client(story.replicas[leader].addr).await;
    assert_eq!(soon(app.get("/v1/x")).await.status, 200);
    // It comes back empty.
    story.redis = Redis::start(story.dir.path());
    assert!(story.one_generation(generation + 1).await > generation);
    for replica in &story.replicas {
        let mut app = client(replica.addr).await;
        assert_eq!(soon(app.get("/v1/x")).await.status, 200);
    }
    assert_eq!(story.shares().await[leader]["alone"], false);
}

#[tokio::test]
async fn check_live_goes_through_the_store_and_the_tokens_in_it() {
    let Some(mut story) = Story::begin().await else { return };
    story.one_generation(1).await;
    let steps = story.live().await;
    let names: Vec<&str> = steps.iter().map(|[name, ..]| &**name).collect();
    let references = ["password", "name_key", "encryption.k"];
    let server =
        ["socket", "login", "role", "version", "eviction", "round trip", "clock", "rights"];
    assert_eq!(
        names,
        [&references[..], &server[..], &["names", "token bank"]].concat(),
        "{steps:?}"
    );
    assert!(steps.iter().all(|[_, status, _]| status == "ok"), "{steps:?}");
    assert_eq!(story.bank.auth.ledger().calls().len(), 1, "it revokes the token of no replica");
    let [.., [_, _, found]] = &*steps else { panic!("{steps:?}") };
    assert!(found.starts_with("generation 1 of ") && found.contains(", key k, "), "{found}");
    let other = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
    std::fs::write(story.dir.path().join("share_key"), other).unwrap();
    let steps = story.live().await;
    let [.., [_, status, found]] = &*steps else { panic!("{steps:?}") };
    assert_eq!((&**status, &**found), ("failed", "generation 1 does not open (tag)"));
    story.redis = None;
    let steps = story.live().await;
    let [.., [name, status, found]] = &*steps else { panic!("{steps:?}") };
    assert_eq!((&**name, &**status), ("socket", "failed"), "{found}");
    assert!(found.contains("redis.sock"), "{found}");
}
