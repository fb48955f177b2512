//! The same job through bearer-proxy and its peers, side by side in one run.
//!
//!     cargo bench --bench compare                        # CPU, memory, start, against nginx, HAProxy, Envoy
//!     cargo bench --bench compare -- --only get,tls --rounds 5 --secs 0.8
//!     cargo bench --bench compare -- gates               # instructions and system calls, with limits
//!     cargo bench --bench compare -- laws                # how costs grow with routes, tokens, sizes …
//!     cargo bench --bench compare -- build --proxy PATH  # what another build costs, in one line
//!
//! The proxy runs on one core, load and origin on another. `--proxy PATH` measures another build.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench that cannot go on says so and ends"
)]

mod client;
mod gates;
mod laws;
mod load;
mod machine;
mod origin;
mod peers;
mod proxies;
mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use client::Idle;
use load::{Job, Until};
use origin::Origin;
use proxies::{Recipe, Running, Site};
use report::Report;

/// What the command line asks for.
struct Asked {
    mode: String,
    only: Vec<String>,
    rounds: usize,
    seconds: f64,
    proxy: PathBuf,
}

impl Asked {
    fn read() -> Self {
        let mut asked = Self {
            mode: "compare".into(),
            only: Vec::new(),
            rounds: 3,
            seconds: 0.8,
            proxy: env!("CARGO_BIN_EXE_bearer-proxy").into(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} wants a value"));
            match word.as_str() {
                "--bench" => {} // what cargo adds
                "--only" => asked.only = value().split(',').map(str::to_owned).collect(),
                "--rounds" => asked.rounds = value().parse().unwrap(),
                "--secs" => asked.seconds = value().parse().unwrap(),
                "--proxy" => asked.proxy = value().into(),
                "compare" | "gates" | "laws" | "build" => asked.mode = word,
                _ => panic!("{word} is not known; see the head of benches/compare/main.rs"),
            }
        }
        asked
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

fn main() {
    let asked = Asked::read();
    machine::pin(machine::OTHER_CORE);
    let origin = Origin::start(machine::OTHER_CORE).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(&origin, folder.path());
    match asked.mode.as_str() {
        "gates" => std::process::exit(gates::run(&site, &asked)),
        "laws" => std::process::exit(laws::run(&site, &asked)),
        "build" => gates::build(&site, &asked),
        _ => compare(&site, &asked),
    }
}

fn compare(site: &Site<'_>, asked: &Asked) {
    let mut recipes = vec![proxies::ours(site, asked.proxy.clone()).unwrap()];
    recipes.extend(peers::installed(site).unwrap());
    let mut report = Report::new(recipes.iter().map(|recipe| recipe.name));
    let mut running: Vec<_> =
        recipes.iter().map(|recipe| alone(recipe, asked, &mut report)).collect();
    for round in 1..=asked.rounds {
        for work in WORK.iter().filter(|work| asked.wants(work.name)) {
            for (recipe, proxy) in recipes.iter().zip(&mut running) {
                report.add(recipe.name, &work.figure(), work.measure(proxy, asked.seconds));
            }
        }
        eprintln!("round {round} of {}", asked.rounds);
    }
    report.print("bearer-proxy");
}

/// What is measured of each proxy while no other runs: size, start, memory.
fn alone(recipe: &Recipe, asked: &Asked, report: &mut Report) -> Running {
    report.add(recipe.name, "program, MiB", recipe.size_mib());
    if asked.wants("start") {
        for _ in 0..5 {
            let started = Instant::now();
            recipe.start().unwrap().end();
            report.add(
                recipe.name,
                "start to first 200, ms",
                started.elapsed().as_secs_f64() * 1e3,
            );
        }
    }
    if asked.wants("memory") {
        let mut running = recipe.start().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        report.add(recipe.name, "idle, MiB", machine::rss_kib(running.pid()) / 1024.0);
        let held = Idle::open(running.address, "/r0/1024", 1000).unwrap();
        let rss = machine::rss_kib(running.pid()) / 1024.0;
        report.add(recipe.name, "1,000 idle connections, MiB", rss);
        drop(held);
        running.end();
    }
    recipe.start().unwrap_or_else(|error| panic!("{error}"))
}

/// One kind of work.
pub struct Work {
    /// As `--only` has it.
    pub name: &'static str,
    kind: char,
    size: usize,
    post: Option<usize>,
    close: bool,
    clients: usize,
}

const MIB: usize = 1 << 20;

/// All kinds of work.
pub const WORK: [Work; 7] = [
    Work { name: "get", kind: 'r', size: 1024, post: None, close: false, clients: 64 },
    Work { name: "tls", kind: 't', size: 1024, post: None, close: false, clients: 64 },
    Work { name: "post10k", kind: 'r', size: 1024, post: Some(10_240), close: false, clients: 64 },
    Work { name: "close", kind: 'r', size: 1024, post: None, close: true, clients: 64 },
    Work { name: "down", kind: 'r', size: 100 * MIB, post: None, close: false, clients: 1 },
    Work { name: "downtls", kind: 't', size: 100 * MIB, post: None, close: false, clients: 1 },
    Work { name: "up", kind: 'r', size: 16, post: Some(100 * MIB), close: false, clients: 1 },
];

impl Work {
    /// Its job over so many routes.
    pub fn job(&self, routes: usize) -> Job {
        let paths = (0..routes).map(|number| format!("/{}{number}/{}", self.kind, self.size));
        let job = Job { close: self.close, ..Job::get(paths.collect(), self.clients) };
        self.post.map_or(job.clone(), |size| job.post(size, false))
    }

    fn bytes(&self) -> usize {
        self.size.max(self.post.unwrap_or(0))
    }

    fn is_large(&self) -> bool {
        self.bytes() >= MIB
    }

    fn figure(&self) -> String {
        let unit = if self.is_large() { "CPU s per GiB" } else { "CPU s per 100,000" };
        format!("{}, {unit}", self.name)
    }

    fn measure(&self, proxy: &Running, seconds: f64) -> f64 {
        let job = self.job(10);
        let until = match self.is_large() {
            true => Until::Requests(3),
            false => Until::Elapsed(Duration::from_secs_f64(seconds)),
        };
        let warm = if self.is_large() {
            Until::Requests(1)
        } else {
            Until::Elapsed(Duration::from_millis(300))
        };
        load::run(proxy.address, &job, warm);
        let per_request = cpu_per_request(proxy, &job, until);
        let units = if self.is_large() { (1u64 << 30) as f64 / self.bytes() as f64 } else { 1e5 };
        per_request * units
    }
}

/// CPU seconds that one request costs the proxy.
pub fn cpu_per_request(proxy: &Running, job: &Job, until: Until) -> f64 {
    let before = machine::cpu_seconds(proxy.pid());
    let outcome = load::run(proxy.address, job, until);
    let spent = machine::cpu_seconds(proxy.pid()) - before;
    if outcome.failed > 0 {
        eprintln!("{} of {} requests failed", outcome.failed, outcome.failed + outcome.answered);
    }
    spent / outcome.answered.max(1) as f64
}
