//! Errors of a server as [`StoreError`]s: in words of this program that name the server, the user and the
//! command. Of the server's own text they hold its error code only.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, RedisError};

use super::super::store::StoreError;
use crate::x509::diagnosis;

/// The circumstances of a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances<'a> {
    /// The server.
    pub(super) server: &'a str,
    /// The ACL user.
    pub(super) user: &'a str,
    /// The command.
    pub(super) command: &'a str,
}

impl Circumstances<'_> {
    /// The error that a reply to the command means.
    pub(super) fn error(self, error: &RedisError) -> StoreError {
        let Self { server, user, command } = self;
        let Some(code) = code(error) else {
            return match error.kind() {
                ErrorKind::AuthenticationFailed => self.refused_login(),
                ErrorKind::RESP3NotSupported => StoreError::Refused(format!(
                    "{server} does not know HELLO; Redis 6.2, Valkey or later is needed"
                )),
                _ => {
                    let why = cause(error).map(|why| format!(": {why}")).unwrap_or_default();
                    StoreError::Unreachable(format!("the connection to {server} was lost{why}"))
                }
            };
        };
        let unreachable = match &*code {
            "NOAUTH" | "WRONGPASS" => return self.refused_login(),
            "NOPERM" => {
                return StoreError::Refused(format!(
                    "{server} does not permit the user {user} to run {command} on its keys; compare \
                     `ACL GETUSER {user}` with the ACL in the documentation"
                ));
            }
            "READONLY" => "is a replica that takes no writes",
            "LOADING" => "is loading its data",
            "MASTERDOWN" => "has lost its master",
            "CLUSTERDOWN" => "cannot serve this key: its cluster is down",
            "TRYAGAIN" => "cannot serve this key while it moves it to another node",
            "BUSY" => "is busy with a script",
            "OOM" => {
                "has no memory left: raise its maxmemory, or give tokens a server of their own"
            }
            "MISCONF" => "takes no writes because it cannot save to its disk",
            "NOREPLICAS" => "takes no writes because it has too few replicas",
            "MOVED" | "ASK" => {
                return StoreError::Refused(format!(
                    "{server} is a node of a cluster; write `cluster = true`"
                ));
            }
            code => {
                return StoreError::Refused(format!("{server} answered {command} with {code}"));
            }
        };
        StoreError::Unreachable(format!("{server} {unreachable}"))
    }

    fn refused_login(self) -> StoreError {
        let Self { server, user, .. } = self;
        StoreError::Refused(format!(
            "{server} refused the login of the user {user}; is the password that of the user, and is the user on?"
        ))
    }

    /// The error of a command without a reply.
    pub(super) fn timed_out(self, limit: Duration) -> StoreError {
        let Self { server, command, .. } = self;
        StoreError::Unreachable(format!("{server} did not answer {command} within {limit:?}"))
    }
}

/// The error of reading or writing, in words. A TLS 1.3 server rejects a client certificate so.
fn cause(error: &RedisError) -> Option<String> {
    let source = error.source()?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    let source = source.downcast_ref::<io::Error>()?;
    let words = diagnosis::io_words(source);
    Some(match diagnosis::of_exchange(source) {
        Some(hint) => format!("{words}; {hint}"),
        None => words,
    })
}

/// True if another connection may do better: this one has ended, the server is another one than it was, or
/// the password has changed. A node that moves keys, or a server without memory, is the same over any
/// connection.
pub(super) fn needs_new_connection(error: &RedisError) -> bool {
    let code = code(error);
    let codes = ["READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH", "WRONGPASS"];
    code.is_none_or(|code| codes.contains(&&*code))
}

/// The code of a server's error; `None` for one of the connection. Redis before 7 puts the code of an error
/// within a script into the text: `ERR Error running script …: -READONLY …`.
fn code(error: &RedisError) -> Option<String> {
    let is_code = |word: &&str| {
        word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let outer = error.code()?;
    let detail = error.detail().unwrap_or_default();
    let inner = detail.split(": -").nth(1).and_then(|text| text.split(' ').next());
    let no_permission = detail.contains("The user executing the script can't");
    let code = match (outer, inner.filter(is_code)) {
        ("ERR", Some(inner)) => inner,
        ("ERR", None) if no_permission => "NOPERM",
        (outer, _) if is_code(&outer) => outer,
        _ => "an error",
    };
    Some(code.to_owned())
}

#[cfg(test)]
mod tests {
    use redis::make_extension_error;

    use super::*;

    fn of(code: &str, detail: &str) -> StoreError {
        let error = make_extension_error(code.to_owned(), Some(detail.to_owned()));
        let circumstances = Circumstances {
            server: "rediss://valkey:6379",
            user: "bearer-proxy",
            command: "publish",
        };
        circumstances.error(&error)
    }

    #[test]
    fn a_code_decides_whether_trying_again_may_help() {
        let unreachable = |code: &str, detail: &str, words: &str| match of(code, detail) {
            StoreError::Unreachable(message) => assert!(message.contains(words), "{message}"),
            error => panic!("{code}: {error}"),
        };
        unreachable("READONLY", "You can't write against a read only replica.", "replica");
        unreachable(
            "ERR",
            "Error running script (call to f_1): @user_script:3: -READONLY You",
            "replica",
        );
        unreachable("LOADING", "Redis is loading the dataset in memory", "loading");
        unreachable("MASTERDOWN", "Link with MASTER is down", "master");
        unreachable("CLUSTERDOWN", "Hash slot not served", "cluster");
        unreachable("OOM", "command not allowed when used memory > 'maxmemory'", "maxmemory");
        let refused = |code: &str, detail: &str, words: &str| match of(code, detail) {
            StoreError::Refused(message) => {
                assert!(message.contains(words) && message.contains("valkey"), "{message}");
                assert!(!message.contains("canary"), "{message}");
            }
            error => panic!("{code}: {error}"),
        };
        refused("NOAUTH", "Authentication required.", "login of the user bearer-proxy");
        refused("WRONGPASS", "invalid username-password pair canary", "login");
        refused("NOPERM", "User canary has no permissions", "run publish");
        refused("ERR", "The user executing the script can't run this command or subcommand", "ACL");
        refused("MOVED", "1234 10.0.0.1:7000", "cluster = true");
        refused("WHATEVER", "canary", "publish with WHATEVER");
        refused("not a code", "canary", "publish with an error");
    }
}
