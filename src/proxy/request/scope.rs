//! The scope of a request: state that lives until the bodies of request and response have ended.

use std::cell::{OnceCell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use http::{Request, Response};
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use crate::body::{Body, BodyError, Delivery, DeliveryObserver};
use crate::proxy::access_log::AccessRecord;
use crate::proxy::headers::FieldClass;
use crate::proxy::limits::body::{BodyObserver, LimitError};
use crate::proxy::limits::in_flight::InFlightPermit;
use crate::proxy::policy::metrics::RequestsInFlightGuard;
use crate::proxy::policy::plan::Plan;
use crate::proxy::rejection::Rejection;
use crate::proxy::requests::{Listed, RegistryEntry, RequestInFlight, RequestRegistry};
use crate::proxy::snapshot::Snapshot;
use crate::server::{ClientProbe, ConnectionInfo};

/// A request on its way through the stack, with its scope.
pub struct ScopedRequest {
    /// The request as it was received.
    pub request: Request<Body>,
    /// The classes of its header fields.
    pub fields: FieldClass,
    /// The connection that it arrived on.
    pub connection: Rc<ConnectionInfo>,
    /// Tells whether its client is still connected.
    pub client: ClientProbe,
    /// The stream of the connection, if the client offers another protocol.
    pub upgrade: Option<OnUpgrade>,
    /// The scope of the request.
    pub scope: RequestScope,
}

/// The scope of a request, held by all that belongs to it: the stack, both bodies, an exchange that
/// continues without its client, the stream of an upgrade. Clones share one scope, which ends with
/// the last of them.
#[derive(Clone)]
pub struct RequestScope(Rc<Scope>);

struct Scope {
    snapshot: Rc<Snapshot>,
    record: Rc<RecordCell>,
    permit: OnceCell<InFlightPermit>,
    _in_flight: RequestsInFlightGuard,
}

/// The record of a request. It outlives the scope, which releases the request's resources when its
/// bodies have ended: the outcome is known later, when the kernel has the last byte of the response.
struct RecordCell {
    record: RefCell<AccessRecord>,
    _listed: RegistryEntry,
}

impl DeliveryObserver for RecordCell {
    fn delivered(&self, delivery: Delivery) {
        self.record.borrow_mut().delivered(delivery);
    }

    fn stalled(&self, limit: Duration) {
        self.record.borrow_mut().stalled(limit);
    }
}

impl Listed for RecordCell {
    fn in_flight(&self) -> Option<RequestInFlight> {
        Some(self.record.try_borrow().ok()?.in_flight())
    }
}

/// Observes the body of a request: counts its bytes for the access log, and notes whether more is awaited.
pub struct RequestBodyScope(pub RequestScope);

impl BodyObserver for RequestBodyScope {
    fn passed(&self, bytes: u64, at: Option<Instant>) {
        self.0.record(|record| record.received(bytes, at));
    }

    fn awaited(&self, since: Instant) {
        self.0.record(|record| record.awaits_body(since));
    }

    fn ended(&self) {
        self.0.record(|record| record.body_arrived(None));
    }
}

/// Observes the body of a response: counts its bytes, and notes whether it is complete.
pub struct ResponseBodyScope(pub RequestScope);

impl BodyObserver for ResponseBodyScope {
    fn passed(&self, bytes: u64, _: Option<Instant>) {
        self.0.record(|record| record.answered(bytes));
    }

    fn ended(&self) {
        self.0.record(AccessRecord::completed);
    }

    fn failed(&self, kind: LimitError, error: &BodyError) {
        self.0.record(|record| record.cut(kind, error));
    }
}

impl RequestScope {
    /// Opens the scope of a request that has just arrived.
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

    /// The plan, and this worker's connections for it.
    pub fn snapshot(&self) -> &Rc<Snapshot> {
        &self.0.snapshot
    }

    /// Keeps the request's permit under `server.max_in_flight` until the scope ends.
    pub fn hold(&self, permit: InFlightPermit) {
        // One layer gives permits, and it gives one for each request.
        let _ = self.0.permit.set(permit);
    }

    /// Records the outcome of the request, unless it was recorded, and returns the response to send.
    /// The record then stays open until the server has reported how much of the response was
    /// delivered.
    pub fn finish(&self, outcome: Result<Response<Body>, Rejection>) -> Response<Body> {
        let record = &self.0.record;
        let response = record.record.borrow_mut().end(outcome, &self.0.snapshot.metrics);
        response.map(|body| body.observed_by(Rc::clone(record) as Rc<dyn DeliveryObserver>))
    }

    /// Changes the record for the access log. Calls must not nest.
    pub fn record<T>(&self, note: impl FnOnce(&mut AccessRecord) -> T) -> T {
        note(&mut self.0.record.record.borrow_mut())
    }
}
