//! The life of a request: received → routed → authorized → sent, with at most one second try for a
//! newer token; then the response as the app gets it.

use std::rc::Rc;
use std::sync::Arc;

use http::header::CONNECTION;
use http::{HeaderValue, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;
use tokio::time::Instant;

use super::headers::challenge::{Challenge, classify_challenge};
use super::headers::{self, rewrite};
use super::rejection::{Code, Rejection};
use super::request::authorized::Authorized;
use super::request::exchange::{Exchange, Sent};
use super::request::received::Received;
use super::request::retry::is_safe;
use super::request::routed::Routed;
use super::request::scope::{ResponseBodyScope, ScopedRequest};
use super::request::upgrade;
use super::requests::RequestPhase;
use crate::body::Body;
use crate::upstream::{Forwarded, Transport, UpstreamResponse};

#[cfg(test)]
mod tests;

/// Forwards one request and returns its response.
///
/// # Errors
/// The request is rejected, or its exchange with the upstream failed.
pub async fn forward(request: Box<ScopedRequest>) -> Result<Response<Body>, Rejection> {
    let scope = request.scope.clone();
    let connection = Rc::clone(&request.connection);
    let is_safe = is_safe(request.request.method());
    let mut authorized = authorize(request).await?;
    let pool = scope.snapshot().pool(&authorized.exchange().route)?.clone();
    if is_safe {
        return send(&mut authorized, &pool).await;
    }
    // A client that leaves does not undo what an unsafe request does at the upstream. Its exchange
    // is therefore a task of its own, which goes on without the client, so that the log has the
    // outcome. It holds the connection, so that a shutdown waits for it. In a box, since tokio moves
    // a task when it is spawned.
    let exchange = Box::pin(async move {
        let outcome = send(&mut authorized, &pool).await;
        drop(connection);
        scope.finish(outcome)
    });
    tokio::task::spawn_local(exchange).await.map_err(|_| {
        Rejection::new(Code::Internal, "the exchange broke off").forwarded(Forwarded::Unknown)
    })
}

/// Takes a request through all states before it is sent. If its client leaves meanwhile, it never is.
async fn authorize(request: Box<ScopedRequest>) -> Result<Authorized, Rejection> {
    let scope = request.scope.clone();
    let plan = scope.plan();
    let connection = Rc::clone(&request.connection);
    let listener = plan.listener(connection.listener).ok_or_else(|| {
        // The connections of a removed listener are closing; this request arrived in between.
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
        route.metrics.admitted(client);
    }
    Authorized::attach(routed, upstream).await
}

/// Sends a request, a second time with a newer token where the first response allows it.
async fn send<T: Transport>(
    authorized: &mut Authorized,
    transport: &T,
) -> Result<Response<Body>, Rejection> {
    let upgrade = authorized.upgrade.take();
    let mut sent = authorized.send(transport).await?;
    let exchange = authorized.exchange();
    let challenge = classify_challenge(&sent.answer.response, exchange.route.renew_on);
    if challenge != Challenge::None {
        // In a box, since it is rare: other requests need not carry room for its future.
        sent = Box::pin(answer_challenge(sent, challenge, exchange, transport)).await?;
    }
    let switched = sent.answer.response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let bearer = sent.bearer.clone();
    let mut response = client_response(sent, exchange);
    if let Some(upgrade) = upgrade.filter(|_| switched) {
        upgrade.begin(&mut response, bearer);
        upgrade::name_websocket(response.headers_mut());
    }
    Ok(response)
}

/// Reports a token that the upstream rejects, and sends the request again with a newer one where that
/// cannot repeat an effect.
async fn answer_challenge<T: Transport>(
    sent: Sent,
    challenge: Challenge,
    exchange: &Exchange,
    transport: &T,
) -> Result<Sent, Rejection> {
    let route = &exchange.route;
    let (Some(reader), Some(bearer)) = (&route.token, &sent.bearer) else { return Ok(sent) };
    match challenge {
        Challenge::None => return Ok(sent),
        Challenge::InvalidToken => route.metrics.unauthorized.inc(),
        Challenge::Other => {
            route.metrics.unauthorized.inc();
            return Ok(sent);
        }
        // A newer token would lack the same scope.
        Challenge::InsufficientScope => {
            route.metrics.insufficient_scope.inc();
            return Ok(sent);
        }
    }
    let generation = bearer.generation();
    // Reported even if the request cannot be sent again, so that the next one gets a newer token.
    reader.report_rejected(generation);
    let Some(replay) = sent.replay else { return Ok(sent) };
    let deadline = Instant::now() + route.token_wait;
    exchange.scope.record(|record| {
        record.attempt_ended(Instant::now());
        record.waits_for(RequestPhase::WaitingForToken);
    });
    let newer = reader.newer_than(generation, deadline).await;
    exchange.scope.record(|record| record.wait_ended(Instant::now()));
    match newer {
        Ok(newer) if route.lacking(&newer).is_none() => {
            exchange.send_again(replay, newer, transport).await
        }
        _ => Ok(Sent { replay: None, ..sent }),
    }
}

/// The response as the app gets it: status and body unchanged, headers and trailers sanitized.
fn client_response(sent: Sent, exchange: &Exchange) -> Response<Body> {
    let Sent { answer: UpstreamResponse { mut response, body_unread }, bearer, .. } = sent;
    let token = bearer.as_ref().map(|bearer| bearer.token_bytes());
    let version = std::mem::replace(response.version_mut(), Version::HTTP_11);
    let policy = &exchange.route.header_policy;
    headers::sanitize_response(response.headers_mut(), version, policy, token);
    rewrite::rewrite_response(response.headers_mut(), &exchange.upstream.response_rewrite);
    // The reason phrase is kept, unless the upstream repeats the token in it.
    if let (Some(token), Some(reason)) = (token, response.extensions().get::<ReasonPhrase>())
        && headers::contains_token(reason.as_bytes(), token)
    {
        response.extensions_mut().remove::<ReasonPhrase>();
    }
    if body_unread {
        // The client may or may not go on with its body, so that the connection cannot carry another
        // request.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if !response.body().is_whole() && !response.body().is_end_stream() {
        let body = std::mem::take(response.body_mut());
        let observer = ResponseBodyScope(exchange.scope.clone());
        *response.body_mut() = Body::boxed(exchange.limit_body(body, u64::MAX, observer, bearer));
    }
    response
}
