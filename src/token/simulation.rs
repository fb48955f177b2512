//! A seeded simulation of the token river in virtual time: whatever servers, clocks, requests and
//! reloads do, in whatever order, the promises of `README.md` hold.
//!
//! A failing seed is printed; `BEARER_PROXY_SEED=N cargo test --lib token::simulation` runs it alone,
//! and `BEARER_PROXY_CASES=N` runs that many.

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::bearer::Bearer;
use super::credential::{Credential, RefreshPolicy};
use super::manager::TokenManager;
use super::testing::{Call, Mood, Scripted, credential, keep, manager};
use super::{Reader, TokenGuard};
use crate::clock::{Moment, testing as clock};

const SCOPES: [&str; 3] = ["a", "b", "c d"];
/// Longer than the clocks are left unwatched.
const WATCHED: Duration = Duration::from_secs(6);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Runs a case in virtual time that only its seed decides.
fn simulate<F: Future<Output = ()>>(seed: u64, case: impl FnOnce(Rng) -> F) {
    fastrand::seed(seed);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build();
    assert!(runtime.is_ok(), "{runtime:?}");
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        clock::set(SystemTime::UNIX_EPOCH + secs(1_800_000_000));
        case(Rng::with_seed(seed)).await;
    });
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn whatever_happens_the_promises_hold() {
    let seeds = match number("BEARER_PROXY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BEARER_PROXY_CASES").unwrap_or(60),
    };
    for seed in seeds {
        let told = Told(seed);
        simulate(seed, |rng| async move { Case::new(rng).run().await });
        drop(told);
    }
}

/// Says which seed it was when a case fails.
struct Told(u64);

#[expect(clippy::print_stderr, reason = "it is for the person who reads the failure")]
impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("BEARER_PROXY_SEED={}", self.0);
        }
    }
}

/// One case: a manager, its server, and requests under way.
struct Case {
    rng: Rng,
    server: Scripted,
    manager: TokenManager<Scripted>,
    credential: Arc<Credential>,
    readers: Vec<Reader>,
    requests: JoinSet<()>,
}

impl Case {
    fn new(mut rng: Rng) -> Self {
        let server = Scripted::new();
        let budget = if rng.u8(..4) == 0 { NonZeroU32::new(rng.u32(3..30)) } else { None };
        let lazy = if rng.u8(..4) == 0 { Some(secs(rng.u64(10..600))) } else { None };
        let credential =
            Arc::new(credential(RefreshPolicy { budget, lazy, ..RefreshPolicy::default() }));
        let (manager, _) = manager(&server);
        let readers = Vec::new();
        let mut case = Self { rng, server, manager, credential, readers, requests: JoinSet::new() };
        case.reload();
        case
    }

    async fn run(mut self) {
        for _ in 0..self.rng.usize(5..40) {
            self.happen().await;
            while let Some(ended) = self.requests.try_join_next() {
                assert!(ended.is_ok(), "a request failed its checks");
            }
        }
        self.recover().await;
        while let Some(ended) = self.requests.join_next().await {
            assert!(ended.is_ok(), "a request failed its checks");
        }
        let calls = self.server.world().calls.clone();
        check_logins(&calls);
        if let Some(budget) = self.credential.policy.budget {
            check_budget(&calls, budget);
        }
        self.manager.shutdown(true).await;
    }

    async fn happen(&mut self) {
        match self.rng.u8(..14) {
            0..=3 => self.request(),
            4 => (0..self.rng.u8(2..20)).for_each(|_| self.request()),
            5 | 6 => self.wait_a_little().await,
            7 => tokio::time::sleep(secs(self.rng.u64(1..7200))).await,
            8 | 9 => self.change_mood(),
            10 => self.jump().await,
            11 => self.reload(),
            12 => drop(self.manager.handle().refresh("bank")),
            _ => self.server.world().secret += 1,
        }
    }

    async fn wait_a_little(&mut self) {
        let millis = self.rng.u64(1..20_000);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    fn change_mood(&mut self) {
        let lives = [1, 2, 3, 5, 20, 60, 300, 3600, 86_400];
        let life = lives[self.rng.usize(..lives.len())];
        let mood = match self.rng.u8(..12) {
            0..=2 => Mood::Gives(life),
            3 => Mood::SameToken(life),
            4 => Mood::Down,
            5 => Mood::Cut,
            6 => Mood::Status(500, 0),
            7 => Mood::Status(429, [0, 1, 30, 900][self.rng.usize(..4)]),
            8 => Mood::Status(400, 0),
            9 => Mood::Malformed,
            10 => Mood::Hangs,
            _ => Mood::Refuses,
        };
        let mut world = self.server.world();
        world.latency = Duration::from_millis(self.rng.u64(0..3000));
        world.refresh_tokens = self.rng.bool();
        world.mood = mood;
    }

    /// A suspend, or a setting of the time; never two within the time in which they are noticed.
    async fn jump(&mut self) {
        let by = secs(self.rng.u64(3..20_000));
        match self.rng.u8(..3) {
            0 => {
                self.server.world().slept += by;
                clock::ahead(by);
            }
            1 => clock::ahead(by),
            _ => clock::back(by),
        }
        (0..self.rng.u8(..4)).for_each(|_| self.request());
        tokio::time::sleep(WATCHED).await;
    }

    /// Some tokens come, some go; sometimes it is taken back before it is settled.
    fn reload(&mut self) {
        let kept = |rng: &mut Rng| -> Vec<&str> {
            SCOPES.into_iter().filter(|scope| *scope == "a" || rng.bool()).collect()
        };
        let (first, then) = (kept(&mut self.rng), kept(&mut self.rng));
        self.readers = keep(&mut self.manager, &self.credential, &first);
        if self.rng.bool() {
            self.readers = keep(&mut self.manager, &self.credential, &then);
        }
        self.manager.commit();
    }

    fn request(&mut self) {
        let reader = self.readers[self.rng.usize(..self.readers.len())].clone();
        let refused = self.rng.u8(..4) == 0;
        let server = self.server.clone();
        self.requests.spawn(async move {
            let Some(bearer) = ask(&server, &reader).await else { return };
            if refused {
                reader.report_rejected(bearer.generation());
                let began = Instant::now();
                let newer = reader.newer_than(bearer.generation(), began + secs(2)).await;
                assert!(began.elapsed() <= secs(2), "a challenged request waited too long");
                newer.iter().for_each(|newer| check_token(&server, newer));
            }
        });
    }

    /// Once the server is well and the secret is new, whoever goes on asking gets a token, at the
    /// latest when what the server asked for has passed.
    async fn recover(&mut self) {
        {
            let mut world = self.server.world();
            (world.mood, world.latency) = (Mood::Gives(300), Duration::from_millis(200));
            world.secret += 1;
        }
        // A budget is the credential's: the token that gets the call which is free again may be any.
        let (bound, asking) = match self.credential.policy.budget {
            Some(_) => (secs(3700), self.readers.len()),
            None => (secs(320), 1),
        };
        let began = Instant::now();
        for reader in self.readers.iter().take(asking).cycle() {
            if ask(&self.server, reader).await.is_some() {
                break;
            }
            let gone = began.elapsed();
            assert!(gone < bound, "no token {gone:?} after the server is well");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// A request as the proxy makes it: it takes the token that is there, or waits.
async fn ask(server: &Scripted, reader: &Reader) -> Option<TokenGuard> {
    let began = Instant::now();
    let found = match reader.usable(Moment::now()) {
        Some(bearer) => Some(bearer),
        None => reader.wait_usable(began + secs(2)).await.ok(),
    };
    assert!(began.elapsed() <= secs(2), "a request waited for {:?}", began.elapsed());
    found.iter().for_each(|bearer| check_token(server, bearer));
    found
}

fn check_token(server: &Scripted, bearer: &Bearer) {
    assert!(server.lives(bearer.header()), "an expired token was handed out");
}

/// After a refused login nobody calls for 30 s, whichever token is concerned.
fn check_logins(calls: &[Call]) {
    let refused = calls.iter().filter(|call| call.mood == Mood::Refuses);
    for ended in refused.filter_map(|call| call.ended) {
        let soon = calls.iter().filter(|call| call.began > ended && call.began < ended + secs(30));
        assert_eq!(soon.count(), 0, "a call within 30 s of a refused login");
    }
}

fn check_budget(calls: &[Call], budget: NonZeroU32) {
    for (index, call) in calls.iter().enumerate() {
        let within =
            calls[index..].iter().take_while(|later| later.began < call.began + secs(3600));
        assert!(within.count() <= budget.get() as usize, "more calls than token_budget in an hour");
    }
}

/// Requests every half second meet a server that is away for a while: the token serves them to its
/// end, and within 4 s of its return there is another.
#[test]
fn a_server_that_comes_back_is_noticed_within_4_s() {
    for seed in 0..80 {
        let told = Told(seed);
        simulate(seed, |mut rng| async move {
            let server = Scripted::new();
            let (mut manager, _) = manager(&server);
            let credential = Arc::new(credential(RefreshPolicy::default()));
            let reader = keep(&mut manager, &credential, &["a"]).remove(0);
            assert!(ask(&server, &reader).await.is_some());
            server.set(
                [Mood::Down, Mood::Cut, Mood::Status(503, 0), Mood::Malformed][rng.usize(..4)],
            );
            let away = Instant::now();
            while away.elapsed() < secs(rng.u64(55..400)) {
                let expected = away.elapsed() < secs(54);
                assert!(ask(&server, &reader).await.is_some() || !expected, "it still lived");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            server.set(Mood::Gives(60));
            let back = Instant::now();
            while ask(&server, &reader).await.is_none() {
                assert!(back.elapsed() <= secs(4), "no token after {:?}", back.elapsed());
            }
            assert!(back.elapsed() <= secs(4), "no token after {:?}", back.elapsed());
        });
        drop(told);
    }
}

/// A working day of a laptop: tokens of an hour, requests now and then, a lid that is closed at
/// night, and a server with bad minutes.
#[test]
fn a_day() {
    for seed in 0..4 {
        let told = Told(seed);
        simulate(seed, |mut rng| async move {
            let server = Scripted::new();
            server.set(Mood::Gives(3600));
            let (mut manager, _) = manager(&server);
            let credential = Arc::new(credential(RefreshPolicy::default()));
            let reader = keep(&mut manager, &credential, &["a"]).remove(0);
            let start = Instant::now();
            let (asked, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
            while start.elapsed() < secs(16 * 3600) {
                tokio::time::sleep(secs(rng.u64(1..300))).await;
                asked.fetch_add(1, Ordering::Relaxed);
                if ask(&server, &reader).await.is_none() {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
                if rng.u8(..100) == 0 {
                    // Shorter than what is left of a token when its renewal is due.
                    server.set(Mood::Status(503, 0));
                    tokio::time::sleep(secs(rng.u64(1..500))).await;
                    server.set(Mood::Gives(3600));
                }
            }
            server.world().slept += secs(8 * 3600);
            clock::ahead(secs(8 * 3600));
            assert!(ask(&server, &reader).await.is_some(), "the first request of the morning");
            assert_eq!(failed.into_inner(), 0, "of {} requests", asked.into_inner());
            let calls = server.calls();
            assert!((20..100).contains(&calls), "{calls} calls a day");
        });
        drop(told);
    }
}
