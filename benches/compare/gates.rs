//! The two costs that hold still on a busy machine: user instructions and system calls per request,
//! each with a limit that a change must not cross.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::client::Idle;
use crate::load::{self, Job, Until};
use crate::proxies::{self, Recipe, Site};
use crate::{Asked, WORK, machine};

/// What a request may cost: name of the work, user instructions, system calls.
const LIMITS: [(&str, f64, f64); 4] = [
    ("get", 55_500.0, 5.3),
    ("tls", 66_800.0, 5.3),
    // How many reads a body takes depends on how it arrives.
    ("post10k", 77_900.0, 11.1),
    ("close", 75_300.0, 10.6),
];

/// Measures all, or what is asked for; the exit code says whether every limit holds.
pub fn run(site: &Site<'_>, asked: &Asked) -> i32 {
    let recipe = proxies::ours(site, asked.proxy.clone()).unwrap();
    let mut held = true;
    for (name, instructions, syscalls) in LIMITS.iter().filter(|(name, ..)| asked.wants(name)) {
        let job = work(name);
        let counted = instructions_per_request(&recipe, site.folder, &job);
        held &= check(name, "instructions", "valgrind", counted, *instructions);
        let counted = syscalls_per_request(&recipe, site.folder, &job);
        held &= check(name, "system calls", "strace", counted, *syscalls);
    }
    i32::from(!held)
}

/// The job of this name, from few clients.
fn work(name: &str) -> Job {
    let work = WORK.iter().find(|work| work.name == name).unwrap();
    Job { clients: 8, ..work.job(10) }
}

/// One line of a table that compares builds: what each costs that holds still on a busy machine.
pub fn build(site: &Site<'_>, asked: &Asked) {
    let recipe = proxies::ours(site, asked.proxy.clone()).unwrap();
    let mut running = recipe.start().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let idle = machine::rss_kib(running.pid()) / 1024.0;
    let held = Idle::open(running.address, "/r0/1024", 1000).unwrap();
    let thousand = machine::rss_kib(running.pid()) / 1024.0;
    drop(held);
    running.end();
    let counted = |name| {
        let counted = instructions_per_request(&recipe, site.folder, &work(name));
        counted.map_or_else(|error| error.to_string(), |count| format!("{count:.0}"))
    };
    println!("program MiB | idle MiB | 1,000 idle connections MiB | instructions get | tls");
    let size = recipe.size_mib();
    println!("{size:.2} | {idle:.1} | {thousand:.1} | {} | {}", counted("get"), counted("tls"));
}

fn check(work: &str, unit: &str, tool: &str, measured: io::Result<f64>, limit: f64) -> bool {
    let measured = match measured {
        Ok(measured) => measured,
        Err(error) => {
            println!("{work}: {unit} could not be counted with {tool}: {error}");
            return false;
        }
    };
    let word = if measured <= limit { "ok" } else { "TOO MANY" };
    println!("{work}: {measured:.2} {unit} per request, at most {limit}: {word}");
    measured <= limit
}

/// The difference of two runs, so that start and end do not count.
pub fn instructions_per_request(recipe: &Recipe, folder: &Path, job: &Job) -> io::Result<f64> {
    let few = instructions(recipe, folder, job, 500)?;
    let many = instructions(recipe, folder, job, 2500)?;
    Ok((many - few) / 2000.0)
}

fn instructions(recipe: &Recipe, folder: &Path, job: &Job, requests: u64) -> io::Result<f64> {
    let out = folder.join("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--quiet"]);
    valgrind.arg(format!("--callgrind-out-file={}", out.display()));
    let mut running = recipe.start_within(&mut valgrind)?;
    answered(running.address, job, 200)?;
    answered(running.address, job, requests)?;
    running.end();
    let text = told(&out)?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: ")));
    number(total)
}

fn syscalls_per_request(recipe: &Recipe, folder: &Path, job: &Job) -> io::Result<f64> {
    const REQUESTS: u64 = 4000;
    let mut running = recipe.start()?;
    let job = Job { clients: 16, ..job.clone() };
    answered(running.address, &job, 500)?;
    let out = folder.join("strace.out");
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-U", "name,calls", "-p", &running.pid().to_string(), "-o"])
        .arg(&out)
        .stderr(Stdio::null())
        .spawn()?;
    std::thread::sleep(Duration::from_millis(500)); // until it has attached
    let all = answered(running.address, &job, REQUESTS);
    proxies::signal(strace.id(), "INT");
    strace.wait()?;
    running.end();
    all?;
    let text = told(&out)?;
    let total = text.lines().find(|line| line.trim_start().starts_with("total"));
    let calls = number(total.and_then(|line| line.split_whitespace().last()))?;
    Ok(calls / REQUESTS as f64)
}

/// Loads a proxy; one whose requests fail is not measured.
fn answered(address: SocketAddr, job: &Job, requests: u64) -> io::Result<()> {
    match load::run(address, job, Until::Requests(requests)).failed {
        0 => Ok(()),
        failed => Err(io::Error::other(format!("{failed} of {requests} requests failed"))),
    }
}

/// What a tool has written, once: what is left of an earlier run must not be taken for it.
fn told(out: &Path) -> io::Result<String> {
    let text = fs::read_to_string(out)?;
    fs::remove_file(out)?;
    Ok(text)
}

fn number(text: Option<&str>) -> io::Result<f64> {
    let read = text.and_then(|text| text.trim().parse().ok());
    read.ok_or_else(|| io::Error::other("its output holds no total"))
}
