//! The access log: one line a request, as far as the settings ask for it. No path, no query, no
//! header values: the route's name says what was asked.

use std::sync::Arc;

use http::{HeaderMap, Method, Request, Response};
use tokio::time::Instant;

use super::headers::FieldClass;
use super::policy::metrics::ProxyMetrics;
use super::policy::plan::{RoutePlan, UpstreamPlan};
use super::problem::{REQUEST_ID, problem};
use super::rejection::{Code, Rejection};
use super::request::retry::is_safe;
use crate::body::Body;
use crate::telemetry::log::AccessLog;
use crate::upstream::Forwarded;

/// The id of a request: the app's own where it is fit to be logged, else made when first needed.
#[derive(Default)]
pub struct RequestId {
    accepted: Option<String>,
    made: std::cell::OnceCell<String>,
}

impl RequestId {
    /// Longest id that is accepted, in bytes.
    const MAX_BYTES: usize = 128;

    /// Takes the id from `X-Request-Id`, if it is printable and short.
    pub fn of(headers: &HeaderMap, fields: FieldClass) -> Self {
        if !fields.intersects(FieldClass::REQUEST_ID) {
            return Self::default();
        }
        let accepted = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| {
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
    id: RequestId,
    access: AccessLog,
    route: Option<(Arc<UpstreamPlan>, Arc<RoutePlan>)>,
    /// Whether the upstream may have seen it.
    forwarded: Forwarded,
    ended: bool,
}

impl AccessRecord {
    /// Begins a record; `fields` are the kinds of the request's.
    pub fn new<B>(request: &Request<B>, fields: FieldClass, access: AccessLog) -> Self {
        Self {
            started: Instant::now(),
            method: request.method().clone(),
            id: RequestId::of(request.headers(), fields),
            access,
            client: None,
            route: None,
            forwarded: Forwarded::No,
            ended: false,
        }
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

    /// Notes that from now on the upstream may see it.
    pub fn sending(&mut self) {
        self.forwarded = Forwarded::Unknown;
    }

    /// Counts the answer, writes the line if one is wanted, and gives the answer to send. The first end
    /// counts.
    pub fn end(
        &mut self,
        outcome: Result<Response<Body>, Rejection>,
        metrics: &ProxyMetrics,
    ) -> Response<Body> {
        let outcome = match outcome {
            // It has ended where the exchange went on by itself.
            Ok(response) if self.ended => return response,
            outcome => outcome,
        };
        self.ended = true;
        let (response, code) = match outcome {
            Ok(response) => {
                self.forwarded = Forwarded::Yes;
                (response, "")
            }
            Err(rejection) => {
                metrics.rejected(&rejection);
                self.forwarded = rejection.forwarded;
                (problem(&rejection, self.id.text()), rejection.code.as_str())
            }
        };
        if let Some((_, route)) = &self.route {
            route.metrics.answered(&self.method, response.status(), self.started.elapsed());
        }
        self.write(response.status().as_u16(), code);
        response
    }

    fn write(&self, status: u16, code: &'static str) {
        let client_left = Code::ClientLeft.as_str();
        let failed = status >= 500 || !(code.is_empty() || code == client_left);
        let wanted = match self.access {
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
        tracing::info!(
            target: "bearer_proxy::access",
            request_id = self.id.text(),
            method = self.method.as_str(),
            upstream,
            route,
            client = self.client.as_deref().unwrap_or(""),
            status,
            code,
            forwarded = self.forwarded.as_str(),
            duration_ms = self.started.elapsed().as_secs_f64() * 1000.0,
            "request"
        );
    }
}

/// A request that is let go of before its end: nobody waits for its answer any more.
impl Drop for AccessRecord {
    fn drop(&mut self) {
        if !self.ended {
            let code = Code::ClientLeft;
            self.write(code.status().as_u16(), code.as_str());
        }
    }
}
