//! How costs grow: with routes, tokens, connections, sizes, and with what changes meanwhile. Each
//! law prints what was measured, line by line, and a verdict for each limit it has.
//!
//! Memory, counts and ratios hold on a busy machine; seconds do not. So ratios are taken between
//! two loads in turn, over and over, and their median counts.

mod bodies;
mod change;
mod growth;
mod memory;
mod phases;

use std::time::Duration;

use crate::load::{Job, Until};
use crate::proxies::{self, Recipe, Running, Site};
use crate::report::median;
use crate::{Asked, cpu_per_request, machine};

/// What a law is measured with.
struct Bench<'a> {
    site: &'a Site<'a>,
    asked: &'a Asked,
}

/// Measures, prints, and tells whether its limits hold.
type Law = fn(&Bench<'_>) -> bool;

const ALL: [(&str, Law); 14] = [
    ("routes", growth::routes),
    ("tokens", growth::tokens),
    ("workers", growth::workers),
    ("connections", memory::connections),
    ("flight", memory::in_flight),
    ("slow", memory::slow_readers),
    ("peak", memory::peak),
    ("phases", phases::phases),
    ("sizes", bodies::sizes),
    ("chunked", bodies::chunked),
    ("mixed", bodies::mixed),
    ("rotation", change::rotation),
    ("reload", change::reload),
    ("closing", change::closing),
];

/// Shows all laws, or the ones asked for; the exit code says whether every limit holds.
pub fn run(site: &Site<'_>, asked: &Asked) -> i32 {
    let bench = Bench { site, asked };
    let mut held = true;
    for (name, law) in ALL.iter().filter(|(name, _)| asked.wants(name)) {
        println!("\n{name}");
        held &= law(&bench);
    }
    i32::from(!held)
}

impl Bench<'_> {
    /// Ours for such a site.
    fn recipe(&self, site: &Site<'_>) -> Recipe {
        proxies::ours(site, self.asked.proxy.clone()).unwrap()
    }

    /// Ours, running and settled.
    fn start(&self, site: &Site<'_>) -> Running {
        let running = self.recipe(site).start().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        running
    }

    /// How much more CPU a request takes in the second load than in the first: the median of nine
    /// pairs; with the lowest cost of each in microseconds.
    fn paired(&self, one: (&Running, &Job), other: (&Running, &Job), until: Until) -> Paired {
        let mut costs = [Vec::new(), Vec::new()];
        for _ in 0..PAIRS {
            for ((proxy, job), costs) in [one, other].into_iter().zip(&mut costs) {
                costs.push(cpu_per_request(proxy, job, until) * 1e6);
            }
        }
        let ratios: Vec<_> =
            costs[1].iter().zip(&costs[0]).map(|(one, other)| one / other).collect();
        let [first, second] = costs.map(|costs| costs.into_iter().fold(f64::INFINITY, f64::min));
        Paired { first, second, ratio: median(&ratios).unwrap_or(f64::NAN) }
    }

    fn until(&self) -> Until {
        Until::Elapsed(Duration::from_secs_f64(self.asked.seconds / 2.0))
    }
}

const PAIRS: usize = 9;

/// What two loads in turn cost.
struct Paired {
    first: f64,
    second: f64,
    ratio: f64,
}

/// GETs of this size, over this many routes of a kind; a hundred of them stand for more.
fn get(kind: char, routes: usize, size: usize, clients: usize) -> Job {
    let step = (routes / 100).max(1);
    let paths = (0..routes).step_by(step).map(|number| format!("/{kind}{number}/{size}"));
    Job::get(paths.collect(), clients)
}

fn rss(running: &Running) -> f64 {
    machine::rss_kib(running.pid())
}

/// Prints a verdict, and tells it.
fn law(what: &str, measured: f64, limit: f64) -> bool {
    let holds = measured <= limit;
    println!(
        "  {what}: {measured:.2}, at most {limit}: {}",
        if holds { "holds" } else { "BROKEN" }
    );
    holds
}
