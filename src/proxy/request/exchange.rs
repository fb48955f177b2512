//! The exchange of an authorized request with its upstream: at most two tries, each with its own time
//! limit, and a rejection that says whether the upstream may have seen the request.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request};
use http_body::Body as _;
use tokio::time::{Duration, Instant, timeout_at};

use super::retry::{Replay, is_safe};
use super::scope::{RequestBodyScope, RequestScope};
use crate::body::Body;
use crate::clock::Moment;
use crate::net::connect::{ConnectError, ConnectPhase};
use crate::oauth::dpop::DPOP;
use crate::proxy::access_log::AccessRecord;
use crate::proxy::headers;
use crate::proxy::limits::body::{BodyObserver, BodyProgress, LimitError, LimitedBody};
use crate::proxy::policy::metrics::UpstreamErrorReason;
use crate::proxy::policy::plan::{RoutePlan, UpstreamPlan};
use crate::proxy::rejection::{Code, ConnectFailure, Rejection};
use crate::proxy::requests::RequestPhase;
use crate::server::ClientProbe;
use crate::telemetry::log::BeginLog;
use crate::token::dpop::BoundKey;
use crate::token::{Bearer, Reader, TokenGuard, TokenUnavailable, UnavailableReason};
use crate::upstream::{
    Forwarded, Reuse, SendError, SendErrorKind, SendFailure, SendRequest, Transport,
    UpstreamResponse,
};

/// Connections that one try may use up, when each of them hands the request back unsent.
const MAX_CONNECTIONS_PER_TRY: usize = 3;

/// Retry-After of a request for which no connection to the upstream became free.
const OVERLOADED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The parts of a request that all its tries have in common.
pub struct Exchange {
    /// The route that claims the request.
    pub route: Arc<RoutePlan>,
    /// The upstream of the route.
    pub upstream: Arc<UpstreamPlan>,
    /// The scope of the request.
    pub scope: RequestScope,
    /// Tells whether the client is still connected.
    pub client: ClientProbe,
    /// Set for a gRPC call: its trailers carry the status and metadata of the response.
    pub grpc: bool,
    /// Set for a WebSocket handshake: it needs a connection that can be upgraded.
    pub upgrades: bool,
    /// The last proof that was sent, to find where the upstream echoes it.
    pub proof: Cell<Option<Box<HeaderValue>>>,
}

/// A response, with what a second try would need.
pub struct Sent {
    /// The upstream's response.
    pub answer: UpstreamResponse,
    /// The token that the request carried.
    pub bearer: Option<Arc<Bearer>>,
    /// The request as it was sent; `None` where it must not be sent again.
    pub replay: Option<Box<Replay>>,
}

/// A try that got no response.
struct FailedTry {
    rejection: Rejection,
    /// Set where the upstream did not process the request, or where a reused connection ended without
    /// a word, as one does that the upstream had closed for being idle.
    may_repeat: bool,
}

/// The failed try of a request that was not sent.
fn unsent(rejection: Rejection) -> FailedTry {
    FailedTry { rejection, may_repeat: false }
}

#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps each argument twice, and hyper keeps room for this future with each \
              client connection"
)]
impl Exchange {
    /// Sends a request, a second time where the first try allows it and `replay` is there, and waits
    /// for the head of the response. `waited` is set where anything was waited for since the request
    /// came in.
    ///
    /// # Errors
    /// Each rejection says whether the upstream may have seen the request in either try.
    pub(super) fn send<T: Transport>(
        &self,
        request: &mut Request<Body>,
        mut token: Option<TokenGuard>,
        mut replay: Option<Box<Replay>>,
        mut waited: bool,
        transport: &T,
    ) -> impl Future<Output = Result<Sent, Rejection>> {
        async move {
            let mut reuse = match (self.upgrades, is_safe(request.method())) {
                (true, _) => Reuse::Upgrade,
                (false, true) => Reuse::Any,
                // An upstream that closes an idle connection while an unsafe request is on its way
                // leaves open whether it processed the request: a connection used a moment ago is
                // not idle.
                (false, false) => Reuse::Recent,
            };
            let mut progress = self.limit_request_body(request);
            let mut first_failure = None;
            loop {
                let body = progress.as_deref();
                let failed = match self
                    .try_once(request, &mut token, body, reuse, &mut waited, transport)
                    .await
                {
                    Ok(answer) => {
                        return Ok(Sent { answer, bearer: token.map(TokenGuard::finish), replay });
                    }
                    Err(failed) => failed,
                };
                // RFC 9110 section 9.2.2: an automatic retry is allowed once, and only if it cannot
                // repeat an effect. `replay` is there only for requests whose method or route allows
                // that.
                let may_repeat = failed.may_repeat && first_failure.is_none();
                let next = replay.as_deref_mut().filter(|next| may_repeat && next.may_repeat());
                let Some(next) = next.and_then(|replay| self.refresh_token(replay, &mut token))
                else {
                    return Err(failed.rejection.after(first_failure));
                };
                let forwarded = failed.rejection.forwarded;
                self.scope.record(|record| record.attempt_failed(Instant::now(), forwarded));
                *request = next.request();
                (first_failure, progress, waited) = (Some(Box::new(failed.rejection)), None, true);
                // Other pooled connections may be as stale as the one that failed.
                reuse = Reuse::Never;
            }
        }
    }

    /// Sends a request once more as it was, with this token.
    ///
    /// # Errors
    /// As for `Authorized::send`.
    pub async fn send_again<T: Transport>(
        &self,
        mut replay: Box<Replay>,
        token: TokenGuard,
        transport: &T,
    ) -> Result<Sent, Rejection> {
        replay.attach(&token);
        let mut request = replay.request();
        let sent = self.send(&mut request, Some(token), Some(replay), true, transport).await;
        // The upstream has answered the first try, whatever became of this one.
        let first = self.scope.record(|record| record.first_answer());
        sent.map_err(|rejection| match (rejection.forwarded, first) {
            (Forwarded::No, Some(status)) => Rejection {
                detail: format!(
                    "the upstream answered {} to the first attempt; the second was not sent: {}",
                    status.as_u16(),
                    rejection.detail
                )
                .into(),
                forwarded: Forwarded::Yes,
                ..rejection
            },
            _ => rejection,
        })
    }

    /// One try, on further connections where one hands the request back unsent.
    fn try_once<T: Transport>(
        &self,
        request: &mut Request<Body>,
        token: &mut Option<TokenGuard>,
        progress: Option<&Cell<BodyProgress>>,
        mut reuse: Reuse,
        waited: &mut bool,
        transport: &T,
    ) -> impl Future<Output = Result<UpstreamResponse, FailedTry>> {
        async move {
            let is_safe = is_safe(request.method());
            let mut connections = 0;
            loop {
                connections += 1;
                let connection = {
                    let identity = token.as_ref().and_then(|token| token.identity());
                    let mut acquiring = pin!(transport.acquire(reuse, identity));
                    let mut noted = false;
                    let acquired = poll_fn(|cx| {
                        let polled = acquiring.as_mut().poll(cx);
                        // A pooled connection is there at once; only a wait gives the client time to
                        // leave. One that is gone by now left before, such as in the kernel's queue.
                        if polled.is_pending() && !std::mem::replace(&mut noted, true) {
                            let was_first = !std::mem::replace(waited, true);
                            if !(was_first && self.client.is_gone(is_safe)) {
                                let connecting = RequestPhase::Connecting;
                                self.scope.record(|record| record.waits_for(connecting));
                            }
                        }
                        polled
                    });
                    acquired.await.map_err(|error| self.failed(&error, None, false))?
                };
                // While it waited for the connection, a renewal began to hand over: the token is revoked, or
                // will be. In a box, since it is rare.
                if *waited
                    && connections < MAX_CONNECTIONS_PER_TRY
                    && token.as_ref().is_some_and(TokenGuard::is_handing_over)
                {
                    connection.release();
                    Box::pin(self.replace_token(token, request)).await?;
                    continue;
                }
                let bearer = token.as_ref().map(TokenGuard::bearer);
                // The last check before the first byte. A safe request that has waited for nothing
                // has only just come in, so that its client is taken to be there.
                if (*waited || !is_safe) && self.client.has_left(is_safe).await {
                    connection.release();
                    return Err(unsent(self.client_left()));
                }
                if let Some(key) = bearer.and_then(|bearer| bearer.dpop())
                    && let Err(rejection) = self.attach_proof(key, request)
                {
                    connection.release();
                    return Err(unsent(rejection));
                }
                let started = self.record_sending(&connection, bearer);
                // To put it on record may have waited for a reader of the log. In a box, since it is rare:
                // other requests need not carry room for it.
                if !is_safe
                    && self.scope.plan().request_log.begin == BeginLog::Unsafe
                    && Box::pin(self.client.has_left(false)).await
                {
                    connection.release();
                    self.scope.record(AccessRecord::returned);
                    return Err(unsent(self.client_left()));
                }
                let sent = {
                    let sending = pin!(connection.send(std::mem::take(request)));
                    self.in_time(sending, started, progress).await
                };
                let error = match sent {
                    Some(Ok(mut answer)) => {
                        if let Some(key) = bearer.and_then(|bearer| bearer.dpop()) {
                            key.learn_nonce(&self.upstream.origin, answer.response.headers());
                        }
                        let status = answer.response.status();
                        if status.is_client_error() || status.is_server_error() {
                            answer.body_unread |=
                                progress.is_some_and(|body| !body.get().has_ended);
                        }
                        return Ok(answer);
                    }
                    // Not one byte has left, so that this repeats nothing, whatever the method.
                    Some(Err(SendFailure::Returned(unsent, _)))
                        if connections < MAX_CONNECTIONS_PER_TRY =>
                    {
                        *request = *unsent;
                        self.scope.record(AccessRecord::returned);
                        // Connections that are still in the pool may be as dead as the ones tried so
                        // far.
                        if connections + 1 == MAX_CONNECTIONS_PER_TRY && reuse != Reuse::Upgrade {
                            reuse = Reuse::Never;
                        }
                        continue;
                    }
                    Some(Err(SendFailure::Returned(_, error) | SendFailure::Failed(error))) => {
                        error
                    }
                    None => return Err(self.timed_out()),
                };
                return Err(self.failed(&error, progress, error.is_stale() || error.is_refused()));
            }
        }
    }

    /// Attaches the token that a renewal hands over to, in place of the one that it revokes. The request is
    /// no longer in flight with the old one, so that the renewal does not wait for it.
    async fn replace_token(
        &self,
        token: &mut Option<TokenGuard>,
        request: &mut Request<Body>,
    ) -> Result<(), FailedTry> {
        let (Some(reader), Some(old)) = (&self.route.token, token.take()) else { return Ok(()) };
        drop(old);
        let new = self.wait_for_token(reader).await.map_err(unsent)?;
        self.refuse_missing_scopes(&new).map_err(unsent)?;
        new.attach(request.headers_mut());
        *token = Some(new);
        Ok(())
    }

    /// Rejects a request whose client has gone.
    pub async fn ensure_client(&self, is_safe: bool) -> Result<(), Rejection> {
        match self.client.has_left(is_safe).await {
            true => Err(self.client_left()),
            false => Ok(()),
        }
    }

    /// Waits for a usable token, at most for `timeouts.wait`. The client is looked at before, since its
    /// request may have lain in the kernel's queue, and after, so that the log names the wait in which it
    /// left.
    pub(super) async fn wait_for_token(&self, reader: &Reader) -> Result<TokenGuard, Rejection> {
        let is_safe = self.scope.record(|record| is_safe(record.method()));
        self.ensure_client(is_safe).await?;
        self.scope.record(|record| record.waits_for(RequestPhase::WaitingForToken));
        let began = Instant::now();
        let found = reader.wait_usable(began + self.route.token_wait).await;
        let now = Instant::now();
        self.scope.record(|record| record.wait_ended(now));
        let token = found.map_err(|unavailable| no_token(&unavailable, now - began))?;
        self.ensure_client(is_safe).await?;
        Ok(token)
    }

    /// Rejects a token without the scopes of the route, where `missing_scopes` says so.
    pub(super) fn refuse_missing_scopes(&self, token: &Bearer) -> Result<(), Rejection> {
        match self.route.lacking(token) {
            Some(scopes) => Err(missing_scopes(&scopes)),
            None => Ok(()),
        }
    }

    /// Attaches a new proof for this try: an upstream refuses one that it has seen.
    fn attach_proof(&self, key: &BoundKey, request: &mut Request<Body>) -> Result<(), Rejection> {
        let proof = key.prove(request.method(), &self.upstream.origin, request.uri().path());
        let proof =
            proof.map_err(|error| Rejection::new(Code::Internal, format!("dpop: {error}")))?;
        self.proof.set(Some(Box::new(proof.clone())));
        request.headers_mut().insert(DPOP, proof);
        Ok(())
    }

    /// Notes for the access log that a connection gets the request, and returns the time.
    fn record_sending(
        &self,
        connection: &impl SendRequest,
        bearer: Option<&Arc<Bearer>>,
    ) -> Instant {
        let (now, address) = (Instant::now(), connection.peer_address());
        self.scope.record(|record| record.sending(now, bearer, address));
        now
    }

    /// Waits for the response within `timeouts.response`; `None` when that has passed. The clock starts
    /// again with each piece of the request's body, since an upstream need not answer before it has the
    /// whole request.
    fn in_time<F: Future>(
        &self,
        mut sending: Pin<&mut F>,
        started: Instant,
        progress: Option<&Cell<BodyProgress>>,
    ) -> impl Future<Output = Option<F::Output>> {
        async move {
            let mut deadline = started + self.upstream.response_timeout;
            loop {
                if let Ok(sent) = timeout_at(deadline, sending.as_mut()).await {
                    return Some(sent);
                }
                let active = match progress?.get() {
                    // The app owes the next piece of its body, which has an idle timeout of its own.
                    progress if progress.is_awaited => Instant::now(),
                    progress => progress.last_frame,
                };
                let extended = active + self.upstream.response_timeout;
                // Nothing has moved since the deadline was set.
                if extended <= deadline {
                    return None;
                }
                deadline = extended;
            }
        }
    }

    /// Attaches the current token to a request that is sent again: the one it had may have expired in
    /// the meantime. `None` if there is no usable one.
    fn refresh_token<'a>(
        &self,
        replay: &'a mut Replay,
        token: &mut Option<TokenGuard>,
    ) -> Option<&'a Replay> {
        if let (Some(reader), Some(held)) = (&self.route.token, token) {
            let now = Moment::now();
            match reader.usable(now) {
                Some(current) if self.route.lacking(&current).is_none() => *held = current,
                // A renewal that hands over still waits for this request, and its token with it.
                None if held.is_usable(now) && reader.holds(held.generation()) => {}
                _ => return None,
            }
            replay.attach(held);
        }
        Some(replay)
    }

    /// A body of this exchange with the limits of its plan. `bearer` is the token that no trailer of a
    /// response may repeat.
    pub fn limit_body<O: BodyObserver>(
        &self,
        body: Body,
        max_bytes: u64,
        observer: O,
        bearer: Option<Arc<Bearer>>,
    ) -> LimitedBody<O, impl FnMut(HeaderMap) -> HeaderMap + use<O>> {
        let (route, grpc) = (Arc::clone(&self.route), self.grpc);
        let filter = move |trailers| {
            let token = bearer.as_ref().map(|bearer| bearer.token_bytes());
            headers::filter_trailers(trailers, &route.header_policy.trailers, token, grpc)
        };
        LimitedBody::new(body, max_bytes, self.upstream.body_idle_timeout, observer, filter)
    }

    /// Bounds the request's body; `None` for a request without one.
    fn limit_request_body(&self, request: &mut Request<Body>) -> Option<Rc<Cell<BodyProgress>>> {
        // One that was read before it is sent has been bounded and counted.
        if request.body().is_whole() || request.body().is_end_stream() {
            return None;
        }
        let body = std::mem::take(request.body_mut());
        let max_bytes = self.scope.plan().limits.max_request_body;
        let (body, progress) = self
            .limit_body(body, max_bytes, RequestBodyScope(self.scope.clone()), None)
            .with_progress();
        *request.body_mut() = Body::boxed(body);
        Some(progress)
    }

    /// The failed try for a send error, which is counted.
    fn failed(
        &self,
        error: &SendError,
        progress: Option<&Cell<BodyProgress>>,
        may_repeat: bool,
    ) -> FailedTry {
        let max_body = self.scope.plan().limits.max_request_body;
        let rejection = match (progress.and_then(|body| body.get().error), &error.kind) {
            (Some(limit), _) => incomplete_body(limit, max_body, self.upstream.body_idle_timeout),
            (None, SendErrorKind::Connect(error)) => not_connected(error),
            (None, SendErrorKind::Overloaded) => {
                Rejection::new(Code::Overloaded, error.to_string())
                    .retry_after(OVERLOADED_RETRY_AFTER)
            }
            (None, SendErrorKind::TlsAlert(_)) => {
                let alert = ConnectFailure {
                    proxy_error: "tls_alert_received",
                    egress_answer: None,
                    hint: None,
                    is_local: false,
                };
                Rejection::new(Code::UpstreamReset, error.to_string()).about_connect(alert)
            }
            (None, _) => Rejection::new(Code::UpstreamReset, error.to_string()),
        };
        if rejection.concerns_upstream() || rejection.code == Code::Overloaded {
            self.route.metrics.upstream_error(UpstreamErrorReason::from(&error.kind));
        }
        FailedTry { rejection: rejection.forwarded(error.forwarded), may_repeat }
    }

    /// The rejection of a request whose client has gone, so that it is not sent.
    fn client_left(&self) -> Rejection {
        self.scope.record(|record| {
            let forwarded = record.first_answer().map_or(Forwarded::No, |_| Forwarded::Yes);
            Rejection::new(Code::ClientLeft, record.left_unsent()).forwarded(forwarded)
        })
    }

    fn timed_out(&self) -> FailedTry {
        self.route.metrics.upstream_error(UpstreamErrorReason::Timeout);
        let detail = format!(
            "no answer within timeouts.response, {:?}; the upstream may have acted on the request",
            self.upstream.response_timeout
        );
        let rejection = Rejection::new(Code::UpstreamTimeout, detail);
        FailedTry { rejection: rejection.forwarded(Forwarded::Unknown), may_repeat: false }
    }
}

/// The rejection of a request whose body did not arrive whole.
pub(super) fn incomplete_body(error: LimitError, max_body: u64, idle: Duration) -> Rejection {
    match error {
        LimitError::TooLarge => Rejection::body_too_large(max_body),
        LimitError::Idle => Rejection::new(
            Code::RequestTimeout,
            format!("the app sent no byte of the request's body for timeouts.idle, {idle:?}"),
        ),
        LimitError::Aborted => Rejection::new(
            Code::RequestAborted,
            "the app closed its connection in the middle of the request's body, or sent a malformed one",
        ),
    }
}

/// The rejection for scopes that the token lacks. They can change only with the next token.
fn missing_scopes(scopes: &str) -> Rejection {
    let detail =
        format!("the token server has not granted: {scopes}; missing_scopes is \"refuse\"");
    Rejection::new(Code::TokenUnavailable, detail).retry_after(Duration::from_secs(30))
}

/// The rejection for a token that is not there.
fn no_token(unavailable: &TokenUnavailable, waited: Duration) -> Rejection {
    let code = match unavailable.reason {
        UnavailableReason::BudgetSpent => Code::TokenBudget,
        UnavailableReason::Pending
        | UnavailableReason::Failing(_)
        | UnavailableReason::HandingOver => Code::TokenUnavailable,
    };
    let waited = match waited.as_secs() {
        0 => String::new(),
        _ => format!("; the request waited {:.1} s for one (timeouts.wait)", waited.as_secs_f64()),
    };
    Rejection::new(code, format!("no usable token: {unavailable}{waited}"))
        .retry_after(unavailable.retry_after)
}

/// The rejection of a request for which no connection could be made. The remedies of TLS and of a limit of
/// this process are told to the app too, since few of their errors explain themselves; those of networks
/// are for the operator, in the log and `check --live`.
fn not_connected(failure: &ConnectError) -> Rejection {
    let is_local = failure.is_local();
    let remedy = failure.hint().filter(|_| is_local || failure.phase == ConnectPhase::Tls);
    let remedy = remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default();
    Rejection::new(Code::Connect, format!("{failure}{remedy}")).about_connect(ConnectFailure {
        proxy_error: failure.proxy_error(),
        egress_answer: failure.proxy_answer().map(str::to_owned),
        hint: failure.hint().map(str::to_owned),
        is_local,
    })
}
