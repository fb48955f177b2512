//! The life of a request between its two ends: received → routed → authorized → sent, and at most one
//! second try for its token; then the answer as the app gets it.

use std::rc::Rc;
use std::sync::Arc;

use http::header::CONNECTION;
use http::{HeaderValue, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;
use tokio::time::Instant;

use super::headers::challenge::{Challenge, classify_challenge};
use super::headers::{self, rewrite};
use super::limits::body::LimitedBody;
use super::rejection::{Code, Rejection};
use super::request::authorized::{Authorized, Exchange, Sent};
use super::request::received::Received;
use super::request::retry::is_safe;
use super::request::routed::Routed;
use super::request::scope::{ResponseBodyScope, ScopedRequest};
use super::request::upgrade;
use super::trailers::TrailerFilter;
use crate::body::Body;
use crate::upstream::{Forwarded, Transport, UpstreamResponse};

#[cfg(test)]
mod tests;

/// Answers one request.
///
/// # Errors
/// Why it is refused, or what became of it.
pub async fn forward(request: Box<ScopedRequest>) -> Result<Response<Body>, Rejection> {
    let scope = request.scope.clone();
    let connection = Rc::clone(&request.connection);
    let is_safe = is_safe(request.request.method());
    let mut authorized = authorize(request).await?;
    let pool = scope.snapshot().pool(&authorized.exchange().route)?.clone();
    if is_safe {
        return send(&mut authorized, &pool).await;
    }
    // The caller of an unsafe method may hang up; the upstream's work is not undone by that, so that
    // the exchange goes on and its outcome is known to the log. It holds the connection, so that a
    // worker that is told to leave waits for it. In a box, so that the task is moved as a pointer.
    let going_on = Box::pin(async move {
        let outcome = send(&mut authorized, &pool).await;
        drop(connection);
        scope.finish(outcome)
    });
    tokio::task::spawn_local(going_on).await.map_err(|_| {
        Rejection::new(Code::Internal, "the exchange broke off").forwarded(Forwarded::Unknown)
    })
}

/// All that comes before a request is sent. Should its caller leave meanwhile, it never is.
async fn authorize(request: Box<ScopedRequest>) -> Result<Authorized, Rejection> {
    let scope = request.scope.clone();
    let plan = scope.plan();
    let connection = Rc::clone(&request.connection);
    let listener = plan.listener(connection.listener).ok_or_else(|| {
        // Its last connections are told to close; this one's request came in between.
        Rejection::new(Code::Overloaded, "a reload has removed this listener")
    })?;
    if connection.peer.process().is_some_and(|process| !listener.peers.allow(process)) {
        let why = "this listener's peer_uids and peer_gids do not name your process";
        return Err(Rejection::new(Code::PeerNotAllowed, why));
    }
    let received = Received::read(request, listener, &plan.limits)?;
    let client = plan.clients.identify(received.inbound.request.headers(), &connection.peer)?;
    if let Some(name) = client.and_then(|client| plan.clients.name(client)) {
        scope.record(|record| record.client(name));
    }
    listener.admission.admit(client, &connection.peer)?;
    let routed = Routed::claim(received, listener)?;
    let route = &routed.route;
    route.admission.admit(client, &connection.peer)?;
    let upstream = plan.upstreams.get(route.upstream).map(Arc::clone).ok_or_else(|| {
        Rejection::new(Code::Internal, "the route leads to no upstream of its plan")
    })?;
    scope.record(|record| record.routed(&upstream, route));
    if let Some(client) = client {
        route.metrics.let_in(client);
    }
    Authorized::attach(routed, upstream).await
}

/// Sends a request, and sends it again where that is honest.
async fn send<T: Transport>(
    authorized: &mut Authorized,
    transport: &T,
) -> Result<Response<Body>, Rejection> {
    let exchange = authorized.exchange().clone();
    let upgrade = authorized.upgrade.take();
    // `send` asks the pool for a connection that can be upgraded while this is there.
    let upgrades = upgrade.is_some();
    let mut sent = authorized.send(transport, upgrades).await?;
    let challenge = classify_challenge(&sent.answer.response);
    if challenge != Challenge::None {
        sent = Box::pin(challenged(sent, challenge, &exchange, upgrades, transport)).await?;
    }
    let switched = sent.answer.response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let bearer = sent.bearer.clone();
    let mut response = streamed(sent, &exchange);
    if let Some(upgrade) = upgrade.filter(|_| switched) {
        upgrade.begin(&mut response, bearer);
        upgrade::name_websocket(response.headers_mut());
    }
    Ok(response)
}

/// A 401 for the token: the token is reported, and where a second try is honest one is made.
async fn challenged<T: Transport>(
    sent: Sent,
    challenge: Challenge,
    exchange: &Exchange,
    upgrades: bool,
    transport: &T,
) -> Result<Sent, Rejection> {
    let route = &exchange.route;
    let (Some(reader), Some(bearer)) = (&route.token, &sent.bearer) else { return Ok(sent) };
    match challenge {
        Challenge::None => return Ok(sent),
        Challenge::InvalidToken => route.metrics.unauthorized(),
        Challenge::Other => {
            route.metrics.unauthorized();
            return Ok(sent);
        }
        Challenge::InsufficientScope => {
            route.metrics.insufficient_scope();
            return Ok(sent);
        }
    }
    let generation = bearer.generation();
    reader.report_rejected(generation);
    let Some(replay) = sent.replay else { return Ok(sent) };
    let deadline = Instant::now() + route.token_wait;
    match reader.newer_than(generation, deadline).await {
        Ok(newer) if route.lacking(&newer).is_none() => {
            exchange.send_again(replay, newer, upgrades, transport).await
        }
        _ => Ok(Sent { replay: None, ..sent }),
    }
}

/// The answer as the app gets it: status and body as they are, headers cleaned.
fn streamed(sent: Sent, exchange: &Exchange) -> Response<Body> {
    let Sent { answer: UpstreamResponse { mut response, body_unread }, bearer, .. } = sent;
    let Exchange { route, upstream, scope, grpc, .. } = exchange;
    let token = bearer.as_ref().map(|bearer| bearer.token_bytes());
    let version = std::mem::replace(response.version_mut(), Version::HTTP_11);
    headers::sanitize_response(response.headers_mut(), version, &route.header_policy, token);
    rewrite::answer(response.headers_mut(), &upstream.answer_rewrite);
    // The words beside the status are kept; an upstream may echo what it likes in them.
    if let (Some(token), Some(reason)) = (token, response.extensions().get::<ReasonPhrase>())
        && headers::holds(reason.as_bytes(), token)
    {
        response.extensions_mut().remove::<ReasonPhrase>();
    }
    if body_unread {
        // The client may go on with its body or not; the connection is not to be used for another
        // request.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if !response.body().is_whole() && !response.body().is_end_stream() {
        let body = std::mem::take(response.body_mut());
        let idle = upstream.body_idle_timeout;
        let body = LimitedBody::new(body, u64::MAX, idle, ResponseBodyScope(scope.clone()));
        *response.body_mut() = Body::boxed(TrailerFilter::new(body, route, bearer, *grpc));
    }
    response
}
