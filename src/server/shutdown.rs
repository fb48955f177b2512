//! The phases of an orderly shutdown, and the signal that tells them to all workers.
//!
//! An orderly end loses no request. So it begins before the listeners close: from `Retiring` on every
//! response says `Connection: close`, and clients come back on new connections while those are still
//! accepted. When the listeners do close, hardly any connection is left that a client would reuse.

use std::sync::Arc;

use tokio::sync::watch;

/// The progress of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ShutdownPhase {
    /// It has not begun.
    #[default]
    Open,
    /// Connections are accepted, but each next response is the last one on its connection.
    Retiring,
    /// Nothing is accepted, idle connections are closed, and requests under way finish.
    Finishing,
    /// The time to finish is over: all that is left is dropped.
    Aborting,
}

/// Tells the shutdown phase to all workers; clones share it.
#[derive(Debug, Clone, Default)]
pub struct StopSignal(Arc<watch::Sender<ShutdownPhase>>);

impl StopSignal {
    /// A shutdown that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a phase; an earlier one than the present phase has no effect.
    pub fn advance(&self, to: ShutdownPhase) {
        self.0.send_if_modified(|phase| std::mem::replace(phase, to.max(*phase)) < to);
    }

    /// The present phase.
    pub fn phase(&self) -> ShutdownPhase {
        *self.0.borrow()
    }

    /// Waits until the phase is this or a later one.
    pub async fn reached(&self, phase: ShutdownPhase) {
        // The sender lives as long as `self`, which is the only error.
        let _ = self.0.subscribe().wait_for(|present| *present >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_phase_implies_those_before_it() {
        let stop = StopSignal::new();
        stop.clone().advance(ShutdownPhase::Aborting);
        stop.advance(ShutdownPhase::Retiring);
        for phase in [ShutdownPhase::Retiring, ShutdownPhase::Finishing, ShutdownPhase::Aborting] {
            stop.reached(phase).await;
        }
    }
}
