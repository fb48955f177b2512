//! A request bearing what its route asks for: the only type that can be sent.
//!
//! Holding an [`Authorized`] is the proof that a token was attached, since only
//! [`Authorized::attach`] makes one:
//!
//! ```compile_fail
//! # use bearer_proxy::proxy::request::routed::Routed;
//! async fn skip(routed: Routed, pool: &bearer_proxy::upstream::Pool) {
//!     let _ = routed.send(pool).await; // no such method: it bears no token
//! }
//! ```

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, EXPECT, HOST};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Uri, Version};
use http_body::Body as _;
use http_body_util::BodyExt;

use super::exchange::{Exchange, Sent, incomplete_body};
use super::received::Received;
use super::retry::{Replay, Retries, may_repeat};
use super::routed::Routed;
use super::scope::{RequestBodyScope, ScopedRequest};
use super::upgrade::{self, ClientUpgrade};
use crate::body::Body;
use crate::clock::Moment;
use crate::proxy::headers::forwarding::{self, Hop};
use crate::proxy::headers::{self, BodyLength, FieldClass, query};
use crate::proxy::limits::body::{LimitError, LimitedBody};
use crate::proxy::policy::plan::{RoutePlan, UpstreamPlan};
use crate::proxy::policy::settings::{IncomingAuthorization, QueryAccessToken};
use crate::proxy::rejection::{Code, Rejection};
use crate::route::Authority;
use crate::token::TokenGuard;
use crate::upstream::Transport;

/// A request that may be sent.
pub struct Authorized {
    inbound: Box<ScopedRequest>,
    /// The token that it carries; `None` if the app's own Authorization is kept.
    token: Option<TokenGuard>,
    /// A copy for a second try; `None` where it must not be sent twice, or its body streams.
    replay: Option<Box<Replay>>,
    /// Set if anything was waited for since it arrived: its client may have left meanwhile.
    waited: bool,
    exchange: Exchange,
    /// The client's side of a WebSocket, if it asks for one.
    pub upgrade: Option<Box<ClientUpgrade>>,
}

impl Authorized {
    /// Rewrites the head for the upstream and attaches the token that the route asks for. Waits for a
    /// token only where no usable one is there.
    ///
    /// # Errors
    /// The head holds something that the route refuses, or no usable token came in time.
    pub async fn attach(routed: Routed, upstream: Arc<UpstreamPlan>) -> Result<Self, Rejection> {
        let Routed { received, route } = routed;
        let Received { mut inbound, body_length, host, tls, .. } = received;
        let exchange = Exchange {
            route,
            upstream,
            scope: inbound.scope.clone(),
            client: inbound.client.clone(),
            grpc: headers::is_grpc(inbound.request.headers()),
            upgrades: false,
            proof: Cell::new(None),
        };
        let offered = inbound.upgrade.take();
        let mut draft = Draft { inbound, body_length, host, tls, exchange };
        draft.rewrite_target()?;
        let upgrade = offered.filter(|_| draft.is_websocket()).map(|client| {
            Box::new(ClientUpgrade {
                policy: draft.exchange.route.upgrade,
                client,
                probe: draft.exchange.client.clone(),
                connection: Rc::clone(&draft.inbound.connection),
                scope: draft.exchange.scope.clone(),
            })
        });
        draft.exchange.upgrades = upgrade.is_some();
        let incoming = draft.sanitize()?;
        let mut waited = false;
        let mut whole_body = (body_length == BodyLength::None).then(Bytes::new);
        if draft.must_see_end() || draft.is_worth_buffering() {
            // In a box, since few requests do this: the others need not carry room for its future.
            let body = Box::pin(draft.read_body()).await;
            // A body that failed is not awaited any more either.
            draft.exchange.scope.record(|record| record.body_arrived(None));
            whole_body = Some(body?);
            waited = true;
        }
        let token = draft.attach_token(incoming, &mut waited).await?;
        let retries = draft.retries();
        let whole_body = whole_body.filter(|_| retries.any());
        let Draft { inbound, exchange, .. } = draft;
        let replay = whole_body.map(|body| Box::new(Replay::keep(&inbound.request, body, retries)));
        Ok(Self { inbound, token, replay, waited, exchange, upgrade })
    }

    /// The parts that all its tries have in common.
    pub fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Sends it and waits for the head of the response.
    ///
    /// It is sent a second time if the upstream did not process the first try, or probably not (a reused
    /// connection that ended without a response), and if that cannot repeat an effect.
    ///
    /// # Errors
    /// Each rejection says whether the upstream may have seen the request in either try.
    pub fn send<T: Transport>(
        &mut self,
        transport: &T,
    ) -> impl Future<Output = Result<Sent, Rejection>> {
        let Self { inbound, token, replay, waited, exchange, .. } = self;
        let (token, replay) = (token.take(), replay.take());
        exchange.send(&mut inbound.request, token, replay, *waited, transport)
    }
}

/// A request that is being authorized: it has no token yet.
struct Draft {
    inbound: Box<ScopedRequest>,
    body_length: BodyLength,
    host: Option<Authority>,
    tls: bool,
    exchange: Exchange,
}

impl Draft {
    fn rewrite_target(&mut self) -> Result<(), Rejection> {
        let Exchange { route, upstream, .. } = &self.exchange;
        let outbound = outbound_target(&self.inbound.request, route, upstream)?;
        *self.inbound.request.uri_mut() = Uri::from(outbound);
        Ok(())
    }

    /// True if the client asks for a WebSocket (RFC 6455 section 4.1) on a route that offers it. Any
    /// other Upgrade is an offer that may be ignored (RFC 9110 section 7.8).
    fn is_websocket(&self) -> bool {
        self.exchange.route.upgrade.websocket
            && *self.inbound.request.method() == Method::GET
            && self.inbound.request.version() == Version::HTTP_11
            && !self.has_body()
            && headers::asks_for_websocket(self.inbound.request.headers())
    }

    /// Leaves only the headers that may travel on; returns the app's own Authorization.
    fn sanitize(&mut self) -> Result<Option<HeaderValue>, Rejection> {
        let Exchange { route, upstream, .. } = &self.exchange;
        let ScopedRequest { request, fields, connection, .. } = &*self.inbound;
        let (version, fields, client) = (request.version(), *fields, connection.peer.ip());
        let expects =
            fields.intersects(FieldClass::EXPECT) && version != Version::HTTP_10 && self.has_body();
        let headers = self.inbound.request.headers_mut();
        if upstream.incoming_authorization == IncomingAuthorization::Keep
            && headers.get_all(AUTHORIZATION).iter().nth(1).is_some()
        {
            return Err(Rejection::new(
                Code::BadRequest,
                "more than one Authorization, and the upstream's setting is to keep it",
            ));
        }
        // A header other than Authorization that carries the token is treated as Authorization is.
        let sent_own = fields.intersects(FieldClass::AUTHORIZATION)
            || route.token_header.as_ref().is_some_and(|name| headers.contains_key(name));
        let sanitized = headers::sanitize_request(headers, fields, version, &route.header_policy);
        if sanitized.looped {
            return Err(Rejection::new(
                Code::Loop,
                "the Via header names this instance: it forwards to itself; where a proxy in between \
                 takes comments off Via, two instances in a row need different names, server.via",
            ));
        }
        if sent_own {
            route.metrics.authorization_seen.inc();
            if upstream.incoming_authorization == IncomingAuthorization::Reject {
                return Err(Rejection::new(
                    Code::AuthorizationPresent,
                    "the app sent its own Authorization and incoming_authorization is `reject`",
                ));
            }
        }
        if self.exchange.upgrades {
            upgrade::name_websocket(headers);
        }
        if expects {
            headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
        }
        if upstream.append_forwarding {
            let host = self.host.as_ref().map(Authority::host);
            forwarding::append(headers, Hop { client, host, tls: self.tls });
        }
        headers.insert(HOST, upstream.host.clone());
        if let Some(name) = &upstream.request_id_header {
            self.exchange.scope.record(|record| record.id().attach(headers, name));
        }
        for (name, value) in &upstream.set_headers {
            let value = value.as_ref().ok_or_else(|| {
                Rejection::new(
                    Code::SecretUnavailable,
                    "a secret of upstreams.*.set_headers could not be read; see the log",
                )
            })?;
            headers.insert(name.clone(), value.clone());
        }
        Ok(sanitized.authorization)
    }

    fn has_body(&self) -> bool {
        !matches!(self.body_length, BodyLength::None | BodyLength::Known(0))
    }

    /// Attaches the token of the route, or the app's own Authorization where that is kept.
    async fn attach_token(
        &mut self,
        incoming: Option<HeaderValue>,
        waited: &mut bool,
    ) -> Result<Option<TokenGuard>, Rejection> {
        let Exchange { route, upstream, .. } = &self.exchange;
        let headers = self.inbound.request.headers_mut();
        let Some(reader) = &route.token else {
            if let Some(incoming) = incoming {
                headers.insert(AUTHORIZATION, incoming);
            }
            return Ok(None);
        };
        let token = match reader.usable(Moment::now()) {
            Some(token) => token,
            None => {
                *waited = true;
                Box::pin(self.exchange.wait_for_token(reader)).await?
            }
        };
        self.exchange.refuse_missing_scopes(&token)?;
        debug_assert!(upstream.incoming_authorization != IncomingAuthorization::Keep);
        token.attach(headers);
        Ok(Some(token))
    }

    /// True if the end of the body must have arrived before anything is sent: for an HTTP/2 request
    /// with a length of 0 whose stream has not ended. If data follows, it is malformed (RFC 9113
    /// section 8.1.1), and the upstream would already have it as a complete request.
    fn must_see_end(&self) -> bool {
        self.inbound.request.version() == Version::HTTP_2
            && self.body_length == BodyLength::Known(0)
            && !self.inbound.request.body().is_end_stream()
    }

    /// True if the body is read before anything is sent: a small one of known length, if the request
    /// may be sent again. A larger one streams, and its request is sent once.
    fn is_worth_buffering(&self) -> bool {
        let limit = self.exchange.scope.plan().limits.replay_buffer_bytes;
        match self.body_length {
            BodyLength::Known(length) => {
                length <= limit as u64
                    && self.retries().any()
                    && !self.inbound.request.headers().contains_key(EXPECT)
            }
            BodyLength::None | BodyLength::Unknown => false,
        }
    }

    async fn read_body(&mut self) -> Result<Bytes, Rejection> {
        let Exchange { upstream, scope, .. } = &self.exchange;
        let (max, idle) = (scope.plan().limits.max_request_body, upstream.body_idle_timeout);
        let body = std::mem::take(self.inbound.request.body_mut());
        let (body, progress) =
            LimitedBody::new(body, max, idle, RequestBodyScope(scope.clone()), |trailers| trailers)
                .with_progress();
        let read = body.collect().await;
        let read = read.map_err(|_| {
            incomplete_body(progress.get().error.unwrap_or(LimitError::Aborted), max, idle)
        })?;
        let whole = read.to_bytes();
        *self.inbound.request.body_mut() = Body::full(whole.clone());
        Ok(whole)
    }

    fn retries(&self) -> Retries {
        let (request, route) = (&self.inbound.request, &self.exchange.route);
        Retries {
            repeat: may_repeat(request.method(), request.headers(), route.retry_unsafe),
            nonce: route.dpop.as_ref().is_some_and(|dpop| dpop.retry_nonce),
        }
    }
}

/// The target of a request as its upstream gets it.
pub(super) fn outbound_target<B>(
    request: &Request<B>,
    route: &RoutePlan,
    upstream: &UpstreamPlan,
) -> Result<PathAndQuery, Rejection> {
    let unusable = || Rejection::new(Code::BadTarget, "the target cannot be forwarded");
    let inbound = request.uri().path_and_query();
    let mut outbound =
        inbound.and_then(|target| route.rewrite.apply(target).ok()).ok_or_else(unusable)?;
    if outbound.query().is_some_and(query::has_access_token) {
        match upstream.query_access_token {
            QueryAccessToken::Pass => {}
            QueryAccessToken::Strip => {
                outbound = query::strip_access_token(&outbound).ok_or_else(unusable)?;
            }
            QueryAccessToken::Reject => {
                return Err(Rejection::new(
                    Code::AuthorizationPresent,
                    "the query holds an access_token beside the one that bearer-proxy attaches; \
                     see query_access_token of the upstream",
                ));
            }
        }
    }
    if route.is_token_endpoint(outbound.path()) {
        return Err(Rejection::new(
            Code::TokenEndpoint,
            "tokens are obtained by bearer-proxy itself; this path is never forwarded",
        ));
    }
    Ok(outbound)
}
