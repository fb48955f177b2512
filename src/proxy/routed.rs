//! A request that a route claims. It can do nothing but be authorized, which waits for a token
//! only where no usable one is there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, EXPECT, HOST};
use http::{HeaderValue, Method, Uri, Version};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::authorized::Authorized;
use super::hygiene::forwarding::{self, Hop};
use super::hygiene::{self, Framing, Kinds, query};
use super::plan::{RoutePlan, UpstreamPlan};
use super::received::Received;
use super::rejection::{Code, Rejection};
use super::settings::{IncomingAuthorization, QueryAccessToken, RequestLimits, RetryUnsafe};
use super::upgrade;
use crate::body::Body;
use crate::clock::Moment;
use crate::layer::guard::Guarded;
use crate::message::Request;
use crate::route::Authority;
use crate::server::Peer;
use crate::token::{Absence, Bearer, NoToken};

/// A request and the route that claims it.
pub struct Routed {
    pub(super) request: Box<Request>,
    pub(super) framing: Framing,
    fields: Kinds,
    host: Option<Authority>,
    tls: bool,
    pub(super) route: Arc<RoutePlan>,
    /// The body, where there is none or it was read beforehand, so that it can be sent again.
    pub(super) whole: Option<Bytes>,
}

impl Routed {
    pub(super) fn new(received: Received, route: Arc<RoutePlan>) -> Self {
        let Received { request, framing, fields, host, tls, .. } = received;
        let whole = (framing == Framing::None).then(Bytes::new);
        Self { request, framing, fields, host, tls, route, whole }
    }

    /// Rewrites the head for the upstream and attaches what the route asks for.
    ///
    /// # Errors
    /// Where the head holds what the route refuses, or no usable token comes in time.
    pub async fn authorize(
        mut self,
        upstream: &UpstreamPlan,
        limits: &RequestLimits,
        peer: &Peer,
    ) -> Result<Authorized, Rejection> {
        self.rewrite_target(upstream)?;
        let incoming = self.clean(upstream, peer)?;
        if self.is_worth_reading(limits) {
            // In a box, like all that few requests do: the others need not carry room for it.
            Box::pin(self.read_body(upstream, limits)).await?;
        }
        let bearer = self.bearer(upstream, incoming).await?;
        Ok(Authorized::new(self, bearer))
    }

    fn rewrite_target(&mut self, upstream: &UpstreamPlan) -> Result<(), Rejection> {
        let unusable = || Rejection::new(Code::BadTarget, "the target cannot be forwarded");
        let inbound = self.request.uri.path_and_query();
        let mut outbound = inbound
            .and_then(|target| self.route.rewrite.apply(target).ok())
            .ok_or_else(unusable)?;
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
        if self.route.is_token_endpoint(outbound.path()) {
            return Err(Rejection::new(
                Code::TokenEndpoint,
                "tokens are obtained by bearer-proxy itself; this path is never forwarded",
            ));
        }
        self.request.uri = Uri::from(outbound);
        Ok(())
    }

    /// Leaves only what may travel on; gives back the app's own Authorization where it is kept.
    fn clean(
        &mut self,
        upstream: &UpstreamPlan,
        peer: &Peer,
    ) -> Result<Option<HeaderValue>, Rejection> {
        let switches = self.asks_to_switch();
        if switches {
            self.route.upgrade.check(&self.request, self.has_body())?;
        }
        let (version, fields) = (self.request.version, self.fields);
        if upstream.incoming_authorization == IncomingAuthorization::Keep
            && self.request.fields.get_all(&AUTHORIZATION).nth(1).is_some()
        {
            return Err(Rejection::new(
                Code::BadRequest,
                "more than one Authorization, and the upstream's setting is to keep it",
            ));
        }
        let policy = &self.route.hygiene;
        let cleaned = hygiene::request(&mut self.request.fields, fields, version, policy);
        if cleaned.looped {
            return Err(Rejection::new(
                Code::Loop,
                "the Via header names this instance: it forwards to itself; where a proxy in between \
                 takes comments off Via, two instances in a row need different names, server.via",
            ));
        }
        if fields.any(Kinds::AUTHORIZATION) {
            self.route.metrics.authorization_seen();
            if upstream.incoming_authorization == IncomingAuthorization::Reject {
                return Err(Rejection::new(
                    Code::AuthorizationPresent,
                    "the app sent its own Authorization and incoming_authorization is `reject`",
                ));
            }
        }
        self.request.version = Version::HTTP_11;
        let expects = self.expects_to_be_asked(version);
        let headers = &mut self.request.fields;
        if switches {
            upgrade::name_websocket(headers);
        }
        if expects {
            headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
        }
        if upstream.append_forwarding {
            let host = self.host.as_ref().map(Authority::host);
            forwarding::append(headers, Hop { client: peer.ip(), host, tls: self.tls });
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

    /// Whether the client asks for another protocol than HTTP.
    pub(super) fn asks_to_switch(&self) -> bool {
        self.fields.any(Kinds::UPGRADE) && hygiene::leaves_http(&self.request.fields)
    }

    /// Whether the client waits for 100 before it sends its body (RFC 9110 section 10.1.1).
    fn expects_to_be_asked(&self, version: Version) -> bool {
        self.fields.any(Kinds::EXPECT) && version != Version::HTTP_10 && self.has_body()
    }

    fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::None | Framing::Length(0))
    }

    async fn bearer(
        &mut self,
        upstream: &UpstreamPlan,
        incoming: Option<HeaderValue>,
    ) -> Result<Option<Arc<Bearer>>, Rejection> {
        let Some(reader) = &self.route.token else {
            if let Some(incoming) = incoming {
                self.request.fields.insert(AUTHORIZATION, incoming);
            }
            return Ok(None);
        };
        let bearer = match reader.usable(Moment::now()) {
            Some(bearer) => bearer,
            None => Box::pin(reader.wait_usable(Instant::now() + self.route.token_wait))
                .await
                .map_err(|absent| no_token(&absent))?,
        };
        if let Some(scopes) = self.route.lacking(&bearer) {
            return Err(lacking(&scopes));
        }
        debug_assert!(upstream.incoming_authorization != IncomingAuthorization::Keep);
        self.request.fields.insert(AUTHORIZATION, bearer.header().clone());
        Ok(Some(bearer))
    }

    /// Whether the body is read before anything is sent: a small one of known length, where the
    /// route wants a second try to be possible with it. A larger one streams, and is sent once.
    fn is_worth_reading(&self, limits: &RequestLimits) -> bool {
        match self.framing {
            Framing::Length(length) => {
                length <= limits.replay_buffer_bytes as u64
                    && self.may_repeat()
                    && !self.request.fields.contains(EXPECT)
            }
            Framing::None | Framing::Chunked => false,
        }
    }

    async fn read_body(
        &mut self,
        upstream: &UpstreamPlan,
        limits: &RequestLimits,
    ) -> Result<(), Rejection> {
        let body = std::mem::take(&mut self.request.body);
        let guarded = Guarded::new(body, limits.max_request_body, upstream.body_idle_timeout);
        let read = guarded.collect().await.map_err(|_| {
            Rejection::new(Code::RequestAborted, "the request's body ended before it was complete")
        })?;
        let whole = read.to_bytes();
        self.request.body = Body::full(whole.clone());
        self.whole = Some(whole);
        Ok(())
    }

    /// Whether an answer that blames the token may be followed by a second try.
    pub(super) fn may_repeat(&self) -> bool {
        if is_safe(&self.request.method) {
            return true;
        }
        match self.route.retry_unsafe {
            RetryUnsafe::Never => false,
            RetryUnsafe::IdempotencyKey => self.request.fields.contains("idempotency-key"),
            RetryUnsafe::Always => true,
        }
    }
}

/// Methods that may be sent again: GET, HEAD and OPTIONS, a subset of RFC 9110 section 9.2.1.
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// What is granted can change with the next token only.
fn lacking(scopes: &str) -> Rejection {
    let detail =
        format!("the token server has not granted: {scopes}; missing_scopes is \"refuse\"");
    Rejection::new(Code::TokenUnavailable, detail).retry_after(Duration::from_secs(30))
}

pub(super) fn no_token(absent: &NoToken) -> Rejection {
    let code = match absent.absence {
        Absence::BudgetSpent => Code::TokenBudget,
        Absence::Pending | Absence::Failing(_) => Code::TokenUnavailable,
    };
    Rejection::new(code, format!("no usable token: {absent}")).retry_after(absent.retry_after)
}
