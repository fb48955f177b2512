//! The token cell: one writer publishes tokens, many readers load them without a lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::bearer::Bearer;
use super::handover::HandoverWait;
use super::schedule::MAX_BACKOFF_ON_DEMAND;
use super::token_guard::TokenGuard;
use crate::clock::{Moment, date};

/// Makes a cell; the writer belongs to one refresher.
pub fn channel() -> (Writer, Reader) {
    let shared = Arc::new(TokenCell {
        bearer: ArcSwapOption::empty(),
        state: watch::Sender::new(CellState::default()),
        notify: Notify::new(),
        requests: AtomicU8::new(0),
        used: AtomicBool::new(false),
        rejected: AtomicU64::new(0),
    });
    (Writer(Arc::clone(&shared)), Reader(shared))
}

struct TokenCell {
    bearer: ArcSwapOption<Bearer>,
    state: watch::Sender<CellState>,
    notify: Notify,
    /// The bits of [`RefreshRequests`] that the writer has not taken yet.
    requests: AtomicU8,
    /// Set when the token was used since the writer last looked.
    used: AtomicBool,
    /// The generation that an upstream rejected; 0: none.
    rejected: AtomicU64,
}

/// Requests of readers for the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshRequests(u8);

impl RefreshRequests {
    const NEEDED: u8 = 1;
    const FORCED: u8 = 2;

    /// Set when a request found no usable token.
    pub fn needed(self) -> bool {
        self.0 & Self::NEEDED != 0
    }

    /// Set when an operator forces a new token.
    pub fn forced(self) -> bool {
        self.0 & Self::FORCED != 0
    }
}

/// The word for a token that is not requested, because the store of shared tokens cannot be used.
pub const STORE_UNUSABLE: &str = "store_unusable";

/// The refresher's state for waiting requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CellState {
    /// The generation of the held token; 0: none.
    pub generation: u64,
    /// The reason why there is no newer token.
    pub reason: UnavailableReason,
    /// The time before which no token request is made.
    pub blocked_until: Option<Instant>,
    /// The time before which no rejected token is renewed.
    pub cooling_until: Option<Instant>,
    /// The time of the next token request.
    pub next_try: Option<Instant>,
    /// The rejected generation that the token server issued again; 0: none.
    pub same_token_generation: u64,
    /// Set while a renewal hands over, so that the held token is not to be used.
    pub handing_over: bool,
    /// Set when the refresher has ended.
    pub closed: bool,
}

/// The reason why there is no token, or no newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnavailableReason {
    /// The first token request has not been answered yet.
    #[default]
    Pending,
    /// The last token request failed, as a word of a fixed list.
    Failing(&'static str),
    /// The hourly budget of token requests is spent.
    BudgetSpent,
    /// A renewal hands over and has no outcome yet.
    HandingOver,
}

/// The reading end: cheap to clone, lock-free to read.
#[derive(Clone)]
pub struct Reader(Arc<TokenCell>);

/// The writing end.
pub struct Writer(Arc<TokenCell>);

impl Reader {
    /// True if both read the same cell.
    pub(super) fn reads_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The held token, if it may still be sent and no renewal hands over. The caller's request counts as
    /// in flight until the guard is dropped.
    pub fn usable(&self, now: Moment) -> Option<TokenGuard> {
        self.held(now).and_then(TokenGuard::begin)
    }

    /// The held token, if it may still be sent.
    fn held(&self, now: Moment) -> Option<Arc<Bearer>> {
        let bearer = self.0.bearer.load().as_ref().filter(|held| held.is_usable(now)).cloned();
        // Read before written: a write by each request would move the cache line between workers.
        if bearer.is_some() && !self.0.used.load(Ordering::Relaxed) {
            self.0.used.store(true, Ordering::Relaxed);
        }
        bearer
    }

    /// The held token, usable or not, without a use of it.
    pub(super) fn peek(&self) -> Option<Arc<Bearer>> {
        self.0.bearer.load_full()
    }

    /// Waits for a usable token, and requests one of the refresher.
    ///
    /// # Errors
    /// No token came before the deadline, or none can come.
    pub async fn wait_usable(&self, deadline: Instant) -> Result<TokenGuard, TokenUnavailable> {
        self.wait(deadline, 0).await
    }

    /// Waits for a usable token newer than one that an upstream rejected.
    ///
    /// # Errors
    /// No token came before the deadline, or none can come.
    pub async fn newer_than(
        &self,
        generation: u64,
        deadline: Instant,
    ) -> Result<TokenGuard, TokenUnavailable> {
        self.wait(deadline, generation).await
    }

    /// Reports that an upstream rejected the token of a generation. All reports of one generation lead
    /// to one renewal.
    pub fn report_rejected(&self, generation: u64) {
        // Hundreds of requests may get 401 for one token at once. The swap lets only the first report of a
        // generation wake the refresher; a report about a token that was replaced meanwhile is dropped.
        if self.holds(generation)
            && self.0.rejected.swap(generation, Ordering::Relaxed) != generation
        {
            self.0.notify.notify_one();
        }
    }

    /// Tells whether the token of a generation is the held one.
    pub fn holds(&self, generation: u64) -> bool {
        self.0.bearer.load().as_ref().is_some_and(|held| held.generation() == generation)
    }

    /// Requests a usable token without waiting for it.
    pub fn request_refresh(&self) {
        self.request(RefreshRequests::NEEDED);
    }

    /// Requests a new token now, whatever the age of the held one.
    pub fn force_refresh(&self) {
        self.request(RefreshRequests::FORCED);
    }

    /// Wakes the refresher, which then looks at the clocks.
    pub fn wake(&self) {
        self.0.notify.notify_one();
    }

    fn request(&self, bit: u8) {
        // Relaxed suffices: `Notify` orders this write before the refresher's read. `notify_one` stores
        // a permit, so that a refresher that is not waiting yet wakes at once. If the bit was set
        // already, its notification is still to be taken.
        if self.0.requests.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.0.notify.notify_one();
        }
    }

    /// Waits for a usable token of a generation greater than `than`.
    async fn wait(&self, deadline: Instant, than: u64) -> Result<TokenGuard, TokenUnavailable> {
        let mut state = self.0.state.subscribe();
        let mut handover = None;
        loop {
            // The state is marked as seen before the token is read: a token that is published in
            // between changes the state again, so that `changed` returns and nothing is missed.
            let seen = *state.borrow_and_update();
            let held = self.held(Moment::now());
            let missing = held.is_none();
            if let Some(bearer) = held.filter(|bearer| bearer.generation() > than) {
                // The outcome of a handover opens a token first and changes the state then, as above.
                match TokenGuard::begin(Arc::clone(&bearer)) {
                    Some(guard) => return Ok(guard),
                    None => {
                        let in_flight = bearer.in_flight.as_ref();
                        handover = handover.or_else(|| in_flight.map(HandoverWait::begin));
                    }
                }
            }
            // Answered at once where waiting cannot help: the app's own timeout is better spent on a retry.
            if seen.excludes(deadline, than) {
                return Err(TokenUnavailable::of(seen));
            }
            if missing {
                self.request_refresh();
            }
            if !matches!(tokio::time::timeout_at(deadline, state.changed()).await, Ok(Ok(()))) {
                return Err(TokenUnavailable::of(*state.borrow()));
            }
        }
    }
}

impl CellState {
    /// Tells whether no token newer than `than` can come before the deadline.
    fn excludes(&self, deadline: Instant, than: u64) -> bool {
        let after = |time: Option<Instant>| time.is_some_and(|time| time > deadline);
        self.closed
            || after(self.blocked_until)
            || (than > 0 && (self.same_token_generation >= than || after(self.cooling_until)))
    }
}

impl Writer {
    /// Replaces the token.
    pub fn publish(&self, bearer: Arc<Bearer>) {
        self.0.bearer.store(Some(bearer));
    }

    /// Drops the token and returns it.
    pub fn drop_token(&self) -> Option<Arc<Bearer>> {
        self.0.bearer.swap(None)
    }

    /// Ends the waits of all readers: no token will come.
    pub fn close(&self) {
        // A state and not the drop of the sender: the readers hold the cell, and with it the sender.
        self.publish_state(CellState { closed: true, ..CellState::default() });
    }

    /// Notifies the waiting readers if the state changed. Only then, because a waiter requests again on
    /// each notification, and would be notified without end.
    pub fn publish_state(&self, state: CellState) {
        let replace = |current: &mut CellState| std::mem::replace(current, state) != state;
        self.0.state.send_if_modified(replace);
    }

    /// The held token.
    pub fn held(&self) -> Option<Arc<Bearer>> {
        self.0.bearer.load_full()
    }

    /// Waits for a request of a reader.
    pub async fn notified(&self) {
        self.0.notify.notified().await;
    }

    /// Takes the requests since the last call.
    pub fn take_requests(&self) -> RefreshRequests {
        // One swap, so that a request that comes during the read is either taken now or left for later.
        RefreshRequests(self.0.requests.swap(0, Ordering::Relaxed))
    }

    /// Tells whether the token was used since the last call.
    pub fn take_used(&self) -> bool {
        self.0.used.swap(false, Ordering::Relaxed)
    }

    /// Takes the generation that was rejected, if it is the held one.
    pub fn take_rejected(&self) -> Option<u64> {
        // Compared with the held token, because the token may have been replaced since the report.
        let rejected = self.0.rejected.swap(0, Ordering::Relaxed);
        let held = self.held().map(|held| held.generation());
        held.filter(|held| *held == rejected)
    }
}

/// The failure of a wait for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUnavailable {
    /// The time after which a retry may help.
    pub retry_after: Duration,
    /// The reason why there is no token.
    pub reason: UnavailableReason,
}

impl TokenUnavailable {
    fn of(state: CellState) -> Self {
        let next = state.blocked_until.max(state.next_try);
        let wait =
            next.map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now()));
        let reason = if state.handing_over { UnavailableReason::HandingOver } else { state.reason };
        Self { retry_after: wait.max(Duration::from_secs(1)), reason }
    }
}

impl fmt::Display for TokenUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            UnavailableReason::Pending => f.write_str("the token endpoint has not answered yet"),
            UnavailableReason::Failing(word) => {
                let what = match *word {
                    "error" => "a server error, or no whole answer",
                    "unreachable" => "it cannot be reached",
                    "refused" => "nothing listens there",
                    "tls" => "no TLS connection",
                    "timeout" => "no answer in time",
                    "rate_limited" => "it asks for fewer calls",
                    "slow_down" => "slow_down: it asks for fewer calls",
                    "redirect" => "it leads elsewhere, which is not followed",
                    "client_certificate_unusable" => {
                        return f.write_str("the client certificate cannot be used; see the log");
                    }
                    "issuer_metadata" => {
                        return f.write_str(
                            "the issuer's metadata name no usable token endpoint; see the log",
                        );
                    }
                    "secret_unreadable" => {
                        return f.write_str(
                            "a secret of the credential cannot be read, so that the token endpoint was not asked; \
                             see the log",
                        );
                    }
                    STORE_UNUSABLE => {
                        return f.write_str(
                            "the store of shared tokens cannot be used, and another replica may hold a live token; \
                             see the log",
                        );
                    }
                    "secret_refused" => {
                        return f.write_str(
                            "the token server has refused the client secret, so that it is not asked now",
                        );
                    }
                    "malformed" => "its answer holds no token that can be used",
                    // An error code of an RFC says it all.
                    code => code,
                };
                write!(f, "the last call of the token endpoint failed ({what})")?;
                if self.retry_after <= MAX_BACKOFF_ON_DEMAND {
                    return Ok(());
                }
                let next = SystemTime::now() + self.retry_after;
                write!(f, ", and the next one is made at {}", date(next))
            }
            UnavailableReason::BudgetSpent => f.write_str("token_budget is spent for this hour"),
            UnavailableReason::HandingOver => {
                f.write_str("its renewal has not ended yet, and may revoke it (one_live_token)")
            }
        }
    }
}

impl std::error::Error for TokenUnavailable {}

#[cfg(test)]
mod tests {
    use super::super::bearer::TokenHeader;
    use super::*;
    use crate::sensitive::Sensitive;

    const LIFE: Duration = Duration::from_secs(60);

    fn bearer(generation: u64) -> Arc<Bearer> {
        let token = Sensitive::new(format!("t{generation}"));
        Arc::new(
            Bearer::new(&token, &TokenHeader::default(), generation, Moment::now(), LIFE).unwrap(),
        )
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(2)
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_request_gets_the_token_that_comes() {
        let (writer, reader) = channel();
        let (found, ()) = tokio::join!(reader.wait_usable(soon()), async {
            writer.notified().await;
            assert!(writer.take_requests().needed());
            writer.publish(bearer(1));
            writer.publish_state(CellState { generation: 1, ..CellState::default() });
        });
        assert_eq!(found.map(|bearer| bearer.generation()), Ok(1));
        assert!(writer.take_used());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_its_deadline_or_when_it_is_hopeless() {
        let far = Some(Instant::now() + LIFE);
        let closed = CellState { closed: true, ..CellState::default() };
        let blocked = CellState { blocked_until: far, ..CellState::default() };
        let cooling = CellState { cooling_until: far, ..CellState::default() };
        let same = CellState { same_token_generation: 1, ..CellState::default() };
        for (state, waits_for_first, waits_for_newer) in [
            (CellState::default(), 2, 2),
            (closed, 0, 0),
            (blocked, 0, 0),
            (cooling, 2, 0),
            (same, 2, 0),
        ] {
            let (writer, reader) = channel();
            writer.publish_state(state);
            let began = Instant::now();
            reader.wait_usable(soon()).await.unwrap_err();
            assert_eq!(began.elapsed().as_secs(), waits_for_first, "{state:?}");
            let began = Instant::now();
            reader.newer_than(1, soon()).await.unwrap_err();
            assert_eq!(began.elapsed().as_secs(), waits_for_newer, "{state:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_held_token_can_be_blamed() {
        let (writer, reader) = channel();
        writer.publish(bearer(2));
        reader.report_rejected(1);
        assert_eq!(writer.take_rejected(), None);
        reader.report_rejected(2);
        writer.publish(bearer(3));
        assert_eq!(writer.take_rejected(), None, "it has been replaced meanwhile");
        reader.report_rejected(3);
        assert_eq!((writer.take_rejected(), writer.take_rejected()), (Some(3), None));
    }
}
