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

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{AUTHORIZATION, EXPECT, HOST};
use http::{HeaderValue, Method, Request, Uri, Version};
use http_body::Body as _;
use http_body_util::BodyExt;
use pin_project_lite::pin_project;
use tokio::time::{Duration, Instant, Sleep, sleep_until};

use super::received::Received;
use super::retry::{Replay, is_safe, may_repeat};
use super::routed::Routed;
use super::scope::{RequestBodyScope, RequestScope, ScopedRequest};
use super::upgrade::{self, ClientUpgrade};
use crate::body::Body;
use crate::clock::Moment;
use crate::net::connect::ConnectError;
use crate::proxy::headers::forwarding::{self, Hop};
use crate::proxy::headers::{self, FieldClass, Framing, query};
use crate::proxy::limits::body::{BodyProgress, LimitError, LimitedBody};
use crate::proxy::policy::plan::{RoutePlan, UpstreamPlan};
use crate::proxy::policy::settings::{IncomingAuthorization, QueryAccessToken};
use crate::proxy::rejection::{Code, ConnectFailure, Rejection};
use crate::proxy::trailers::TrailerFilter;
use crate::route::Authority;
use crate::server::ClientProbe;
use crate::token::{Bearer, TokenUnavailable, UnavailableReason};
use crate::upstream::{
    Forwarded, Reuse, SendError, SendErrorKind, SendFailure, SendRequest, Transport,
    UpstreamResponse,
};

/// Connections that are tried for a request that is handed back unsent each time.
const MAX_CONNECTIONS_TRIED: usize = 3;

/// When to try again after no connection to the upstream was free.
const OVERLOADED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A request that may be sent.
pub struct Authorized {
    inbound: Box<ScopedRequest>,
    /// The token that it carries; `None` where the app's own Authorization is kept.
    bearer: Option<Arc<Bearer>>,
    /// What a second try needs, where one would be honest. What streams is sent once.
    replay: Option<Box<Replay>>,
    /// Whether anything was waited for since it came in.
    waited: bool,
    exchange: Exchange,
    /// The client's side of a WebSocket, where it asked for one.
    pub upgrade: Option<Box<ClientUpgrade>>,
}

/// What all tries of a request have in common.
#[derive(Clone)]
pub struct Exchange {
    /// The route that claims it.
    pub route: Arc<RoutePlan>,
    /// Its upstream.
    pub upstream: Arc<UpstreamPlan>,
    /// What lives as long as it does.
    pub scope: RequestScope,
    /// Whether its client is still there.
    pub client: ClientProbe,
    /// Whether it is a gRPC call, whose trailing metadata is part of the answer.
    pub grpc: bool,
}

/// An answer, and what a second try would need.
pub struct Sent {
    /// The upstream's answer.
    pub answer: UpstreamResponse,
    /// The token that the request carried.
    pub bearer: Option<Arc<Bearer>>,
    /// The request as it was, where a second try would be honest.
    pub replay: Option<Box<Replay>>,
}

impl Authorized {
    /// Rewrites the head for the upstream and attaches what the route asks for. Waits for a token only
    /// where no usable one is there.
    ///
    /// # Errors
    /// Where the head holds what the route refuses, or no usable token comes in time.
    pub async fn attach(routed: Routed, upstream: Arc<UpstreamPlan>) -> Result<Self, Rejection> {
        let Routed { received, route } = routed;
        let Received { mut inbound, framing, host, tls, .. } = received;
        let grpc = headers::is_grpc(inbound.request.headers());
        let (scope, client) = (inbound.scope.clone(), inbound.client.clone());
        let exchange = Exchange { route, upstream, scope, client, grpc };
        let offered = inbound.upgrade.take();
        let mut draft = Draft { inbound, framing, host, tls, exchange };
        draft.rewrite_target()?;
        let upgrade = offered.filter(|_| draft.is_websocket()).map(|client| {
            let (policy, scope) = (draft.exchange.route.upgrade, draft.exchange.scope.clone());
            let connection = Rc::clone(&draft.inbound.connection);
            let probe = draft.exchange.client.clone();
            Box::new(ClientUpgrade::new(policy, client, probe, connection, scope))
        });
        let incoming = draft.sanitize(upgrade.is_some())?;
        let mut waited = false;
        let mut whole = (framing == Framing::None).then(Bytes::new);
        if draft.must_see_end() || draft.is_worth_reading() {
            // In a box, like all that few requests do: the others need not carry room for it.
            whole = Some(Box::pin(draft.read_body()).await?);
            waited = true;
        }
        let bearer = draft.bearer(incoming, &mut waited).await?;
        let whole = whole.filter(|_| draft.may_repeat());
        let Draft { inbound, exchange, .. } = draft;
        let keep = |body| Box::new(Replay::keep(&inbound.request, body, bearer.clone()));
        let replay = whole.map(keep);
        Ok(Self { inbound, bearer, replay, waited, exchange, upgrade })
    }

    /// What all tries of it have in common.
    pub fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Sends it and waits for the head of the answer.
    ///
    /// It is sent again, once, where the failure says that the upstream did not see it, or may not have
    /// (a connection that died without a word), and where sending it twice is honest.
    ///
    /// `upgrades` asks for a connection that can be upgraded to another protocol.
    ///
    /// # Errors
    /// Each says whether the upstream may have seen the request, also in the first of two tries.
    pub fn send<T: Transport>(
        &mut self,
        transport: &T,
        upgrades: bool,
    ) -> impl Future<Output = Result<Sent, Rejection>> {
        let Self { inbound, bearer, replay, waited, exchange, .. } = self;
        let (bearer, replay) = (bearer.take(), replay.take());
        exchange.send(&mut inbound.request, bearer, replay, *waited, upgrades, transport)
    }
}

impl Exchange {
    /// Sends a request once more: as it was, with a newer token. It is the last try.
    ///
    /// # Errors
    /// As for [`Authorized::send`].
    pub async fn send_again<T: Transport>(
        &self,
        mut replay: Box<Replay>,
        newer: Arc<Bearer>,
        upgrades: bool,
        transport: &T,
    ) -> Result<Sent, Rejection> {
        replay.bear(Arc::clone(&newer));
        // The answer to the first try was waited for, and the token.
        let mut request = replay.request();
        self.send(&mut request, Some(newer), None, true, upgrades, transport).await
    }

    /// What is large is borrowed: hyper keeps room for this future with each client connection.
    async fn send<T: Transport>(
        &self,
        request: &mut Request<Body>,
        mut bearer: Option<Arc<Bearer>>,
        mut replay: Option<Box<Replay>>,
        mut waited: bool,
        upgrades: bool,
        transport: &T,
    ) -> Result<Sent, Rejection> {
        let exchange = self;
        let is_safe = is_safe(request.method());
        let mut progress = limit_body(request, exchange);
        let mut reuse = match (upgrades, is_safe) {
            (true, _) => Reuse::Upgrade,
            (false, true) => Reuse::Any,
            (false, false) => Reuse::Recent,
        };
        let mut connections = 0;
        // In a box, like all that is rare.
        let mut first_failure: Option<Box<Rejection>> = None;
        loop {
            connections += 1;
            let acquiring = NotingAWait { future: transport.acquire(reuse), waited: &mut waited };
            let connection = match acquiring.await {
                Ok(connection) => connection,
                Err(error) => return Err(exchange.failed(&error, None).after(first_failure)),
            };
            // The last look before the first byte. A safe request that nothing was waited for has only
            // just come in.
            if (waited || !is_safe) && exchange.client.has_left(is_safe).await {
                connection.release();
                return Err(client_left().after(first_failure));
            }
            let limit = exchange.upstream.response_timeout;
            let now = exchange.record_sending(&connection, bearer.as_ref());
            let sending = connection.send(std::mem::take(request));
            let error = match InTime::new(sending, now, limit, progress.as_ref()).await {
                Some(Ok(mut answer)) => {
                    let status = answer.response.status();
                    if status.is_client_error() || status.is_server_error() {
                        answer.body_unread |= progress.is_some_and(|body| !body.has_ended());
                    }
                    return Ok(Sent { answer, bearer, replay });
                }
                Some(Err(SendFailure::Returned(unsent, _)))
                    if connections < MAX_CONNECTIONS_TRIED =>
                {
                    *request = *unsent;
                    let before =
                        first_failure.as_ref().map_or(Forwarded::No, |first| first.forwarded);
                    exchange.scope.record(|record| record.returned(before));
                    // Those still in the pool may be as dead as the ones tried so far.
                    if connections + 1 == MAX_CONNECTIONS_TRIED && reuse != Reuse::Upgrade {
                        reuse = Reuse::Never;
                    }
                    continue;
                }
                Some(Err(SendFailure::Returned(_, error) | SendFailure::Failed(error))) => error,
                None => return Err(exchange.late(limit).after(first_failure)),
            };
            // RFC 9110 section 9.2.2, RFC 9113 section 8.7: once, and where a second try is honest.
            let repeats = first_failure.is_none() && (error.is_stale() || error.is_refused());
            let rejection = exchange.failed(&error, progress.as_ref());
            if !repeats || !replay.as_mut().is_some_and(|replay| exchange.renew(replay)) {
                return Err(rejection.after(first_failure));
            }
            let Some(next) = &replay else { return Err(rejection.after(first_failure)) };
            (*request, bearer) = (next.request(), next.bearer().cloned());
            exchange.scope.record(|record| record.attempt_ended(Instant::now()));
            (first_failure, progress, waited) = (Some(Box::new(rejection)), None, true);
            (reuse, connections) = (Reuse::Never, 0);
        }
    }
}

impl Exchange {
    /// Notes that the request is handed to a connection; gives the time.
    fn record_sending(
        &self,
        connection: &impl SendRequest,
        bearer: Option<&Arc<Bearer>>,
    ) -> Instant {
        let now = Instant::now();
        let address = connection.peer_address();
        self.scope.record(|record| record.sending(now, bearer, address));
        now
    }

    /// Gives a request that is sent again the token of the moment: the one it had may have ended while
    /// an answer was waited for. Says whether it may be sent.
    fn renew(&self, replay: &mut Replay) -> bool {
        let (Some(reader), Some(_)) = (&self.route.token, replay.bearer()) else { return true };
        let usable = reader.usable(Moment::now());
        let usable = usable.filter(|held| self.route.lacking(held).is_none());
        usable.map(|bearer| replay.bear(bearer)).is_some()
    }

    /// The refusal for a failed exchange, which is counted.
    fn failed(&self, error: &SendError, progress: Option<&BodyProgress>) -> Rejection {
        let max_body = self.scope.plan().limits.max_request_body;
        let rejection = match (progress.and_then(BodyProgress::error), &error.kind) {
            (Some(limit), _) => incomplete(limit, max_body),
            (None, SendErrorKind::Connect(error)) => unreached(error),
            (None, SendErrorKind::Overloaded) => {
                Rejection::new(Code::Overloaded, error.to_string())
                    .retry_after(OVERLOADED_RETRY_AFTER)
            }
            (None, _) => Rejection::new(Code::UpstreamReset, error.to_string()),
        };
        if matches!(rejection.code, Code::Connect | Code::UpstreamReset | Code::Overloaded) {
            self.route.metrics.upstream_error(rejection.code.as_str());
        }
        rejection.forwarded(error.forwarded)
    }

    fn late(&self, limit: Duration) -> Rejection {
        self.route.metrics.upstream_error("timeout");
        let detail = format!(
            "no answer within timeouts.response, {limit:?}; the upstream may have acted on the request"
        );
        Rejection::new(Code::UpstreamTimeout, detail).forwarded(Forwarded::Unknown)
    }
}

/// Why a request's body did not come whole.
fn incomplete(error: LimitError, max_body: u64) -> Rejection {
    match error {
        LimitError::TooLarge => Rejection::body_too_large(max_body),
        LimitError::Idle => Rejection::new(
            Code::RequestTimeout,
            "no byte of the request's body arrived within timeouts.idle",
        ),
        LimitError::Cut => {
            Rejection::new(Code::RequestAborted, "the request's body ended before it was complete")
        }
    }
}

/// Nobody is left to whom the answer could be given, so that the request is not sent.
fn client_left() -> Rejection {
    Rejection::new(Code::ClientLeft, "the client closed its connection before the request was sent")
}

/// The words for the app; the hints are the operator's, in the log and `check --live`.
fn unreached(failure: &ConnectError) -> Rejection {
    Rejection::new(Code::Connect, failure.to_string()).about_connect(ConnectFailure {
        proxy_error: failure.proxy_error(),
        egress_answer: failure.proxy_answer().map(str::to_owned),
    })
}

/// Bounds a request's body and filters its trailers; a request without one stays as it is.
fn limit_body(request: &mut Request<Body>, exchange: &Exchange) -> Option<BodyProgress> {
    if request.body().is_end_stream() {
        return None;
    }
    let Exchange { route, upstream, scope, grpc, .. } = exchange;
    let (max, idle) = (scope.plan().limits.max_request_body, upstream.body_idle_timeout);
    let body = std::mem::take(request.body_mut());
    let (body, progress) =
        LimitedBody::new(body, max, idle, RequestBodyScope(scope.clone())).watched();
    *request.body_mut() = Body::boxed(TrailerFilter::new(body, route, None, *grpc));
    Some(progress)
}

pin_project! {
    /// Waits for something, and notes whether it had to be waited for.
    struct NotingAWait<'a, F> {
        #[pin]
        future: F,
        waited: &'a mut bool,
    }
}

impl<F: Future> Future for NotingAWait<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.future.poll(cx);
        **this.waited |= polled.is_pending();
        polled
    }
}

pin_project! {
    /// Waits for an answer: `None` where none comes in time. The clock starts when the request is sent,
    /// and anew with each piece of its body, since an upstream cannot be expected to answer what it has
    /// not yet been told.
    struct InTime<'a, F> {
        #[pin]
        sending: F,
        #[pin]
        timer: Sleep,
        started: Instant,
        limit: Duration,
        progress: Option<&'a BodyProgress>,
    }
}

impl<'a, F: Future> InTime<'a, F> {
    fn new(
        sending: F,
        started: Instant,
        limit: Duration,
        progress: Option<&'a BodyProgress>,
    ) -> Self {
        Self { sending, timer: sleep_until(started + limit), started, limit, progress }
    }
}

impl<F: Future> Future for InTime<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(sent) = this.sending.poll(cx) {
            return Poll::Ready(Some(sent));
        }
        loop {
            ready!(this.timer.as_mut().poll(cx));
            let moved = match this.progress {
                // The app owes some of its body, which has a time-out of its own.
                Some(progress) if progress.is_awaited() => Instant::now(),
                Some(progress) => progress.last(),
                None => *this.started,
            };
            let due = moved.max(*this.started) + *this.limit;
            if due <= this.timer.deadline() {
                return Poll::Ready(None);
            }
            this.timer.as_mut().reset(due);
        }
    }
}

/// A request while it becomes one that can be sent.
struct Draft {
    inbound: Box<ScopedRequest>,
    framing: Framing,
    host: Option<Authority>,
    tls: bool,
    exchange: Exchange,
}

impl Draft {
    fn rewrite_target(&mut self) -> Result<(), Rejection> {
        let Exchange { route, upstream, .. } = &self.exchange;
        let unusable = || Rejection::new(Code::BadTarget, "the target cannot be forwarded");
        let inbound = self.inbound.request.uri().path_and_query();
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
        *self.inbound.request.uri_mut() = Uri::from(outbound);
        Ok(())
    }

    /// Whether the client asks for a WebSocket (RFC 6455 section 4.1) on a route that offers it. Any
    /// other Upgrade is an offer that may be ignored (RFC 9110 section 7.8).
    fn is_websocket(&self) -> bool {
        self.exchange.route.upgrade.websocket
            && *self.inbound.request.method() == Method::GET
            && self.inbound.request.version() == Version::HTTP_11
            && !self.has_body()
            && headers::asks_for_websocket(self.inbound.request.headers())
    }

    /// Leaves only what may travel on; gives back the app's own Authorization where it is kept.
    fn sanitize(&mut self, upgrades: bool) -> Result<Option<HeaderValue>, Rejection> {
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
        let cleaned = headers::sanitize_request(headers, fields, version, &route.header_policy);
        if cleaned.looped {
            return Err(Rejection::new(
                Code::Loop,
                "the Via header names this instance: it forwards to itself; where a proxy in between \
                 takes comments off Via, two instances in a row need different names, server.via",
            ));
        }
        if fields.intersects(FieldClass::AUTHORIZATION) {
            route.metrics.authorization_seen();
            if upstream.incoming_authorization == IncomingAuthorization::Reject {
                return Err(Rejection::new(
                    Code::AuthorizationPresent,
                    "the app sent its own Authorization and incoming_authorization is `reject`",
                ));
            }
        }
        if upgrades {
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
        for (name, value) in &upstream.set_headers {
            let value = value.as_ref().ok_or_else(|| {
                Rejection::new(
                    Code::SecretUnavailable,
                    "a secret of upstreams.*.set_headers could not be read; see the log",
                )
            })?;
            headers.insert(name.clone(), value.clone());
        }
        Ok(cleaned.authorization)
    }

    fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::None | Framing::Length(0))
    }

    async fn bearer(
        &mut self,
        incoming: Option<HeaderValue>,
        waited: &mut bool,
    ) -> Result<Option<Arc<Bearer>>, Rejection> {
        let Exchange { route, upstream, .. } = &self.exchange;
        let headers = self.inbound.request.headers_mut();
        let Some(reader) = &route.token else {
            if let Some(incoming) = incoming {
                headers.insert(AUTHORIZATION, incoming);
            }
            return Ok(None);
        };
        let bearer = match reader.usable(Moment::now()) {
            Some(bearer) => bearer,
            None => {
                *waited = true;
                Box::pin(reader.wait_usable(Instant::now() + route.token_wait))
                    .await
                    .map_err(|absent| no_token(&absent))?
            }
        };
        if let Some(scopes) = route.lacking(&bearer) {
            return Err(lacking(&scopes));
        }
        debug_assert!(upstream.incoming_authorization != IncomingAuthorization::Keep);
        headers.insert(AUTHORIZATION, bearer.header().clone());
        Ok(Some(bearer))
    }

    /// Whether nothing may be sent before the end of the body has been seen: an HTTP/2 request that
    /// says it has none, and did not end with its head. With data it is malformed (RFC 9113 section
    /// 8.1.1), and the upstream would have got it as a whole one.
    fn must_see_end(&self) -> bool {
        self.inbound.request.version() == Version::HTTP_2
            && self.framing == Framing::Length(0)
            && !self.inbound.request.body().is_end_stream()
    }

    /// Whether the body is read before anything is sent: a small one of known length, where the
    /// route wants a second try to be possible with it. A larger one streams, and is sent once.
    fn is_worth_reading(&self) -> bool {
        let limit = self.exchange.scope.plan().limits.replay_buffer_bytes;
        match self.framing {
            Framing::Length(length) => {
                length <= limit as u64
                    && self.may_repeat()
                    && !self.inbound.request.headers().contains_key(EXPECT)
            }
            Framing::None | Framing::Chunked => false,
        }
    }

    async fn read_body(&mut self) -> Result<Bytes, Rejection> {
        let Exchange { upstream, scope, .. } = &self.exchange;
        let (max, idle) = (scope.plan().limits.max_request_body, upstream.body_idle_timeout);
        let body = std::mem::take(self.inbound.request.body_mut());
        let (body, progress) = LimitedBody::new(body, max, idle, ()).watched();
        let read = body.collect().await;
        let read =
            read.map_err(|_| incomplete(progress.error().unwrap_or(LimitError::Cut), max))?;
        let whole = read.to_bytes();
        *self.inbound.request.body_mut() = Body::full(whole.clone());
        Ok(whole)
    }

    fn may_repeat(&self) -> bool {
        let (request, route) = (&self.inbound.request, &self.exchange.route);
        may_repeat(request.method(), request.headers(), route.retry_unsafe)
    }
}

/// What is granted can change with the next token only.
fn lacking(scopes: &str) -> Rejection {
    let detail =
        format!("the token server has not granted: {scopes}; missing_scopes is \"refuse\"");
    Rejection::new(Code::TokenUnavailable, detail).retry_after(Duration::from_secs(30))
}

fn no_token(absent: &TokenUnavailable) -> Rejection {
    let code = match absent.reason {
        UnavailableReason::BudgetSpent => Code::TokenBudget,
        UnavailableReason::Pending | UnavailableReason::Failing(_) => Code::TokenUnavailable,
    };
    Rejection::new(code, format!("no usable token: {absent}")).retry_after(absent.retry_after)
}
