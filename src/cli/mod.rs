//! The verbs a person types; the only place for `anyhow`, stdout and exit codes.
//!
//! Results go to stdout, everything else to stderr.

pub mod args;
mod check;
mod complete;
mod completions;
#[cfg(feature = "demo")]
mod demo;
pub mod exit;
mod explain;
mod init;
mod keyring;
mod live;
mod man;
mod operate;
mod output;
mod run;
mod running_instance;
#[cfg(windows)]
mod service;
mod setup;
mod status;
mod token;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Verb};
use exit::{Exit, ended};
#[cfg(unix)]
use output::errln;

/// Reads the arguments, does what they say, and gives back the exit code.
pub fn main() -> ExitCode {
    completions::answer_shell();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // clap prints help and version to stdout and calls that a success.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            let _ = error.print();
            return exit.into();
        }
    };
    keep_memory_private();
    let config = args.config.as_deref();
    ended(match args.verb {
        Verb::Run { command } => run::run(config, &command),
        Verb::Check(flags) => check::check(config, &flags),
        Verb::Explain { method, url } => explain::explain(config, &method, &url),
        Verb::Token(flags) => token::token(config, &flags),
        Verb::Init(flags) => init::init(config, &flags),
        Verb::Presets { name } => init::presets(name.as_deref()),
        #[cfg(feature = "demo")]
        Verb::Demo(flags) => demo::demo(&flags),
        Verb::Status(flags) => status::status(config, flags),
        Verb::Wait { admin, timeout } => operate::wait(config, admin, timeout),
        Verb::Healthcheck { admin } => operate::healthcheck(config, admin),
        Verb::Schema { key } => init::schema(key.as_deref()),
        Verb::Keyring(verb) => keyring::keyring(verb),
        #[cfg(windows)]
        Verb::Service(verb) => service::service(config, verb),
        Verb::Completions { shell } => completions::completions(shell),
        Verb::Man { page } => man::man(page),
    })
    .into()
}

/// A core file would hold secrets and tokens, and so does the memory that a debugger of the same user
/// could read.
fn keep_memory_private() {
    #[cfg(unix)]
    keep_core_empty();
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            errln!("warning: memory is open to debuggers: {error}");
        }
    }
}

#[cfg(unix)]
fn keep_core_empty() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Core, none) {
        errln!("warning: core dumps could not be switched off: {error}");
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_private() {
        use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

        super::keep_memory_private();
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
