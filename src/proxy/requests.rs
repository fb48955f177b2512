//! The requests in flight of all workers, listed for operators.
//!
//! Each worker keeps a list of its own without locks. [`Inspector`] asks all workers for theirs, so
//! that a request costs no more than an entry in a list, and only whoever looks waits.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slab::Slab;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// How long a worker may take to report: one that does not respond is left out.
const WAIT: Duration = Duration::from_millis(500);

/// One request in flight.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestInFlight {
    /// Its id, as in the log.
    pub request_id: String,
    /// Its method.
    pub method: String,
    /// The upstream and the route that claimed it; empty before that.
    pub upstream: String,
    /// The route's name; empty before it is known.
    pub route: String,
    /// The client of `[clients]` that sent it; empty if it is none of them.
    pub client: String,
    /// Time since its head arrived.
    pub age: Duration,
    /// What it waits for.
    pub phase: RequestPhase,
}

/// What a request in flight waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestPhase {
    /// It is being read and matched.
    Received,
    /// No usable token is there yet.
    WaitingForToken,
    /// A connection to the upstream is made or waited for; nothing was sent yet.
    Connecting,
    /// It was handed to the upstream, whose answer is waited for.
    Sent,
    /// The head of its answer has arrived; one of both bodies has not ended.
    Answering,
}

impl RequestPhase {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::WaitingForToken => "waiting for token",
            Self::Connecting => "connecting",
            Self::Sent => "sent",
            Self::Answering => "answering",
        }
    }
}

/// A request that can be listed.
pub trait Listed {
    /// The request as it is now; `None` while it is being changed.
    fn in_flight(&self) -> Option<RequestInFlight>;
}

/// One worker's requests in flight.
#[derive(Default)]
pub struct RequestRegistry(RefCell<Slab<Weak<dyn Listed>>>);

/// An entry of the registry; removed when dropped.
pub struct RegistryEntry {
    registry: Rc<RequestRegistry>,
    key: usize,
}

impl RequestRegistry {
    /// Lists a request until what is returned is dropped.
    pub fn add(self: &Rc<Self>, request: Weak<dyn Listed>) -> RegistryEntry {
        RegistryEntry { registry: Rc::clone(self), key: self.0.borrow_mut().insert(request) }
    }

    /// Its requests as they are now.
    pub fn list(&self) -> Vec<RequestInFlight> {
        let requests = self.0.borrow();
        requests.iter().filter_map(|(_, request)| request.upgrade()?.in_flight()).collect()
    }
}

impl Drop for RegistryEntry {
    // A guard, so that a request that ends in any way leaves the list.
    fn drop(&mut self) {
        self.registry.0.borrow_mut().try_remove(self.key);
    }
}

/// Asks all workers for their requests in flight; clones ask the same workers.
#[derive(Clone, Default)]
pub struct Inspector(Arc<Mutex<Vec<mpsc::UnboundedSender<Reply>>>>);

/// Where a worker sends its report.
pub type Reply = oneshot::Sender<WorkerReport>;

/// What one worker, or all of them together, hold at one time.
#[derive(Debug, Clone, Default)]
pub struct WorkerReport {
    /// Requests in flight, the oldest first.
    pub requests: Vec<RequestInFlight>,
    /// Idle HTTP/1 connections by the upstream's name.
    pub idle_connections: BTreeMap<Arc<str>, usize>,
}

impl Inspector {
    /// What a worker is asked; it answers for as long as it lives.
    pub fn register(&self) -> mpsc::UnboundedReceiver<Reply> {
        let (asking, asked) = mpsc::unbounded_channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(asking);
        asked
    }

    /// The report of all workers that respond in time.
    pub async fn report(&self) -> WorkerReport {
        let workers = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let deadline = Instant::now() + WAIT;
        let mut replies = Vec::new();
        for worker in workers {
            let (reply, list) = oneshot::channel();
            if worker.send(reply).is_ok() {
                replies.push(list);
            }
        }
        let mut report = WorkerReport::default();
        for reply in replies {
            if let Ok(Ok(one)) = timeout_at(deadline, reply).await {
                report.requests.extend(one.requests);
                for (upstream, idle) in one.idle_connections {
                    *report.idle_connections.entry(upstream).or_default() += idle;
                }
            }
        }
        report.requests.sort_by_key(|request| std::cmp::Reverse(request.age));
        report
    }
}
