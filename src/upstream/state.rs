//! The state of one upstream, for operators: its last answer, its last error, what it said of our tokens,
//! its connections, and how long its certificate is valid.
//!
//! All workers share one state for each upstream; it survives reloads. What changes with each request is
//! atomic; what changes with errors and new connections stands behind a lock that is held for a copy.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::error::Forwarded;
use super::route_state::{Failure, InsufficientScope, RouteState};
use crate::oauth::retry_after;

/// Longest text of a challenge or an error that is kept, in characters.
const LONGEST_TEXT: usize = 300;

/// All upstreams' states, by the upstream's name.
#[derive(Clone, Default)]
pub struct UpstreamStates(Arc<Mutex<BTreeMap<Arc<str>, Arc<UpstreamState>>>>);

impl UpstreamStates {
    /// Copies of the states of upstreams that are in use, by the upstream's name. One that the configuration
    /// no longer names is left out once its last request has ended.
    pub fn in_use(&self) -> Vec<(Arc<str>, UpstreamStatus)> {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Plans and connections hold the others beside this map.
        let held = states.iter().filter(|(_, state)| Arc::strong_count(state) > 1);
        held.map(|(name, state)| (Arc::clone(name), state.status())).collect()
    }

    /// The state of an upstream, made when it is first asked for.
    pub fn of(&self, name: &Arc<str>) -> Arc<UpstreamState> {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(states.entry(Arc::clone(name)).or_default())
    }
}

/// The state of one upstream.
pub struct UpstreamState {
    /// The origin of the atomic times.
    started: Instant,
    /// Microseconds from `started` to the last answer, plus one; 0 where there was none.
    answered: AtomicU64,
    /// The same for the last answer other than 401.
    accepted: AtomicU64,
    /// The same for the last answer other than 5xx.
    succeeded: AtomicU64,
    open: AtomicUsize,
    unauthorized: AtomicU64,
    /// Answers 401 since the last other one.
    unauthorized_in_a_row: AtomicU64,
    forbidden: AtomicU64,
    rate_limited: AtomicU64,
    rare: Mutex<Rare>,
    routes: Mutex<BTreeMap<Arc<str>, Arc<RouteState>>>,
}

/// The part that changes with errors and new connections.
#[derive(Default, Clone)]
struct Rare {
    last_error: Option<UpstreamFailure>,
    /// When that was, counted like `succeeded`: the wall clock may be set between the two.
    failed: u64,
    /// The time of the first of the failures in a row.
    failing_since: Option<SystemTime>,
    last_challenge: Option<String>,
    last_rate_limit: Option<RateLimit>,
    last_insufficient_scope: Option<InsufficientScope>,
    certificate_expires: Option<SystemTime>,
}

/// An answer 429, or a 403 with `Retry-After`: the upstream wants fewer requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// When it came.
    pub at: SystemTime,
    /// The end of the wait that it asks for, if it asks for one.
    pub until: Option<SystemTime>,
    /// Its fields about limits and quotas, as in `X-RateLimit-Remaining: 0`; may be empty.
    pub quota: String,
}

/// The last failed exchange with an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamFailure {
    /// When it failed.
    pub at: SystemTime,
    /// The code of the refusal that the app was given, such as `connect`; `upstream_status` for an answer
    /// of the upstream with a status of 500 or above.
    pub code: &'static str,
    /// The same words as in the app's problem document.
    pub detail: String,
    /// The fate of the request.
    pub forwarded: Forwarded,
    /// The remedy, if one is known.
    pub hint: Option<String>,
}

/// A copy of the state of one upstream at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamStatus {
    /// When the head of its last answer arrived, whatever its status.
    pub last_success: Option<SystemTime>,
    /// When its last answer other than 401 arrived.
    pub last_accepted: Option<SystemTime>,
    /// Its last failure.
    pub last_error: Option<UpstreamFailure>,
    /// True if no answer other than 5xx came after its last failure.
    pub failing: bool,
    /// While it fails, the time of the first of these failures.
    pub failing_since: Option<SystemTime>,
    /// Connections that are open, over all workers.
    pub connections_open: usize,
    /// Answers 401 since the start.
    pub unauthorized: u64,
    /// Answers 401 since the last other one.
    pub unauthorized_in_a_row: u64,
    /// Answers 403 since the start.
    pub forbidden: u64,
    /// Answers since the start that want fewer requests.
    pub rate_limited: u64,
    /// The last of them.
    pub last_rate_limit: Option<RateLimit>,
    /// The last answer that says that the token lacks a scope.
    pub last_insufficient_scope: Option<InsufficientScope>,
    /// `WWW-Authenticate` of the last of both.
    pub last_challenge: Option<String>,
    /// When the certificate shown on the newest connection expires.
    pub certificate_expires: Option<SystemTime>,
}

impl Default for UpstreamState {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            answered: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            unauthorized_in_a_row: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            unauthorized: AtomicU64::new(0),
            forbidden: AtomicU64::new(0),
            rate_limited: AtomicU64::new(0),
            rare: Mutex::default(),
            routes: Mutex::default(),
        }
    }
}

impl UpstreamState {
    fn rare(&self) -> MutexGuard<'_, Rare> {
        self.rare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an answer's head arrived.
    pub fn answered(&self, at: Instant, status: StatusCode) {
        let since = self.since_start(at);
        // Relaxed: each value stands for itself, nothing else is read because of it.
        self.answered.store(since, Ordering::Relaxed);
        if !status.is_server_error() {
            self.succeeded.store(since, Ordering::Relaxed);
        }
        if status == StatusCode::UNAUTHORIZED {
            self.unauthorized_in_a_row.fetch_add(1, Ordering::Relaxed);
        } else {
            self.accepted.store(since, Ordering::Relaxed);
            self.unauthorized_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Notes a failed exchange.
    pub fn failed(&self, failure: &Failure<'_>) {
        let Failure { code, forwarded, hint, .. } = *failure;
        let hint = hint.map(str::to_owned);
        let detail = failure.detail.chars().take(LONGEST_TEXT).collect();
        let failed = self.since_start(Instant::now());
        let mut rare = self.rare();
        let at = SystemTime::now();
        // The series goes on if nothing but failures came after the last one.
        if rare.failed < self.succeeded.load(Ordering::Relaxed) {
            rare.failing_since = None;
        }
        rare.failing_since.get_or_insert(at);
        rare.last_error = Some(UpstreamFailure { at, code, detail, forwarded, hint });
        rare.failed = failed;
    }

    fn since_start(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.started).as_micros();
        // Plus one, so that what came in the first microsecond is not taken for none.
        u64::try_from(since).unwrap_or(u64::MAX - 1) + 1
    }

    /// Notes a 401 or 403 and its challenge, and returns the challenge, whose bytes that are no visible ASCII
    /// are replaced.
    pub fn challenged(&self, status: StatusCode, challenge: Option<&[u8]>) -> Option<String> {
        match status {
            StatusCode::UNAUTHORIZED => self.unauthorized.fetch_add(1, Ordering::Relaxed),
            StatusCode::FORBIDDEN => self.forbidden.fetch_add(1, Ordering::Relaxed),
            _ => return None,
        };
        let challenge = challenge.map(printable);
        self.rare().last_challenge.clone_from(&challenge);
        challenge
    }

    /// Notes an answer that wants fewer requests: a 429, or a 403 with `Retry-After`, with which API
    /// gateways tell that a quota is used up. Other answers are ignored. Returns true if it was noted.
    pub fn rate_limited(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let is_limit = status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::FORBIDDEN && headers.contains_key(RETRY_AFTER);
        if !is_limit {
            return false;
        }
        self.rate_limited.fetch_add(1, Ordering::Relaxed);
        let at = SystemTime::now();
        let until = retry_after(headers).and_then(|wait| at.checked_add(wait));
        self.rare().last_rate_limit = Some(RateLimit { at, until, quota: quota(headers) });
        true
    }

    /// Notes an answer to a request of a route that says that the token lacks a scope.
    /// `lacking` are those of the scopes that the token does not have.
    pub fn lacks_scope(&self, route: &str, scope: &[u8], lacking: String) -> InsufficientScope {
        let (at, route, scope) = (SystemTime::now(), route.to_owned(), printable(scope));
        let last = InsufficientScope { at, route, scope, lacking };
        self.rare().last_insufficient_scope = Some(last.clone());
        last
    }

    /// The state of a route, made when it is first asked for.
    pub fn route(&self, name: &Arc<str>) -> Arc<RouteState> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(routes.entry(Arc::clone(name)).or_default())
    }

    /// Notes the expiry of the certificate that a new connection was shown.
    pub fn certificate(&self, expires: SystemTime) {
        self.rare().certificate_expires = Some(expires);
    }

    /// Counts a connection as open until what is returned is dropped.
    pub fn open(self: &Arc<Self>) -> OpenConnection {
        // Relaxed here and in the guard: the number is shown, and nothing is decided by it.
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(self))
    }

    /// A copy of it.
    pub fn status(&self) -> UpstreamStatus {
        // Kept as monotonic time and turned into wall-clock time only now: a clock that was set meanwhile
        // would otherwise move an event that has not moved.
        let now = SystemTime::now();
        let time = |since: &AtomicU64| {
            let since = Duration::from_micros(since.load(Ordering::Relaxed).checked_sub(1)?);
            let ago = self.started.elapsed().saturating_sub(since);
            Some(now.checked_sub(ago).unwrap_or(now))
        };
        let Rare {
            last_error,
            failed,
            failing_since,
            last_challenge,
            last_rate_limit,
            last_insufficient_scope,
            certificate_expires,
        } = self.rare().clone();
        // In the same microsecond the failure came last: an answer's head comes before its body breaks off.
        let failing = last_error.is_some() && failed >= self.succeeded.load(Ordering::Relaxed);
        UpstreamStatus {
            last_success: time(&self.answered),
            last_accepted: time(&self.accepted),
            failing,
            failing_since: failing_since.filter(|_| failing),
            last_error,
            connections_open: self.open.load(Ordering::Relaxed),
            unauthorized: self.unauthorized.load(Ordering::Relaxed),
            unauthorized_in_a_row: self.unauthorized_in_a_row.load(Ordering::Relaxed),
            forbidden: self.forbidden.load(Ordering::Relaxed),
            rate_limited: self.rate_limited.load(Ordering::Relaxed),
            last_rate_limit,
            last_insufficient_scope,
            last_challenge,
            certificate_expires,
        }
    }
}

/// The bytes as text of bounded length; those that are no visible ASCII are replaced.
fn printable(bytes: &[u8]) -> String {
    let visible = |byte: &u8| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '?' };
    bytes.iter().take(LONGEST_TEXT).map(visible).collect()
}

/// The fields about limits and quotas: those of draft-ietf-httpapi-ratelimit-headers, and the older names
/// that vendors use.
fn quota(headers: &HeaderMap) -> String {
    let is_quota =
        |name: &str| ["ratelimit", "rate-limit", "quota"].iter().any(|word| name.contains(word));
    let fields = headers.iter().filter(|(name, _)| is_quota(name.as_str()));
    let fields: Vec<String> =
        fields.map(|(name, value)| format!("{name}: {}", printable(value.as_bytes()))).collect();
    fields.join(", ").chars().take(LONGEST_TEXT).collect()
}

/// Counts a connection as open; goes with the connection.
pub struct OpenConnection(Arc<UpstreamState>);

impl Drop for OpenConnection {
    // A guard, so that a connection that ends in any way, also by a dropped task, is counted out.
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_last_is_told() {
        let state = UpstreamStates::default().of(&"bank".into());
        assert_eq!(state.status().last_success, None);
        state.answered(Instant::now(), StatusCode::UNAUTHORIZED);
        failed(&state, "connect", "refused");
        state.challenged(StatusCode::UNAUTHORIZED, Some(b"Bearer error=\"x\"\r\x07"));
        let status = state.status();
        assert!(status.last_success.unwrap().elapsed().unwrap() < Duration::from_secs(60));
        assert_eq!(status.last_error.unwrap().code, "connect");
        assert_eq!(status.last_challenge.unwrap(), "Bearer error=\"x\"??");
        assert_eq!((status.unauthorized, status.forbidden), (1, 0));
        assert_eq!((status.unauthorized_in_a_row, status.last_accepted), (1, None));
        state.answered(Instant::now(), StatusCode::NOT_FOUND);
        let status = state.status();
        assert_eq!((status.unauthorized, status.unauthorized_in_a_row), (1, 0));
        assert!(status.last_accepted.is_some());
    }

    fn failed(state: &UpstreamState, code: &'static str, detail: &str) {
        let forwarded = Forwarded::Yes;
        state.failed(&Failure { code, detail, forwarded, status: None, hint: None });
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_fails_until_it_answers() {
        let state = UpstreamState::default();
        let answers = || state.answered(Instant::now(), StatusCode::OK);
        assert!(!state.status().failing);
        answers();
        assert!(!state.status().failing);
        failed(&state, "upstream_reset", "the answer broke off");
        assert!(state.status().failing, "the head of an answer came, and the rest did not");
        tokio::time::advance(Duration::from_millis(1)).await;
        answers();
        assert!(!state.status().failing, "within one second");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_failure_of_a_series_is_kept() {
        let state = UpstreamState::default();
        let unavailable = || {
            state.answered(Instant::now(), StatusCode::SERVICE_UNAVAILABLE);
            failed(&state, "upstream_status", "the upstream answered with status 503");
            state.status().failing_since.unwrap()
        };
        let first = unavailable();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(unavailable(), first);
        assert!(state.status().last_error.unwrap().at > first);
        tokio::time::advance(Duration::from_secs(1)).await;
        state.answered(Instant::now(), StatusCode::OK);
        assert_eq!(state.status().failing_since, None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(unavailable() > first);
    }

    #[test]
    fn an_upstream_that_wants_fewer_requests_is_told_with_its_words() {
        let check =
            |status: u16, fields: &[(&'static str, &str)], wait: Option<u64>, quota: &str| {
                let state = UpstreamState::default();
                let fields = fields.iter().map(|(name, value)| {
                    (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
                });
                state.rate_limited(StatusCode::from_u16(status).unwrap(), &fields.collect());
                let limit = state.status().last_rate_limit.unwrap();
                let wait = wait.map(Duration::from_secs);
                assert_eq!(limit.until.map(|until| until.duration_since(limit.at).unwrap()), wait);
                assert_eq!((limit.quota.as_str(), state.status().rate_limited), (quota, 1));
            };
        check(429, &[], None, "");
        check(429, &[("retry-after", "30"), ("server", "x")], Some(30), "");
        check(403, &[("retry-after", "60"), ("x-quota-left", "0")], Some(60), "x-quota-left: 0");
        let fields = [("x-ratelimit-limit", "100"), ("ratelimit-remaining", "0")];
        check(429, &fields, None, "x-ratelimit-limit: 100, ratelimit-remaining: 0");
        let state = UpstreamState::default();
        state.rate_limited(StatusCode::FORBIDDEN, &HeaderMap::new());
        assert_eq!(state.status().last_rate_limit, None, "a plain refusal");
    }

    #[tokio::test]
    async fn connections_are_counted_while_they_live() {
        let states = UpstreamStates::default();
        let state = states.of(&"bank".into());
        let (first, second) = (state.open(), state.open());
        drop(first);
        assert!(Arc::ptr_eq(&state, &states.of(&"bank".into())));
        assert_eq!(state.status().connections_open, 1);
        drop(second);
        assert_eq!(state.status().connections_open, 0);
    }
}
