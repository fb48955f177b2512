//! One timer for all that an HTTP/1 connection may wait for too long.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::wire::Wire;
use crate::server::activity::{Activity, Deadline, Phase};
use crate::server::serve::Ended;
use crate::server::settings::ConnectionLimits;
use crate::server::stream::Stream;

/// How long a safe request goes on when its client has closed its side of the connection.
///
/// The same FIN says "I sent all I had" and "I am gone". An answer that is nearly there reaches a
/// client of the first kind; work for one of the second kind does not go on for long. An unsafe
/// request always goes on to its end.
const HANG_UP_GRACE: Duration = Duration::from_secs(2);

pin_project! {
    /// A connection's only timer.
    pub struct Timer {
        deadline: Deadline,
        left: Option<Instant>,
        armed: Instant,
        #[pin]
        sleep: Sleep,
    }
}

impl Timer {
    pub fn new(limits: &ConnectionLimits) -> Self {
        let armed = Instant::now() + limits.idle_timeout;
        Self { deadline: Deadline::new(limits), left: None, armed, sleep: sleep_until(armed) }
    }

    /// Ready when the connection has waited for too long, or for nobody.
    ///
    /// The timer is moved to an earlier time at once, to a later one only when it fires: requests
    /// that arrive whole, one after the other, leave it alone.
    pub fn poll_overdue<I: Stream>(
        mut self: Pin<&mut Self>,
        wire: &Wire<I>,
        activity: &Activity,
        crowded: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Ended> {
        let phase = activity.phase();
        let Some(due) = self.as_mut().due(wire, activity, crowded, cx) else {
            return Poll::Pending;
        };
        let mut this = self.project();
        if due < *this.armed {
            *this.armed = due;
            this.sleep.as_mut().reset(due);
        }
        while this.sleep.as_mut().poll(cx).is_ready() {
            if *this.armed >= due {
                let left = this.left.is_some();
                return Poll::Ready(if left { Ended::ClientLeft } else { Ended::TimedOut(phase) });
            }
            *this.armed = due;
            this.sleep.as_mut().reset(due);
        }
        Poll::Pending
    }

    fn due<I: Stream>(
        self: Pin<&mut Self>,
        wire: &Wire<I>,
        activity: &Activity,
        crowded: bool,
        cx: &mut Context<'_>,
    ) -> Option<Instant> {
        let this = self.project();
        let (phase, moved) = (activity.phase(), activity.take_moved());
        let due = this.deadline.due(phase, moved, crowded);
        if phase != Phase::BusySafe || moved {
            *this.left = None; // or another request by now
        }
        if phase != Phase::BusySafe {
            return due;
        }
        if this.left.is_none() && wire.is_gone(cx) {
            *this.left = Some(Instant::now());
        }
        this.left.map(|left| left + HANG_UP_GRACE)
    }
}
