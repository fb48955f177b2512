//! A request bearing what its route asks for: the only type that can be sent.
//!
//! Holding an [`Authorized`] is the proof that a token was attached, since only
//! `Routed::authorize` makes one:
//!
//! ```compile_fail
//! # use bearer_proxy::proxy::routed::Routed;
//! async fn skip(routed: Routed, pool: &bearer_proxy::upstream::Pool) {
//!     let _ = routed.send(pool).await; // no such method: it bears no token
//! }
//! ```

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http_body::Body as _;
use tokio::time::{Duration, Instant};

use super::plan::{RoutePlan, UpstreamPlan};
use super::received::too_large;
use super::rejection::{Code, ConnectFailure, Forwarded, Rejection};
use super::routed::{Routed, is_safe};
use super::settings::RequestLimits;
use super::trailers::Sieved;
use crate::body::Body;
use crate::clock::Moment;
use crate::layer::guard::{Breach, Guarded, Watch};
use crate::message::{Request, Response};
use crate::net::connect::ConnectError;
use crate::token::Bearer;
use crate::upstream::{self, Departure, Reuse, SendError, Way};

/// A request that may be sent, once.
pub struct Authorized(Box<Outgoing>);

/// In a box, since it is handed from state to state.
struct Outgoing {
    request: Box<Request>,
    route: Arc<RoutePlan>,
    bearer: Option<Arc<Bearer>>,
    /// Its body, where a second try would be honest. What streams is sent once.
    whole: Option<Bytes>,
}

/// An answer, and what a second try would need.
pub struct Sent {
    /// The upstream's answer.
    pub response: Box<Response>,
    /// The token that the request carried.
    pub bearer: Option<Arc<Bearer>>,
    /// The request as it was, where a second try would be honest.
    pub kept: Option<Kept>,
}

/// What is left of a request that was sent, and its body.
pub struct Kept {
    request: Box<Outgoing>,
    whole: Bytes,
}

impl Kept {
    /// A second try: the request as it was, with a newer token.
    pub(super) fn again(mut self, bearer: Arc<Bearer>) -> Authorized {
        self.request.request.body = Body::full(self.whole);
        self.request.bear(bearer);
        Authorized(self.request)
    }
}

impl Authorized {
    pub(super) fn new(routed: Routed, bearer: Option<Arc<Bearer>>) -> Self {
        let whole = if routed.may_repeat() { routed.whole } else { None };
        let Routed { request, route, .. } = routed;
        Self(Box::new(Outgoing { request, route, bearer, whole }))
    }

    /// Sends it and waits for the head of the answer.
    ///
    /// # Errors
    /// Each says whether the upstream may have seen the request.
    pub async fn send(
        self,
        pool: &impl Way,
        upstream: &UpstreamPlan,
        limits: &RequestLimits,
    ) -> Result<Sent, Rejection> {
        let Self(mut outgoing) = self;
        let request = &mut *outgoing.request;
        let reuse = if is_safe(&request.method) { Reuse::Any } else { Reuse::Recent };
        let watch = guard(request, &outgoing.route, upstream, limits);
        let limit = upstream.response_timeout;
        let sent = in_time(pool, request, reuse, limit, watch.as_ref()).await;
        let sent = match outgoing.settled(sent) {
            Some(sent) => sent,
            None => {
                let request = &mut *outgoing.request;
                // In a box, since it is rare.
                Box::pin(in_time(pool, request, Reuse::Never, limit, None)).await
            }
        };
        match sent {
            Some(Ok(response)) => Ok(outgoing.sent(response)),
            Some(Err(error)) => {
                let rejection = failed(&error, watch.as_ref(), limits);
                if matches!(rejection.code, Code::Connect | Code::UpstreamReset) {
                    outgoing.route.metrics.upstream_error(rejection.code.as_str());
                }
                Err(rejection)
            }
            None => {
                outgoing.route.metrics.upstream_error("timeout");
                Err(late(limit))
            }
        }
    }
}

/// What came of a request in time.
type Outcome = Option<Result<Box<Response>, SendError>>;

impl Outgoing {
    /// `None` where it is to be sent again: once, and where the method or the route allows a second try
    /// at all, since the failure says nothing of the request (RFC 9110 section 9.2.2, RFC 9113
    /// section 8.7).
    fn settled(&mut self, sent: Outcome) -> Option<Outcome> {
        match sent {
            Some(Err(error)) if (error.is_stale() || error.is_refused()) && self.renew() => None,
            sent => Some(sent),
        }
    }

    /// Makes it whole again, where a second try would be honest, with the token of the moment: the one
    /// it had may have ended while an answer was waited for. Says whether it may be sent.
    fn renew(&mut self) -> bool {
        let Some(whole) = &self.whole else { return false };
        self.request.body = Body::full(whole.clone());
        let (Some(reader), Some(_)) = (&self.route.token, &self.bearer) else { return true };
        let usable = reader.usable(Moment::now());
        let usable = usable.filter(|held| self.route.lacking(held).is_none());
        usable.map(|bearer| self.bear(bearer)).is_some()
    }

    fn bear(&mut self, bearer: Arc<Bearer>) {
        self.request.fields.insert(AUTHORIZATION, bearer.header().clone());
        self.bearer = Some(bearer);
    }

    fn sent(mut self: Box<Self>, response: Box<Response>) -> Sent {
        let (bearer, whole) = (self.bearer.clone(), self.whole.take());
        Sent { response, bearer, kept: whole.map(|whole| Kept { request: self, whole }) }
    }
}

/// Puts a request's body under guard and sieves its trailers; a request without one stays as it is.
fn guard(
    request: &mut Request,
    route: &Arc<RoutePlan>,
    upstream: &UpstreamPlan,
    limits: &RequestLimits,
) -> Option<Watch> {
    if request.body.is_end_stream() {
        return None;
    }
    let body = std::mem::take(&mut request.body);
    let guarded = Guarded::new(body, limits.max_request_body, upstream.body_idle_timeout);
    let (guarded, watch) = guarded.watched();
    request.body = Body::boxed(Sieved::new(guarded, route, None));
    Some(watch)
}

/// Sends and waits for an answer; the clock starts with the request, and anew with each piece of its
/// body, since an upstream cannot be expected to answer what it has not yet been told.
async fn in_time(
    pool: &impl Way,
    request: &mut Request,
    reuse: Reuse,
    limit: Duration,
    watch: Option<&Watch>,
) -> Outcome {
    let started = Instant::now();
    let departure = Departure::at(started);
    let mut sending = pin!(pool.send(request, reuse, &departure));
    let mut deadline = started + limit;
    loop {
        let sent = pool.alarms().within(deadline, sending.as_mut()).await;
        if sent.is_some() {
            return sent;
        }
        let left = departure.since().unwrap_or_else(Instant::now);
        let since = watch.map_or(left, |watch| watch.last_progress().max(left));
        if since + limit <= deadline {
            return None;
        }
        deadline = since + limit;
    }
}

fn late(limit: Duration) -> Rejection {
    let detail = format!(
        "no answer within timeouts.response, {limit:?}; the upstream may have acted on the request"
    );
    Rejection::new(Code::UpstreamTimeout, detail).forwarded(Forwarded::Unknown)
}

fn failed(error: &SendError, watch: Option<&Watch>, limits: &RequestLimits) -> Rejection {
    let forwarded = match error.forwarded {
        upstream::Forwarded::No => Forwarded::No,
        upstream::Forwarded::Unknown => Forwarded::Unknown,
    };
    let rejection = match watch.and_then(Watch::breach) {
        Some(Breach::TooLarge) => too_large(limits),
        Some(Breach::Idle) => Rejection::new(
            Code::RequestTimeout,
            "no byte of the request's body arrived within timeouts.idle",
        ),
        Some(Breach::Cut) => {
            Rejection::new(Code::RequestAborted, "the request's body ended before it was complete")
        }
        None => match error.connect() {
            Some(failure) => unreached(failure),
            None => Rejection::new(Code::UpstreamReset, error.to_string()),
        },
    };
    rejection.forwarded(forwarded)
}

/// The words for the app; the hints are the operator's, in the log and `check --live`.
fn unreached(failure: &ConnectError) -> Rejection {
    Rejection::new(Code::Connect, failure.to_string()).about_connect(ConnectFailure {
        proxy_error: failure.proxy_error(),
        egress_answer: failure.proxy_answer().map(str::to_owned),
    })
}
