//! Collects the state of all parts into the document of `/status`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::client_certificates::ClientCertificateStatuses;
use super::open_files::OpenFilesNeed;
use crate::admin::bundle::BundleParts;
use crate::admin::report::{
    History, MAX_REQUESTS, MAX_ROUTES, RateLimitReport, RefusalStatus, ReloadStatus,
    RepeatedRefusals, RequestStatus, RouteFailures, RouteStatus, ScopeReport, SecretStatus,
    StatusReport, UnsafeRequest, UnsafeRequests, UpstreamError, UpstreamReport,
};
use crate::clock::date;
use crate::config;
use crate::proxy::history::{HistorySnapshot, LastRequests, RefusalSeries, UnsafeRequestRecord};
use crate::proxy::nearest_route::{KnownRoute, nearest_route};
use crate::proxy::policy::plan::{Plan, UpstreamPlan};
use crate::proxy::requests::{RequestInFlight, WorkerReport};
use crate::proxy::snapshot::SharedState;
use crate::secret::{SourceState, SourceStates};
use crate::telemetry::log::DroppedLines;
use crate::telemetry::recent::RecentLines;
use crate::upstream::{FailureSeries, InsufficientScope, UpstreamStatus};

/// The last reload that was tried.
pub(super) type LastReload = Arc<Mutex<Option<ReloadRecord>>>;

/// A reload that was tried.
#[derive(Clone)]
pub(super) struct ReloadRecord {
    /// When it was tried.
    pub(super) at: SystemTime,
    /// The reason why the file was refused; `None` if it was applied.
    pub(super) error: Option<String>,
    /// The keys whose new values need a restart.
    pub(super) restart_needed: Vec<&'static str>,
}

/// Where the document is collected from.
pub(super) struct Reporter {
    pub(super) config: PathBuf,
    pub(super) started: Instant,
    pub(super) shared: SharedState,
    pub(super) last_reload: LastReload,
    pub(super) sources: SourceStates,
    pub(super) open_files: OpenFilesNeed,
    pub(super) client_certificates: ClientCertificateStatuses,
    /// Empty until the program runs.
    pub(super) dropped_lines: Arc<OnceLock<DroppedLines>>,
    /// Empty until the program runs.
    pub(super) recent_lines: Arc<OnceLock<RecentLines>>,
}

impl Reporter {
    /// The document as things are now. It waits for the workers, within a bound.
    pub(super) async fn report(&self) -> StatusReport {
        let workers = self.shared.inspector.report().await;
        let plan = self.shared.plan.load_full();
        let HistorySnapshot { minutes, refusals, series, undelivered, unknown } =
            self.shared.metrics.history().snapshot(Instant::now());
        let reload = self.last_reload.lock().unwrap_or_else(PoisonError::into_inner).clone();
        StatusReport {
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            config: self.config.display().to_string(),
            config_sha256: plan.config_sha256.to_string(),
            last_reload: reload.map(|reload| ReloadStatus {
                at: date(reload.at),
                ok: reload.error.is_none(),
                error: reload.error,
                restart_needed: reload.restart_needed,
            }),
            open_files: self.open_files.report(),
            log_lines_dropped: self.dropped_lines.get().map_or(0, DroppedLines::get),
            secrets: self.sources.snapshot().into_iter().map(secret).collect(),
            client_certificates: self
                .client_certificates
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            requests_in_flight: workers.requests.len(),
            requests: workers.requests.iter().take(MAX_REQUESTS).map(request).collect(),
            upstreams: self.upstreams(&plan, &workers),
            routes: routes(&plan),
            refusals: refusals
                .into_iter()
                .map(|refusal| RefusalStatus {
                    at: date(refusal.at),
                    code: refusal.code.as_str(),
                    upstream: refusal.upstream,
                    route: refusal.route,
                    detail: refusal.detail,
                    method: refusal.method.to_string(),
                    forwarded: refusal.forwarded,
                    path: refusal.path,
                    peer: refusal.peer,
                    request_id: refusal.request_id,
                })
                .collect(),
            repeated_refusals: repeated_refusals(series, &plan),
            undelivered: unsafe_requests(
                minutes.iter().map(|minute| minute.undelivered).sum(),
                undelivered,
            ),
            forwarded_unknown: unsafe_requests(
                minutes.iter().map(|minute| minute.unknown).sum(),
                unknown,
            ),
            history: History {
                requests: minutes.iter().map(|minute| minute.requests).collect(),
                errors: minutes.iter().map(|minute| minute.errors).collect(),
            },
        }
    }

    /// The file is read at this moment: where a reload was refused, it is the refused one that support needs.
    pub(super) fn bundle_parts(&self) -> BundleParts {
        let log = self.recent_lines.get().map(RecentLines::snapshot).unwrap_or_default();
        BundleParts { configuration: config::masked(&self.config), log }
    }

    fn upstreams(&self, plan: &Plan, workers: &WorkerReport) -> Vec<UpstreamReport> {
        let now = SystemTime::now();
        let one = |upstream: &Arc<UpstreamPlan>| {
            let settings = &upstream.connection;
            let idle = workers.idle_connections.get(&settings.name).copied().unwrap_or_default();
            let status = self.shared.metrics.upstreams().of(&settings.name).status();
            upstream_report(&settings.name, settings.origin.to_string(), status, idle, now)
        };
        plan.upstreams.iter().map(one).collect()
    }
}

fn upstream_report(
    name: &str,
    url: String,
    status: UpstreamStatus,
    idle: usize,
    now: SystemTime,
) -> UpstreamReport {
    let days = |expires: SystemTime| expires.duration_since(now).map_or(0, |left| left.as_secs());
    UpstreamReport {
        name: name.to_owned(),
        url,
        last_success: status.last_success.map(date),
        last_accepted: status.last_accepted.map(date),
        last_error: status.last_error.map(|error| UpstreamError {
            at: date(error.at),
            code: error.code,
            detail: error.detail,
            forwarded: error.forwarded.as_str(),
            hint: error.hint,
        }),
        failing: status.failing,
        failing_since: status.failing_since.map(date),
        connections_open: status.connections_open,
        connections_idle: idle,
        certificate_days_left: status.certificate_expires.map(|expires| days(expires) / 86_400),
        unauthorized: status.unauthorized,
        unauthorized_in_a_row: status.unauthorized_in_a_row,
        forbidden: status.forbidden,
        rate_limited: status.rate_limited,
        last_rate_limit: status.last_rate_limit.map(|limit| RateLimitReport {
            at: date(limit.at),
            until: limit.until.map(date),
            quota: limit.quota,
        }),
        last_insufficient_scope: status.last_insufficient_scope.map(scope_report),
        last_challenge: status.last_challenge,
    }
}

fn scope_report(lacking: InsufficientScope) -> ScopeReport {
    let InsufficientScope { at, route, scope, lacking } = lacking;
    ScopeReport { at: date(at), route, scope, lacking }
}

fn route_failures(series: FailureSeries, is_unsafe: bool) -> RouteFailures {
    RouteFailures {
        since: date(series.since),
        at: date(series.at),
        failures: series.failures,
        unknown: series.unknown,
        is_unsafe,
        method: series.method.to_string(),
        code: series.code.to_owned(),
        detail: series.detail,
        forwarded: series.forwarded.as_str().to_owned(),
        status: series.status.map(|status| status.as_u16()),
        hint: series.hint,
    }
}

/// One refusal says little: a person may have mistyped a URL.
fn repeated_refusals(series: Vec<RefusalSeries>, plan: &Plan) -> Vec<RepeatedRefusals> {
    let repeated = series.into_iter().filter(|series| series.count > 1);
    let one = |RefusalSeries { since, count, last, others, .. }: RefusalSeries| RepeatedRefusals {
        others: others.into(),
        code: last.code.as_str().to_owned(),
        status: last.code.status().as_u16(),
        count,
        since: date(since),
        at: date(last.at),
        method: last.method.to_string(),
        nearest_route: Some(&last.path)
            .filter(|path| !path.is_empty())
            .and_then(|path| nearest_route(path, known_routes(plan)))
            .map(|near| near.to_string()),
        path: last.path,
        peer: last.peer,
        detail: last.detail,
        request_id: last.request_id,
    };
    repeated.map(one).collect()
}

fn known_routes(plan: &Plan) -> impl Iterator<Item = KnownRoute<'_>> {
    plan.routes().map(|(upstream, route)| KnownRoute {
        upstream: &upstream.connection.name,
        route: &route.name,
        methods: &route.methods,
        mount: &upstream.mount,
        path: (&*route.path).into(),
    })
}

fn secret((source, state): (String, SourceState)) -> SecretStatus {
    SecretStatus {
        source,
        kind: state.kind,
        last_read: date(state.read_at),
        value_since: state.value_since.map(date),
        error: state.error,
    }
}

fn unsafe_requests(last_hour: u64, requests: LastRequests) -> UnsafeRequests {
    let last = requests.front().cloned().map(unsafe_request);
    let recent = requests.into_iter().take(usize::try_from(last_hour).unwrap_or(usize::MAX));
    UnsafeRequests { last_hour, last, recent: recent.map(unsafe_request).collect() }
}

fn unsafe_request(request: UnsafeRequestRecord) -> UnsafeRequest {
    UnsafeRequest {
        at: date(request.at),
        method: request.method.to_string(),
        upstream: request.upstream,
        route: request.route,
        status: request.status,
        detail: request.detail,
        peer: request.peer,
        request_id: request.request_id,
    }
}

fn request(request: &RequestInFlight) -> RequestStatus {
    RequestStatus {
        request_id: request.request_id.clone(),
        method: request.method.clone(),
        upstream: request.upstream.clone(),
        route: request.route.clone(),
        client: request.client.clone(),
        age_s: seconds(request.age),
        phase: request.phase.as_str(),
    }
}

fn routes(plan: &Plan) -> Vec<RouteStatus> {
    let routes = plan.routes().take(MAX_ROUTES);
    routes
        .map(|(upstream, route)| {
            let totals = route.metrics.totals();
            let [safe, other] = route.metrics.route().failures();
            let failing = [
                safe.map(|series| route_failures(series, false)),
                other.map(|series| route_failures(series, true)),
            ];
            RouteStatus {
                upstream: upstream.connection.name.to_string(),
                route: route.name.to_string(),
                methods: route.methods.iter().map(ToString::to_string).collect(),
                path: route.path.to_string(),
                requests: totals.requests,
                errors: totals.errors,
                undelivered: route.metrics.undelivered.get(),
                forwarded_unknown: route.metrics.forwarded_unknown.get(),
                mean_s: (totals.mean_s * 1e6).round() / 1e6,
                p95_s: totals.p95_s,
                failing: failing.into_iter().flatten().collect(),
                insufficient_scope: route.metrics.route().lacking().map(scope_report),
            }
        })
        .collect()
}

/// Seconds, rounded to milliseconds.
fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}
