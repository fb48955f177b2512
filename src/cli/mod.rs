//! The verbs a person types; the only place for `anyhow`, stdout and exit codes.
//!
//! Results go to stdout, everything else to stderr.

pub mod args;
mod check;
mod demo;
pub mod exit;
mod explain;
mod init;
mod keyring;
mod live;
mod operate;
mod run;
mod running;
mod say;
mod token;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Verb};
use exit::Exit;
use say::{err, errln};

use crate::config::{self, Config};

/// Reads the arguments, does what they say, and gives back the exit code.
pub fn main() -> ExitCode {
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
    let done = match args.verb {
        Verb::Run(run) => run::run(config, &run),
        Verb::Check(check) => check::check(config, &check),
        Verb::Explain(explain) => explain::explain(config, &explain),
        Verb::Token(token) => token::token(config, &token),
        Verb::Init(init) => init::init(&init),
        Verb::Presets(presets) => init::presets(&presets),
        Verb::Demo(demo) => demo::demo(&demo),
        Verb::Status(flags) => operate::status(config, &flags),
        Verb::Wait(wait) => operate::wait(config, &wait),
        Verb::Healthcheck(at) => operate::healthcheck(config, &at),
        Verb::Schema(schema) => init::schema(&schema),
        Verb::Keyring(keyring) => keyring::keyring(keyring.verb),
        Verb::Completions(shell) => init::completions(&shell),
        Verb::Man => init::man(),
    };
    done.unwrap_or_else(|error| {
        errln!("error: {error:#}");
        Exit::Failed
    })
    .into()
}

/// A core file would hold secrets and tokens, and so does the memory that a debugger of the same user
/// could read.
fn keep_memory_private() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Core, none) {
        errln!("warning: core dumps could not be switched off: {error}");
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            errln!("warning: memory is open to debuggers: {error}");
        }
    }
}

/// A current_thread runtime for the control plane.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().max_blocking_threads(8).build()?)
}

/// Loads the configuration; its problems are printed, and the verb ends with [`Exit::Config`].
fn load(path: Option<&Path>) -> Result<Config, Exit> {
    let path = locate(path)?;
    match config::load(&path) {
        Ok(loaded) => Ok(loaded.config),
        Err(problems) => {
            err!("{}", problems.render(colors()));
            Err(Exit::Config)
        }
    }
}

/// The file that was named, or the first of the usual places.
fn locate(path: Option<&Path>) -> Result<PathBuf, Exit> {
    if let Some(path) = path {
        return Ok(path.to_owned());
    }
    config::find_file().ok_or_else(|| {
        errln!(
            "error: no configuration found\n  looked for bearer-proxy.toml in ./, \
             $XDG_CONFIG_HOME/bearer-proxy/ and /etc/bearer-proxy/\n  \
             write a first one with `bearer-proxy init PRESET`, or name one with --config"
        );
        Exit::Config
    })
}

/// Whether stderr takes colours; <https://no-color.org> is respected.
fn colors() -> bool {
    use std::io::IsTerminal;
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::io::stderr().is_terminal()
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
