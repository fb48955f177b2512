//! Secrets from the output of a program: any store that has a command line.
//!
//! The program is run without a shell, with a few environment variables and no input, for at most ten
//! seconds. At most 64 KiB of its stdout are read and never logged; its stderr is discarded, because
//! programs repeat their arguments there.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use super::error::SecretFault;
use super::text;
use crate::sensitive::Sensitive;

/// Time for the program to print its value and end.
const LIMIT: Duration = Duration::from_secs(10);

/// Environment variables by which clients of stores find their files, their user and their session.
const PASSED_VARIABLES: [&str; 9] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "HOME",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "PATH",
    "TMPDIR",
    "USER",
    "XDG_RUNTIME_DIR",
];

/// Runs a program, given by its absolute path and arguments, and reads its stdout.
pub(super) async fn read(command: &[String]) -> Result<Sensitive, SecretFault> {
    read_within(command, LIMIT).await
}

async fn read_within(command: &[String], limit: Duration) -> Result<Sensitive, SecretFault> {
    let (program, arguments) = command.split_first().ok_or(SecretFault::Missing)?;
    let mut child = prepare(program, arguments).spawn()?;
    let outcome = tokio::time::timeout(limit, output(&mut child)).await;
    if !matches!(outcome, Ok(Ok(_))) {
        // `kill_on_drop` ends the program alone; its children may still hold the secret.
        kill(&child);
    }
    outcome.unwrap_or(Err(SecretFault::TimedOut(limit)))
}

fn prepare(program: &str, arguments: &[String]) -> Command {
    let kept = PASSED_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(kept)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    // A process group of its own, so that its children can be killed with it.
    #[cfg(unix)]
    command.process_group(0);
    command
}

async fn output(child: &mut Child) -> Result<Sensitive, SecretFault> {
    let stdout =
        child.stdout.take().ok_or_else(|| SecretFault::Unreadable("it has no output".into()))?;
    let mut bytes = text::buffer();
    stdout.take(text::READ_LIMIT as u64).read_to_end(&mut bytes).await?;
    // Decoded before the wait: a program that prints without end would never exit.
    let value = text::decode(&bytes);
    if matches!(value, Err(SecretFault::TooLong)) {
        return value;
    }
    let status = child.wait().await?;
    if !status.success() {
        return Err(SecretFault::Failed(status.code()));
    }
    value
}

/// Kills the program and all that it has started.
fn kill(child: &Child) {
    #[cfg(unix)]
    if let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()) {
        use rustix::process::{Pid, Signal, kill_process_group};

        // An error means that all of them have exited already.
        let _exited = Pid::from_raw(group).map(|group| kill_process_group(group, Signal::KILL));
    }
    #[cfg(not(unix))]
    let _killed_on_drop = child;
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str) -> Result<Sensitive, SecretFault> {
        read(&["/bin/sh".into(), "-c".into(), script.into()]).await
    }

    #[tokio::test]
    async fn what_a_program_prints() {
        let check = async |script: &str, expected: Result<&str, SecretFault>| {
            assert_eq!(shell(script).await, expected.map(Sensitive::new), "{script}");
        };
        check("printf s+1", Ok("s+1")).await;
        check("echo told >&2; printf s", Ok("s")).await;
        check("printf s; exit 3", Err(SecretFault::Failed(Some(3)))).await;
        check("kill -9 $$", Err(SecretFault::Failed(None))).await;
        check("printf '\\377'", Err(SecretFault::NotUtf8)).await;
        check("yes", Err(SecretFault::TooLong)).await;
        check("cat", Ok("")).await;
        check("printf '%s' \"$CARGO_MANIFEST_DIR\"", Ok("")).await;
        check("pwd", Ok("/\n")).await;
        let absent = read(&["/nowhere/program".into()]).await;
        assert_eq!(absent, Err(SecretFault::Missing));
    }

    #[tokio::test]
    async fn arguments_meet_no_shell() {
        let command = ["/bin/echo", "-n", "$HOME", ";", "*"].map(String::from);
        assert_eq!(read(&command).await, Ok(Sensitive::new("$HOME ; *")));
    }

    /// Processes that the program has started hold a FIFO open, whose other end sees them end.
    #[cfg(unix)]
    #[tokio::test]
    async fn a_program_that_hangs_is_ended_with_all_it_has_started() {
        use rustix::fs::{Mode, OFlags, open};

        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("alive");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let mut witness: std::fs::File =
            open(&fifo, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap().into();
        let script = format!("sleep 1000 >{} & wait", fifo.display());
        let limit = Duration::from_millis(200);
        let found = read_within(&["/bin/sh".into(), "-c".into(), script], limit).await;
        assert_eq!(found, Err(SecretFault::TimedOut(limit)));
        while std::io::Read::read(&mut witness, &mut [0]).is_err() {
            tokio::task::yield_now().await;
        }
    }
}
