//! The requests in flight of all workers, listed for operators.
//!
//! Each worker keeps a list of its own without locks. [`Inspector`] asks all workers for theirs, so that
//! a request costs one entry in a list, and only the operator who asks waits.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slab::Slab;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// Longest time to wait for the report of a worker; one that does not respond is left out.
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
    /// Its phase.
    pub phase: RequestPhase,
}

/// The phase of a request in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestPhase {
    /// Its head is being checked and matched.
    Received,
    /// It waits for a usable token.
    WaitingForToken,
    /// It waits for a connection to the upstream; nothing has been sent.
    Connecting,
    /// A connection has it, and the rest of its body is awaited from the app.
    WaitingForBody,
    /// A connection has it, and the response is awaited.
    Sent,
    /// The head of the response has arrived, and a body is in progress.
    Answering,
}

impl RequestPhase {
    /// The phase in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::WaitingForToken => "waiting for token",
            Self::Connecting => "connecting",
            Self::WaitingForBody => "waiting for body",
            Self::Sent => "sent",
            Self::Answering => "answering",
        }
    }

    /// What the request waited for before it was sent, as the end of a sentence.
    pub fn as_wait(self) -> &'static str {
        match self {
            Self::WaitingForToken => ", while it waited for a token",
            Self::Connecting => ", while it waited for a connection to the upstream",
            // It waited in a queue of the kernel, or for nothing at all.
            Self::Received => ": it had gone when its request was read",
            _ => "",
        }
    }
}

/// A request that can be listed.
pub trait Listed {
    /// The current state of the request; `None` while it is being changed.
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
    /// Lists a request until the returned entry is dropped.
    pub fn add(self: &Rc<Self>, request: Weak<dyn Listed>) -> RegistryEntry {
        RegistryEntry { registry: Rc::clone(self), key: self.0.borrow_mut().insert(request) }
    }

    /// The current state of all requests.
    pub fn list(&self) -> Vec<RequestInFlight> {
        // Nothing below ends a request: an entry that removed itself now would find the list borrowed.
        let requests = self.0.borrow();
        requests.iter().filter_map(|(_, request)| request.upgrade()?.in_flight()).collect()
    }
}

impl Drop for RegistryEntry {
    // In a guard, so that a request that ends in any way leaves the list. The registry is never borrowed
    // while a request is dropped: `list` upgrades each entry, and drops nothing but its own clone.
    fn drop(&mut self) {
        self.registry.0.borrow_mut().try_remove(self.key);
    }
}

/// Asks all workers for their requests in flight; clones ask the same workers.
#[derive(Clone, Default)]
pub struct Inspector(Arc<Mutex<Vec<mpsc::UnboundedSender<Reply>>>>);

/// The channel for the report of a worker.
pub type Reply = oneshot::Sender<WorkerReport>;

/// The requests and connections of one worker, or of all workers together.
#[derive(Debug, Clone, Default)]
pub struct WorkerReport {
    /// Requests in flight, the oldest first.
    pub requests: Vec<RequestInFlight>,
    /// Idle connections by the upstream's name.
    pub idle_connections: BTreeMap<Arc<str>, usize>,
}

impl Inspector {
    /// The requests for reports to one worker, which answers them while it runs.
    pub fn register(&self) -> mpsc::UnboundedReceiver<Reply> {
        let (asking, asked) = mpsc::unbounded_channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(asking);
        asked
    }

    /// The report of all workers that respond in time.
    pub async fn report(&self) -> WorkerReport {
        // Cloned, so that the lock is not held while workers are waited for.
        let workers = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // One deadline for all: workers that do not respond cost the wait once.
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
        report.requests.sort_unstable_by_key(|request| std::cmp::Reverse(request.age));
        report
    }
}
