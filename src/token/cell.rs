//! Where the rivers meet: one writer publishes tokens, many readers load them without a lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::bearer::Bearer;
use super::clock::Moment;

/// Makes a cell; the writer's end belongs to one refresher.
pub fn channel() -> (Writer, Reader) {
    let shared = Arc::new(Shared {
        bearer: ArcSwapOption::empty(),
        state: watch::Sender::new(State::default()),
        nudge: Notify::new(),
        asked: AtomicBool::new(false),
        blamed: AtomicU64::new(0),
    });
    (Writer(Arc::clone(&shared)), Reader(shared))
}

struct Shared {
    bearer: ArcSwapOption<Bearer>,
    state: watch::Sender<State>,
    nudge: Notify,
    asked: AtomicBool,
    /// The generation that an upstream refused; 0: none.
    blamed: AtomicU64,
}

/// What waiting requests are told beside the token.
#[derive(Debug, Clone, Copy, Default)]
pub struct State {
    /// Word of the last failure, while there is no success after it.
    pub failing: Option<&'static str>,
    /// Before this no asking helps.
    pub blocked_until: Option<Instant>,
    /// When the next call is due.
    pub next_try: Option<Instant>,
    /// The refresher has ended.
    pub stopped: bool,
}

/// The reading end: cheap to clone, lock-free to read.
#[derive(Clone)]
pub struct Reader(Arc<Shared>);

/// The writing end.
pub struct Writer(Arc<Shared>);

impl Reader {
    /// The token, if one is held that may still be sent.
    pub fn usable(&self, now: Moment) -> Option<Arc<Bearer>> {
        self.0.bearer.load().as_ref().filter(|bearer| bearer.is_usable(now)).map(Arc::clone)
    }

    /// Waits for a usable token, and lets the refresher know that somebody does.
    ///
    /// # Errors
    /// Where none comes before the deadline, or none can.
    pub async fn wait_usable(&self, deadline: Instant) -> Result<Arc<Bearer>, NoToken> {
        self.wait(deadline, |_| true).await
    }

    /// Waits for a usable token newer than one that an upstream refused.
    ///
    /// # Errors
    /// Where none comes before the deadline, or none can.
    pub async fn newer_than(
        &self,
        generation: u64,
        deadline: Instant,
    ) -> Result<Arc<Bearer>, NoToken> {
        self.wait(deadline, |bearer| bearer.generation() > generation).await
    }

    /// An upstream refused the token of this generation: a newer one is fetched, once for all who
    /// say so.
    pub fn blame(&self, generation: u64) {
        let current = self.0.bearer.load().as_ref().map(|bearer| bearer.generation());
        if current == Some(generation)
            && self.0.blamed.swap(generation, Ordering::Relaxed) != generation
        {
            self.0.nudge.notify_one();
        }
    }

    async fn wait(
        &self,
        deadline: Instant,
        wanted: impl Fn(&Bearer) -> bool,
    ) -> Result<Arc<Bearer>, NoToken> {
        let mut state = self.0.state.subscribe();
        loop {
            let seen = *state.borrow_and_update();
            if let Some(bearer) = self.usable(Moment::now()).filter(|bearer| wanted(bearer)) {
                return Ok(bearer);
            }
            if seen.stopped || seen.blocked_until.is_some_and(|until| until > deadline) {
                return Err(NoToken::of(seen));
            }
            if self.usable(Moment::now()).is_none() && !self.0.asked.swap(true, Ordering::Relaxed) {
                self.0.nudge.notify_one();
            }
            if !matches!(tokio::time::timeout_at(deadline, state.changed()).await, Ok(Ok(()))) {
                return Err(NoToken::of(seen));
            }
        }
    }
}

impl Writer {
    /// Puts a token in place of the one before.
    pub fn publish(&self, bearer: Arc<Bearer>) {
        self.0.bearer.store(Some(bearer));
    }

    /// Drops the token and tells all who wait that none will come.
    pub fn stop(&self) {
        self.0.bearer.store(None);
        self.tell(State { stopped: true, ..State::default() });
    }

    /// Wakes all who wait.
    pub fn tell(&self, state: State) {
        self.0.state.send_replace(state);
    }

    /// The token that is held.
    pub fn held(&self) -> Option<Arc<Bearer>> {
        self.0.bearer.load_full()
    }

    /// Waits until a reader wants something.
    pub async fn nudged(&self) {
        self.0.nudge.notified().await;
    }

    /// Whether a request found no usable token since this was last asked.
    pub fn take_asked(&self) -> bool {
        self.0.asked.swap(false, Ordering::Relaxed)
    }

    /// The generation that was refused, if it is the one that is held.
    pub fn take_blamed(&self) -> bool {
        let blamed = self.0.blamed.swap(0, Ordering::Relaxed);
        blamed != 0 && self.held().is_some_and(|held| held.generation() == blamed)
    }
}

/// Why a request gets no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoToken {
    /// When trying again may help.
    pub retry_after: Duration,
    /// Word of the last failure; `None` while the first call is under way.
    pub failing: Option<&'static str>,
}

impl NoToken {
    fn of(state: State) -> Self {
        let next = state.blocked_until.or(state.next_try);
        let wait =
            next.map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now()));
        Self { retry_after: wait.max(Duration::from_secs(1)), failing: state.failing }
    }
}

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failing {
            Some(word) => write!(f, "the token endpoint's last answer was a failure ({word})"),
            None => f.write_str("the token endpoint has not answered yet"),
        }
    }
}

impl std::error::Error for NoToken {}
