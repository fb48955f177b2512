//! Signals as one small enum.

use std::io::IsTerminal;

use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

/// What the outside asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: leave, with a lame duck.
    Terminate,
    /// SIGINT, or a closed terminal: leave, without one.
    Interrupt,
    /// SIGHUP, where the program was not started at a terminal.
    Reload,
}

/// The signals this program listens to.
pub struct Signals {
    terminate: SignalStream,
    interrupt: SignalStream,
    hangup: SignalStream,
    /// Whether the program was started at a terminal: one that has closed is none any more.
    at_terminal: bool,
}

/// Whether what is typed, or what is said, is at a terminal.
pub(super) fn at_terminal() -> bool {
    std::io::stdin().is_terminal() || std::io::stderr().is_terminal()
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
            at_terminal: at_terminal(),
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.hangup.recv() => {
                // A closed terminal must not leave an orphan with a bank's rights behind.
                if self.at_terminal { Signal::Interrupt } else { Signal::Reload }
            }
        }
    }
}
