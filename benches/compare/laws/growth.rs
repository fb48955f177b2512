//! With routes, with tokens, with workers: what a request costs must not know of them.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::{Bench, get, law, rss};
use crate::gates::instructions_per_request;
use crate::load::{self, Job, Until};
use crate::machine;
use crate::proxies::{Recipe, Running, Site, reload};

/// Half of them to each upstream.
pub fn routes(bench: &Bench<'_>) -> bool {
    println!("routes | CPU us per GET | beside 10 routes | start, ms | reload, ms | idle MiB");
    let few = Site { routes: 5, ..*bench.site };
    let beside = bench.start(&few);
    let mut spent = [0.0; 4];
    let mut held = true;
    for (routes, spent) in [10, 100, 1_000, 10_000].into_iter().zip(&mut spent) {
        let site = Site { routes: routes / 2, ..*bench.site };
        let recipe = bench.recipe(&site);
        let start = (0..5).map(|_| start_ms(&recipe)).fold(f64::INFINITY, f64::min);
        let running = bench.start(&site);
        let idle = rss(&running) / 1024.0;
        let reload = (0..5).map(|_| reload_ms(&running)).fold(f64::INFINITY, f64::min);
        let (one, other) = (get('r', 5, 1024, 64), get('r', site.routes, 1024, 64));
        let cpu = bench.paired((&beside, &one), (&running, &other), bench.until());
        println!(
            "{routes} | {:.2} | {:.3} | {start:.1} | {reload:.1} | {idle:.1}",
            cpu.second, cpu.ratio
        );
        if routes == 10_000 {
            held &= law("CPU of a GET, beside 10 routes", cpu.ratio, 1.02);
            held &= law("start, ms", start, 50.0);
            held &= law("reload, ms", reload, 50.0);
        }
        *spent = start + reload;
    }
    held &= law("start and reload of 10,000, in those of 1,000", spent[3] / spent[2], 12.0);
    held & same_instructions(bench, &few, &Site { routes: 5_000, ..*bench.site }, "routes")
}

fn start_ms(recipe: &Recipe) -> f64 {
    let started = Instant::now();
    let mut running = recipe.start().unwrap();
    let elapsed = started.elapsed().as_secs_f64() * 1e3;
    running.end();
    elapsed
}

fn reload_ms(running: &Running) -> f64 {
    reload(running).unwrap().as_secs_f64() * 1e3
}

fn same_instructions(bench: &Bench<'_>, few: &Site<'_>, many: &Site<'_>, of: &str) -> bool {
    let count = |site: &Site<'_>| {
        let job = get('r', site.routes, 1024, 8);
        instructions_per_request(&bench.recipe(site), site.folder, &job)
    };
    let (few, many) = match (count(few), count(many)) {
        (Ok(few), Ok(many)) => (few, many),
        (Err(error), _) | (_, Err(error)) => {
            println!("  instructions were not counted with valgrind: {error}");
            return true;
        }
    };
    println!("  instructions of a GET: {few:.0} with the fewest {of}, {many:.0} with the most");
    law("instructions of a GET with the most, in those with the fewest", many / few, 1.02)
}

/// Each token is asked for with a scope of its own; there are 2,000 routes in each line.
pub fn tokens(bench: &Bench<'_>) -> bool {
    println!("tokens | CPU us per GET | beside 1 | all there, ms | KiB each | CPU while idle, %");
    let few = Site { routes: 1_000, ..*bench.site };
    let beside = bench.start(&few);
    let job = get('r', few.routes, 1024, 64);
    let mut held = true;
    let mut without = 0.0;
    for tokens in [1, 10, 100, 1_000] {
        let site = Site { tokens, ..few };
        let (running, fetched) = start_with_all(bench, &site);
        let full = rss(&running);
        if tokens == 1 {
            without = full;
        }
        let each = (full - without) / tokens as f64;
        let idle = machine::cpu_share(running.pid(), Duration::from_secs(2));
        let cpu = bench.paired((&beside, &job), (&running, &job), bench.until());
        println!(
            "{tokens} | {:.2} | {:.3} | {fetched:.0} | {each:.2} | {idle:.2}",
            cpu.second, cpu.ratio
        );
        if tokens == 1_000 {
            held &= law("CPU of a GET, beside 1 token", cpu.ratio, 1.02);
            held &= law("KiB of memory for each token", each, 4.0);
            held &= law("CPU while idle, %", idle, 0.1);
        }
    }
    held & same_instructions(bench, &few, &Site { tokens: 1_000, ..few }, "tokens")
}

/// A proxy that holds all its tokens, and how many milliseconds that took from its start.
fn start_with_all(bench: &Bench<'_>, site: &Site<'_>) -> (Running, f64) {
    let given = &site.origin.seen.tokens;
    let wanted = given.load(Relaxed) + site.tokens as u64;
    let started = Instant::now();
    let running = bench.recipe(site).start().unwrap();
    while given.load(Relaxed) < wanted && started.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let fetched = started.elapsed().as_secs_f64() * 1e3;
    let all = get('r', site.routes, 16, 64);
    while load::run(running.address, &all, Until::Requests(200)).failed > 0 {}
    std::thread::sleep(Duration::from_millis(500));
    (running, fetched)
}

/// On one core: a second worker must cost nothing, and no more upstream connections than it needs.
pub fn workers(bench: &Bench<'_>) -> bool {
    println!("CPU us per GET with 1 worker | with 2 | ratio | upstream connections at most");
    let (single, pair) = (bench.site, Site { workers: 2, ..*bench.site });
    let job = get('r', 10, 1024, 64);
    let open = most_open(bench, &pair, &job);
    let (one, two) = (bench.start(single), bench.start(&pair));
    let cpu = bench.paired((&one, &job), (&two, &job), bench.until());
    println!("{:.2} | {:.2} | {:.3} | {open}", cpu.first, cpu.second, cpu.ratio);
    law("CPU with 2 workers, in that with 1", cpu.ratio, 1.05)
        & law("upstream connections for 64 in flight", open as f64, 66.0)
}

/// How many upstream connections one load opens.
fn most_open(bench: &Bench<'_>, site: &Site<'_>, job: &Job) -> u64 {
    let seen = &site.origin.seen;
    let running = bench.start(site);
    seen.most_open.store(seen.open.load(Relaxed), Relaxed);
    load::run(running.address, job, bench.until());
    seen.most_open.load(Relaxed)
}
