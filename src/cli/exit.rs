//! Exit codes, one meaning each.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use super::output::errln;
use crate::app::RunOutcome;

/// The outcome of a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed while running.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// `check --live` found a failure.
    Live,
    /// `explain`: the request would be refused.
    Refused,
    /// A running instance could not be reached.
    Unreachable,
    /// An address is in use or not allowed.
    Address,
    /// The configuration is missing or wrong.
    Config,
    /// A second interrupt ended the program at once.
    Interrupted,
    /// The command of `run -- CMD…` ended with this code.
    Command(u8),
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Live => 3,
            Self::Refused => 4,
            Self::Unreachable => 69,
            Self::Address => 71,
            Self::Config => 78,
            Self::Interrupted => 130,
            Self::Command(code) => code,
        }
    }
}

impl From<RunOutcome> for Exit {
    fn from(ended: RunOutcome) -> Self {
        match ended {
            RunOutcome::Drained => Self::Done,
            RunOutcome::Command(code) => Self::Command(code),
            RunOutcome::Interrupted => Self::Interrupted,
            RunOutcome::Failed => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// An error whose message was printed already: only the exit code is left.
#[derive(Debug)]
pub(super) struct Reported(pub(super) Exit);

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}", self.0.code())
    }
}

impl Error for Reported {}

/// The exit code of a verb; its error is printed.
pub(super) fn ended(done: anyhow::Result<Exit>) -> Exit {
    done.unwrap_or_else(|error| match error.downcast_ref() {
        Some(Reported(exit)) => *exit,
        None => {
            errln!("error: {error:#}");
            Exit::Failed
        }
    })
}
