//! While something changes: tokens, the configuration, the upstream's connections. No request may
//! fail of it, and the CPU must not notice.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{Bench, get, law};
use crate::load::{self, Job, Outcome, Until};
use crate::machine;
use crate::proxies::{Running, Site, signal};
use crate::report::median;

/// Requests in a second: far from what the proxy can do, as in a sidecar.
const RATE: f64 = 4_000.0;
/// Time that is measured on its own; in every second one something changes.
const WINDOW: Duration = Duration::from_millis(500);
const WINDOWS: u32 = 30;

/// A new token about each second.
pub fn rotation(bench: &Bench<'_>) -> bool {
    let tokens = &bench.site.origin.seen.tokens;
    let mut known = 0;
    under_load(bench, &Site { token_life: 2, ..*bench.site }, &mut |_, _| {
        std::thread::sleep(WINDOW);
        let before = std::mem::replace(&mut known, tokens.load(Relaxed));
        known > before
    })
}

/// The configuration is read again each second.
pub fn reload(bench: &Bench<'_>) -> bool {
    under_load(bench, bench.site, &mut |running, window| {
        let even = window % 2 == 0;
        if even {
            signal(running.pid(), "HUP");
        }
        std::thread::sleep(WINDOW);
        even
    })
}

/// Lets a window pass and tells whether something changed in it.
type Change<'a> = &'a mut dyn FnMut(&Running, u32) -> bool;

/// A steady load, and what it costs in windows with a change and in windows without.
fn under_load(bench: &Bench<'_>, site: &Site<'_>, change: Change<'_>) -> bool {
    println!(
        "upstream | CPU us per request | CPU ms for a change | with one each second \
         | p50 us | p99 us | failed of all | changes"
    );
    let mut held = true;
    for (kind, upstream) in [('r', "plain"), ('t', "TLS")] {
        let running = bench.start(site);
        let job = Job { rate: Some(RATE), ..get(kind, 10, 1024, 64) };
        let until = Until::Elapsed(WINDOW * (WINDOWS + 1));
        let address = running.address;
        let load = std::thread::spawn(move || load::run(address, &job, until));
        change(&running, 1); // while connections are opened
        let mut spent = [Vec::new(), Vec::new()];
        for window in 0..WINDOWS {
            let before = machine::cpu_seconds(running.pid());
            let changed = change(&running, window);
            spent[usize::from(changed)].push(machine::cpu_seconds(running.pid()) - before);
        }
        let outcome = load.join().unwrap_or_default();
        held &= verdict(upstream, &spent, &outcome);
    }
    held
}

fn verdict(upstream: &str, spent: &[Vec<f64>; 2], outcome: &Outcome) -> bool {
    let [without, with] = spent.each_ref().map(|spent| median(spent).unwrap_or(f64::NAN));
    let change = with - without;
    let ratio = 1.0 + change / (without / WINDOW.as_secs_f64());
    let each = without / (RATE * WINDOW.as_secs_f64());
    let (failed, all) = (outcome.failed, outcome.failed + outcome.answered);
    println!(
        "{upstream} | {:.2} | {:.2} | {ratio:.3} | {} | {} | {failed} of {all} | {}",
        each * 1e6,
        change * 1e3,
        outcome.quantile(0.5),
        outcome.quantile(0.99),
        spent[1].len(),
    );
    law("failed", failed as f64, 0.0)
        & law("CPU with a change each second, in that without", ratio, 1.02)
}

/// Each answer ends its connection: none may be lost of it, and TLS goes on from earlier handshakes.
pub fn closing(bench: &Bench<'_>) -> bool {
    println!("upstream | failed of all | full handshakes | resumed");
    let seen = &bench.site.origin.seen;
    let handshakes = || (seen.full_handshakes.load(Relaxed), seen.resumed_handshakes.load(Relaxed));
    let running = bench.start(bench.site);
    let mut held = true;
    for (kind, upstream) in [('r', "plain"), ('t', "TLS")] {
        let job = Job::get(vec![format!("/{kind}0/closing/1024")], 4);
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
