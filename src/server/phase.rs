//! What an HTTP/1 connection is doing, and so for how long it may go on doing it.

use std::time::Duration;

use tokio::time::Instant;

use super::settings::ConnectionSettings;

/// What an HTTP/1 connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConnectionPhase {
    /// Waiting for a request. Empty lines before it do not count (RFC 9112 section 2.2).
    #[default]
    Idle,
    /// The first byte of a request has come, its head is not complete.
    Head,
    /// A request is with the service, or its answer is being sent.
    Busy,
    /// A request of a safe method is with the service: its answer is of no use to a client that left.
    BusySafe,
    /// An answer is being sent, and the socket has no room for it.
    Stalled,
}

impl ConnectionPhase {
    /// Whether a request is under way.
    pub fn is_busy(self) -> bool {
        matches!(self, Self::Busy | Self::BusySafe | Self::Stalled)
    }
}

/// How long a connection may be idle while others wait for a permit under `server.max_connections`.
pub const CROWDED_IDLE: Duration = Duration::from_secs(1);

/// When a connection's present phase began, and so when it has lasted too long.
#[derive(Debug)]
pub struct Deadline {
    head: Duration,
    idle: Duration,
    send: Duration,
    phase: ConnectionPhase,
    since: Instant,
}

impl Deadline {
    /// The deadline of a connection that has just been accepted.
    pub fn new(limits: &ConnectionSettings) -> Self {
        Self {
            head: limits.head_timeout,
            idle: limits.idle_timeout,
            send: limits.send_timeout,
            phase: ConnectionPhase::Idle,
            since: Instant::now(),
        }
    }

    /// The time at which the connection is to be closed. `None` while a request is with the service,
    /// whose own time-outs rule then, unless the client takes nothing of the answer.
    ///
    /// `moved`: bytes of an answer were taken, or a phase was entered, since the last call.
    /// `crowded`: others wait for a permit, so that an idle connection has little time left.
    pub fn due(&mut self, phase: ConnectionPhase, moved: bool, crowded: bool) -> Option<Instant> {
        let entered = std::mem::replace(&mut self.phase, phase) != phase;
        let limit = match phase {
            ConnectionPhase::Idle if crowded => self.idle.min(CROWDED_IDLE),
            ConnectionPhase::Idle => self.idle,
            ConnectionPhase::Head => self.head,
            ConnectionPhase::Stalled => self.send,
            ConnectionPhase::Busy | ConnectionPhase::BusySafe => return None,
        };
        if entered || moved {
            self.since = Instant::now();
        }
        Some(self.since + limit)
    }
}
