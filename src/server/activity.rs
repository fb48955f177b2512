//! What a connection is doing, and so for how long it may go on doing it: the base of its time-outs.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use super::settings::ConnectionLimits;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Waiting for a request.
    #[default]
    Idle,
    /// A first byte came, the head is not complete.
    Head,
    /// A request is with the service.
    Busy,
    /// The same, and the request is of a safe method: nobody needs its answer when the client left.
    BusySafe,
    /// An answer is being sent, and the client has no room for it.
    Stalled,
}

/// What an HTTP/1 connection is doing, noted by what reads and writes, read by its timer. All live in
/// one task.
#[derive(Debug, Default)]
pub(super) struct Activity {
    phase: Cell<Phase>,
    moved: Cell<bool>,
    used: Cell<bool>,
    open_ended: Cell<bool>,
}

impl Activity {
    /// What it is doing now.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Notes what it does from now on.
    pub fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.moved.set(true);
    }

    /// Notes whether the client has taken some of an answer, and whether it has no room for the rest.
    pub fn sent(&self, moved: bool, stuck: bool) {
        self.phase.set(if stuck { Phase::Stalled } else { Phase::Busy });
        self.moved.set(self.moved.get() || moved);
    }

    /// Whether anything was sent or any phase entered since the last call.
    pub fn take_moved(&self) -> bool {
        self.moved.replace(false)
    }

    /// Notes that it has brought a request.
    pub fn set_used(&self) {
        self.used.set(true);
    }

    /// Whether it has brought a request.
    pub fn was_used(&self) -> bool {
        self.used.get()
    }

    /// Notes whether an answer is being sent that ends with the connection.
    pub fn set_open_ended(&self, open_ended: bool) {
        self.open_ended.set(open_ended);
    }

    /// Whether the end of the connection would be taken for the end of an answer, which it is not.
    pub fn is_open_ended(&self) -> bool {
        self.open_ended.get()
    }
}

/// How long a connection may be idle while others wait for a place.
pub const CROWDED_IDLE: Duration = Duration::from_secs(1);

/// When a connection's present phase began, and so when it has lasted too long.
#[derive(Debug)]
pub struct Deadline {
    head: Duration,
    idle: Duration,
    send: Duration,
    phase: Phase,
    since: Instant,
}

impl Deadline {
    /// A connection that has just been accepted.
    pub fn new(limits: &ConnectionLimits) -> Self {
        Self {
            head: limits.head_timeout,
            idle: limits.idle_timeout,
            send: limits.send_timeout,
            phase: Phase::Idle,
            since: Instant::now(),
        }
    }

    /// The time at which the connection is to be closed; none while a request is with the service,
    /// whose own time-outs rule then, unless its client takes nothing of the answer.
    ///
    /// While others wait for a place, an idle connection has little time left.
    pub fn due(&mut self, phase: Phase, moved: bool, crowded: bool) -> Option<Instant> {
        let entered = std::mem::replace(&mut self.phase, phase) != phase;
        let limit = match phase {
            Phase::Idle if crowded => self.idle.min(CROWDED_IDLE),
            Phase::Idle => self.idle,
            Phase::Head => self.head,
            Phase::Stalled => self.send,
            Phase::Busy | Phase::BusySafe => return None,
        };
        if entered || moved {
            self.since = Instant::now();
        }
        Some(self.since + limit)
    }
}
