//! How costs grow: with routes, tokens, idle connections, sizes, reloads. Numbers are of one run on
//! one machine; what counts is how a line of a table compares with the line above it.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::load::{self, Idle, Job, Until};
use crate::machine;
use crate::proxies::{self, Site, signal};
use crate::{Asked, cpu_per_request};

type Law = fn(&Site<'_>, &Asked);

/// Shows all laws, or the ones asked for.
pub fn run(site: &Site<'_>, asked: &Asked) {
    let all: [(&str, Law); 5] = [
        ("routes", routes),
        ("tokens", tokens),
        ("connections", connections),
        ("sizes", sizes),
        ("reload", reload),
    ];
    for (name, law) in all.iter().filter(|(name, _)| asked.wants(name)) {
        println!("\n{name}");
        law(site, asked);
    }
}

fn get(routes: usize, size: usize, clients: usize) -> Job {
    // No more paths than a client can keep: the routes that are asked for are spread over all.
    let step = (routes / 100).max(1);
    let paths = (0..routes).step_by(step).map(|number| format!("/r{number}/{size}")).collect();
    Job { paths, post: None, close: false, clients }
}

fn microseconds(seconds: f64) -> f64 {
    seconds * 1e6
}

/// Lowest of three: what disturbs a measurement only ever adds to it.
fn lowest(mut measure: impl FnMut() -> f64) -> f64 {
    (0..3).map(|_| measure()).fold(f64::INFINITY, f64::min)
}

fn routes(site: &Site<'_>, asked: &Asked) {
    println!("routes | CPU us per request | start, ms | idle MiB");
    for routes in [10, 100, 1_000, 5_000] {
        let site = Site { routes, ..*site };
        grown(&site, asked, 2 * routes);
    }
}

fn tokens(site: &Site<'_>, asked: &Asked) {
    println!("tokens | CPU us per request | start, ms | idle MiB");
    for routes in [1, 10, 100, 1_000] {
        let site = Site { routes, own_tokens: true, ..*site };
        grown(&site, asked, routes);
    }
}

fn grown(site: &Site<'_>, asked: &Asked, count: usize) {
    let recipe = proxies::ours(site, asked.proxy.clone()).unwrap();
    let started = Instant::now();
    let mut running = recipe.start().unwrap();
    let start = started.elapsed().as_secs_f64() * 1e3;
    let job = get(site.routes, 1024, 64);
    // Until all tokens are there.
    while load::run(running.address, &job, Until::Requests(200)).failed > 0 {}
    std::thread::sleep(Duration::from_millis(500));
    let rss = machine::rss_kib(running.pid()) / 1024.0;
    let until = Until::Elapsed(Duration::from_secs_f64(asked.seconds));
    let cpu = lowest(|| cpu_per_request(&running, &job, until));
    println!("{count} | {:.2} | {start:.1} | {rss:.1}", microseconds(cpu));
    running.end();
}

fn connections(site: &Site<'_>, asked: &Asked) {
    println!("idle connections | MiB | KiB each | CPU while idle, % | MiB once closed");
    for count in [1, 1_000, 5_000, 9_000] {
        let recipe = proxies::ours(site, asked.proxy.clone()).unwrap();
        let mut running = recipe.start().unwrap();
        let rss = || machine::rss_kib(running.pid());
        let before = rss();
        let held = Idle::open(running.address, "/r0/1024", count).unwrap();
        let full = rss();
        let cpu = machine::cpu_seconds(running.pid());
        std::thread::sleep(Duration::from_secs(1));
        let idle = (machine::cpu_seconds(running.pid()) - cpu) * 100.0;
        drop(held);
        std::thread::sleep(Duration::from_secs(1));
        let (each, after) = ((full - before) / count as f64, rss() / 1024.0);
        println!("{count} | {:.1} | {each:.2} | {idle:.2} | {after:.1}", full / 1024.0);
        running.end();
    }
}

fn sizes(site: &Site<'_>, asked: &Asked) {
    println!("bytes | down, CPU us | s per GiB | up, CPU us | s per GiB | MiB after");
    let recipe = proxies::ours(site, asked.proxy.clone()).unwrap();
    let mut running = recipe.start().unwrap();
    for size in [1 << 10, 16 << 10, 64 << 10, 1 << 20, 100 << 20] {
        let clients = if size < 1 << 20 { 16 } else { 1 };
        let until = Until::Requests((100 << 20) / size as u64 * 2);
        let per_gib = (1u64 << 30) as f64 / size as f64;
        let down = lowest(|| cpu_per_request(&running, &get(10, size, clients), until));
        let post = Job { post: Some(size), ..get(10, 16, clients) };
        let up = lowest(|| cpu_per_request(&running, &post, until));
        let rss = machine::rss_kib(running.pid()) / 1024.0;
        println!(
            "{size} | {:.1} | {:.2} | {:.1} | {:.2} | {rss:.1}",
            microseconds(down),
            down * per_gib,
            microseconds(up),
            up * per_gib,
        );
    }
    running.end();
}

/// A reload each second and a new token about as often, under a steady load.
fn reload(site: &Site<'_>, asked: &Asked) {
    println!("| CPU us per request | failed of all");
    let seconds = Duration::from_secs(6);
    for (name, token_life, reloads) in [
        ("still", 3600, false),
        ("new token each 2 s", 2, false),
        ("reload each second too", 2, true),
    ] {
        let site = Site { token_life, ..*site };
        let recipe = proxies::ours(&site, asked.proxy.clone()).unwrap();
        let mut running = recipe.start().unwrap();
        let (pid, file) = (running.pid(), recipe.configuration().to_owned());
        let reloader = std::thread::spawn(move || {
            for _ in 0..if reloads { seconds.as_secs() } else { 0 } {
                let mut file = fs::OpenOptions::new().append(true).open(&file).unwrap();
                file.write_all(b"# changed\n").unwrap();
                signal(pid, "HUP");
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        let before = machine::cpu_seconds(pid);
        let outcome = load::run(running.address, &get(10, 1024, 64), Until::Elapsed(seconds));
        let cpu = (machine::cpu_seconds(pid) - before) / outcome.answered.max(1) as f64;
        reloader.join().unwrap();
        let all = outcome.answered + outcome.failed;
        println!("{name} | {:.2} | {} of {all}", microseconds(cpu), outcome.failed);
        running.end();
    }
}
