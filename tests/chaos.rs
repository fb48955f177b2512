//! A seeded storm: many requests through the whole program to banks that fail in every way we know,
//! and an oracle that knows what each app must have been told.
//!
//! `CHAOS_REQUESTS` and `CHAOS_SEED` make it longer and another; `.ci/full` runs a million.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests say what they expect by panicking, and this one how it went"
)]

#[path = "chaos/apps.rs"]
mod apps;
#[path = "chaos/bank.rs"]
mod bank;
#[path = "chaos/fault.rs"]
mod fault;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use apps::Outcome;
use bearer_proxy::app::App;
use bearer_proxy::config;
use bearer_proxy::telemetry::log;
use fault::{Fate, Fault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Apps that send at the same time.
const APPS: usize = 32;
/// Room for the connections of all of them, however many requests they send.
const MEMORY_KIB: usize = 48 * 1024;
/// What goes wrong is told so many times; the rest is counted.
const TOLD: usize = 20;

/// What everybody in the story knows.
struct World {
    seed: u64,
    /// How often the head of each request arrived at a bank.
    arrived: Vec<AtomicU8>,
    next: AtomicUsize,
    /// What should never happen.
    wrong: Mutex<Vec<String>>,
    outcomes: Mutex<std::collections::BTreeMap<String, usize>>,
}

impl World {
    fn new(requests: usize, seed: u64) -> Arc<Self> {
        let arrived = (0..requests).map(|_| AtomicU8::new(0)).collect();
        let (next, wrong, outcomes) = Default::default();
        Arc::new(Self { seed, arrived, next, wrong, outcomes })
    }

    /// The next request, until all are sent.
    fn take(&self) -> Option<usize> {
        Some(self.next.fetch_add(1, Relaxed)).filter(|id| *id < self.arrived.len())
    }

    fn wrong(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    /// What the app was told, beside what the bank did last.
    fn judge(&self, id: usize, method: &str, outcome: &Outcome) {
        *self.outcomes.lock().unwrap().entry(outcome.name()).or_default() += 1;
        let arrived = self.arrived[id].load(Relaxed);
        let last = Fault::drawn(self.seed, id, arrived);
        let fate = if arrived == 0 { Fate::Lost } else { last.fate() };
        let fits = match (fate, outcome) {
            (_, Outcome::Left) => true,
            (Fate::Whole(status), Outcome::Whole { status: found, id: of }) => {
                status == *found && *of == id
            }
            (Fate::Cut, Outcome::Cut) => true,
            (Fate::Broken, Outcome::Refused { code, forwarded }) => {
                code == "upstream_reset" && forwarded == "unknown"
            }
            (Fate::Late, Outcome::Refused { code, forwarded }) => {
                code == "upstream_timeout" && forwarded == "unknown"
            }
            // It was written to a connection that its server no longer read, or there was no token.
            (Fate::Lost, Outcome::Refused { code, forwarded }) => {
                code == "upstream_reset" || (code == "token_unavailable" && forwarded == "no")
            }
            (Fate::Any(status), Outcome::Whole { status: found, id: of }) => {
                status == *found && *of == id
            }
            (Fate::Any(_), Outcome::Cut) => true,
            (Fate::Any(_), Outcome::Refused { forwarded, .. }) => forwarded == "unknown",
            _ => false,
        };
        if !fits {
            self.wrong(format!(
                "{id}: {method} met {last:?} at its arrival {arrived}: {outcome:?}"
            ));
        }
    }
}

fn setting(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn every_request_has_one_outcome_and_no_payment_arrives_twice() {
    let requests = setting("CHAOS_REQUESTS", 4000);
    let seed = setting("CHAOS_SEED", 6750) as u64;
    let world = World::new(requests, seed);
    let (tokens, a, b) = spawn_banks(&world);
    let dir = tempfile::tempdir().unwrap();
    let proxy = spawn_proxy(dir.path(), tokens, a, b);
    let (started, before) = (Instant::now(), peak_kib());
    let runtime = runtime();
    runtime.block_on(async {
        let apps: Vec<_> = (0..APPS)
            .map(|number| tokio::spawn(apps::send(Arc::clone(&world), proxy, number)))
            .collect();
        for app in apps {
            app.await.unwrap();
        }
    });
    let elapsed = started.elapsed();
    let left = runtime.block_on(connections_left(dir.path()));
    println!("{requests} requests in {elapsed:.1?}, seed {seed}");
    for (outcome, count) in &*world.outcomes.lock().unwrap() {
        println!("{count:8} {outcome}");
    }
    let twice = world.arrived.iter().filter(|arrived| arrived.load(Relaxed) > 1).count();
    println!("{twice:8} arrived more than once");
    println!("{left:8} connections to banks that nothing uses");
    println!("{:8} KiB at most, {before} KiB before", peak_kib());
    let told: usize = world.outcomes.lock().unwrap().values().sum();
    assert_eq!(told, requests, "each request has one outcome");
    assert_eq!(left, 0, "connections of requests that have ended stay open");
    assert!(peak_kib() < before + MEMORY_KIB, "memory grows with what was sent");
    let wrong = world.wrong.lock().unwrap();
    let some = wrong.iter().take(TOLD).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "seed {seed}: {} outcomes are wrong:\n{some}", wrong.len());
}

/// An operator who saves the configuration every two seconds: another one, a broken one, the first one.
fn edit(path: &Path, text: &str) {
    let versions = [
        text.replace("\nlog.level", "\nserver.max_in_flight = 200\nlog.level"),
        text[..text.len() / 2].to_owned(),
        text.to_owned(),
    ];
    for version in versions.iter().cycle() {
        thread::park_timeout(Duration::from_secs(2));
        // The folder goes with the program.
        if std::fs::write(path, version).is_err() {
            return;
        }
    }
}

/// The most memory that this process has held, with both ends of every connection in it.
fn peak_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Two banks and the server of their tokens, on a thread of their own.
fn spawn_banks(world: &Arc<World>) -> (SocketAddr, SocketAddr, SocketAddr) {
    let (sender, receiver) = mpsc::channel();
    let world = Arc::clone(world);
    thread::spawn(move || {
        runtime().block_on(async {
            let tokens = bank::tokens(world.seed).await;
            let a = bank::start("a", Arc::clone(&world)).await;
            let b = bank::start("b", world).await;
            sender.send((tokens, a, b)).unwrap();
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().unwrap()
}

/// The connections to banks that are open and neither idle nor in use, by `/status`, once none is left or
/// after the longest time-out of a request that stalls.
async fn connections_left(dir: &Path) -> u64 {
    let mut left = 0;
    for _ in 0..400 {
        let mut admin = tokio::net::UnixStream::connect(dir.join("admin")).await.unwrap();
        let request = b"GET /status HTTP/1.0\r\nHost: localhost\r\n\r\n";
        admin.write_all(request).await.unwrap();
        let mut answer = String::new();
        admin.read_to_string(&mut answer).await.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let status: serde_json::Value = serde_json::from_str(body).unwrap();
        let number = |value: &serde_json::Value| value.as_u64().unwrap();
        let upstreams = status["upstreams"].as_array().unwrap().iter();
        left = upstreams
            .map(|it| number(&it["connections_open"]) - number(&it["connections_idle"]))
            .sum();
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    left
}

/// The whole program, on a thread of its own, with its files in `dir`.
fn spawn_proxy(dir: &Path, tokens: SocketAddr, a: SocketAddr, b: SocketAddr) -> SocketAddr {
    let secret = dir.join("secret");
    std::fs::write(&secret, "secret").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let admin = dir.join("admin");
    let mut text = format!(
        "version = 1\nserver.listen = \"127.0.0.1:0\"\nadmin.listen = \"unix:{}\"\n\
         reload.watch = \"1s\"\nlog.level = \"off\"\nlog.access = \"off\"\n",
        admin.display()
    );
    for (name, bank) in [("a", a), ("b", b)] {
        text += &format!(
            r#"
[credentials.{name}]
token_url = "http://{tokens}/{name}"
client_id.file = {secret:?}
client_secret.file = {secret:?}
timeouts.wait = "5s"
[upstreams.{name}]
url = "http://{bank}"
credential = "{name}"
mount = "/{name}"
timeouts = {{ response = "2s", idle = "2s" }}
routes = [
  {{ name = "read", path = "/read/{{id}}", methods = ["GET"], scopes = ["read"] }},
  {{ name = "pay", path = "/pay/{{id}}", methods = ["POST"], scopes = ["pay"] }},
]
"#
        );
    }
    let (sender, receiver) = mpsc::channel();
    let path = dir.join("chaos.toml");
    std::fs::write(&path, &text).unwrap();
    thread::spawn(move || {
        let config = config::parse(&text, &path, &|_| None);
        let config = config.unwrap_or_else(|problems| panic!("{}", problems.render(false))).config;
        let log = log::init(&config.log, false).unwrap();
        thread::spawn(move || edit(&path, &text));
        runtime().block_on(async {
            let app = App::build(config).await.unwrap();
            sender.send(app.addresses()[0][0]).unwrap();
            app.run(&log).await
        });
    });
    receiver.recv().unwrap()
}
