//! The last hour for operators without Prometheus: responses by the minute, the newest rejections, the last
//! answers that apps did not get, and the last requests of unknown outcome. Its memory is bounded.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use http::Method;
use tokio::time::{Duration, Instant};

use super::code::Code;

/// Minutes that are kept.
const MINUTES: usize = 60;
/// Refusals that are kept.
const REFUSALS: usize = 50;
/// Other paths that a series of refusals keeps.
const OTHERS: usize = 4;
/// Requests to follow up that are kept, of each kind.
const REQUESTS: usize = 20;
/// Refusals of the same code that are a run, and the time in which they are.
const RUN: (u64, Duration) = (10, Duration::from_secs(10));
/// Time without a refusal after which a series of them is over.
const HOUR: Duration = Duration::from_secs(3600);

/// Counts and refusals; clones share them.
#[derive(Clone)]
pub struct RequestHistory(Arc<Mutex<Inner>>);

struct Inner {
    /// The start of the minute that is counted now.
    minute: Instant,
    /// Finished minutes and the present one, the newest last.
    minutes: VecDeque<MinuteCount>,
    refusals: VecDeque<RefusalRecord>,
    undelivered: LastRequests,
    unknown: LastRequests,
    /// The ids of requests that a shutdown cut.
    cut: Vec<String>,
    /// The refusals that concern the app, by their code.
    series: BTreeMap<&'static str, RefusalSeries>,
}

/// Refusals of one code, none of them an hour after the one before.
#[derive(Debug, Clone)]
pub struct RefusalSeries {
    /// Time of the first.
    pub since: SystemTime,
    /// Their number.
    pub count: u64,
    /// The last.
    pub last: RefusalRecord,
    /// Methods and paths of others, each once, the newest first; at most 4.
    pub others: VecDeque<String>,
    last_at: Instant,
    /// Begin and number of those within ten seconds.
    run: (Instant, u64),
}

/// The last requests of a kind that somebody must follow up, the newest first, at most 20.
pub type LastRequests = VecDeque<UnsafeRequestRecord>;

/// Answers within one minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MinuteCount {
    /// All answers.
    pub requests: u64,
    /// Answers 5xx.
    pub errors: u64,
    /// Answers of upstreams to unsafe requests that did not reach the app as a whole.
    pub undelivered: u64,
    /// Unsafe requests of which it is not known whether the upstream acted on them.
    pub unknown: u64,
}

/// A request with an unsafe method that somebody must follow up: the app did not get the upstream's whole
/// answer, or it is not known whether the upstream acted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsafeRequestRecord {
    /// Time when it was known.
    pub at: SystemTime,
    /// The method.
    pub method: Method,
    /// The upstream.
    pub upstream: String,
    /// The name of the route.
    pub route: String,
    /// The status of the answer, whoever made it.
    pub status: u16,
    /// The reason for which it must be followed up.
    pub detail: String,
    /// The address of the app.
    pub peer: String,
    /// Its id, as in the log.
    pub request_id: String,
}

/// A copy of the last hour.
pub struct HistorySnapshot {
    /// Counts by minutes, the newest last.
    pub minutes: Vec<MinuteCount>,
    /// The newest refusals first.
    pub refusals: Vec<RefusalRecord>,
    /// The refusals that concern the app, by their code, if the last one is within the hour.
    pub series: Vec<RefusalSeries>,
    /// The last answers that apps did not get, however long ago.
    pub undelivered: LastRequests,
    /// The last requests of which it is not known whether the upstream acted, however long ago.
    pub unknown: LastRequests,
}

/// A request that was answered by bearer-proxy itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalRecord {
    /// Time of the rejection.
    pub at: SystemTime,
    /// The code of its problem document.
    pub code: Code,
    /// The upstream and the route that claimed it; both empty if none did.
    pub upstream: String,
    /// The name of the route.
    pub route: String,
    /// The words of its problem document.
    pub detail: String,
    /// The method.
    pub method: Method,
    /// Whether the upstream got it: `no`, `yes` or `unknown`.
    pub forwarded: &'static str,
    /// Its path as far as an operator may see it ([`masked`](super::nearest_route::masked)); empty unless no
    /// route claims it.
    pub path: String,
    /// The address of the app.
    pub peer: String,
    /// Its id, as in the log.
    pub request_id: String,
}

impl Default for RequestHistory {
    fn default() -> Self {
        let minutes = VecDeque::from([MinuteCount::default()]);
        Self(Arc::new(Mutex::new(Inner {
            minute: Instant::now(),
            minutes,
            refusals: VecDeque::new(),
            undelivered: VecDeque::new(),
            unknown: VecDeque::new(),
            cut: Vec::new(),
            series: BTreeMap::new(),
        })))
    }
}

impl RequestHistory {
    /// Counts an answer. A worker never waits for another one here: where two count at the same moment,
    /// one answer is missing in the picture of the hour, which no metric is made from.
    pub fn answered(&self, now: Instant, is_error: bool) {
        if let Ok(mut inner) = self.0.try_lock() {
            inner.advance(now);
            if let Some(present) = inner.minutes.back_mut() {
                present.requests += 1;
                present.errors += u64::from(is_error);
            }
        }
    }

    /// Keeps a refusal, if nothing else is kept at the same moment. Returns true at the tenth of its code
    /// within ten seconds, so at most once in that time, if it concerns the app.
    pub fn refused(&self, refusal: impl FnOnce() -> RefusalRecord) -> bool {
        let Ok(mut inner) = self.0.try_lock() else { return false };
        let refusal = refusal();
        let now = Instant::now();
        let is_run = refusal.code.concerns_app() && inner.series_of(&refusal, now).is_run(now);
        if inner.refusals.len() == REFUSALS {
            inner.refusals.pop_back();
        }
        inner.refusals.push_front(refusal);
        is_run
    }

    /// Counts an answer that an app did not get, and keeps it. Unlike the others here it
    /// waits for the lock, since each may be a payment of which the app does not know.
    pub fn undelivered(&self, record: UnsafeRequestRecord) {
        let mut inner = self.lock();
        inner.advance(Instant::now());
        if let Some(present) = inner.minutes.back_mut() {
            present.undelivered += 1;
        }
        keep(&mut inner.undelivered, record);
    }

    /// Counts a request of which it is not known whether the upstream acted, and keeps it. It
    /// waits for the lock, as above.
    pub fn unknown(&self, record: UnsafeRequestRecord) {
        let mut inner = self.lock();
        inner.advance(Instant::now());
        if let Some(present) = inner.minutes.back_mut() {
            present.unknown += 1;
        }
        keep(&mut inner.unknown, record);
    }

    /// Keeps the id of a request that a shutdown cut, of the first 20.
    pub fn cut_by_shutdown(&self, request_id: &str) {
        let mut inner = self.lock();
        if inner.cut.len() < REQUESTS {
            inner.cut.push(request_id.to_owned());
        }
    }

    /// The ids of the requests that a shutdown cut.
    pub fn cut(&self) -> Vec<String> {
        self.lock().cut.clone()
    }

    /// A copy of it.
    pub fn snapshot(&self, now: Instant) -> HistorySnapshot {
        let mut inner = self.lock();
        inner.advance(now);
        HistorySnapshot {
            minutes: inner.minutes.iter().copied().collect(),
            refusals: inner.refusals.iter().cloned().collect(),
            series: inner.series.values().filter(|series| !series.is_over(now)).cloned().collect(),
            undelivered: inner.undelivered.clone(),
            unknown: inner.unknown.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep(requests: &mut LastRequests, record: UnsafeRequestRecord) {
    requests.truncate(REQUESTS - 1);
    requests.push_front(record);
}

impl Inner {
    /// The series of a refusal, which is counted.
    fn series_of(&mut self, refusal: &RefusalRecord, now: Instant) -> &mut RefusalSeries {
        let new = || RefusalSeries {
            since: refusal.at,
            count: 0,
            last: refusal.clone(),
            others: VecDeque::new(),
            last_at: now,
            run: (now, 0),
        };
        let series = self.series.entry(refusal.code.as_str()).or_insert_with(new);
        if series.is_over(now) {
            *series = new();
        }
        series.count += 1;
        let [before, this] =
            [&series.last, refusal].map(|one| format!("{} {}", one.method, one.path));
        series.others.retain(|other| *other != this && *other != before);
        if before != this && !series.last.path.is_empty() {
            series.others.push_front(before);
            series.others.truncate(OTHERS);
        }
        series.last = refusal.clone();
        series.last_at = now;
        series
    }

    /// Begins the minutes that have begun since the last call.
    fn advance(&mut self, now: Instant) {
        const MINUTE: Duration = Duration::from_secs(60);
        let passed = now.saturating_duration_since(self.minute).as_secs() / MINUTE.as_secs();
        if passed == 0 {
            return;
        }
        self.minute += MINUTE * u32::try_from(passed).unwrap_or(u32::MAX);
        for _ in 0..passed.min(MINUTES as u64) {
            if self.minutes.len() == MINUTES {
                self.minutes.pop_front();
            }
            self.minutes.push_back(MinuteCount::default());
        }
    }
}

impl RefusalSeries {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_at) >= HOUR
    }

    /// Counts one within ten seconds; true for the tenth.
    fn is_run(&mut self, now: Instant) -> bool {
        let (since, count) = &mut self.run;
        if now.saturating_duration_since(*since) >= RUN.1 {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count == RUN.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_hour_is_kept_by_minutes() {
        let history = RequestHistory::default();
        history.answered(Instant::now(), false);
        history.answered(Instant::now(), true);
        tokio::time::advance(Duration::from_secs(125)).await;
        history.answered(Instant::now(), false);
        let count = |requests, errors| MinuteCount { requests, errors, ..MinuteCount::default() };
        let minutes = history.snapshot(Instant::now()).minutes;
        assert_eq!(minutes, [count(2, 1), count(0, 0), count(1, 0)]);
        tokio::time::advance(Duration::from_secs(7200)).await;
        let minutes = history.snapshot(Instant::now()).minutes;
        assert_eq!(minutes, [MinuteCount::default(); MINUTES]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_to_follow_up_counts_for_an_hour_and_is_kept() {
        let history = RequestHistory::default();
        let record = |request_id: &str| UnsafeRequestRecord {
            at: SystemTime::now(),
            method: Method::POST,
            upstream: "bank".into(),
            route: "pay".into(),
            status: 201,
            detail: String::new(),
            peer: String::new(),
            request_id: request_id.into(),
        };
        history.undelivered(record("a"));
        history.unknown(record("c"));
        tokio::time::advance(Duration::from_secs(120)).await;
        history.undelivered(record("b"));
        for (later, expected) in [(0, 2), (58 * 60, 1), (2 * 60, 0)] {
            tokio::time::advance(Duration::from_secs(later)).await;
            let snapshot = history.snapshot(Instant::now());
            let count: u64 = snapshot.minutes.iter().map(|minute| minute.undelivered).sum();
            assert_eq!(count, expected, "{later}");
            let ids: Vec<_> = snapshot.undelivered.iter().map(|one| &*one.request_id).collect();
            assert_eq!(ids, ["b", "a"]);
            let count: u64 = snapshot.minutes.iter().map(|minute| minute.unknown).sum();
            assert_eq!(count, u64::from(expected == 2), "{later}");
            assert_eq!(snapshot.unknown[0].request_id, "c");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_of_refusals_is_told_once_in_ten_seconds() {
        let history = RequestHistory::default();
        let runs = |code| (0..25).filter(|_| history.refused(|| refusal(code, 0))).count();
        assert_eq!((runs(Code::NoRoute), runs(Code::Method)), (1, 1));
        assert_eq!((runs(Code::Connect), runs(Code::ClientLeft)), (0, 0), "no fault of the app");
        assert_eq!(runs(Code::NoRoute), 0, "within the same ten seconds");
        tokio::time::advance(RUN.1).await;
        assert_eq!(runs(Code::NoRoute), 1);
        // Few are no run.
        for _ in 0..30 {
            tokio::time::advance(RUN.1).await;
            assert!(!history.refused(|| refusal(Code::NoRoute, 0)));
        }
    }

    #[test]
    fn a_series_keeps_a_few_other_paths_once() {
        let history = RequestHistory::default();
        let others = || history.snapshot(Instant::now()).series[0].others.clone();
        let refused = |path: &str| {
            history.refused(|| RefusalRecord { path: path.into(), ..refusal(Code::NoRoute, 0) });
        };
        ["/a", "/b", "/a", "/a"].into_iter().for_each(refused);
        assert_eq!(others(), ["GET /b"]);
        ["/c", "/d", "/e", "/f", "/g"].into_iter().for_each(refused);
        assert_eq!(others(), ["GET /f", "GET /e", "GET /d", "GET /c"]);
    }

    fn refusal(code: Code, number: usize) -> RefusalRecord {
        RefusalRecord {
            at: SystemTime::now(),
            code,
            upstream: String::new(),
            route: String::new(),
            detail: String::new(),
            method: Method::GET,
            forwarded: "no",
            path: String::new(),
            peer: String::new(),
            request_id: number.to_string(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_of_one_code_are_a_series_until_an_hour_has_none() {
        let history = RequestHistory::default();
        let series = || {
            let series = history.snapshot(Instant::now()).series;
            series
                .iter()
                .map(|s| (s.last.code, s.count, s.last.request_id.clone()))
                .collect::<Vec<_>>()
        };
        history.refused(|| refusal(Code::ForeignHost, 1));
        history.refused(|| refusal(Code::Overloaded, 2));
        tokio::time::advance(HOUR / 2).await;
        history.refused(|| refusal(Code::ForeignHost, 3));
        tokio::time::advance(HOUR / 2).await;
        assert_eq!(series(), [(Code::ForeignHost, 2, "3".to_owned())]);
        tokio::time::advance(HOUR / 2).await;
        assert_eq!(series(), []);
        history.refused(|| refusal(Code::ForeignHost, 4));
        assert_eq!(series(), [(Code::ForeignHost, 1, "4".to_owned())]);
    }

    #[test]
    fn refusals_are_bounded_and_the_newest_comes_first() {
        let history = RequestHistory::default();
        for number in 0..REFUSALS + 3 {
            history.refused(|| refusal(Code::NoRoute, number));
        }
        let refusals = history.snapshot(Instant::now()).refusals;
        assert_eq!(refusals.len(), REFUSALS);
        assert_eq!(refusals[0].request_id, (REFUSALS + 2).to_string());
    }
}
