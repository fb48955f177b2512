//! The end of HTTP/1 connections that last too long, whose clients left, or that shutdown ends.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::client_stream::{PeerState, PeerWatch};
use super::io::SharedIo;
use super::phase::{CloseReason, ConnectionPhase};
use super::settings::{ConnectionSettings, HalfClosed};
use super::shutdown::ShutdownPhase;

/// How long a connection may be idle while others wait for a permit under `server.max_connections`.
pub(super) const CROWDED_IDLE: Duration = Duration::from_secs(1);

/// How long a connection that has brought no request may still bring its first one during shutdown: its
/// client connected a moment ago, to send one.
pub(super) const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(500);

/// How long a safe request goes on after its client has closed its side of the connection.
///
/// The same FIN says "I have sent all" and "I am gone". A response that is nearly complete reaches a
/// client of the first kind; work for one of the second kind does not go on for long.
const HALF_CLOSED_GRACE: Duration = Duration::from_secs(2);

/// The interval of looks at a client whose unread bytes hide its leaving.
const RECHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The time-outs of an HTTP/1 connection, one for each phase, and the watch for a client that leaves.
pub(super) struct ConnectionTimer<'a> {
    settings: &'a ConnectionSettings,
    phase: ConnectionPhase,
    /// The time at which the phase began, or bytes last moved in it.
    since: Instant,
    /// The time at which the client of the present safe request was seen to close its side.
    left_at: Option<Instant>,
    /// The time of the next look at a client whose leaving is hidden.
    recheck_at: Option<Instant>,
}

impl<'a> ConnectionTimer<'a> {
    /// The timer of a connection that has just been accepted.
    pub fn new(settings: &'a ConnectionSettings) -> Self {
        let (phase, since) = (ConnectionPhase::Idle, Instant::now());
        Self { settings, phase, since, left_at: None, recheck_at: None }
    }

    /// Ready when the connection has to be closed, because its phase lasts too long or its client left.
    ///
    /// `crowded`: other connections wait for a permit. `sleep` belongs to this timer, but is pinned by the
    /// caller.
    pub fn poll_expired(
        &mut self,
        io: &SharedIo,
        crowded: bool,
        mut sleep: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<CloseReason> {
        loop {
            let (phase, moved) = (io.phase(), io.take_moved());
            let deadline = self.deadline(phase, moved, crowded);
            if phase != ConnectionPhase::BusySafe || moved {
                self.left_at = None; // it may be another request by now
            }
            // hyper reads in all other phases, and sees the client's end itself.
            let watch = if phase.is_busy() { io.poll_peer(cx) } else { PeerWatch::Registered };
            match watch {
                PeerWatch::Left(PeerState::Disconnected) => {
                    return Poll::Ready(CloseReason::ClientLeft);
                }
                // In other busy phases the response is being sent, and writing finds out.
                PeerWatch::Left(_)
                    if phase == ConnectionPhase::BusySafe
                        && self.settings.half_closed == HalfClosed::Gone =>
                {
                    let left_at = *self.left_at.get_or_insert_with(Instant::now);
                    ready!(poll_until(sleep, left_at + HALF_CLOSED_GRACE, cx));
                    return Poll::Ready(CloseReason::ClientLeft);
                }
                _ => {}
            }
            let hidden = watch == PeerWatch::Hidden;
            let recheck_at = hidden
                .then(|| self.recheck_at.unwrap_or_else(|| Instant::now() + RECHECK_INTERVAL));
            self.recheck_at = recheck_at;
            let Some(due) = deadline.into_iter().chain(recheck_at).min() else {
                return Poll::Pending;
            };
            ready!(poll_until(sleep.as_mut(), due, cx));
            if deadline == Some(due) {
                return Poll::Ready(CloseReason::TimedOut(phase));
            }
            // Around again, so that the next look registers a waker or sets `sleep`.
            self.recheck_at = None;
        }
    }

    /// The end of the present phase. `None` while the service works on a request, which has its own
    /// time-outs, and while the client takes its response.
    ///
    /// `moved`: bytes were sent or a phase was entered since the last call.
    fn deadline(&mut self, phase: ConnectionPhase, moved: bool, crowded: bool) -> Option<Instant> {
        let entered = std::mem::replace(&mut self.phase, phase) != phase;
        let limit = match phase {
            ConnectionPhase::Idle if crowded => self.settings.idle_timeout.min(CROWDED_IDLE),
            ConnectionPhase::Idle => self.settings.idle_timeout,
            ConnectionPhase::Head => self.settings.head_timeout,
            ConnectionPhase::Stalled => self.settings.send_timeout,
            ConnectionPhase::Busy | ConnectionPhase::BusySafe => return None,
        };
        // A head that trickles in enters its phase once and moves no bytes out, so that its time is not
        // extended. The clock is read only here, at the start of a phase that has a deadline.
        if entered || moved {
            self.since = Instant::now();
        }
        Some(self.since + limit)
    }
}

/// Ready at `due`. `sleep` is moved to an earlier time at once, but to a later one only when it fires:
/// resetting the runtime's timer costs more than all else here, and the deadline of an idle connection
/// moves with each request.
fn poll_until(mut sleep: Pin<&mut Sleep>, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
    if due < sleep.deadline() {
        sleep.as_mut().reset(due);
    }
    loop {
        ready!(sleep.as_mut().poll(cx));
        if sleep.deadline() >= due {
            return Poll::Ready(());
        }
        sleep.as_mut().reset(due);
    }
}

/// Decides if shutdown closes a connection now: no request has begun to arrive, and the time for a first
/// one is over. `grace` keeps that time between calls.
pub(super) fn should_close_for_drain(
    phase: ShutdownPhase,
    io: &SharedIo,
    grace: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> bool {
    if phase < ShutdownPhase::Finishing || io.phase() != ConnectionPhase::Idle {
        return false;
    }
    io.was_used() || {
        let grace = grace.get_or_insert_with(|| Box::pin(sleep(FIRST_REQUEST_GRACE)));
        grace.as_mut().poll(cx).is_ready()
    }
}
