//! The failures in a row of one route, and the scope that its token lacks, for operators. An upstream whose
//! other routes work hides neither.
//!
//! All workers share one state for each route; it survives reloads. The path of a request that succeeds loads
//! two flags, and takes the lock only where there is something to clear.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use http::{Method, StatusCode};

use super::error::Forwarded;

/// The state of one route. Safe and unsafe methods are judged apart: reading may work while no payment does.
#[derive(Default)]
pub struct RouteState {
    safe: Flagged<FailureSeries>,
    not_safe: Flagged<FailureSeries>,
    lacking: Flagged<InsufficientScope>,
}

/// Failures of a route without a success between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureSeries {
    /// The time of the first.
    pub since: SystemTime,
    /// The time of the last.
    pub at: SystemTime,
    /// Their number.
    pub failures: u64,
    /// Those of them that the upstream may have processed, although no answer says so.
    pub unknown: u64,
    /// The method of the last.
    pub method: Method,
    /// The code of the last: that of the app's problem document, or `upstream_status` for an answer 401 or
    /// 5xx of the upstream.
    pub code: &'static str,
    /// The last in words.
    pub detail: String,
    /// The fate of the last.
    pub forwarded: Forwarded,
    /// The status 401 or 5xx of the upstream's answer; `None` for other failures.
    pub status: Option<StatusCode>,
    /// The remedy for the last, if one is known.
    pub hint: Option<String>,
}

/// A failed exchange, or an answer 401 or 5xx of an upstream.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// The code of the app's problem document; `upstream_status` for an answer.
    pub code: &'static str,
    /// The failure in words.
    pub detail: &'a str,
    /// The fate of the request; `Yes` where the upstream has answered.
    pub forwarded: Forwarded,
    /// The status of the upstream's answer, if that is the failure.
    pub status: Option<StatusCode>,
    /// The remedy, if one is known.
    pub hint: Option<&'a str>,
}

/// An answer that says that the token lacks a scope (RFC 6750 section 3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsufficientScope {
    /// When it came.
    pub at: SystemTime,
    /// The name of the route.
    pub route: String,
    /// The scopes that the answer asks for; may be empty.
    pub scope: String,
    /// Those of them that the token does not have; may be empty.
    pub lacking: String,
}

/// A value that is mostly absent: a flag tells so without the lock.
struct Flagged<T>(AtomicBool, Mutex<Option<T>>);

impl<T> Default for Flagged<T> {
    fn default() -> Self {
        Self(AtomicBool::new(false), Mutex::new(None))
    }
}

impl<T: Clone> Flagged<T> {
    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Option<T>)) {
        let mut value = self.lock();
        change(&mut value);
        // Relaxed: the lock orders what the flag stands for. A success that misses the flag of a failure at
        // the same moment clears it with the next one.
        self.0.store(value.is_some(), Ordering::Relaxed);
    }

    fn clear(&self) {
        if self.0.load(Ordering::Relaxed) {
            self.change(|value| *value = None);
        }
    }
}

impl RouteState {
    fn series(&self, method: &Method) -> &Flagged<FailureSeries> {
        if method.is_safe() { &self.safe } else { &self.not_safe }
    }

    /// Notes a failed exchange, or an answer 401 or 5xx.
    pub fn failed(&self, method: &Method, failure: &Failure<'_>) {
        let at = SystemTime::now();
        let Failure { code, detail, forwarded, status, hint } = *failure;
        self.series(method).change(|series| {
            let (since, failures, unknown) = series
                .as_ref()
                .map_or((at, 0, 0), |last| (last.since, last.failures, last.unknown));
            *series = Some(FailureSeries {
                since,
                at,
                failures: failures + 1,
                unknown: unknown + u64::from(forwarded == Forwarded::Unknown),
                method: method.clone(),
                code,
                detail: detail.to_owned(),
                forwarded,
                status,
                hint: hint.map(str::to_owned),
            });
        });
    }

    /// Notes an answer that is no failure. One below 400 shows that the token lacks no scope.
    pub fn answered(&self, method: &Method, status: StatusCode) {
        self.series(method).clear();
        if status.as_u16() < 400 {
            self.lacking.clear();
        }
    }

    /// Notes an answer that says that the token lacks a scope.
    pub fn lacks_scope(&self, lacking: InsufficientScope) {
        self.lacking.change(|last| *last = Some(lacking));
    }

    /// The failures in a row of safe methods, and those of the others.
    pub fn failures(&self) -> [Option<FailureSeries>; 2] {
        [self.safe.lock().clone(), self.not_safe.lock().clone()]
    }

    /// The last answer that says that the token lacks a scope, if no request has succeeded since.
    pub fn lacking(&self) -> Option<InsufficientScope> {
        self.lacking.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_that_works_hides_no_payment_that_fails() {
        let route = RouteState::default();
        let fail = |method, forwarded| {
            let (code, detail) = ("upstream_timeout", "none");
            route.failed(&method, &Failure { code, detail, forwarded, status: None, hint: None });
        };
        fail(Method::POST, Forwarded::Unknown);
        let since = route.failures()[1].as_ref().unwrap().since;
        route.answered(&Method::GET, StatusCode::OK);
        fail(Method::PUT, Forwarded::No);
        let [safe, series] = route.failures();
        let series = series.unwrap();
        assert_eq!(safe, None);
        assert_eq!((series.failures, series.unknown, series.since), (2, 1, since));
        assert_eq!((series.method, series.code), (Method::PUT, "upstream_timeout"));
        fail(Method::GET, Forwarded::No);
        route.answered(&Method::POST, StatusCode::NOT_FOUND);
        let [safe, series] = route.failures();
        assert_eq!((safe.unwrap().failures, series), (1, None));
    }

    #[test]
    fn a_scope_is_lacking_until_a_request_succeeds() {
        let route = RouteState::default();
        let at = SystemTime::now();
        let lacking =
            InsufficientScope { at, route: "pay".into(), scope: "p q".into(), lacking: "q".into() };
        route.lacks_scope(lacking.clone());
        route.answered(&Method::POST, StatusCode::FORBIDDEN);
        assert_eq!(route.lacking(), Some(lacking));
        route.answered(&Method::POST, StatusCode::CREATED);
        assert_eq!(route.lacking(), None);
    }
}
