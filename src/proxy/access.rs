//! The access log: one line a request, as far as the settings ask for it. No path, no query, no
//! header values: the route's name says what was asked.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use tokio::time::Instant;

use super::answer::REQUEST_ID;
use super::plan::{RoutePlan, UpstreamPlan};
use super::rejection::{Forwarded, Rejection};
use super::routed::is_safe;
use crate::telemetry::log::AccessLog;

/// The id of a request: the app's own where it is fit to be logged, else made when first needed.
pub struct RequestId {
    accepted: Option<String>,
    made: std::cell::OnceCell<String>,
}

impl RequestId {
    /// Longest id that is accepted, in bytes.
    const MAX_BYTES: usize = 128;

    /// Takes the id from `X-Request-Id`, if it is printable and short.
    pub fn of(headers: &HeaderMap) -> Self {
        let accepted = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(|id| {
            !id.is_empty()
                && id.len() <= Self::MAX_BYTES
                && id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
        });
        Self { accepted: accepted.map(str::to_owned), made: std::cell::OnceCell::new() }
    }

    /// The id's text.
    pub fn text(&self) -> &str {
        match &self.accepted {
            Some(accepted) => accepted,
            None => self.made.get_or_init(|| format!("{:032x}", fastrand::u128(..))),
        }
    }
}

/// What is known of a request when its line is written.
pub struct AccessRecord {
    started: Instant,
    method: Method,
    client: Option<Arc<str>>,
    route: Option<(Arc<UpstreamPlan>, Arc<RoutePlan>)>,
    rejection: Option<(&'static str, Forwarded)>,
}

impl AccessRecord {
    /// Begins a record.
    pub fn new(started: Instant, method: Method) -> Self {
        Self { started, method, client: None, route: None, rejection: None }
    }

    /// The request's method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Notes the client that sent the request.
    pub fn client(&mut self, name: &Arc<str>) {
        self.client = Some(Arc::clone(name));
    }

    /// Notes the route that claimed the request.
    pub fn routed(&mut self, upstream: &Arc<UpstreamPlan>, route: &Arc<RoutePlan>) {
        self.route = Some((Arc::clone(upstream), Arc::clone(route)));
    }

    /// Notes that the answer is ours.
    pub fn rejected(&mut self, rejection: &Rejection) {
        self.rejection = Some((rejection.code.as_str(), rejection.forwarded));
    }

    /// Counts the answer and writes the line, if one is wanted.
    pub fn finish(self, status: StatusCode, id: &RequestId, access: AccessLog) {
        let elapsed = self.started.elapsed();
        if let Some((_, route)) = &self.route {
            route.metrics.answered(&self.method, status, elapsed);
        }
        let failed = self.rejection.is_some() || status.is_server_error();
        let wanted = match access {
            AccessLog::Off => false,
            AccessLog::Errors => failed,
            AccessLog::ErrorsAndUnsafe => failed || !is_safe(&self.method),
            AccessLog::All => true,
        };
        if !wanted {
            return;
        }
        let (upstream, route) = match &self.route {
            Some((upstream, route)) => (&*upstream.connection.name, &*route.name),
            None => ("", ""),
        };
        let (code, forwarded) = self.rejection.unwrap_or(("", Forwarded::Yes));
        tracing::info!(
            target: "bearer_proxy::access",
            request_id = id.text(),
            method = self.method.as_str(),
            upstream,
            route,
            client = self.client.as_deref().unwrap_or(""),
            status = status.as_u16(),
            code,
            forwarded = forwarded.as_str(),
            duration_ms = elapsed.as_secs_f64() * 1000.0,
            "request"
        );
    }
}
