//! What connections, requests in flight and slow readers hold, and what comes back afterwards.

use std::time::Duration;

use super::{Bench, get, law, rss};
use crate::client::Idle;
use crate::load::{self, Job, Until};
use crate::machine;

const KIB: f64 = 1024.0;

/// Each has asked once and is then kept open.
pub fn connections(bench: &Bench<'_>) -> bool {
    println!(
        "idle connections | MiB | KiB each | CPU while idle, % | MiB 1 s after all have closed | 10 s"
    );
    let mut held = true;
    for count in [1, 1_000, 5_000, 10_000] {
        let running = bench.start(bench.site);
        let before = rss(&running);
        let idle = Idle::open(running.address, "/r0/1024", count).unwrap();
        let full = rss(&running);
        let busy = machine::cpu_share(running.pid(), Duration::from_secs(3));
        drop(idle);
        let [soon, later] = afterwards(&running);
        let each = (full - before) / count as f64;
        println!("{count} | {:.1} | {each:.2} | {busy:.2} | {soon:.1} | {later:.1}", full / KIB);
        if count > 1_000 {
            held &= law("KiB for each", each, 14.0);
            held &= law("CPU while idle, %", busy, 0.1);
        }
    }
    held
}

fn afterwards(running: &crate::proxies::Running) -> [f64; 2] {
    [1, 9].map(|seconds| {
        std::thread::sleep(Duration::from_secs(seconds));
        rss(running) / KIB
    })
}

/// Requests whose answer the upstream gives after 50 ms.
pub fn in_flight(bench: &Bench<'_>) -> bool {
    println!("in flight | upstream | MiB before | at most | KiB each | failed");
    let mut held = true;
    for (kind, upstream) in [('r', "plain"), ('t', "TLS")] {
        for count in [1, 64, 1_000] {
            let running = bench.start(bench.site);
            let before = rss(&running);
            let job = Job::get(vec![format!("/{kind}0/wait-50/1024")], count);
            let outcome = load::run(running.address, &job, Until::Elapsed(Duration::from_secs(2)));
            let most = machine::most_rss_kib(running.pid());
            let each = (most - before) / count as f64;
            let (before, most, failed) = (before / KIB, most / KIB, outcome.failed);
            println!("{count} | {upstream} | {before:.1} | {most:.1} | {each:.1} | {failed}");
            if count == 1_000 {
                held &= law("KiB for each in flight", each, 40.0);
                held &= law("failed", failed as f64, 0.0);
            }
        }
    }
    held
}

/// Clients that ask for 100 MiB and take none of it: what is held for them is bounded.
pub fn slow_readers(bench: &Bench<'_>) -> bool {
    println!("clients that do not read | MiB before | at most | KiB each");
    let (running, count) = (bench.start(bench.site), 100);
    let before = rss(&running);
    let unread = Idle::unread(running.address, "/r0/104857600", count).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let most = machine::most_rss_kib(running.pid());
    drop(unread);
    let each = (most - before) / count as f64;
    println!("{count} | {:.1} | {:.1} | {each:.1}", before / KIB, most / KIB);
    law("KiB for each", each, 512.0)
}

/// A thousand requests in flight, each with a body of 64 KiB and an answer of as much; then nothing.
pub fn peak(bench: &Bench<'_>) -> bool {
    println!("upstream | MiB before | at most | 1 s after all have closed | 10 s | 45 s | failed");
    let mut held = true;
    for (kind, upstream) in [('r', "plain"), ('t', "TLS")] {
        let running = bench.start(bench.site);
        load::run(running.address, &get(kind, 10, 1024, 8), Until::Requests(100));
        let before = rss(&running) / KIB;
        let paths = vec![format!("/{kind}0/wait-50/65536")];
        let job = Job::get(paths, 1_000).post(64 * 1024, false);
        let outcome = load::run(running.address, &job, Until::Elapsed(Duration::from_secs(3)));
        let most = machine::most_rss_kib(running.pid()) / KIB;
        let [soon, later] = afterwards(&running);
        std::thread::sleep(Duration::from_secs(35)); // until idle upstream connections are closed too
        let last = rss(&running) / KIB;
        let failed = outcome.failed;
        println!(
            "{upstream} | {before:.1} | {most:.1} | {soon:.1} | {later:.1} | {last:.1} | {failed}"
        );
        held &= law("part of the peak that stays", (last - before) / (most - before), 0.25);
    }
    held
}
