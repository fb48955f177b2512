//! Signals of the operating system as one small enum.

#[cfg(unix)]
use std::io::IsTerminal;

/// A signal, by its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, or the stop of a Windows service: shut down after the lame duck period.
    Terminate,
    /// SIGINT, or a closed terminal: shut down without it.
    Interrupt,
    /// SIGHUP, if the program was not started at a terminal, or `sc control bearer-proxy paramchange`.
    Reload,
}

/// The handlers of the signals.
#[cfg(unix)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    /// True if the program was started at a terminal. Kept from the start, because a closed terminal no
    /// longer counts as one.
    at_terminal: bool,
}

/// True if stdin or stderr is a terminal.
#[cfg(unix)]
pub(super) fn at_terminal() -> bool {
    std::io::stdin().is_terminal() || std::io::stderr().is_terminal()
}

#[cfg(unix)]
impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
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

/// The handlers of the events of a console, of the system's shutdown, and of a service's controls.
#[cfg(windows)]
pub struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
    close: tokio::signal::windows::CtrlClose,
    shutdown: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn listen() -> std::io::Result<Self> {
        use tokio::signal::windows::{ctrl_c, ctrl_close, ctrl_shutdown};
        Ok(Self { interrupt: ctrl_c()?, close: ctrl_close()?, shutdown: ctrl_shutdown()? })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.close.recv() => Signal::Interrupt,
            _ = self.shutdown.recv() => Signal::Terminate,
            () = super::service_control::stop() => Signal::Terminate,
            () = super::service_control::reload() => Signal::Reload,
        }
    }
}
