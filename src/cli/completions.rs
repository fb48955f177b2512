//! `completions`: a script that lets a shell complete this command line.
//!
//! The script of a shell asks the program itself at each TAB ([`clap_complete`]'s dynamic engine), for two
//! reasons. It can offer what only the configuration knows, such as routes and credentials. And it is one
//! function for the whole command line: generated scripts have a branch for each verb, which bash does not
//! find where the program's name holds a dash (clap issue 6421).

use clap::CommandFactory;
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};

use super::args::Args;
use super::exit::Exit;
use super::output::out;
use super::setup::program;

/// Names the shell that asks; of our own, because a variable of a general name could be set for another
/// program.
const VARIABLE: &str = "BEARER_PROXY_COMPLETE";

/// Answers a shell that asks for candidates, and ends the program; otherwise does nothing.
pub(super) fn answer_shell() {
    CompleteEnv::with_factory(Args::command).var(VARIABLE).complete();
}

/// Prints a completion script. It calls the program as this process was called.
pub(super) fn completions(shell: Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    if let Some(shell) = shells.completer(&shell.to_string()) {
        let name = env!("CARGO_PKG_NAME");
        let program = program();
        shell.write_registration(VARIABLE, name, name, &program.to_string_lossy(), &mut script)?;
    }
    out!("{}", String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
