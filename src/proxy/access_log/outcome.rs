//! The outcome of a request, counted in the metrics and noted in the state of its route and upstream.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Response, StatusCode};
use http_body::Body as _;
use tokio::time::Instant;

use super::{AccessRecord, AnswerRecord, UNDELIVERED};
use crate::body::Body;
use crate::oauth::{Scope, ScopeSet};
use crate::proxy::headers::challenge::{Challenge, RenewOn, challenged_scope, classify_challenge};
use crate::proxy::history::{RefusalRecord, RequestHistory, UnsafeRequestRecord};
use crate::proxy::policy::metrics::ProxyMetrics;
use crate::proxy::policy::plan::RoutePlan;
use crate::proxy::problem::problem;
use crate::proxy::rejection::{Code, Rejection};
use crate::proxy::request::retry::is_safe;
use crate::proxy::request_id::{BEARER_PROXY_REQUEST_ID, X_REQUEST_ID};
use crate::upstream::{Failure, Forwarded};

impl AccessRecord {
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
        self.wait_ended(now);
        let after = now.saturating_duration_since(self.started);
        let (mut response, answer) = match outcome {
            Ok(response) => {
                self.forwarded = Forwarded::Yes;
                let detail = self.note_answer(&response, now);
                let refused = detail.is_some();
                let body = response.body();
                let complete = Some(body.is_end_stream() || body.is_whole());
                let status = response.status();
                let record = AnswerRecord {
                    status,
                    code: None,
                    detail,
                    after,
                    complete,
                    broke_off: false,
                    refused,
                };
                (response, record)
            }
            Err(rejection) => {
                metrics.rejected(rejection.code);
                self.note_failure(&rejection, metrics.history());
                self.forwarded = rejection.forwarded;
                let response = problem(&rejection, self.id.as_str());
                let record = AnswerRecord::rejection(rejection.code, rejection.detail, after);
                (response, record)
            }
        };
        if let Some((_, route)) = &self.route {
            if answer.code.is_none() {
                route.metrics.overhead(self.own_time(after));
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
        let challenge = response.headers().get(WWW_AUTHENTICATE);
        let challenge = upstream.challenged(status, challenge.map(HeaderValue::as_bytes));
        let refusal = match classify_challenge(response, RenewOn::default(), route.dpop.is_some()) {
            Challenge::InsufficientScope => {
                let scope = challenged_scope(response);
                let lacking = self.lacking(&scope);
                let lacking = upstream.lacks_scope(&route.name, &scope, lacking);
                route.metrics.route().lacks_scope(lacking);
                Some("the upstream says that the token lacks a scope (insufficient_scope)".into())
            }
            Challenge::InvalidToken => Some("the upstream does not accept the token".into()),
            Challenge::Proof => Some("the upstream does not accept the proof of DPoP".into()),
            Challenge::None | Challenge::Other => None,
        };
        let is_limit = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::FORBIDDEN)
            && upstream.rate_limited(status, response.headers());
        if status == StatusCode::UNAUTHORIZED || status.is_server_error() {
            let says = challenge.map(|challenge| format!(" and {challenge}")).unwrap_or_default();
            let detail = format!("the upstream answered with status {}{says}", status.as_u16());
            let failure = Failure {
                code: "upstream_status",
                detail: &detail,
                forwarded: Forwarded::Yes,
                status: Some(status),
                hint: None,
            };
            route.metrics.failed(&self.method, &failure);
            if status.is_server_error() {
                route.metrics.server_errors.inc();
                return Some(detail.into());
            }
        }
        refusal.or(is_limit.then_some("the upstream wants fewer requests (rate limit)".into()))
    }

    /// Those of some scopes that the token of the request does not have, separated by spaces.
    fn lacking(&self, scopes: &[u8]) -> String {
        let scopes = str::from_utf8(scopes).ok().and_then(|scopes| ScopeSet::parse(scopes).ok());
        let Some(((scopes, bearer), (_, route))) =
            scopes.zip(self.bearer.as_ref()).zip(self.route.as_ref())
        else {
            return String::new();
        };
        // RFC 6749 section 5.1: a server that does not name the granted scopes has granted the requested
        // ones.
        let granted = bearer.granted().unwrap_or(&route.scopes);
        let lacking: Vec<_> = scopes.missing_from(granted).into_iter().map(Scope::as_str).collect();
        lacking.join(" ")
    }

    /// Notes a failed exchange in the state of its upstream, and each refusal among the recent ones.
    fn note_failure(&self, rejection: &Rejection, history: &RequestHistory) {
        let is_run = history.refused(|| {
            let route = self.route.as_ref();
            let upstream = route.map(|(upstream, _)| upstream.connection.name.to_string());
            RefusalRecord {
                at: SystemTime::now(),
                code: rejection.code,
                upstream: upstream.unwrap_or_default(),
                route: route.map(|(_, route)| route.name.to_string()).unwrap_or_default(),
                detail: rejection.detail.to_string(),
                method: self.method.clone(),
                forwarded: rejection.forwarded.as_str(),
                path: self.unclaimed_path.as_deref().unwrap_or_default().to_owned(),
                peer: self.peer.to_string(),
                request_id: self.id.as_str().to_owned(),
            }
        });
        // What the proxy or an upstream did is a warning with each request, and apps may leave.
        if is_run {
            tracing::warn!(
                code = rejection.code.as_str(),
                request_id = self.id.as_str(),
                detail = &*rejection.detail,
                "requests are refused: ten of this code within ten seconds"
            );
        }
        if let Some((_, route)) = self.route.as_ref().filter(|_| rejection.concerns_upstream()) {
            let Rejection { code, detail, forwarded, .. } = rejection;
            let (code, forwarded) = (code.as_str(), *forwarded);
            let hint = rejection.connect.as_ref().and_then(|failure| failure.hint.as_deref());
            let failure = Failure { code, detail, forwarded, status: None, hint };
            route.metrics.failed(&self.method, &failure);
        }
    }

    /// The outcome of a request that was dropped before its response, which is counted: by a shutdown, or
    /// because the client has left.
    pub(super) fn cut_short(&self, by_shutdown: bool) -> AnswerRecord {
        let code = if by_shutdown { Code::CutByShutdown } else { Code::ClientLeft };
        let waits_to_repeat = self.first_answer.is_some() && self.waits_since.is_some();
        let detail: Cow<'static, str> = match (code, self.forwarded) {
            (Code::ClientLeft, Forwarded::Yes) if waits_to_repeat => self.left_unsent().into(),
            (Code::ClientLeft, Forwarded::Yes | Forwarded::Unknown) => {
                "the client closed its connection while the upstream's answer was awaited".into()
            }
            (Code::ClientLeft, Forwarded::No) => self.left_unsent().into(),
            _ => format!("{}, and the app got no answer", code.title()).into(),
        };
        let after = self.started.elapsed();
        // Nothing is waited for before a route is found, so that a request without one is not dropped.
        if let Some((_, route)) = &self.route {
            let metrics = route.metrics.of_all();
            metrics.rejected(code);
            let rejection = Rejection::new(code, detail.clone()).forwarded(self.forwarded);
            self.note_failure(&rejection, metrics.history());
            self.count_answer(route, code.status(), after, metrics.history());
        }
        AnswerRecord::rejection(code, detail, after)
    }

    /// Counts a request with an unsafe method that somebody must follow up: the upstream answered, and the
    /// app did not get the whole answer, so that it may not know of a payment; or it is not known whether the
    /// upstream acted.
    pub(super) fn count_unsettled(&self, answer: &AnswerRecord) {
        let Some((upstream, route)) = &self.route else { return };
        let is_unknown = self.forwarded == Forwarded::Unknown;
        if is_safe(&self.method) || !(is_unknown || self.is_undelivered()) {
            return;
        }
        let history = route.metrics.of_all().history();
        let record = UnsafeRequestRecord {
            at: SystemTime::now(),
            method: self.method.clone(),
            upstream: upstream.connection.name.to_string(),
            route: route.name.to_string(),
            status: answer.status.as_u16(),
            detail: answer.detail.as_deref().unwrap_or(UNDELIVERED).to_owned(),
            peer: self.peer.to_string(),
            request_id: self.id.as_str().to_owned(),
        };
        if is_unknown {
            route.metrics.forwarded_unknown.inc();
            history.unknown(record);
        } else {
            route.metrics.undelivered.inc();
            history.undelivered(record);
        }
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
}
