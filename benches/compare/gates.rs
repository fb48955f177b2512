//! The two costs that hold still on a busy machine: user instructions and system calls per request,
//! each with a limit that a change must not cross.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::load::{self, Until};
use crate::proxies::{self, Recipe, Site};
use crate::{WORK, Work};

/// What a request may cost: name of the work, user instructions, system calls.
const LIMITS: [(&str, f64, f64); 4] = [
    ("get", 31_500.0, 4.3),
    ("tls", 41_000.0, 4.3),
    // How many reads a body takes depends on how it arrives: 5.9 to 6.3 were seen.
    ("post10k", 45_500.0, 6.8),
    ("close", 45_500.0, 9.6),
];

/// Measures all; the exit code says whether every limit holds.
pub fn run(site: &Site<'_>, program: &Path) -> i32 {
    let recipe = proxies::ours(site, program.to_owned()).unwrap();
    let mut held = true;
    for (name, instructions, syscalls) in LIMITS {
        let work = WORK.iter().find(|work| work.name == name).unwrap();
        held &= check(
            name,
            "instructions",
            instructions_per_request(&recipe, site, work),
            instructions,
        );
        held &= check(name, "system calls", syscalls_per_request(&recipe, site, work), syscalls);
    }
    i32::from(!held)
}

fn check(work: &str, unit: &str, measured: Option<f64>, limit: f64) -> bool {
    let Some(measured) = measured else {
        println!("{work}: {unit} could not be counted; are valgrind and strace installed?");
        return false;
    };
    let word = if measured <= limit { "ok" } else { "TOO MANY" };
    println!("{work}: {measured:.2} {unit} per request, at most {limit}: {word}");
    measured <= limit
}

/// The difference of two runs, so that start and end do not count.
fn instructions_per_request(recipe: &Recipe, site: &Site<'_>, work: &Work) -> Option<f64> {
    let few = instructions(recipe, site, work, 500)?;
    let many = instructions(recipe, site, work, 2500)?;
    Some((many - few) / 2000.0)
}

fn instructions(recipe: &Recipe, site: &Site<'_>, work: &Work, requests: u64) -> Option<f64> {
    let out = site.folder.join("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--quiet"]);
    valgrind.arg(format!("--callgrind-out-file={}", out.display()));
    let mut running = recipe.start_within(&mut valgrind).ok()?;
    let mut job = work.job(10);
    job.clients = 8;
    load::run(running.address, &job, Until::Requests(200));
    load::run(running.address, &job, Until::Requests(requests));
    running.end();
    let text = fs::read_to_string(out).ok()?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: ")));
    total?.trim().parse().ok()
}

fn syscalls_per_request(recipe: &Recipe, site: &Site<'_>, work: &Work) -> Option<f64> {
    const REQUESTS: u64 = 4000;
    let mut running = recipe.start().ok()?;
    let mut job = work.job(10);
    job.clients = 16;
    load::run(running.address, &job, Until::Requests(500));
    let out = site.folder.join("strace.out");
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-U", "name,calls", "-p", &running.pid().to_string(), "-o"])
        .arg(&out)
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    std::thread::sleep(Duration::from_millis(500)); // until it has attached
    load::run(running.address, &job, Until::Requests(REQUESTS));
    proxies::signal(strace.id(), "INT");
    strace.wait().ok()?;
    running.end();
    let text = fs::read_to_string(out).ok()?;
    let total = text.lines().find(|line| line.trim_start().starts_with("total"))?;
    let calls: f64 = total.split_whitespace().last()?.parse().ok()?;
    Some(calls / REQUESTS as f64)
}
