//! With sizes: bytes cost CPU, and no memory.

use super::{Bench, get, law, rss};
use crate::load::{self, Job, Until};
use crate::proxies::Running;
use crate::{cpu_per_request, machine};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: f64 = (1u64 << 30) as f64;

/// From 1 KiB to 100 MiB, in both directions.
pub fn sizes(bench: &Bench<'_>) -> bool {
    println!("bytes | way | CPU us | s per GiB | MiB at most");
    let mut held = true;
    for (way, kind, body) in
        [("down", 'r', false), ("down, TLS", 't', false), ("up", 'r', true), ("up, TLS", 't', true)]
    {
        let mut lines = Vec::new();
        for size in [0, KIB, 16 * KIB, 64 * KIB, MIB, 100 * MIB] {
            let running = bench.start(bench.site);
            let cpu = cost(&running, &job(kind, size, body), size);
            let most = machine::most_rss_kib(running.pid()) / 1024.0;
            let per_gib = if size == 0 { 0.0 } else { cpu * GIB / size as f64 };
            println!("{size} | {way} | {:.1} | {per_gib:.2} | {most:.1}", cpu * 1e6);
            lines.push((size as f64, cpu, most));
        }
        let [.., first, (middle, _, memory), last] = lines[..] else { return false };
        held &= law("s for each further GiB", (last.1 - first.1) * GIB / (last.0 - first.0), 0.4);
        held &= law("MiB more at 100 MiB than at 1 MiB", last.2 - memory, 2.0 + 0.0 * middle);
    }
    held
}

fn job(kind: char, size: usize, body: bool) -> Job {
    let clients = if size < MIB { 16 } else { 1 };
    match body {
        false => get(kind, 10, size, clients),
        true => get(kind, 10, 16, clients).post(size, false),
    }
}

/// CPU seconds of one request, the lowest of three.
fn cost(running: &Running, job: &Job, size: usize) -> f64 {
    let until = Until::Requests((200 * MIB / size.max(16 * KIB)) as u64);
    (0..3).map(|_| cpu_per_request(running, job, until)).fold(f64::INFINITY, f64::min)
}

/// The same bytes with their length said before, and in chunks of 16 KiB.
pub fn chunked(bench: &Bench<'_>) -> bool {
    println!("bytes | way | CPU us with a length | in chunks | ratio");
    let running = bench.start(bench.site);
    let mut held = true;
    for size in [KIB, 64 * KIB, 10 * MIB] {
        let until = Until::Requests((40 * MIB / size.max(8 * KIB)) as u64);
        let clients = if size < MIB { 16 } else { 1 };
        let down = |name| Job::get(vec![format!("/r0/{name}{size}")], clients);
        let up = |chunked| Job::get(vec!["/r0/16".into()], clients).post(size, chunked);
        for (way, plain, chunked) in
            [("down", down(""), down("chunked/")), ("up", up(false), up(true))]
        {
            let cpu = bench.paired((&running, &plain), (&running, &chunked), until);
            println!("{size} | {way} | {:.1} | {:.1} | {:.3}", cpu.first, cpu.second, cpu.ratio);
            held &= law("chunked, in what it costs with a length", cpu.ratio, 1.1);
        }
    }
    held
}

/// Answers of many sizes in turn cost what they cost one by one.
pub fn mixed(bench: &Bench<'_>) -> bool {
    let sizes = [256, KIB, KIB, 4 * KIB, 16 * KIB, KIB, 100 * KIB, 512, KIB, MIB];
    let running = bench.start(bench.site);
    let paths = |sizes: &[usize]| sizes.iter().map(|size| format!("/r0/{size}")).collect();
    let whole = Job::get(paths(&sizes), 16);
    let parts: Vec<Job> = sizes.iter().map(|size| Job::get(paths(&[*size]), 16)).collect();
    let (mut mixed, mut apart) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        mixed.push(cpu_per_request(&running, &whole, Until::Requests(1_000)));
        let each = parts.iter().map(|part| cpu_per_request(&running, part, Until::Requests(300)));
        apart.push(each.sum::<f64>() / parts.len() as f64);
    }
    let before = rss(&running) / 1024.0;
    let outcome = load::run(running.address, &whole, Until::Requests(2_000));
    let after = rss(&running) / 1024.0;
    let lowest = |costs: &[f64]| costs.iter().copied().fold(f64::INFINITY, f64::min);
    let (mixed, apart) = (lowest(&mixed) * 1e6, lowest(&apart) * 1e6);
    println!("CPU us per GET, mixed | one size at a time | failed | MiB before | MiB after");
    println!("{mixed:.1} | {apart:.1} | {} | {before:.1} | {after:.1}", outcome.failed);
    law("mixed, in what its parts cost", mixed / apart, 1.1)
}
