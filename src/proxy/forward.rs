//! The life of a request, from the connection it came in on to the answer that streams back:
//! received → routed → authorized → sent, and at most one second try.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::{CONNECTION, LOCATION};
use http::{HeaderValue, StatusCode, Version};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;
use tokio::time::Instant;

use super::access::{AccessRecord, RequestId};
use super::answer::answer;
use super::authorized::{Authorized, Sent};
use super::challenge::{Verdict, verdict};
use super::hygiene::{self, Kinds};
use super::metrics::{ProxyMetrics, UnderWay};
use super::plan::{Plan, RoutePlan, UpstreamPlan};
use super::received::Received;
use super::rejection::{Code, Forwarded, Rejection};
use super::rewrite;
use super::routed::is_safe;
use super::trailers::Sieved;
use super::upgrade::{self, Switch};
use crate::body::Body;
use crate::layer::admit::{Admitted, InFlight};
use crate::layer::guard::Guarded;
use crate::message::{Fields, Request, Response};
use crate::net::tls::TlsCache;
use crate::server::ConnectionInfo;
use crate::upstream::{BodyUnasked, Pool, Way};

#[cfg(test)]
mod tests;

/// What all workers share.
#[derive(Clone)]
pub struct Shared {
    /// The plan of the moment.
    pub plan: Arc<ArcSwap<Plan>>,
    /// What is counted.
    pub metrics: ProxyMetrics,
    /// Requests under way.
    pub in_flight: InFlight,
}

/// One worker's forwarding service.
pub struct Forwarder {
    shared: Shared,
    local: RefCell<Rc<Local>>,
}

/// A plan and this worker's connections for it.
struct Local {
    plan: Arc<Plan>,
    pools: Vec<Option<Rc<Pool>>>,
}

impl Forwarder {
    /// Makes a worker's service; called in that worker, since its connections stay there.
    pub fn new(shared: Shared) -> Self {
        let local = Local::new(shared.plan.load_full(), None);
        Self { shared, local: RefCell::new(Rc::new(local)) }
    }

    /// Closes connections that were idle for too long or have grown too old.
    pub fn prune(&self) {
        let now = Instant::now();
        for pool in self.current().pools.iter().flatten() {
            pool.prune(now);
        }
    }

    /// Answers one request that came in on a listener. It never fails: failures are answers.
    pub async fn handle(
        self: Rc<Self>,
        connection: Rc<ConnectionInfo>,
        request: Box<Request>,
    ) -> Response {
        let local = self.current();
        let fields = Kinds::survey(&request.fields);
        let record = AccessRecord::new(&request, fields, local.plan.access);
        let counted = self.shared.metrics.under_way();
        let mut life = Life { record, counted, admitted: None };
        let (mut exchange, authorized) = {
            let going = self.authorized(&local, &connection, request, fields, &mut life).await;
            match going {
                Ok(both) => both,
                Err(rejection) => return life.end(Err(rejection), &self.shared.metrics),
            }
        };
        if is_safe(life.record.method()) {
            let outcome = exchange.run(authorized).await;
            return life.end(outcome, &self.shared.metrics);
        }
        // The caller of an unsafe method may hang up; the upstream's work is not undone by that, so
        // that the exchange goes on and its outcome is known to the log. It holds the connection, so
        // that a worker that is told to leave waits for it.
        // In a box, so that the task is moved about as a pointer.
        let going_on = Box::pin(async move {
            let outcome = exchange.run(authorized).await;
            drop(connection);
            life.end(outcome, &self.shared.metrics)
        });
        tokio::task::spawn_local(going_on).await.unwrap_or_else(|_| {
            let rejection = Rejection::new(Code::Internal, "the exchange broke off");
            let id = RequestId::default();
            answer(&rejection.forwarded(Forwarded::Unknown), id.text())
        })
    }

    /// All that comes before a request is sent. Should its caller leave meanwhile, it never is.
    async fn authorized(
        &self,
        local: &Rc<Local>,
        connection: &Rc<ConnectionInfo>,
        request: Box<Request>,
        fields: Kinds,
        life: &mut Life,
    ) -> Result<(Exchange<Pool>, Authorized), Rejection> {
        let plan = &local.plan;
        let admitted = self.shared.in_flight.admit(plan.limits.max_in_flight).ok_or_else(|| {
            Rejection::new(Code::Overloaded, "server.max_in_flight requests are under way")
                .retry_after(std::time::Duration::from_secs(1))
        })?;
        life.admitted = Some(admitted);
        let listener = plan.listener(connection.listener).ok_or_else(|| {
            // Its last connections are told to close; this one's request came in between.
            Rejection::new(Code::Overloaded, "a reload has removed this listener")
        })?;
        if connection.peer.process().is_some_and(|process| !listener.peers.allow(process)) {
            let why = "this listener's peer_uids and peer_gids do not name your process";
            return Err(Rejection::new(Code::PeerNotAllowed, why));
        }
        let received = Received::read(request, fields, listener, &plan.limits)?;
        let client = plan.clients.identify(&received.request.fields, &connection.peer)?;
        if let Some(name) = client.and_then(|client| plan.clients.name(client)) {
            life.record.client(name);
        }
        listener.admission.admit(client, &connection.peer)?;
        let routed = received.route(listener)?;
        routed.route.admission.admit(client, &connection.peer)?;
        let route = Arc::clone(&routed.route);
        let upstream = plan.upstreams.get(route.upstream).map(Arc::clone).ok_or_else(|| {
            Rejection::new(Code::Internal, "the route leads to no upstream of its plan")
        })?;
        life.record.routed(&upstream, &route);
        if let Some(client) = client {
            route.metrics.let_in(client);
        }
        let switch = Switch::asked(&routed, connection);
        let authorized = routed.authorize(&upstream, &plan.limits, &connection.peer).await?;
        let pool = local.pool(&route)?;
        life.record.sending();
        Ok((Exchange { local: Rc::clone(local), pool, route, upstream, switch }, authorized))
    }

    /// The worker's view of the plan of the moment.
    fn current(&self) -> Rc<Local> {
        let mut local = self.local.borrow_mut();
        let plan = self.shared.plan.load();
        if !Arc::ptr_eq(&plan, &local.plan) {
            *local = Rc::new(Local::new(Arc::clone(&plan), Some(&local)));
        }
        Rc::clone(&local)
    }
}

impl Local {
    /// Connections survive a reload where nothing about them has changed.
    fn new(plan: Arc<Plan>, previous: Option<&Self>) -> Self {
        let known = |upstream: &UpstreamPlan| {
            let mut pools = previous?.pools.iter().flatten();
            pools.find(|pool| **pool.settings() == *upstream.connection).map(Rc::clone)
        };
        let cache = TlsCache::default();
        let pools = plan
            .upstreams
            .iter()
            .map(|upstream| {
                let made = || Pool::sharing(&cache, Arc::clone(&upstream.connection));
                known(upstream).or_else(|| match made() {
                    Ok(pool) => Some(Rc::new(pool)),
                    Err(error) => {
                        tracing::error!(upstream = %upstream.connection.name, %error, "TLS settings unusable");
                        None
                    }
                })
            })
            .collect();
        Self { plan, pools }
    }

    fn pool(&self, route: &RoutePlan) -> Result<Rc<Pool>, Rejection> {
        let pool = self.pools.get(route.upstream).and_then(Option::clone);
        pool.ok_or_else(|| {
            let detail = "the upstream's TLS settings are unusable; see the log";
            Rejection::new(Code::Connect, detail)
        })
    }
}

/// What lives as long as a request does, whoever waits for its answer.
struct Life {
    record: AccessRecord,
    counted: UnderWay,
    /// Its place under the limit.
    admitted: Option<Admitted>,
}

impl Life {
    fn end(self, outcome: Result<Box<Response>, Rejection>, metrics: &ProxyMetrics) -> Response {
        drop((self.admitted, self.counted));
        self.record.end(outcome, metrics)
    }
}

/// One exchange with an upstream.
struct Exchange<W> {
    local: Rc<Local>,
    pool: Rc<W>,
    route: Arc<RoutePlan>,
    upstream: Arc<UpstreamPlan>,
    /// The client's side of a switch to another protocol, where it asked for one.
    switch: Option<Box<Switch>>,
}

impl<W: Way> Exchange<W> {
    /// Sends, and sends again where that is honest.
    async fn run(&mut self, authorized: Authorized) -> Result<Box<Response>, Rejection> {
        let limits = &self.local.plan.limits;
        let mut sent = authorized.send(&*self.pool, &self.upstream, limits).await?;
        let verdict = verdict(&sent.response);
        if verdict != Verdict::Fine {
            sent = Box::pin(self.challenged(sent, verdict)).await?;
        }
        match self.switch.take() {
            Some(switch) if sent.response.status == StatusCode::SWITCHING_PROTOCOLS => {
                Ok(self.switched(sent, *switch))
            }
            _ => Ok(self.streamed(sent)),
        }
    }

    /// The stream begins when the client has read this.
    fn switched(&self, mut sent: Sent, switch: Switch) -> Box<Response> {
        switch.begin(&mut sent.response, sent.bearer.clone());
        let mut response = self.streamed(sent);
        upgrade::name_websocket(&mut response.fields);
        response
    }

    /// A 401 for the token: it is blamed, and where a second try is honest one is made.
    async fn challenged(&self, sent: Sent, verdict: Verdict) -> Result<Sent, Rejection> {
        let (Some(reader), Some(bearer)) = (&self.route.token, &sent.bearer) else {
            return Ok(sent);
        };
        match verdict {
            Verdict::Fine => return Ok(sent),
            Verdict::InvalidToken => self.route.metrics.unauthorized(),
            Verdict::Refused => {
                self.route.metrics.unauthorized();
                return Ok(sent);
            }
            Verdict::InsufficientScope => {
                self.route.metrics.insufficient_scope();
                return Ok(sent);
            }
        }
        let generation = bearer.generation();
        reader.blame(generation);
        let Some(kept) = sent.kept else { return Ok(sent) };
        let deadline = Instant::now() + self.route.token_wait;
        match reader.newer_than(generation, deadline).await {
            Ok(newer) if self.route.lacking(&newer).is_none() => {
                kept.again(newer).send(&*self.pool, &self.upstream, &self.local.plan.limits).await
            }
            _ => Ok(Sent { kept: None, ..sent }),
        }
    }

    /// The answer as the app gets it: status and body as they are, headers cleaned.
    fn streamed(&self, sent: Sent) -> Box<Response> {
        let Sent { mut response, bearer, .. } = sent;
        let token = bearer.as_ref().map(|bearer| bearer.token_bytes());
        let version = std::mem::replace(&mut response.version, Version::HTTP_11);
        hygiene::response(&mut response.fields, version, &self.route.hygiene, token);
        // The words beside the status are kept; an upstream may echo what it likes in them.
        if let (Some(token), Some(reason)) = (token, response.extensions.get::<ReasonPhrase>())
            && hygiene::holds(reason.as_bytes(), token)
        {
            response.extensions.remove::<ReasonPhrase>();
        }
        if response.status.is_redirection()
            && let Some(location) = self.location(&response.fields)
        {
            response.fields.insert(LOCATION, location);
        }
        if response.extensions.get::<BodyUnasked>().is_some() {
            // What the client does with its body now is anybody's guess.
            response.fields.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if !response.body.is_whole() && !response.body.is_end_stream() {
            let body = std::mem::take(&mut response.body);
            let body = Guarded::new(body, u64::MAX, self.upstream.body_idle_timeout);
            response.body = Body::boxed(Sieved::new(body, &self.route, bearer));
        }
        response
    }

    /// Where a redirect leads, as the app must see it.
    fn location(&self, headers: &Fields) -> Option<HeaderValue> {
        rewrite::location(
            headers.get(LOCATION)?,
            &self.upstream.connection.origin,
            &self.upstream.mount,
            self.upstream.strip_mount,
            &self.upstream.base_path,
        )
    }
}
