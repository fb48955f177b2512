//! The load: clients on one thread that ask, read the answer to its end, and ask again.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, LocalSet};

use crate::client::{Client, request};

/// What each client sends, over and over.
#[derive(Clone)]
pub struct Job {
    /// Paths, in turn.
    pub paths: Vec<String>,
    /// The body of each request; `None` is a GET.
    pub post: Option<Body>,
    /// A new connection for each request.
    pub close: bool,
    /// Clients that ask at the same time.
    pub clients: usize,
    /// Requests in a second, of all clients together; `None`: as many as are answered.
    pub rate: Option<f64>,
}

/// A request body of so many bytes.
#[derive(Clone, Copy)]
pub struct Body {
    /// Bytes of it.
    pub size: usize,
    /// In chunks, rather than with its length said before.
    pub chunked: bool,
}

/// When a load ends.
#[derive(Clone, Copy)]
pub enum Until {
    /// After this many answers.
    Requests(u64),
    /// After this time.
    Elapsed(Duration),
}

/// What came of it.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    /// Answers 200, read to their end.
    pub answered: u64,
    /// Everything else.
    pub failed: u64,
    /// Microseconds from the moment a request was due to the end of its answer, in order.
    pub latencies: Vec<u32>,
}

impl Outcome {
    /// The latency that this part of all requests stayed below, in microseconds.
    pub fn quantile(&self, part: f64) -> u32 {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * part) as usize).copied().unwrap_or(0)
    }
}

impl Job {
    /// GETs over kept connections, as many as are answered.
    pub fn get(paths: Vec<String>, clients: usize) -> Self {
        Self { paths, post: None, close: false, clients, rate: None }
    }

    /// The same with a body.
    pub fn post(self, size: usize, chunked: bool) -> Self {
        Self { post: Some(Body { size, chunked }), ..self }
    }
}

/// Loads a proxy.
pub fn run(address: SocketAddr, job: &Job, until: Until) -> Outcome {
    let load = Rc::new(Load { until, rate: job.rate, started: Instant::now(), ..Load::default() });
    let requests: Rc<[_]> = job.paths.iter().map(|path| request(path, job)).collect();
    crate::machine::runtime().block_on(LocalSet::new().run_until(async {
        let mut clients = JoinSet::new();
        for number in 0..job.clients {
            let client = Client::new(address, job.close);
            clients.spawn_local(ask(client, Rc::clone(&requests), number, Rc::clone(&load)));
        }
        clients.join_all().await;
    }));
    let mut outcome = load.outcome.take();
    outcome.latencies.sort_unstable();
    outcome
}

/// What all clients of one load share.
struct Load {
    until: Until,
    rate: Option<f64>,
    started: Instant,
    asked: Cell<u64>,
    outcome: RefCell<Outcome>,
}

impl Default for Load {
    fn default() -> Self {
        let (until, started) = (Until::Requests(0), Instant::now());
        Self { until, rate: None, started, asked: Cell::default(), outcome: RefCell::default() }
    }
}

impl Load {
    /// When the next request is due; `None` once there is to be no more.
    fn next(&self) -> Option<Instant> {
        let number = self.asked.replace(self.asked.get() + 1);
        let due = match self.rate {
            Some(rate) => self.started + Duration::from_secs_f64(number as f64 / rate),
            None => Instant::now(),
        };
        let more = match self.until {
            Until::Requests(limit) => number < limit,
            Until::Elapsed(limit) => due < self.started + limit,
        };
        more.then_some(due)
    }

    fn note(&self, good: bool, due: Instant) {
        let mut outcome = self.outcome.borrow_mut();
        match good {
            true => outcome.answered += 1,
            false => outcome.failed += 1,
        }
        outcome.latencies.push(due.elapsed().as_micros().try_into().unwrap_or(u32::MAX));
    }
}

async fn ask(mut client: Client, requests: Rc<[Vec<u8>]>, first: usize, load: Rc<Load>) {
    for turn in first.. {
        let Some(due) = load.next() else { return };
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        let good = client.ask(&requests[turn % requests.len()]).await;
        load.note(good, due);
    }
}
