//! The access log: one line a request, as far as the settings ask for it, written when its fate is
//! known.
//!
//! No path, no query, no header values: the name and the pattern of the route say what was asked.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use tokio::time::Instant;

use super::headers::FieldClass;
use super::headers::challenge::{Challenge, RenewOn, challenged_scope, classify_challenge};
use super::history::{RefusalRecord, RequestHistory};
use super::policy::metrics::{ProxyMetrics, UpstreamErrorReason};
use super::policy::plan::{RoutePlan, UpstreamPlan};
use super::problem::problem;
use super::rejection::{Code, Rejection};
use super::request::retry::is_safe;
use super::request_id::{BEARER_PROXY_REQUEST_ID, RequestId, X_REQUEST_ID};
use super::requests::{RequestInFlight, RequestPhase};
use crate::body::{Body, BodyError, Delivery};
use crate::server::{ShutdownPhase, StopSignal};
use crate::telemetry::begin;
use crate::telemetry::log::{AccessLog, BeginLog, RequestLog};
use crate::token::Bearer;
use crate::upstream::Forwarded;

/// The record of a request for its line in the access log. The line is written when the record is
/// dropped: then both bodies have ended, and the outcome of the request is known.
pub struct AccessRecord {
    started: Instant,
    method: Method,
    client: Option<Arc<str>>,
    id: RequestId,
    log: RequestLog,
    stop: StopSignal,
    route: Option<(Arc<UpstreamPlan>, Arc<RoutePlan>)>,
    /// The fate of the request at the upstream, as far as it is known.
    forwarded: Forwarded,
    /// The fate of the attempts before the current one.
    forwarded_before: Forwarded,
    /// The phase of the request until it is sent.
    waits_for: RequestPhase,
    /// The begin of the present wait before it is sent; `None` while there is none.
    waits_since: Option<Instant>,
    /// Time spent in such waits: for the rest of a body, a token, or a connection.
    waited: Duration,
    /// Number of connections that got the request.
    attempts: u32,
    /// Time when the current attempt got its connection; `None` before and after an attempt.
    sent_at: Option<Instant>,
    /// Time spent waiting for the upstream, in all attempts.
    upstream_time: Duration,
    upstream_address: Option<SocketAddr>,
    /// The token that it carried last.
    bearer: Option<Arc<Bearer>>,
    /// Bytes of the request's body that were received from the app.
    bytes_in: u64,
    /// Bytes of the response's body that were sent to the app.
    bytes_out: u64,
    answer: Option<AnswerRecord>,
    delivery: Option<Delivery>,
}

/// The response that the app was given.
struct AnswerRecord {
    status: StatusCode,
    /// The code of a rejection.
    code: Option<Code>,
    /// The detail of the rejection, or the error that ended the response early.
    detail: Option<Cow<'static, str>>,
    /// Time from the head of the request to that of the response.
    after: Duration,
    /// True if the upstream's response was read to its end; `None` for a rejection, and if the app left
    /// before it got any of the response, which then was not read either.
    complete: Option<bool>,
    /// True if the upstream broke it off, or let it rest for too long. An app that leaves in the middle
    /// makes an answer incomplete too, and is no fault of anybody's.
    broke_off: bool,
    /// True if the upstream answered that it failed, that it does not accept the token, or that it wants
    /// fewer requests.
    refused: bool,
}

impl AccessRecord {
    /// Opens a record; `fields` are the classes of the request's fields. `stop` tells whether a
    /// shutdown has ended a request early.
    pub fn new<B>(
        request: &Request<B>,
        fields: FieldClass,
        log: RequestLog,
        stop: StopSignal,
    ) -> Self {
        Self {
            started: Instant::now(),
            method: request.method().clone(),
            id: RequestId::of(request.headers(), fields),
            log,
            stop,
            client: None,
            route: None,
            forwarded: Forwarded::No,
            forwarded_before: Forwarded::No,
            waits_for: RequestPhase::Received,
            waits_since: None,
            waited: Duration::ZERO,
            attempts: 0,
            sent_at: None,
            upstream_time: Duration::ZERO,
            upstream_address: None,
            bearer: None,
            bytes_in: 0,
            bytes_out: 0,
            answer: None,
            delivery: None,
        }
    }

    /// The request's method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The request's id.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// The request as operators see it while it is in flight.
    pub fn in_flight(&self) -> RequestInFlight {
        let phase = match (&self.answer, self.sent_at) {
            (Some(_), _) => RequestPhase::Answering,
            (None, Some(_)) => RequestPhase::Sent,
            (None, None) => self.waits_for,
        };
        let route = self.route.as_ref();
        RequestInFlight {
            request_id: self.id.as_str().to_owned(),
            method: self.method.as_str().to_owned(),
            upstream: route
                .map(|(upstream, _)| upstream.connection.name.to_string())
                .unwrap_or_default(),
            route: route.map(|(_, route)| route.name.to_string()).unwrap_or_default(),
            client: self.client.as_deref().unwrap_or_default().to_owned(),
            age: self.started.elapsed(),
            phase,
        }
    }

    /// Notes what the request waits for before it is sent.
    pub fn waits_for(&mut self, phase: RequestPhase) {
        self.waits_for = phase;
        self.waits_since.get_or_insert_with(Instant::now);
    }

    /// Notes that what the request waited for has come, or never will.
    pub fn wait_ended(&mut self, now: Instant) {
        if let Some(since) = self.waits_since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }

    /// Notes the client that sent the request.
    pub fn client(&mut self, name: &Arc<str>) {
        self.client = Some(Arc::clone(name));
    }

    /// Notes the route that claimed the request.
    pub fn routed(&mut self, upstream: &Arc<UpstreamPlan>, route: &Arc<RoutePlan>) {
        self.route = Some((Arc::clone(upstream), Arc::clone(route)));
    }

    /// Notes that the request is handed to a connection: from now on the upstream may see it.
    pub fn sending(&mut self, now: Instant, bearer: Option<&Arc<Bearer>>, to: Option<SocketAddr>) {
        // Before the first byte: should this task be dropped in the middle of the write, the record must
        // not claim that nothing was sent.
        self.forwarded = Forwarded::Unknown;
        self.wait_ended(now);
        self.attempts += 1;
        self.sent_at = Some(now);
        self.bearer = bearer.cloned();
        self.upstream_address = to;
        if self.log.begin == BeginLog::Unsafe && !is_safe(&self.method) {
            self.write_begin();
        }
    }

    /// Puts on record that the request is about to be sent.
    fn write_begin(&self) {
        let Some((upstream, route)) = &self.route else { return };
        tracing::info!(
            target: begin::TARGET,
            request_id = self.id.as_str(),
            method = self.method.as_str(),
            upstream = &*upstream.connection.name,
            route = &*route.name,
            path = &*route.path,
            client = self.client.as_deref().unwrap_or(""),
            attempt = self.attempts,
            upstream_addr = self.upstream_address.map(tracing::field::display),
            token = self.bearer.as_ref().map(|bearer| bearer.fingerprint()),
            "sending"
        );
    }

    /// Notes that an attempt has ended, by an answer's head or otherwise.
    pub fn attempt_ended(&mut self, now: Instant) {
        if let Some(sent_at) = self.sent_at.take() {
            self.upstream_time += now.saturating_duration_since(sent_at);
        }
    }

    /// Notes that an attempt got no answer, and whether the upstream may have seen the request.
    pub fn attempt_failed(&mut self, now: Instant, forwarded: Forwarded) {
        self.attempt_ended(now);
        // For `returned`: a second attempt that sent nothing does not undo what this one may have done.
        self.forwarded_before = forwarded;
    }

    /// Notes that hyper gave the request back: the connection had died, and this attempt sent nothing.
    pub fn returned(&mut self) {
        // An earlier attempt may have reached the upstream, which this one cannot undo.
        self.forwarded = self.forwarded_before;
        // Counted by `sending`, which came first for the reason given there.
        self.attempts -= 1;
        self.sent_at = None;
    }

    /// Counts bytes of the request's body.
    pub fn received(&mut self, bytes: u64) {
        self.bytes_in += bytes;
    }

    /// Counts bytes of the answer's body.
    pub fn answered(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    /// Notes that the upstream's answer came to its end.
    pub fn completed(&mut self) {
        if let Some(answer) = &mut self.answer {
            answer.complete = Some(true);
        }
    }

    /// Notes that the upstream's answer broke off, and counts it as an error of the upstream.
    pub fn cut(&mut self, why: &BodyError) {
        // The body of an answer is read only after its head was recorded.
        let Some(answer) = &mut self.answer else { return };
        answer.broke_off = true;
        answer.detail.get_or_insert_with(|| {
            format!("the upstream's answer broke off: {}", why.reason()).into()
        });
        if let Some((_, route)) = &self.route {
            route.metrics.upstream_error(UpstreamErrorReason::Reset);
            let code = Code::UpstreamReset.as_str();
            let detail = answer.detail.as_deref().unwrap_or_default();
            route.metrics.upstream().failed(code, detail);
            route.metrics.route().failed(&self.method, code, detail, Forwarded::Yes);
        }
    }

    /// Notes how much of the answer the app was given.
    pub fn delivered(&mut self, delivery: Delivery) {
        self.delivery = Some(delivery);
    }

    /// Counts the outcome, and returns the response to send. Only the first outcome of a request counts.
    pub fn end(
        &mut self,
        outcome: Result<Response<Body>, Rejection>,
        metrics: &ProxyMetrics,
    ) -> Response<Body> {
        let outcome = match outcome {
            // The exchange of an unsafe request has recorded it in its own task.
            Ok(response) if self.answer.is_some() => return response,
            outcome => outcome,
        };
        let now = Instant::now();
        self.attempt_ended(now);
        let after = now.saturating_duration_since(self.started);
        let (mut response, answer) = match outcome {
            Ok(response) => {
                self.forwarded = Forwarded::Yes;
                let detail = self.note_answer(&response, now);
                let refused = detail.is_some();
                let body = response.body();
                let complete = Some(body.is_end_stream() || body.is_whole());
                let status = response.status();
                (
                    response,
                    AnswerRecord {
                        status,
                        code: None,
                        detail,
                        after,
                        complete,
                        broke_off: false,
                        refused,
                    },
                )
            }
            Err(rejection) => {
                metrics.rejected(rejection.code);
                self.note_failure(&rejection, metrics.history());
                self.forwarded = rejection.forwarded;
                let response = problem(&rejection, self.id.as_str());
                let (code, detail) = (Some(rejection.code), Some(rejection.detail));
                let status = response.status();
                (
                    response,
                    AnswerRecord {
                        status,
                        code,
                        detail,
                        after,
                        complete: None,
                        broke_off: false,
                        refused: false,
                    },
                )
            }
        };
        if let Some((_, route)) = &self.route {
            if answer.code.is_none() {
                route.metrics.overhead(after.saturating_sub(self.upstream_time + self.waited));
            }
            self.count_answer(route, response.status(), after, metrics.history());
        }
        // Streaming bodies are counted frame by frame.
        if response.body().is_whole() {
            self.bytes_out = response.body().size_hint().exact().unwrap_or(0);
        }
        self.answer = Some(answer);
        let headers = response.headers_mut();
        // An upstream may send an id of its own, which its support will ask for.
        headers.entry(X_REQUEST_ID).or_insert_with(|| self.id.value().clone());
        headers.insert(BEARER_PROXY_REQUEST_ID, self.id.value().clone());
        response
    }

    /// Notes a response in the state of its upstream. Returns what an operator must know of it: that the
    /// upstream failed, does not accept the token, or wants fewer requests.
    fn note_answer(&self, response: &Response<Body>, now: Instant) -> Option<Cow<'static, str>> {
        let (_, route) = self.route.as_ref()?;
        let (upstream, status) = (route.metrics.upstream(), response.status());
        upstream.answered(now, status);
        if status != StatusCode::UNAUTHORIZED && !status.is_server_error() {
            route.metrics.route().answered(&self.method, status);
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let challenge = response.headers().get(WWW_AUTHENTICATE);
            upstream.challenged(status, challenge.map(HeaderValue::as_bytes));
        }
        let refusal = match classify_challenge(response, RenewOn::default(), route.dpop.is_some()) {
            Challenge::InsufficientScope => {
                let lacking = upstream.lacks_scope(&route.name, &challenged_scope(response));
                route.metrics.route().lacks_scope(lacking);
                Some("the upstream says that the token lacks a scope (insufficient_scope)".into())
            }
            Challenge::InvalidToken => Some("the upstream does not accept the token".into()),
            Challenge::Proof => Some("the upstream does not accept the proof of DPoP".into()),
            Challenge::None | Challenge::Other => None,
        };
        let is_limit = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::FORBIDDEN)
            && upstream.rate_limited(status, response.headers());
        let detail = || format!("the upstream answered with status {}", status.as_u16());
        let failed = |detail: &str| {
            let forwarded = Forwarded::Yes;
            route.metrics.route().failed(&self.method, "upstream_status", detail, forwarded);
        };
        if status == StatusCode::UNAUTHORIZED {
            failed(&detail());
        } else if status.is_server_error() {
            let detail = detail();
            upstream.failed("upstream_status", &detail);
            route.metrics.server_errors.inc();
            failed(&detail);
            return Some(detail.into());
        }
        refusal.or(is_limit.then_some("the upstream wants fewer requests (rate limit)".into()))
    }

    /// Notes a failed exchange in the state of its upstream, and each refusal among the recent ones.
    fn note_failure(&self, rejection: &Rejection, history: &RequestHistory) {
        let is_run = history.refused(|| {
            let route = self.route.as_ref();
            let upstream = route.map(|(upstream, _)| upstream.connection.name.to_string());
            RefusalRecord {
                at: SystemTime::now(),
                code: rejection.code.as_str(),
                upstream: upstream.unwrap_or_default(),
                route: route.map(|(_, route)| route.name.to_string()).unwrap_or_default(),
                detail: rejection.detail.to_string(),
                request_id: self.id.as_str().to_owned(),
            }
        });
        // What the proxy or an upstream did is a warning with each request, and apps may leave.
        if is_run && rejection.code.status().is_client_error() && rejection.code != Code::ClientLeft
        {
            tracing::warn!(
                code = rejection.code.as_str(),
                request_id = self.id.as_str(),
                detail = &*rejection.detail,
                "requests are refused: ten of this code within ten seconds"
            );
        }
        if let Some((_, route)) = self.route.as_ref().filter(|_| rejection.concerns_upstream()) {
            let (code, detail) = (rejection.code.as_str(), &rejection.detail);
            route.metrics.upstream().failed(code, detail);
            route.metrics.route().failed(&self.method, code, detail, rejection.forwarded);
        }
    }

    /// The outcome of a request that was dropped before its response, which is counted: by a shutdown, or
    /// because the client has left.
    fn cut_short(&self, by_shutdown: bool) -> AnswerRecord {
        let code = if by_shutdown { Code::CutByShutdown } else { Code::ClientLeft };
        let detail = match (code, self.forwarded) {
            (Code::ClientLeft, Forwarded::Yes | Forwarded::Unknown) => {
                "the client closed its connection while the upstream's answer was awaited"
            }
            (Code::ClientLeft, Forwarded::No) => {
                "the client closed its connection before the request was sent"
            }
            _ => code.title(),
        };
        let after = self.started.elapsed();
        // Nothing is waited for before a route is found, so that a request without one is not dropped.
        if let Some((_, route)) = &self.route {
            let metrics = route.metrics.of_all();
            metrics.rejected(code);
            self.note_failure(&Rejection::new(code, detail), metrics.history());
            self.count_answer(route, code.status(), after, metrics.history());
        }
        AnswerRecord {
            status: code.status(),
            code: Some(code),
            detail: Some(detail.into()),
            after,
            complete: None,
            broke_off: false,
            refused: false,
        }
    }

    /// True if the upstream answered, and the app did not get the whole answer.
    fn is_undelivered(&self) -> bool {
        self.forwarded == Forwarded::Yes && self.delivery != Some(Delivery::Complete)
    }

    /// Counts an answer of a route, whoever made it.
    fn count_answer(
        &self,
        route: &RoutePlan,
        status: StatusCode,
        after: Duration,
        history: &RequestHistory,
    ) {
        route.metrics.answered(&self.method, status, after);
        history.answered(self.started + after, status.is_server_error());
    }

    fn write(&self, answer: &AnswerRecord) {
        let AnswerRecord { status, code, detail, after, complete, broke_off, refused } = answer;
        let unsafe_method = !is_safe(&self.method);
        let client_left = *code == Some(Code::ClientLeft);
        // An answer that concerns the token which it carried, or a limit: no plain 4xx.
        let refused_us =
            *refused && (self.bearer.is_some() || *status == StatusCode::TOO_MANY_REQUESTS);
        let failed =
            status.is_server_error() || code.is_some() && !client_left || *broke_off || refused_us;
        let wanted = match self.log.access {
            AccessLog::Off => false,
            AccessLog::Errors => failed,
            AccessLog::ErrorsAndUnsafe => failed || unsafe_method,
            AccessLog::All => true,
        };
        if !wanted {
            return;
        }
        let (upstream, route) = match &self.route {
            Some((upstream, route)) => (&*upstream.connection.name, Some(route)),
            None => ("", None),
        };
        let delivered = match self.delivery {
            Some(Delivery::Complete) => "yes",
            Some(Delivery::Partial) => "partly",
            None => "no",
        };
        // The upstream has acted without the app knowing, or it is unknown whether it has acted.
        let unsettled =
            unsafe_method && (self.forwarded == Forwarded::Unknown || self.is_undelivered());
        let undelivered = self.is_undelivered();
        let detail = detail.as_deref().or_else(|| {
            undelivered.then_some("the app did not get the whole answer of the upstream")
        });
        // A macro, since a `tracing` event has its level and its fields at compile time.
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "bearer_proxy::access",
                    request_id = self.id.as_str(),
                    method = self.method.as_str(),
                    upstream,
                    route = route.map_or("", |route| &*route.name),
                    path = route.map(|route| &*route.path),
                    client = self.client.as_deref().unwrap_or(""),
                    status = status.as_u16(),
                    code = code.map_or("", Code::as_str),
                    forwarded = self.forwarded.as_str(),
                    delivered,
                    complete = *complete,
                    bytes_in = self.bytes_in,
                    bytes_out = self.delivery.map_or(0, |_| self.bytes_out),
                    attempts = self.attempts,
                    upstream_addr = self.upstream_address.map(tracing::field::display),
                    token = self.bearer.as_ref().map(|bearer| bearer.fingerprint()),
                    upstream_ms = milliseconds(self.upstream_time),
                    proxy_ms = milliseconds(after.saturating_sub(self.upstream_time)),
                    duration_ms = milliseconds(self.started.elapsed()),
                    detail,
                    "request"
                )
            };
        }
        if unsettled || *broke_off || *refused || code.is_some_and(Code::needs_operator) {
            line!(warn);
        } else {
            line!(info);
        }
    }
}

/// Milliseconds, rounded to microseconds.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// Writes the line. In `drop`, so that each request leaves its line however it ends: the last holder
/// of the record is the body, the exchange or the connection, whichever is dropped last.
impl Drop for AccessRecord {
    fn drop(&mut self) {
        // An attempt whose task was dropped has waited for the upstream until now.
        self.attempt_ended(Instant::now());
        // Asked at the end and not when the response was made: a response that was complete for hyper may
        // still be in our buffers when a second signal ends the program.
        let aborting = self.stop.phase() == ShutdownPhase::Aborting;
        let mut answer = self.answer.take().unwrap_or_else(|| self.cut_short(aborting));
        if self.delivery.is_none() && !answer.broke_off {
            // It was not read to its end because nobody was there to get it, which says nothing about it.
            answer.complete = answer.complete.filter(|complete| *complete);
        }
        // A shutdown has cut the response of an upstream.
        if aborting && answer.code.is_none() && self.delivery != Some(Delivery::Complete) {
            answer.code = Some(Code::CutByShutdown);
            answer.detail.get_or_insert_with(|| Code::CutByShutdown.title().into());
        }
        if let Some((_, route)) = &self.route
            && self.is_undelivered()
            && !is_safe(&self.method)
        {
            route.metrics.undelivered.inc();
        }
        self.write(&answer);
    }
}
