//! Any interleaving of replicas, time and losses of the store; and the scripts beside their model, in a real
//! server.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use proptest::prelude::*;

use super::protocol::{
    ACQUIRE, AcquireReply, FAIL, PUBLISH, PublishReply, RENEW, Replica, Step, StoredValue,
};
use super::state::TokenState;
use super::store::Acquire;

const REPLICAS: usize = 3;
const LEASE: Duration = Duration::from_secs(2);
const LIFE: Duration = Duration::from_secs(20);
const BUDGET: u64 = 30;

#[derive(Debug, Clone, Copy)]
enum Event {
    /// A replica asks for the token or, where it may, for the lead.
    Acquire(usize, bool),
    /// A leader renews its lease.
    Renew(usize),
    /// The token request of a leader succeeds, however late.
    Issued(usize),
    /// It fails; with `true` because of the secret.
    Failed(usize, bool),
    /// A replica sees a new secret.
    Rotate(usize),
    /// A replica starts again and remembers nothing.
    Restart(usize),
    /// Milliseconds pass.
    Pass(u64),
    /// The store comes back empty.
    Lose,
}

fn event() -> impl Strategy<Value = Event> {
    let replica = 0..REPLICAS;
    prop_oneof![
        6 => (replica.clone(), any::<bool>()).prop_map(|(one, lead)| Event::Acquire(one, lead)),
        1 => replica.clone().prop_map(Event::Renew),
        4 => replica.clone().prop_map(Event::Issued),
        2 => (replica.clone(), any::<bool>()).prop_map(|(one, refused)| Event::Failed(one, refused)),
        1 => replica.clone().prop_map(Event::Rotate),
        1 => replica.prop_map(Event::Restart),
        4 => prop_oneof![1..1500_u64, 1500..30_000_u64].prop_map(Event::Pass),
        1 => Just(Event::Lose),
    ]
}

/// The replicas, the epochs that they lead, and the store.
struct World {
    store: TokenState,
    replicas: Vec<Replica>,
    leads: [Option<u64>; REPLICAS],
    secrets: [u32; REPLICAS],
    now: u64,
}

impl World {
    fn new() -> Self {
        let replicas = (0..REPLICAS).map(|number| Replica::new(format!("r{number}"))).collect();
        let (store, leads, secrets) = (TokenState::default(), [None; REPLICAS], [0; REPLICAS]);
        Self { store, replicas, leads, secrets, now: 1_800_000_000_000 }
    }

    fn happen(&mut self, event: Event) -> Result<(), TestCaseError> {
        let generations: Vec<u64> = self.replicas.iter().map(Replica::generation).collect();
        let (generation, now) = (self.store.generation, self.now);
        match event {
            Event::Acquire(one, lead) => self.acquire(one, lead)?,
            Event::Renew(one) => {
                if let Some(epoch) = self.leads[one] {
                    let id = self.replicas[one].id().to_owned();
                    let renewed = self.store.renew(now, &id, epoch, LEASE);
                    prop_assert!(!renewed || self.store.epoch == epoch, "a later lead was ousted");
                }
            }
            Event::Issued(one) => {
                if let Some(epoch) = self.leads[one].take() {
                    let before = self.store.clone();
                    if !self.replicas[one].may_publish(epoch) {
                        return Ok(());
                    }
                    self.publish(one, epoch);
                    let superseded = before.generation >= epoch;
                    prop_assert_eq!(
                        superseded,
                        self.store == before,
                        "an older epoch overwrites nothing"
                    );
                }
            }
            Event::Failed(one, refused) => {
                if self.leads[one].take().is_some() {
                    let (id, secret) = (self.replicas[one].id(), self.secrets[one].to_string());
                    self.store.fail(now, id, Duration::from_secs(5), refused.then_some(&secret));
                }
            }
            Event::Rotate(one) => self.secrets[one] += 1,
            Event::Restart(one) => {
                self.replicas[one] = Replica::new(format!("r{one}-{now}"));
                self.leads[one] = None;
            }
            Event::Pass(time) => self.now += time,
            Event::Lose => self.store = TokenState::default(),
        }
        if !matches!(event, Event::Lose) {
            prop_assert!(self.store.generation >= generation, "the generation of the store fell");
        }
        for (one, before) in generations.into_iter().enumerate() {
            let fell = self.replicas[one].generation() < before;
            let restarted = matches!(event, Event::Restart(restarted) if restarted == one);
            prop_assert!(!fell || restarted, "a replica went back to an older token");
        }
        prop_assert!(self.store.calls.1 <= BUDGET);
        Ok(())
    }

    fn acquire(&mut self, one: usize, lead: bool) -> Result<(), TestCaseError> {
        let before = self.store.clone();
        let secret = self.secrets[one].to_string();
        let replica = &mut self.replicas[one];
        let asked = Acquire {
            owner: replica.id(),
            generation: replica.generation(),
            token_owner: replica.token_owner(),
            lead: lead.then_some(LEASE),
            secret: &secret,
            budget: BUDGET,
        };
        let reply = self.store.acquire(self.now, &asked);
        let known = asked.generation;
        match replica.on_acquired(&reply, Ok(())) {
            Step::Adopt => {
                let newest = (self.store.generation, &*self.store.token_owner);
                prop_assert_eq!((replica.generation(), replica.token_owner()), newest);
            }
            Step::Request(epoch) => {
                prop_assert!(epoch > known && epoch > before.generation && epoch > before.epoch);
                let other = before
                    .lease
                    .filter(|(owner, until)| *until > self.now && owner != replica.id());
                prop_assert!(other.is_none(), "two replicas lead");
                let rotated = before.refused.is_some_and(|refused| refused != secret);
                prop_assert!(before.not_before <= self.now || rotated, "it had to wait");
                self.leads[one] = Some(epoch);
            }
            Step::Offer(generation) => {
                prop_assert!(!lead && generation == known);
                self.publish(one, generation);
            }
            Step::AskAgain(wait) => prop_assert!(wait <= Duration::from_secs(3600)),
            step @ (Step::Keep(_) | Step::LeaveToNewer) => {
                prop_assert!(false, "all values open: {:?}", step);
            }
        }
        Ok(())
    }

    fn publish(&mut self, one: usize, epoch: u64) {
        let id = self.replicas[one].id().to_owned();
        let reply = self.store.publish(self.now, &id, epoch, b"sealed", LIFE);
        self.replicas[one].on_published(epoch, reply);
    }
}

fn config() -> ProptestConfig {
    let cases = std::env::var("BEARER_PROXY_CASES").ok();
    let cases = cases.map_or(1000, |text| text.parse().expect("a number of cases"));
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn generations_rise_whatever_happens(events in prop::collection::vec(event(), 1..80)) {
        let mut world = World::new();
        for event in events {
            world.happen(event)?;
        }
    }
}

/// A server of its own on a Unix socket; `None` where none is installed.
struct RedisServer {
    child: Child,
    dir: tempfile::TempDir,
    /// Open for as long as the server may write.
    _log: BufReader<ChildStdout>,
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl RedisServer {
    /// Starts it and waits until it listens.
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(dir.path().join("redis.sock"))
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut log = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("eady to accept connections") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "redis-server ended");
        }
        Some(Self { child, dir, _log: log })
    }

    fn connect(&self) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(self.dir.path().join("redis.sock")).unwrap())
    }
}

/// A value of RESP 2.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Number(i64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
}

impl Value {
    fn number(&self) -> u64 {
        let Self::Number(number) = self else { panic!("{self:?} is no number") };
        u64::try_from(*number).unwrap()
    }

    fn text(&self) -> String {
        let Self::Bytes(bytes) = self else { panic!("{self:?} is no text") };
        String::from_utf8(bytes.clone()).unwrap()
    }
}

/// Runs a script with the keys `s` and `t`, and returns its reply: a word, the time, and more.
fn eval(server: &mut BufReader<UnixStream>, script: &str, arguments: &[&str]) -> Vec<Value> {
    let command = ["EVAL", script, "2", "s", "t"];
    let all: Vec<&str> = command.into_iter().chain(arguments.iter().copied()).collect();
    let mut text = format!("*{}\r\n", all.len());
    for part in all {
        text += &format!("${}\r\n{part}\r\n", part.len());
    }
    server.get_mut().write_all(text.as_bytes()).unwrap();
    let Value::List(reply) = read(server) else { panic!("no list") };
    reply
}

fn read(server: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    server.read_line(&mut line).unwrap();
    let (kind, rest) = line.trim_end().split_at(1);
    match kind {
        ":" => Value::Number(rest.parse().unwrap()),
        "*" => Value::List((0..rest.parse().unwrap()).map(|_| read(server)).collect()),
        "$" => {
            let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
            server.read_exact(&mut bytes).unwrap();
            bytes.truncate(bytes.len() - 2);
            Value::Bytes(bytes)
        }
        _ => panic!("{line}"),
    }
}

fn acquired(reply: &[Value]) -> AcquireReply {
    match &*reply[0].text() {
        "token" => AcquireReply::Token(StoredValue {
            generation: reply[2].number(),
            owner: reply[3].text(),
            sealed: reply[4].text().into_bytes(),
            life_left: Duration::from_millis(reply[5].number()),
        }),
        "none" => AcquireReply::NoOther,
        "held" => AcquireReply::Held(Duration::from_millis(reply[2].number())),
        "wait" => AcquireReply::Wait(Duration::from_millis(reply[2].number())),
        "lead" => AcquireReply::Lead(reply[2].number()),
        other => panic!("{other}"),
    }
}

/// Without the life that is left, which a server counts by a clock of its own.
fn without_life(mut acquired: AcquireReply) -> AcquireReply {
    if let AcquireReply::Token(value) = &mut acquired {
        value.life_left = Duration::ZERO;
    }
    acquired
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that does nothing says so")]
fn the_scripts_do_what_their_model_does() {
    let Some(server) = RedisServer::start() else {
        eprintln!("SKIPPED: redis-server is not installed; the scripts were not run");
        return;
    };
    let (mut server, mut model) = (server.connect(), TokenState::default());
    let mut random = fastrand::Rng::with_seed(6749);
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..3000 {
        let replica = ["r1", "r2", "r3"][random.usize(..3)];
        let near =
            |random: &mut fastrand::Rng, middle: u64| (middle + random.u64(..4)).saturating_sub(2);
        let epoch = near(&mut random, model.epoch);
        let lease = Duration::from_millis(random.u64(1..4));
        let texts = (epoch.to_string(), lease.as_millis().to_string());
        match random.u32(..8) {
            0..4 => {
                let asked = Acquire {
                    owner: replica,
                    generation: near(&mut random, model.generation),
                    token_owner: ["r1", "r2"][random.usize(..2)],
                    lead: (random.u32(..4) > 0).then_some(lease),
                    secret: ["a", "b"][random.usize(..2)],
                    budget: [0, 100_000][random.usize(..2)],
                };
                let word = if asked.lead.is_some() { "lead" } else { "look" };
                let generation = asked.generation.to_string();
                let budget = asked.budget.to_string();
                let arguments = [
                    replica,
                    &generation,
                    asked.token_owner,
                    &texts.1,
                    word,
                    asked.secret,
                    &budget,
                ];
                let reply = eval(&mut server, ACQUIRE, &arguments);
                let expected = model.acquire(reply[1].number(), &asked);
                seen.insert(reply[0].text());
                assert_eq!(
                    without_life(acquired(&reply)),
                    without_life(expected),
                    "{round}: {asked:?}"
                );
            }
            4 => {
                let reply = eval(&mut server, RENEW, &[replica, &texts.0, &texts.1]);
                let renewed = model.renew(reply[1].number(), replica, epoch, lease);
                seen.insert(reply[0].text());
                assert_eq!(reply[0].text() == "renewed", renewed, "{round}");
            }
            5 => {
                let sealed = format!("sealed {round}");
                let reply =
                    eval(&mut server, PUBLISH, &[replica, &texts.0, &sealed, "600000", "c"]);
                let now = reply[1].number();
                let expected =
                    model.publish(now, replica, epoch, sealed.as_bytes(), Duration::from_secs(600));
                // The least interval between two calls passes at once, or this took an hour.
                model.not_before = now;
                eval(
                    &mut server,
                    "redis.call('HSET', KEYS[1], 'not_before', ARGV[1]) return {1}",
                    &[&now.to_string()],
                );
                seen.insert(reply[0].text());
                let found = match &*reply[0].text() {
                    "published" => PublishReply::Accepted,
                    _ => PublishReply::Superseded(reply[2].number()),
                };
                assert_eq!(found, expected, "{round}");
            }
            _ => {
                let refused = ["", "a", "b"][random.usize(..3)];
                let wait = Duration::from_millis(random.u64(..4));
                let reply =
                    eval(&mut server, FAIL, &[replica, &wait.as_millis().to_string(), refused]);
                let reason = Some(refused).filter(|refused| !refused.is_empty());
                let failed = model.fail(reply[1].number(), replica, wait, reason);
                seen.insert(reply[0].text());
                assert_eq!(reply[0].text() == "failed", failed, "{round}");
            }
        }
    }
    let all = [
        "failed",
        "held",
        "lead",
        "lost",
        "none",
        "published",
        "renewed",
        "superseded",
        "token",
        "wait",
    ];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), all);
}
