//! Metrics of the request path. Labels come from the configuration, so that their number is bounded;
//! handles are looked up when a plan is built, not for each request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use prometheus::IntGauge;

use super::clients::ClientId;
use super::settings::ClientSettings;
use crate::clock::unix_seconds;
use crate::net::connect::ConnectFailureReason;
use crate::proxy::code::Code;
use crate::proxy::history::RequestHistory;
use crate::telemetry::Registry;
use crate::telemetry::family::{Counter, Counters, Histogram, Histograms};
use crate::telemetry::metrics::{OVERHEAD_SECONDS, REQUEST_SECONDS};
use crate::upstream::{
    Failure, RouteState, SendErrorKind, UpstreamState, UpstreamStates, UpstreamStatus,
};

/// Counters of answers by the names of upstream and route.
type AnswersByRoute = HashMap<(Arc<str>, Arc<str>), Arc<AnswerCounters>>;

/// The metric families of the request path.
#[derive(Clone)]
pub struct ProxyMetrics {
    requests: Counters,
    duration: Histograms,
    overhead: Histograms,
    rejected: Counters,
    upstream_errors: Counters,
    server_errors: Counters,
    undelivered: Counters,
    forwarded_unknown: Counters,
    unauthorized: Counters,
    insufficient_scope: Counters,
    dpop_nonce_retries: Counters,
    authorization_seen: Counters,
    client_requests: Counters,
    in_flight: IntGauge,
    upstreams: UpstreamStates,
    history: RequestHistory,
    /// By upstream and route. They outlive a plan, as the counters do.
    answers: Arc<Mutex<AnswersByRoute>>,
}

/// Handles of a route's counters by method and status that were needed so far. The list is short, and reading
/// it never waits.
type AnswerCounters = RwLock<Vec<(Method, StatusCode, Counter)>>;

/// Metric handles of one route.
pub struct RouteMetrics {
    all: ProxyMetrics,
    upstream: Arc<str>,
    route: Arc<str>,
    answers: Arc<AnswerCounters>,
    duration: Histogram,
    overhead: Histogram,
    /// Answers of the upstream with a status of 500 or above.
    pub server_errors: Counter,
    /// Requests with an unsafe method that the upstream answered, of which the app did not get the whole
    /// answer.
    pub undelivered: Counter,
    /// Requests with an unsafe method of which it is not known whether the upstream acted.
    pub forwarded_unknown: Counter,
    /// 401 responses of the upstream that concern the token, and 403 where `renew_on` lists it.
    pub unauthorized: Counter,
    /// Responses that say that the token lacks a scope.
    pub insufficient_scope: Counter,
    /// Requests that came with an Authorization of their own.
    pub authorization_seen: Counter,
    state: Arc<UpstreamState>,
    route_state: Arc<RouteState>,
    /// In the order of the clients.
    clients: Box<[Counter]>,
}

/// The reason why an exchange with an upstream failed: finer than the code of the app's problem document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamErrorReason {
    /// No connection was made.
    Connect(ConnectFailureReason),
    /// All connections to the upstream were in use.
    Overloaded,
    /// The exchange broke off.
    Reset,
    /// No answer came in time.
    Timeout,
}

impl UpstreamErrorReason {
    /// All reasons, for counters that start at 0.
    const ALL: [Self; 6] = [
        Self::Connect(ConnectFailureReason::Unreachable),
        Self::Connect(ConnectFailureReason::Refused),
        Self::Connect(ConnectFailureReason::Tls),
        Self::Overloaded,
        Self::Reset,
        Self::Timeout,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Connect(reason) => reason.as_str(),
            Self::Overloaded => "overloaded",
            Self::Reset => "upstream_reset",
            Self::Timeout => "timeout",
        }
    }
}

impl From<&SendErrorKind> for UpstreamErrorReason {
    fn from(kind: &SendErrorKind) -> Self {
        match kind {
            SendErrorKind::Connect(error) => Self::Connect(error.reason()),
            // A TLS 1.3 server refuses a client certificate only after the handshake.
            SendErrorKind::TlsAlert(_) | SendErrorKind::AnsweredInTls => {
                Self::Connect(ConnectFailureReason::Tls)
            }
            SendErrorKind::Overloaded => Self::Overloaded,
            _ => Self::Reset,
        }
    }
}

impl ProxyMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// A family of the same name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter =
            |name: &str, help: &str, labels: &[&str]| registry.counter_vec(name, help, labels);
        let duration = registry.histogram_vec(
            "bearer_proxy_http_request_duration_seconds",
            "Time from the head of a request to the head of its answer.",
            &["upstream", "route"],
            REQUEST_SECONDS,
        )?;
        let overhead = registry.histogram_vec(
            "bearer_proxy_http_request_overhead_seconds",
            "Time from the head of a request to the head of the upstream's answer that was spent in bearer-proxy \
             itself: without the upstream, and without waits for a token, a connection, or the app's body.",
            &["upstream"],
            OVERHEAD_SECONDS,
        )?;
        let in_flight = registry.gauge(
            "bearer_proxy_http_requests_in_flight",
            "Requests under way: each from its head until both its bodies have ended.",
        )?;
        let metrics = Self {
            requests: counter(
                "bearer_proxy_http_requests_total",
                "Requests that a route claimed, by the status they were answered with.",
                &["upstream", "route", "method", "code"],
            )?,
            duration,
            overhead,
            rejected: counter(
                "bearer_proxy_requests_rejected_total",
                "Requests answered by bearer-proxy itself, by reason.",
                &["reason"],
            )?,
            upstream_errors: counter(
                "bearer_proxy_upstream_errors_total",
                "Exchanges with an upstream that failed, by reason: unreachable (DNS, TCP, egress proxy), refused \
                 (nothing listens there), tls, overloaded (max_connections), upstream_reset (broke off), or timeout (no \
                 answer, or not all of it, in time).",
                &["upstream", "reason"],
            )?,
            server_errors: counter(
                "bearer_proxy_upstream_server_errors_total",
                "Answers 5xx of the upstream itself. Such an answer does not say whether the request was acted on.",
                &["upstream"],
            )?,
            undelivered: counter(
                "bearer_proxy_requests_undelivered_total",
                "Requests with an unsafe method that the upstream answered, of which the app did not get the whole \
                 answer.",
                &["upstream", "route"],
            )?,
            forwarded_unknown: counter(
                "bearer_proxy_requests_forwarded_unknown_total",
                "Requests with an unsafe method that were sent, or may have been, and of which it is not known whether \
                 the upstream acted.",
                &["upstream", "route"],
            )?,
            unauthorized: counter(
                "bearer_proxy_upstream_unauthorized_total",
                "Requests that the upstream answered with 401, or with 403 where renew_on lists it. One that was sent \
                 again with a newer token counts once.",
                &["upstream", "route"],
            )?,
            insufficient_scope: counter(
                "bearer_proxy_upstream_insufficient_scope_total",
                "Answers from an upstream that say that the token lacks a scope.",
                &["upstream", "route"],
            )?,
            dpop_nonce_retries: counter(
                "bearer_proxy_dpop_nonce_retries_total",
                "Requests that were sent once more, because the upstream asked for a nonce in the proof of DPoP. Its 401 \
                 is not counted as unauthorized then.",
                &["upstream", "route"],
            )?,
            authorization_seen: counter(
                "bearer_proxy_client_authorization_replaced_total",
                "Requests that came with an Authorization of their own.",
                &["upstream"],
            )?,
            client_requests: counter(
                "bearer_proxy_client_requests_total",
                "Requests that a route let in, by the client of [clients] that sent them.",
                &["client", "upstream", "route"],
            )?,
            in_flight,
            upstreams: upstream_states(registry)?,
            history: RequestHistory::default(),
            answers: Arc::default(),
        };
        // A series that is absent until its first event hides that event from `increase()`.
        for code in Code::ALL {
            metrics.rejected.with_label_values(&[code.as_str()]);
        }
        Ok(metrics)
    }

    /// The counter of requests that were sent once more for a nonce, of a route with DPoP.
    pub fn dpop_nonce_retries(&self, upstream: &str, route: &str) -> Counter {
        self.dpop_nonce_retries.with_label_values(&[upstream, route])
    }

    /// Metric handles of one route, whose counters appear at once, at 0.
    pub fn route(
        &self,
        upstream: &Arc<str>,
        route: &Arc<str>,
        methods: &[Method],
        clients: &[ClientSettings],
    ) -> RouteMetrics {
        let of_client = |client: &ClientSettings| {
            self.client_requests.with_label_values(&[&*client.name, &**upstream, &**route])
        };
        for reason in UpstreamErrorReason::ALL {
            self.upstream_errors.with_label_values(&[&**upstream, reason.as_str()]);
        }
        let state = self.upstreams.of(upstream);
        let handles = RouteMetrics {
            all: self.clone(),
            upstream: Arc::clone(upstream),
            route: Arc::clone(route),
            answers: self.answers_of(upstream, route),
            duration: self.duration.with_label_values(&[&**upstream, &**route]),
            overhead: self.overhead.with_label_values(&[&**upstream]),
            server_errors: self.server_errors.with_label_values(&[&**upstream]),
            undelivered: self.undelivered.with_label_values(&[&**upstream, &**route]),
            forwarded_unknown: self.forwarded_unknown.with_label_values(&[&**upstream, &**route]),
            unauthorized: self.unauthorized.with_label_values(&[&**upstream, &**route]),
            insufficient_scope: self.insufficient_scope.with_label_values(&[&**upstream, &**route]),
            authorization_seen: self.authorization_seen.with_label_values(&[&**upstream]),
            route_state: state.route(route),
            state,
            clients: clients.iter().map(of_client).collect(),
        };
        // Only these of all statuses, for the same reason: others appear with their first answer, since
        // each is a series for each method of each route.
        let usual = [StatusCode::OK, StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE];
        for method in methods {
            for status in usual {
                handles.counter(method, status);
            }
        }
        handles
    }

    fn answers_of(&self, upstream: &Arc<str>, route: &Arc<str>) -> Arc<AnswerCounters> {
        let mut all = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry((Arc::clone(upstream), Arc::clone(route))).or_default())
    }

    /// Counts a request that this proxy answers itself.
    pub fn rejected(&self, code: Code) {
        self.rejected.with_label_values(&[code.as_str()]).inc();
    }

    /// The last hour, for the status page.
    pub fn history(&self) -> &RequestHistory {
        &self.history
    }

    /// The states of all upstreams.
    pub fn upstreams(&self) -> &UpstreamStates {
        &self.upstreams
    }

    /// Number of requests in flight.
    pub fn requests_in_flight(&self) -> u64 {
        u64::try_from(self.in_flight.get()).unwrap_or_default()
    }

    /// Counts a request as in flight until the guard is dropped.
    pub fn enter_in_flight(&self) -> RequestsInFlightGuard {
        self.in_flight.inc();
        RequestsInFlightGuard(self.in_flight.clone())
    }
}

/// The states of upstreams, and the gauges that show them. Timestamps appear with the event that they are of.
fn upstream_states(registry: &Registry) -> Result<UpstreamStates, prometheus::Error> {
    let states = UpstreamStates::default();
    let gauge = |name, help, value: fn(&UpstreamStatus) -> Option<f64>| {
        let states = states.clone();
        registry.polled_gauge_vec(name, help, &["upstream"], move |gauges| {
            for (upstream, status) in states.in_use() {
                if let Some(value) = value(&status) {
                    gauges.with_label_values(&[&upstream]).set(value);
                }
            }
        })
    };
    gauge(
        "bearer_proxy_upstream_connections",
        "Open connections to the upstream, in use or idle.",
        |status| Some(status.connections_open as f64),
    )?;
    gauge(
        "bearer_proxy_upstream_last_answer_timestamp_seconds",
        "Time of the last answer of the upstream, whatever its status.",
        |status| unix_seconds(status.last_success?),
    )?;
    gauge(
        "bearer_proxy_upstream_failing",
        "1 if the last exchange with the upstream failed or was answered with 5xx.",
        |status| Some(f64::from(u8::from(status.failing))),
    )?;
    gauge(
        "bearer_proxy_upstream_rate_limited_until_timestamp_seconds",
        "End of the wait that the last answer 429 of the upstream asked for; absent once it has passed.",
        |status| {
            let until = status.last_rate_limit.as_ref().and_then(|limit| limit.until);
            unix_seconds(until.filter(|until| *until > SystemTime::now())?)
        },
    )?;
    gauge(
        "bearer_proxy_tls_upstream_certificate_expiry_timestamp_seconds",
        "Expiry time of the certificate that the upstream showed on its newest connection.",
        |status| unix_seconds(status.certificate_expires?),
    )?;
    Ok(states)
}

/// Counts one request as in flight until it is dropped.
pub struct RequestsInFlightGuard(IntGauge);

// In a guard, so that a request that ends in any way, even without a response, stops being counted.
impl Drop for RequestsInFlightGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Totals of one route since the start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RouteTotals {
    /// Requests answered.
    pub requests: u64,
    /// Requests answered with 5xx.
    pub errors: u64,
    /// Mean time from a request's head to its answer's, in seconds.
    pub mean_s: f64,
    /// Seconds within which 95 of 100 were answered, from the buckets of the histogram; `None` without any,
    /// and above the last bound.
    pub p95_s: Option<f64>,
}

impl RouteMetrics {
    /// Counts a response and observes the time to its head.
    pub fn answered(&self, method: &Method, status: StatusCode, elapsed: Duration) {
        self.duration.observe(elapsed.as_secs_f64());
        // Never waits: while another worker adds a handle, the family is asked instead.
        if let Ok(answers) = self.answers.try_read()
            && let Some((_, _, counter)) =
                answers.iter().find(|(known, code, _)| *code == status && known == method)
        {
            counter.inc();
            return;
        }
        self.counter(method, status).inc();
    }

    /// Observes the time that a request which the upstream answered spent in this program itself.
    pub fn overhead(&self, elapsed: Duration) {
        self.overhead.observe(elapsed.as_secs_f64());
    }

    /// The families that this is a part of.
    pub fn of_all(&self) -> &ProxyMetrics {
        &self.all
    }

    /// The state of the route's upstream.
    pub fn upstream(&self) -> &UpstreamState {
        &self.state
    }

    /// The state of the route itself.
    pub fn route(&self) -> &RouteState {
        &self.route_state
    }

    /// Totals of all methods and status codes.
    pub fn totals(&self) -> RouteTotals {
        // An operator may wait for a worker that adds a handle; the request path never does.
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        let sum = |wanted: fn(&StatusCode) -> bool| {
            let wanted = answers.iter().filter(|(_, status, _)| wanted(status));
            wanted.map(|(.., counter)| counter.get()).sum()
        };
        RouteTotals {
            requests: sum(|_| true),
            errors: sum(StatusCode::is_server_error),
            mean_s: self.duration.mean(),
            p95_s: self.duration.quantile(0.95),
        }
    }

    /// Counts a request of a known client.
    pub fn admitted(&self, client: ClientId) {
        if let Some(counter) = self.clients.get(client.index()) {
            counter.inc();
        }
    }

    /// Notes a failed exchange in the state of the route, and in that of its upstream, which an answer 401
    /// does not make a failing one.
    pub fn failed(&self, method: &Method, failure: &Failure<'_>) {
        if failure.status != Some(StatusCode::UNAUTHORIZED) {
            self.state.failed(failure);
        }
        self.route_state.failed(method, failure);
    }

    /// Counts a failed exchange.
    pub fn upstream_error(&self, reason: UpstreamErrorReason) {
        self.all.upstream_errors.with_label_values(&[&*self.upstream, reason.as_str()]).inc();
    }

    fn counter(&self, method: &Method, status: StatusCode) -> Counter {
        let labels = [&*self.upstream, &*self.route, method.as_str(), status.as_str()];
        let counter = self.all.requests.with_label_values(&labels);
        // A handle that cannot be kept now is looked up again next time. Another worker may have added the
        // same one meanwhile, which must not be counted twice in the totals.
        if let Ok(mut answers) = self.answers.try_write()
            && !answers.iter().any(|(known, code, _)| *code == status && known == method)
        {
            answers.push((method.clone(), status, counter.clone()));
        }
        counter
    }
}
