//! The state of a worker: the current plan, and the worker's own connections for it.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::limits::in_flight::InFlight;
use super::policy::metrics::ProxyMetrics;
use super::policy::plan::{Plan, RoutePlan, UpstreamPlan};
use super::rejection::{Code, Rejection};
use super::requests::{Inspector, RequestRegistry, WorkerReport};
use crate::net::tls::TlsCache;
use crate::server::StopSignal;
use crate::upstream::Pool;

/// State that all workers share.
#[derive(Clone)]
pub struct SharedState {
    /// The current plan; a reload stores another.
    pub plan: Arc<ArcSwap<Plan>>,
    /// The metrics of the request path.
    pub metrics: ProxyMetrics,
    /// Signals that requests in flight are aborted.
    pub stop: StopSignal,
    /// Number of requests in flight.
    pub in_flight: InFlight,
    /// Lists the requests in flight of all workers.
    pub inspector: Inspector,
    /// Number of workers, which divide the connections to each upstream among them.
    pub workers: NonZeroUsize,
}

/// State of one worker, made on its thread, where its connections stay.
pub struct WorkerState {
    shared: SharedState,
    requests: Rc<RequestRegistry>,
    current: RefCell<Rc<Snapshot>>,
}

/// A plan and a worker's connections for it. A request keeps its snapshot from start to end.
pub struct Snapshot {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The metrics of the request path.
    pub metrics: ProxyMetrics,
    /// Signals that requests in flight are aborted.
    pub stop: StopSignal,
    /// One pool for each upstream of the plan; `None` if its TLS settings are unusable.
    pools: Vec<Option<Pool>>,
}

impl WorkerState {
    /// Starts with the current plan.
    pub fn new(shared: SharedState) -> Self {
        let snapshot = Snapshot::new(shared.plan.load_full(), None, &shared);
        Self { shared, requests: Rc::default(), current: RefCell::new(Rc::new(snapshot)) }
    }

    /// This worker's requests in flight.
    pub fn requests(&self) -> &Rc<RequestRegistry> {
        &self.requests
    }

    /// Number of requests in flight, of all workers.
    pub fn in_flight(&self) -> &InFlight {
        &self.shared.in_flight
    }

    /// Closes connections that were idle for too long or have grown too old.
    pub fn prune(&self) {
        let now = Instant::now();
        for pool in self.snapshot().pools.iter().flatten() {
            pool.prune(now);
        }
    }

    /// The requests and idle connections of this worker, for operators.
    pub fn report(&self) -> WorkerReport {
        let snapshot = self.snapshot();
        let idle = |pool: &Pool| (Arc::clone(&pool.settings().name), pool.idle());
        WorkerReport {
            requests: self.requests.list(),
            idle_connections: snapshot.pools.iter().flatten().map(idle).collect(),
        }
    }

    /// The snapshot of the current plan.
    pub fn snapshot(&self) -> Rc<Snapshot> {
        let mut current = self.current.borrow_mut();
        let plan = self.shared.plan.load();
        if !Arc::ptr_eq(&plan, &current.plan) {
            let next = Snapshot::new(Arc::clone(&plan), Some(&current), &self.shared);
            *current = Rc::new(next);
        }
        Rc::clone(&current)
    }
}

impl Snapshot {
    /// Pools of the previous snapshot are kept if their settings have not changed.
    fn new(plan: Arc<Plan>, previous: Option<&Self>, shared: &SharedState) -> Self {
        let known = |upstream: &UpstreamPlan| {
            let mut pools = previous?.pools.iter().flatten();
            pools.find(|pool| **pool.settings() == *upstream.connection).cloned()
        };
        let cache = TlsCache::default();
        let made = |upstream: &UpstreamPlan| {
            let settings = Arc::clone(&upstream.connection);
            let share = (settings.max_connections / shared.workers).max(1);
            let state = shared.metrics.upstreams().of(&upstream.connection.name);
            Pool::new(&cache, settings, share, state).map_or_else(
                |error| {
                    let upstream = &upstream.connection.name;
                    tracing::error!(%upstream, %error, "TLS settings unusable");
                    None
                },
                Some,
            )
        };
        let pools =
            plan.upstreams.iter().map(|upstream| known(upstream).or_else(|| made(upstream)));
        let pools = pools.collect();
        Self { plan, metrics: shared.metrics.clone(), stop: shared.stop.clone(), pools }
    }

    /// A snapshot without connections, for simulations.
    #[cfg(test)]
    pub(super) fn without_pools(plan: Arc<Plan>, metrics: ProxyMetrics) -> Self {
        Self { plan, metrics, stop: StopSignal::new(), pools: Vec::new() }
    }

    /// The connections to a route's upstream.
    ///
    /// # Errors
    /// The TLS settings of the upstream are unusable.
    pub fn pool(&self, route: &RoutePlan) -> Result<&Pool, Rejection> {
        let pool = self.pools.get(route.upstream).and_then(Option::as_ref);
        pool.ok_or_else(|| {
            let detail = "the upstream's TLS settings are unusable; see the log";
            Rejection::new(Code::Connect, detail)
        })
    }
}
