//! Where the rivers meet: one writer publishes tokens, many readers load them without a lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::bearer::Bearer;
use crate::clock::Moment;

/// Makes a cell; the writer's end belongs to one refresher.
pub fn channel() -> (Writer, Reader) {
    let shared = Arc::new(Shared {
        bearer: ArcSwapOption::empty(),
        state: watch::Sender::new(State::default()),
        notify: Notify::new(),
        requests: AtomicU8::new(0),
        used: AtomicBool::new(false),
        rejected: AtomicU64::new(0),
    });
    (Writer(Arc::clone(&shared)), Reader(shared))
}

struct Shared {
    bearer: ArcSwapOption<Bearer>,
    state: watch::Sender<State>,
    notify: Notify,
    /// [`RefreshRequests`] that the writer has not taken yet.
    requests: AtomicU8,
    /// Whether the token was used since the writer last looked.
    used: AtomicBool,
    /// The generation that an upstream refused; 0: none.
    rejected: AtomicU64,
}

/// What readers want of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshRequests(u8);

impl RefreshRequests {
    const ASKED: u8 = 1;
    const FORCED: u8 = 2;

    /// A request found no usable token.
    pub fn asked(self) -> bool {
        self.0 & Self::ASKED != 0
    }

    /// An operator wants a new token.
    pub fn forced(self) -> bool {
        self.0 & Self::FORCED != 0
    }
}

/// What waiting requests are told beside the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// The token that is held; 0: none.
    pub generation: u64,
    /// Why there is no newer token.
    pub reason: UnavailableReason,
    /// Before this no asking helps.
    pub blocked_until: Option<Instant>,
    /// Before this no token is renewed for having been refused.
    pub cooling_until: Option<Instant>,
    /// When the next call is due.
    pub next_try: Option<Instant>,
    /// The server had nothing newer than the refused token of this generation.
    pub same_token_generation: u64,
    /// The refresher has ended.
    pub stopped: bool,
}

/// Why there is no token, or none that is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnavailableReason {
    /// The token endpoint has not answered yet.
    #[default]
    Pending,
    /// The last call failed; a word of a fixed list says how.
    Failing(&'static str),
    /// The hourly budget of token calls is spent.
    BudgetSpent,
}

/// The reading end: cheap to clone, lock-free to read.
#[derive(Clone)]
pub struct Reader(Arc<Shared>);

/// The writing end.
pub struct Writer(Arc<Shared>);

impl Reader {
    /// The token, if one is held that may still be sent.
    pub fn usable(&self, now: Moment) -> Option<Arc<Bearer>> {
        let bearer = self.0.bearer.load().as_ref().filter(|held| held.is_usable(now)).cloned();
        if bearer.is_some() && !self.0.used.load(Ordering::Relaxed) {
            self.0.used.store(true, Ordering::Relaxed);
        }
        bearer
    }

    /// Waits for a usable token, and lets the refresher know that somebody does.
    ///
    /// # Errors
    /// Where none comes before the deadline, or none can.
    pub async fn wait_usable(&self, deadline: Instant) -> Result<Arc<Bearer>, TokenUnavailable> {
        self.wait(deadline, 0).await
    }

    /// Waits for a usable token newer than one that an upstream refused.
    ///
    /// # Errors
    /// Where none comes before the deadline, or none can.
    pub async fn newer_than(
        &self,
        generation: u64,
        deadline: Instant,
    ) -> Result<Arc<Bearer>, TokenUnavailable> {
        self.wait(deadline, generation).await
    }

    /// An upstream refused the token of this generation: a newer one is fetched, once for all who
    /// say so.
    pub fn report_rejected(&self, generation: u64) {
        let current = self.0.bearer.load().as_ref().map(|bearer| bearer.generation());
        if current == Some(generation)
            && self.0.rejected.swap(generation, Ordering::Relaxed) != generation
        {
            self.0.notify.notify_one();
        }
    }

    /// Lets the refresher know that a usable token is wanted, without waiting for it.
    pub fn ask(&self) {
        self.wish(RefreshRequests::ASKED);
    }

    /// Wants a new token now, however good the held one is.
    pub fn force(&self) {
        self.wish(RefreshRequests::FORCED);
    }

    /// Wakes the refresher, to look at the clocks.
    pub fn wake(&self) {
        self.0.notify.notify_one();
    }

    fn wish(&self, wish: u8) {
        if self.0.requests.fetch_or(wish, Ordering::Relaxed) & wish == 0 {
            self.0.notify.notify_one();
        }
    }

    /// Waits for a usable token of a generation greater than `than`.
    async fn wait(&self, deadline: Instant, than: u64) -> Result<Arc<Bearer>, TokenUnavailable> {
        let mut state = self.0.state.subscribe();
        loop {
            let seen = *state.borrow_and_update();
            let usable = self.usable(Moment::now());
            let missing = usable.is_none();
            if let Some(bearer) = usable.filter(|bearer| bearer.generation() > than) {
                return Ok(bearer);
            }
            if seen.is_hopeless(deadline, than) {
                return Err(TokenUnavailable::of(seen));
            }
            if missing {
                self.ask();
            }
            if !matches!(tokio::time::timeout_at(deadline, state.changed()).await, Ok(Ok(()))) {
                return Err(TokenUnavailable::of(*state.borrow()));
            }
        }
    }
}

impl State {
    /// Whether no token newer than `than` can come before the deadline.
    fn is_hopeless(&self, deadline: Instant, than: u64) -> bool {
        let after = |time: Option<Instant>| time.is_some_and(|time| time > deadline);
        self.stopped
            || after(self.blocked_until)
            || (than > 0 && (self.same_token_generation >= than || after(self.cooling_until)))
    }
}

impl Writer {
    /// Puts a token in place of the one before.
    pub fn publish(&self, bearer: Arc<Bearer>) {
        self.0.bearer.store(Some(bearer));
    }

    /// Lets the token go.
    pub fn drop_token(&self) -> Option<Arc<Bearer>> {
        self.0.bearer.swap(None)
    }

    /// Tells all who wait that no token will come.
    pub fn close(&self) {
        self.publish_state(State { stopped: true, ..State::default() });
    }

    /// Wakes all who wait, if there is news: they ask again, and would be answered without end.
    pub fn publish_state(&self, state: State) {
        let news = |told: &mut State| std::mem::replace(told, state) != state;
        self.0.state.send_if_modified(news);
    }

    /// The token that is held.
    pub fn held(&self) -> Option<Arc<Bearer>> {
        self.0.bearer.load_full()
    }

    /// Waits until a reader wants something.
    pub async fn notified(&self) {
        self.0.notify.notified().await;
    }

    /// What readers wanted since this was last asked.
    pub fn take_requests(&self) -> RefreshRequests {
        RefreshRequests(self.0.requests.swap(0, Ordering::Relaxed))
    }

    /// Whether the token was used since this was last asked.
    pub fn take_used(&self) -> bool {
        self.0.used.swap(false, Ordering::Relaxed)
    }

    /// The generation that was refused, if it is the one that is held.
    pub fn take_rejected(&self) -> Option<u64> {
        let rejected = self.0.rejected.swap(0, Ordering::Relaxed);
        let held = self.held().map(|held| held.generation());
        held.filter(|held| *held == rejected)
    }
}

/// Why a request gets no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUnavailable {
    /// When trying again may help.
    pub retry_after: Duration,
    /// Why there is none.
    pub reason: UnavailableReason,
}

impl TokenUnavailable {
    fn of(state: State) -> Self {
        let next = state.blocked_until.max(state.next_try);
        let wait =
            next.map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now()));
        Self { retry_after: wait.max(Duration::from_secs(1)), reason: state.reason }
    }
}

impl fmt::Display for TokenUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            UnavailableReason::Pending => f.write_str("the token endpoint has not answered yet"),
            UnavailableReason::Failing(word) => {
                write!(f, "the last call of the token endpoint failed ({word})")
            }
            UnavailableReason::BudgetSpent => f.write_str("token_budget is spent for this hour"),
        }
    }
}

impl std::error::Error for TokenUnavailable {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensitive::Sensitive;

    const LIFE: Duration = Duration::from_secs(60);

    fn bearer(generation: u64) -> Arc<Bearer> {
        let token = Sensitive::new(format!("t{generation}"));
        Arc::new(Bearer::new(&token, generation, Moment::now(), LIFE).unwrap())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(2)
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_request_gets_the_token_that_comes() {
        let (writer, reader) = channel();
        let (found, ()) = tokio::join!(reader.wait_usable(soon()), async {
            writer.notified().await;
            assert!(writer.take_requests().asked());
            writer.publish(bearer(1));
            writer.publish_state(State { generation: 1, ..State::default() });
        });
        assert_eq!(found.map(|bearer| bearer.generation()), Ok(1));
        assert!(writer.take_used());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_its_deadline_or_when_it_is_hopeless() {
        let far = Some(Instant::now() + LIFE);
        let stopped = State { stopped: true, ..State::default() };
        let blocked = State { blocked_until: far, ..State::default() };
        let cooling = State { cooling_until: far, ..State::default() };
        let same = State { same_token_generation: 1, ..State::default() };
        for (state, waits_for_first, waits_for_newer) in [
            (State::default(), 2, 2),
            (stopped, 0, 0),
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
