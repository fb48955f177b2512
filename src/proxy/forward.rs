//! The life of a request: received → routed → authorized → sent, with at most one second try for a
//! newer token; then the response as the app gets it.

use std::rc::Rc;
use std::sync::Arc;

use http::header::CONNECTION;
use http::{HeaderValue, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;
use tokio::time::Instant;

use super::headers::challenge::{Challenge, classify_challenge, wants_nonce};
use super::headers::{self, rewrite};
use super::rejection::{Code, Rejection};
use super::request::authorized::Authorized;
use super::request::exchange::{Exchange, Sent};
use super::request::received::Received;
use super::request::retry::{Replay, is_safe};
use super::request::routed::Routed;
use super::request::scope::{ResponseBodyScope, ScopedRequest};
use super::request::upgrade;
use super::requests::RequestPhase;
use crate::body::Body;
use crate::oauth::dpop::DPOP_NONCE;
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
    if challenge(&sent, exchange) != Challenge::None {
        // In a box, since it is rare: other requests need not carry room for its future.
        sent = Box::pin(answer_challenge(sent, exchange, transport)).await?;
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

/// The meaning of a response for the token and the proof of its request.
fn challenge(sent: &Sent, exchange: &Exchange) -> Challenge {
    let route = &exchange.route;
    classify_challenge(&sent.answer.response, route.renew_on, route.dpop.is_some())
}

/// Sends a request again, once, if the upstream asks for a nonce in its proof (RFC 9449 section 9). The
/// upstream has refused the proof before it acted on the request, so that any method may be repeated.
async fn answer_nonce_challenge<T: Transport>(
    mut sent: Sent,
    exchange: &Exchange,
    transport: &T,
) -> Result<Sent, Rejection> {
    let Some(dpop) = exchange.route.dpop.as_ref().filter(|_| wants_nonce(&sent.answer.response))
    else {
        return Ok(sent);
    };
    let (Some(reader), Some(bearer)) = (&exchange.route.token, &sent.bearer) else {
        return Ok(sent);
    };
    let headers = sent.answer.response.headers();
    // Without a usable nonce the next proof would be refused as well.
    let has_nonce =
        bearer.dpop().is_some_and(|key| key.learn_nonce(&exchange.upstream.origin, headers));
    let may_retry = |replay: &mut Box<Replay>| has_nonce && replay.take_nonce_retry();
    let Some(replay) = sent.replay.take_if(may_retry) else { return Ok(sent) };
    wait_to_repeat(sent.answer.response.status(), exchange);
    // The same token, unless it was renewed meanwhile.
    let token = reader.wait_usable(Instant::now() + exchange.route.token_wait).await;
    exchange.scope.record(|record| record.wait_ended(Instant::now()));
    match token {
        Ok(token) if exchange.route.lacking(&token).is_none() => {
            dpop.nonce_retries.inc();
            exchange.send_again(replay, token, transport).await
        }
        _ => Ok(sent),
    }
}

/// Notes that a request is to be sent again because of the status of its answer, and waits for a token.
fn wait_to_repeat(status: StatusCode, exchange: &Exchange) {
    exchange.scope.record(|record| {
        record.attempt_answered(Instant::now(), status);
        record.waits_for(RequestPhase::WaitingForToken);
    });
}

/// Reports a token that the upstream rejects, and sends the request again with a newer one where that
/// cannot repeat an effect.
async fn answer_challenge<T: Transport>(
    sent: Sent,
    exchange: &Exchange,
    transport: &T,
) -> Result<Sent, Rejection> {
    let route = &exchange.route;
    let sent = answer_nonce_challenge(sent, exchange, transport).await?;
    let (Some(reader), Some(bearer)) = (&route.token, &sent.bearer) else { return Ok(sent) };
    match challenge(&sent, exchange) {
        Challenge::None => return Ok(sent),
        Challenge::InvalidToken => route.metrics.unauthorized.inc(),
        // A newer token needs a proof too.
        Challenge::Proof | Challenge::Other => {
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
    let Some(mut replay) = sent.replay.filter(|replay| replay.may_repeat()) else {
        return Ok(Sent { replay: None, ..sent });
    };
    let deadline = Instant::now() + route.token_wait;
    wait_to_repeat(sent.answer.response.status(), exchange);
    let newer = reader.newer_than(generation, deadline).await;
    exchange.scope.record(|record| record.wait_ended(Instant::now()));
    match newer {
        Ok(newer) if route.lacking(&newer).is_none() => {
            let is_safe = exchange.scope.record(|record| is_safe(record.method()));
            exchange.ensure_client(is_safe).await?;
            // The renewal of the token is the one repetition.
            replay.take_repeat();
            let sent = exchange.send_again(replay, newer, transport).await?;
            answer_nonce_challenge(sent, exchange, transport).await
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
    // The nonces and proofs are the proxy's own.
    if let Some(proof) = exchange.proof.take() {
        response.headers_mut().remove(DPOP_NONCE);
        headers::redact_token(response.headers_mut(), Some(proof.as_bytes()));
        let reason = response.extensions().get::<ReasonPhrase>();
        if reason.is_some_and(|reason| headers::contains_token(reason.as_bytes(), proof.as_bytes()))
        {
            response.extensions_mut().remove::<ReasonPhrase>();
        }
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
