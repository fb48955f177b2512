//! `Session`: one connection to one server, logged in.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisError, Value,
    cmd,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::either::Either;

use super::super::store::StoreError;
use super::address::ServerAddress;
use super::announcer::Announcer;
use super::failure::Circumstances;
use super::options::{Login, StoreOptions};
use crate::net::connect::{ConnectError, ConnectSettings, Connection, Connector};
use crate::net::stream::MaybeTlsStream;
use crate::net::tls::{Alpn, TlsCache};
use crate::net::unix::UnixStream;

/// The name of the connection in `CLIENT LIST`.
const CLIENT_NAME: &str = "bearer-proxy";
/// Time that sent bytes may stay unacknowledged before the connection counts as dead.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);

/// The stream below a connection.
pub(super) type Stream = Either<MaybeTlsStream, UnixStream>;
/// The future that moves the bytes of a connection; it ends with the connection.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection that commands are sent over. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Session {
    connection: MultiplexedConnection,
    pub(super) address: ServerAddress,
    server: String,
    user: String,
    /// Takes the first error after which the connection is of no use.
    broken: mpsc::Sender<StoreError>,
}

/// A new session with what keeps it alive.
pub(super) struct OpenSession {
    pub(super) session: Session,
    pub(super) driver: Driver,
    pub(super) broken: mpsc::Receiver<StoreError>,
}

/// The reason why a command has no reply.
#[derive(Debug)]
pub(super) enum CommandError {
    /// The script is not in the server's cache.
    NoScript,
    /// Another node of the cluster has the key; with `ask` for this command only.
    Elsewhere { ask: bool, address: ServerAddress },
    /// The error for the caller.
    Store(StoreError),
}

impl From<CommandError> for StoreError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Store(error) => error,
            // Neither comes but from a script that a caller of its own deals with.
            CommandError::NoScript | CommandError::Elsewhere { .. } => Self::Malformed,
        }
    }
}

/// Opens a connection to a server: DNS, TCP and TLS, or the Unix socket.
pub(super) async fn open_stream(
    address: &ServerAddress,
    options: &StoreOptions,
) -> Result<Stream, StoreError> {
    match address {
        ServerAddress::Tcp(_) => {
            let connected = connector(address, options)?.connect().await;
            let Connection { stream, .. } = connected.map_err(|error| unreachable(&error))?;
            Ok(Either::Left(stream))
        }
        #[cfg(unix)]
        ServerAddress::Unix(path) => {
            UnixStream::connect(path).await.map(Either::Right).map_err(|error| {
                let path = path.display();
                StoreError::Unreachable(format!(
                    "no connection to {path}: {}; does a server run there?",
                    error.kind()
                ))
            })
        }
        #[cfg(not(unix))]
        ServerAddress::Unix(_) => {
            Err(StoreError::Refused("there are no Unix sockets on this system".to_owned()))
        }
    }
}

/// The connector to a TCP address.
pub(super) fn connector(
    address: &ServerAddress,
    options: &StoreOptions,
) -> Result<Connector, StoreError> {
    let ServerAddress::Tcp(origin) = address else {
        return Err(StoreError::Refused(format!("{address} is a Unix socket")));
    };
    let settings =
        ConnectSettings { timeout: options.connect_timeout, tcp_user_timeout: TCP_USER_TIMEOUT };
    // A cache of its own, so that renewed files are read.
    Connector::new(&TlsCache::default(), origin.clone(), &options.tls, Alpn::None, settings)
        .map_err(|error| StoreError::Refused(error.to_string()))
}

fn unreachable(error: &ConnectError) -> StoreError {
    StoreError::Unreachable(match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    })
}

/// Logs in over a stream. Push messages go to the announcer, if there is one.
pub(super) async fn log_in(
    stream: Stream,
    address: &ServerAddress,
    login: &Login,
    database: u32,
    announcer: Option<&Announcer>,
) -> Result<OpenSession, StoreError> {
    let mut info = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name()
        .set_db(database.into());
    if let Some(username) = &login.username {
        info = info.set_username(username);
    }
    if let Some(password) = &login.password {
        let password = password.read().await.map_err(|error| {
            StoreError::Refused(format!("the password for {address} cannot be read: {error}"))
        })?;
        info = info.set_password(password.expose());
    }
    // Each command has a deadline of its own.
    let mut config = AsyncConnectionConfig::new().set_response_timeout(None);
    if let Some(announcer) = announcer {
        config = config.set_push_sender(announcer.clone());
    }
    let (server, user) = (address.to_string(), login.user().to_owned());
    let at_login = Circumstances { server: &server, user: &user, command: "HELLO" };
    let (connection, driver) =
        over(&info, stream, config).await.map_err(|error| at_login.error(&error))?;
    let (report, broken) = mpsc::channel(1);
    let session = Session { connection, address: address.clone(), server, user, broken: report };
    Ok(OpenSession { session, driver, broken })
}

async fn over(
    info: &RedisConnectionInfo,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    config: AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, Driver), RedisError> {
    let (connection, driver) = MultiplexedConnection::new_with_config(info, stream, config).await?;
    Ok((connection, Box::pin(driver)))
}

impl OpenSession {
    /// Runs the first commands of a session, which need its driver.
    pub(super) async fn with_driver<T>(
        &mut self,
        commands: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::select! {
            result = commands => result,
            () = &mut self.driver => Err(self.session.lost()),
        }
    }
}

impl Session {
    /// The error of a connection that ended.
    pub(super) fn lost(&self) -> StoreError {
        StoreError::Unreachable(format!("the connection to {} was lost", self.server))
    }

    /// Sends a command and awaits its reply until the deadline. `name` is that of messages.
    pub(super) async fn send(
        &self,
        name: &str,
        command: &Cmd,
        limit: Limit,
    ) -> Result<Value, CommandError> {
        let mut connection = self.connection.clone();
        self.settle(name, connection.send_packed_command(command), limit).await
    }

    /// The same for a command after ASKING, which must reach the server together.
    pub(super) async fn send_asking(
        &self,
        name: &str,
        command: &Cmd,
        limit: Limit,
    ) -> Result<Value, CommandError> {
        let mut connection = self.connection.clone();
        let mut both = Pipeline::with_capacity(2);
        both.add_command(cmd("ASKING")).add_command(command.clone());
        let replies = connection.send_packed_commands(&both, 0, 2);
        let last = async { replies.await.map(|mut replies| replies.pop().unwrap_or_default()) };
        self.settle(name, last, limit).await
    }

    async fn settle(
        &self,
        name: &str,
        reply: impl Future<Output = Result<Value, RedisError>>,
        limit: Limit,
    ) -> Result<Value, CommandError> {
        let circumstances = Circumstances { server: &self.server, user: &self.user, command: name };
        let error = match tokio::time::timeout_at(limit.deadline, reply).await {
            Ok(Ok(value)) => match value.extract_error() {
                Ok(value) => return Ok(value),
                Err(error) => self.explain(circumstances, &error),
            },
            Ok(Err(error)) => self.explain(circumstances, &error),
            Err(_) => CommandError::Store(circumstances.timed_out(limit.duration)),
        };
        if let CommandError::Store(error @ StoreError::Unreachable(_)) = &error {
            // Full: another command has reported it already.
            let _ = self.broken.try_send(error.clone());
        }
        Err(error)
    }

    fn explain(&self, circumstances: Circumstances<'_>, error: &RedisError) -> CommandError {
        match error.code() {
            Some("NOSCRIPT") => return CommandError::NoScript,
            Some(code @ ("MOVED" | "ASK")) => {
                if let Some(address) = self.redirected(error) {
                    return CommandError::Elsewhere { ask: code == "ASK", address };
                }
            }
            _ => {}
        }
        CommandError::Store(circumstances.error(error))
    }

    /// The node that a redirection names: `3999 10.0.0.1:6381`.
    fn redirected(&self, error: &RedisError) -> Option<ServerAddress> {
        let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
        self.address.sibling(host.trim_matches(['[', ']']), port.parse().ok()?).ok()
    }

    /// Names the connection in `CLIENT LIST`; a user without the right to does without.
    pub(super) async fn name(&self, limit: Limit) -> Result<(), StoreError> {
        let command = cmd("CLIENT").arg("SETNAME").arg(CLIENT_NAME).to_owned();
        match self.send("CLIENT SETNAME", &command, limit).await.map_err(StoreError::from) {
            Ok(_) | Err(StoreError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Checks that the server answers commands, which one that loads its data does not.
    pub(super) async fn ping(&self, limit: Limit) -> Result<(), StoreError> {
        self.send("PING", &cmd("PING"), limit).await.map(drop).map_err(StoreError::from)
    }

    /// The role of the server: `master` or `slave`.
    pub(super) async fn role(&self, limit: Limit) -> Result<String, StoreError> {
        let reply = self.send("ROLE", &cmd("ROLE"), limit).await?;
        match reply {
            Value::Array(parts) => match parts.into_iter().next() {
                Some(Value::BulkString(role)) => {
                    String::from_utf8(role).map_err(|_| StoreError::Malformed)
                }
                _ => Err(StoreError::Malformed),
            },
            _ => Err(StoreError::Malformed),
        }
    }

    /// Subscribes to the channels of all tokens.
    pub(super) async fn subscribe(
        &self,
        announcer: &Announcer,
        limit: Limit,
    ) -> Result<(), StoreError> {
        let mut connection = self.connection.clone();
        let subscribed =
            async { connection.psubscribe(announcer.pattern()).await.map(|()| Value::Okay) };
        self.settle("PSUBSCRIBE", subscribed, limit).await.map(drop).map_err(StoreError::from)
    }
}

/// The time that is left for a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    deadline: Instant,
    /// The configured duration, for messages.
    duration: Duration,
}

impl Limit {
    /// A limit that begins now.
    pub(super) fn of(duration: Duration) -> Self {
        Self { deadline: Instant::now() + duration, duration }
    }

    /// Awaits a future until the deadline.
    pub(super) async fn bound<T>(self, future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.deadline, future).await.ok()
    }

    pub(super) fn duration(self) -> Duration {
        self.duration
    }
}
