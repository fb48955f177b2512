//! While something changes: tokens, the configuration, the upstream's connections. No request may
//! fail of it, and the CPU must not notice.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{Bench, get, law};
use crate::load::{self, Job, Outcome, Until};
use crate::machine;
use crate::proxies::{Running, Site, signal};

/// Requests in a second: far from what the proxy can do, as in a sidecar.
const RATE: f64 = 4_000.0;
const SECONDS: u64 = 6;

/// A new token about each second.
pub fn rotation(bench: &Bench<'_>) -> bool {
    let still = bench.start(bench.site);
    let changing = bench.start(&Site { token_life: 2, ..*bench.site });
    beside(bench, &still, &changing, |_| {})
}

/// The file is read again each second.
pub fn reload(bench: &Bench<'_>) -> bool {
    let (still, changing) = (bench.start(bench.site), bench.start(bench.site));
    beside(bench, &still, &changing, |pid| {
        for _ in 0..SECONDS {
            signal(pid, "HUP");
            std::thread::sleep(Duration::from_secs(1));
        }
    })
}

/// The same load on one that is left alone and one that changes, in turn.
fn beside(bench: &Bench<'_>, still: &Running, changing: &Running, change: fn(u32)) -> bool {
    println!("upstream | load | CPU us per request | p50 us | p99 us | failed of all | new tokens");
    let tokens = &bench.site.origin.seen.tokens;
    let mut held = true;
    for (kind, upstream) in [('r', "plain"), ('t', "TLS")] {
        let job = Job { rate: Some(RATE), ..get(kind, 10, 1024, 64) };
        let mut ratios = Vec::new();
        for _ in 0..3 {
            let mut spent = [0.0; 2];
            for (spent, (name, proxy)) in
                spent.iter_mut().zip([("still", still), ("changing", changing)])
            {
                let before = tokens.load(Relaxed);
                let pid = proxy.pid();
                let changer = std::thread::spawn(move || {
                    if name == "changing" {
                        change(pid)
                    }
                });
                let (cpu, outcome) = measured(proxy, &job);
                let _ = changer.join();
                let renewed = tokens.load(Relaxed) - before;
                print(upstream, name, cpu, &outcome, renewed);
                held &= outcome.failed == 0 || law("failed", outcome.failed as f64, 0.0);
                *spent = cpu;
            }
            ratios.push(spent[1] / spent[0]);
        }
        let ratio = crate::report::median(&ratios).unwrap_or(f64::NAN);
        held &= law("CPU of a request, in that of one left alone", ratio, 1.02);
    }
    held
}

fn measured(proxy: &Running, job: &Job) -> (f64, Outcome) {
    let before = machine::cpu_seconds(proxy.pid());
    let outcome = load::run(proxy.address, job, Until::Elapsed(Duration::from_secs(SECONDS)));
    let spent = machine::cpu_seconds(proxy.pid()) - before;
    (spent * 1e6 / outcome.answered.max(1) as f64, outcome)
}

fn print(upstream: &str, name: &str, cpu: f64, outcome: &Outcome, renewed: u64) {
    let (middle, high) = (outcome.quantile(0.5), outcome.quantile(0.99));
    let all = outcome.answered + outcome.failed;
    let failed = outcome.failed;
    println!("{upstream} | {name} | {cpu:.2} | {middle} | {high} | {failed} of {all} | {renewed}");
}

/// Each answer ends its connection: none may be lost of it, and TLS goes on from earlier handshakes.
pub fn closing(bench: &Bench<'_>) -> bool {
    println!("upstream | failed of all | full handshakes | resumed");
    let seen = &bench.site.origin.seen;
    let handshakes = || (seen.full_handshakes.load(Relaxed), seen.resumed_handshakes.load(Relaxed));
    let running = bench.start(bench.site);
    let mut held = true;
    for (kind, upstream) in [('r', "plain"), ('t', "TLS")] {
        let job = Job::get(vec![format!("/{kind}0/closing/1024")], 16);
        let before = handshakes();
        let outcome = load::run(running.address, &job, Until::Requests(3_000));
        let after = handshakes();
        let (full, resumed) = (after.0 - before.0, after.1 - before.1);
        let (failed, all) = (outcome.failed, outcome.failed + outcome.answered);
        println!("{upstream} | {failed} of {all} | {full} | {resumed}");
        held &= law("failed", failed as f64, 0.0);
        if kind == 't' {
            let part = full as f64 / (full + resumed).max(1) as f64;
            held &= law("part of full handshakes", part, 0.05);
        }
    }
    held
}
