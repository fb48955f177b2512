//! Signals of the operating system as one small enum.

use std::io::IsTerminal;

use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

/// A signal, by its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: shut down after the lame duck period.
    Terminate,
    /// SIGINT, or a closed terminal: shut down without it.
    Interrupt,
    /// SIGHUP, if the program was not started at a terminal.
    Reload,
}

/// The handlers of the signals.
pub struct Signals {
    terminate: SignalStream,
    interrupt: SignalStream,
    hangup: SignalStream,
    /// True if the program was started at a terminal. Kept from the start, because a closed terminal no
    /// longer counts as one.
    at_terminal: bool,
}

/// True if stdin or stderr is a terminal.
pub(super) fn at_terminal() -> bool {
    std::io::stdin().is_terminal() || std::io::stderr().is_terminal()
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// The system refuses a handler.
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
