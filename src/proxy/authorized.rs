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
use tokio::time::{Duration, Instant, timeout_at};

use super::plan::{RoutePlan, UpstreamPlan};
use super::received::too_large;
use super::rejection::{Code, ConnectFailure, Forwarded, Rejection};
use super::replay::Kept;
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

/// A request that may be sent.
pub struct Authorized {
    request: Box<Request>,
    route: Arc<RoutePlan>,
    bearer: Option<Arc<Bearer>>,
    /// Its body's bytes, where a second try would be honest.
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

impl Authorized {
    pub(super) fn new(routed: Routed, bearer: Option<Arc<Bearer>>) -> Self {
        let whole = if routed.may_repeat() { routed.whole } else { None };
        Self { request: routed.request, route: routed.route, bearer, whole }
    }

    /// A second try: the request as it was, with a newer token.
    pub(super) fn again(kept: Kept, route: Arc<RoutePlan>, bearer: Arc<Bearer>) -> Self {
        let request = kept.with(bearer.header().clone());
        Self { request, route, bearer: Some(bearer), whole: None }
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
        let Self { mut request, route, mut bearer, whole } = self;
        let reuse = if is_safe(&request.method) { Reuse::Any } else { Reuse::Recent };
        let watch = guard(&mut request, &route, upstream, limits);
        let limit = upstream.response_timeout;
        let mut sent = in_time(pool, &mut request, reuse, limit, watch.as_ref()).await;
        // Once, where the method or the route allows a second try at all: the failure says nothing
        // of the request (RFC 9110 section 9.2.2, RFC 9113 section 8.7).
        if let (Some(Err(error)), Some(whole)) = (&sent, &whole)
            && (error.is_stale() || error.is_refused())
            && with_a_token(&mut request, &route, &mut bearer)
        {
            request.body = Body::full(whole.clone());
            // In a box, since it is rare.
            sent = Box::pin(in_time(pool, &mut request, Reuse::Never, limit, None)).await;
        }
        match sent {
            Some(Ok(response)) => {
                Ok(Sent { response, bearer, kept: whole.map(|whole| Kept::new(request, whole)) })
            }
            Some(Err(error)) => {
                let rejection = failed(&error, watch.as_ref(), limits);
                if matches!(rejection.code, Code::Connect | Code::UpstreamReset) {
                    route.metrics.upstream_error(rejection.code.as_str());
                }
                Err(rejection)
            }
            None => {
                route.metrics.upstream_error("timeout");
                Err(late(limit))
            }
        }
    }
}

/// Gives the request the token of the moment: the one it had may have ended while an answer was
/// waited for. Says whether it has all that its route asks for.
fn with_a_token(
    request: &mut Request,
    route: &RoutePlan,
    bearer: &mut Option<Arc<Bearer>>,
) -> bool {
    let (Some(reader), Some(_)) = (&route.token, &*bearer) else { return true };
    let usable = reader.usable(Moment::now()).filter(|held| route.lacking(held).is_none());
    let Some(usable) = usable else { return false };
    request.fields.insert(AUTHORIZATION, usable.header().clone());
    *bearer = Some(usable);
    true
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
) -> Option<Result<Box<Response>, SendError>> {
    let started = Instant::now();
    let departure = Departure::at(started);
    let mut sending = pin!(pool.send(request, reuse, &departure));
    let mut deadline = started + limit;
    loop {
        if let Ok(sent) = timeout_at(deadline, sending.as_mut()).await {
            return Some(sent);
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
