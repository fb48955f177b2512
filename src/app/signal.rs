//! Signals as one small enum.

use std::io::IsTerminal;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What the outside asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: leave, with a lame duck.
    Terminate,
    /// SIGINT, or a closed terminal: leave, without one.
    Interrupt,
    /// SIGHUP without a controlling terminal.
    Reload,
}

/// The signals this program listens to.
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hangup: Stream,
}

impl Signals {
    /// Starts to listen.
    ///
    /// # Errors
    /// Where the system refuses a handler.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.hangup.recv() => {
                // A closed terminal must not leave an orphan with a bank's rights behind.
                if std::io::stdin().is_terminal() { Signal::Interrupt } else { Signal::Reload }
            }
        }
    }
}
