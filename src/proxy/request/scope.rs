//! What lives as long as a request does: until its own and its answer's body have ended.

use std::cell::{OnceCell, RefCell};
use std::rc::{Rc, Weak};

use http::{Request, Response};
use hyper::upgrade::OnUpgrade;

use crate::body::{Body, BodyError, Delivery, DeliveryObserver};
use crate::proxy::access_log::AccessRecord;
use crate::proxy::headers::FieldClass;
use crate::proxy::limits::body::BodyObserver;
use crate::proxy::limits::in_flight::InFlightPermit;
use crate::proxy::policy::metrics::RequestsInFlightGuard;
use crate::proxy::policy::plan::Plan;
use crate::proxy::rejection::Rejection;
use crate::proxy::requests::{Listed, RegistryEntry, RequestInFlight, RequestRegistry};
use crate::proxy::snapshot::Snapshot;
use crate::server::{ClientProbe, ConnectionInfo};

/// A request on its way through the stack.
pub struct ScopedRequest {
    /// The request as it came in.
    pub request: Request<Body>,
    /// What kinds of header fields it has.
    pub fields: FieldClass,
    /// Where it came in.
    pub connection: Rc<ConnectionInfo>,
    /// Whether its client is still there.
    pub client: ClientProbe,
    /// The connection itself, if the client offers to speak another protocol.
    pub upgrade: Option<OnUpgrade>,
    /// What lives as long as it does.
    pub scope: RequestScope,
}

/// Held by whatever belongs to one request: the stack, both bodies, the exchange that goes on without
/// its client, the tunnel of an upgrade. Clones are the same scope; it ends with the last of them.
#[derive(Clone)]
pub struct RequestScope(Rc<Scope>);

struct Scope {
    snapshot: Rc<Snapshot>,
    record: Rc<RecordCell>,
    permit: OnceCell<InFlightPermit>,
    _in_flight: RequestsInFlightGuard,
}

/// The record of a request. It outlives the scope: what a request holds is free when its bodies have
/// ended, and its fate is known once the last byte of its answer is with the kernel.
struct RecordCell {
    record: RefCell<AccessRecord>,
    _listed: RegistryEntry,
}

impl DeliveryObserver for RecordCell {
    fn delivered(&self, delivery: Delivery) {
        self.record.borrow_mut().delivered(delivery);
    }
}

impl Listed for RecordCell {
    fn in_flight(&self) -> Option<RequestInFlight> {
        Some(self.record.try_borrow().ok()?.in_flight())
    }
}

/// Goes with a request's body: counts it for the access log.
pub struct RequestBodyScope(pub RequestScope);

impl BodyObserver for RequestBodyScope {
    fn passed(&self, bytes: u64) {
        self.0.record(|record| record.received(bytes));
    }
}

/// Goes with the body of an upstream's answer: counts it, and notes whether it came to its end.
pub struct ResponseBodyScope(pub RequestScope);

impl BodyObserver for ResponseBodyScope {
    fn passed(&self, bytes: u64) {
        self.0.record(|record| record.answered(bytes));
    }

    fn ended(&self) {
        self.0.record(AccessRecord::completed);
    }

    fn failed(&self, why: &BodyError) {
        self.0.record(|record| record.cut(why));
    }
}

impl RequestScope {
    /// The scope of a request that has just come in.
    pub fn new(
        snapshot: Rc<Snapshot>,
        record: AccessRecord,
        in_flight: RequestsInFlightGuard,
        registry: &Rc<RequestRegistry>,
    ) -> Self {
        let record = Rc::new_cyclic(|weak: &Weak<RecordCell>| RecordCell {
            record: RefCell::new(record),
            _listed: registry.add(weak.clone() as Weak<dyn Listed>),
        });
        let permit = OnceCell::new();
        Self(Rc::new(Scope { snapshot, record, permit, _in_flight: in_flight }))
    }

    /// The plan that the request sees from start to end.
    pub fn plan(&self) -> &Plan {
        &self.0.snapshot.plan
    }

    /// The plan and this worker's connections.
    pub fn snapshot(&self) -> &Rc<Snapshot> {
        &self.0.snapshot
    }

    /// Keeps the request's place under `server.max_in_flight`.
    pub fn hold(&self, permit: InFlightPermit) {
        // There is one layer that gives permits, and it gives one.
        let _ = self.0.permit.set(permit);
    }

    /// Ends the wait for the request's answer, unless it has ended, and gives the answer to send. The
    /// record then lasts until the server has said how much of it was delivered.
    pub fn finish(&self, outcome: Result<Response<Body>, Rejection>) -> Response<Body> {
        let record = &self.0.record;
        let response = record.record.borrow_mut().end(outcome, &self.0.snapshot.metrics);
        response.map(|body| body.observed_by(Rc::clone(record) as Rc<dyn DeliveryObserver>))
    }

    /// Notes something for the access log. Calls do not nest.
    pub fn record<T>(&self, note: impl FnOnce(&mut AccessRecord) -> T) -> T {
        note(&mut self.0.record.record.borrow_mut())
    }
}
