//! `Session`: one connection to one server, logged in.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
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
use super::bounded::{Bounded, ReadCount};
use super::failure::{Circumstances, needs_new_connection};
use super::options::{Login, StoreOptions};
use crate::net::connect::{ConnectError, ConnectSettings, Connection, Connector};
use crate::net::stream::MaybeTlsStream;
use crate::net::tls::{Alpn, TlsCache};
use crate::net::unix::UnixStream;

/// The name of the connection in `CLIENT LIST`.
const CLIENT_NAME: &str = "bearer-proxy";
/// Nodes of a cluster that are remembered, to connect to when others are away.
const MAX_NODES: usize = 64;
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
    count: ReadCount,
    /// Takes the first error after which the connection is of no use.
    broken: mpsc::Sender<StoreError>,
    /// That error. Commands that it ended say it too, and not that the connection was closed.
    cause: Arc<OnceLock<StoreError>>,
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
            CommandError::Elsewhere { .. } => Self::Refused(
                "the server is a node of a cluster; write `cluster = true`".to_owned(),
            ),
            // A server that does not know a script whose text it was sent.
            CommandError::NoScript => Self::Malformed,
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
    let count = ReadCount::default();
    let stream = Bounded::new(stream, count.clone());
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
        config = config.set_push_sender(announcer.with_count(&count));
    }
    let (server, user) = (address.to_string(), login.user().to_owned());
    let at_login = Circumstances { server: &server, user: &user, command: "HELLO" };
    let (connection, driver) =
        over(&info, stream, config).await.map_err(|error| at_login.error(&error))?;
    let (report, broken) = mpsc::channel(1);
    let session = Session {
        connection,
        address: address.clone(),
        server,
        user,
        count,
        broken: report,
        cause: Arc::default(),
    };
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
        let result = match tokio::time::timeout_at(limit.deadline, reply).await {
            Ok(reply) => {
                self.count.reset();
                reply.and_then(Value::extract_error)
            }
            Err(_) => {
                let error = circumstances.timed_out(limit.duration);
                self.report(&error);
                return Err(CommandError::Store(error));
            }
        };
        result.map_err(|error| {
            if let (None, Some(cause)) = (error.code(), self.cause.get()) {
                return CommandError::Store(cause.clone());
            }
            let explained = self.explain(circumstances, &error);
            if let CommandError::Store(told) = &explained
                && needs_new_connection(&error)
            {
                self.report(told);
            }
            explained
        })
    }

    /// Reports that the connection is of no use.
    fn report(&self, error: &StoreError) {
        // Set already: the first one led to all others.
        let _ = self.cause.set(error.clone());
        // Full: another command has reported it already.
        let _ = self.broken.try_send(error.clone());
    }

    fn explain(&self, circumstances: Circumstances<'_>, error: &RedisError) -> CommandError {
        match (error.code(), self.redirected(error)) {
            (Some("NOSCRIPT"), _) => CommandError::NoScript,
            (code, Some(address)) => CommandError::Elsewhere { ask: code == Some("ASK"), address },
            (_, None) => CommandError::Store(circumstances.error(error)),
        }
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
        match array(reply).and_then(|parts| parts.into_iter().next()) {
            Some(Value::BulkString(role)) => {
                String::from_utf8(role).map_err(|_| StoreError::Malformed)
            }
            _ => Err(StoreError::Malformed),
        }
    }

    /// The nodes of the cluster, at most [`MAX_NODES`]; none if the user may not ask, or in another form.
    pub(super) async fn nodes(&self, limit: Limit) -> Result<Vec<ServerAddress>, StoreError> {
        let command = cmd("CLUSTER").arg("SLOTS").to_owned();
        let slots =
            match self.send("CLUSTER SLOTS", &command, limit).await.map_err(StoreError::from) {
                Ok(Value::Array(slots)) => slots,
                Ok(_) | Err(StoreError::Refused(_)) => Vec::new(),
                Err(error) => return Err(error),
            };
        // A range of slots: its first, its last, then its nodes, each with host, port and more.
        let nodes = slots.into_iter().filter_map(array).flatten().filter_map(array);
        let named = |node: Vec<Value>| match &*node {
            [Value::BulkString(host), Value::Int(port), ..] => {
                let (host, port) = (std::str::from_utf8(host).ok()?, u16::try_from(*port).ok()?);
                self.address.sibling(host, port).ok()
            }
            _ => None,
        };
        Ok(nodes.filter_map(named).take(MAX_NODES).collect())
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

fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(parts) => Some(parts),
        _ => None,
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

#[cfg(test)]
mod tests {
    use super::super::options::Servers;
    use super::super::testing::{Server, ask, free_port, name, patient, store, until};
    use super::*;
    use crate::net::testing::Authority;
    use crate::net::tls::TlsSettings;
    use crate::share::protocol::AcquireReply;
    use crate::share::store::TokenStore;

    #[tokio::test]
    async fn tls_verifies_the_server_and_presents_a_client_certificate() {
        let (ca, port) = (Authority::new(), free_port());
        let [certificate, key] = ca.certificate_files("server", "localhost");
        let [certificate, key, root] =
            [certificate, key, ca.file("ca.pem")].map(|file| file.to_str().unwrap().to_owned());
        let text = port.to_string();
        let arguments = [
            ["--tls-port", &text],
            ["--tls-cert-file", &certificate],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &root],
            ["--tls-auth-clients", "yes"],
        ];
        let Some(_server) = Server::start(arguments.as_flattened()) else { return };
        let address = |host: &str| {
            let url = format!("rediss://{host}:{port}");
            Servers::Standalone(ServerAddress::parse(&url).unwrap().0)
        };
        let presents =
            TlsSettings { client_certificate: Some(ca.client_certificate()), ..ca.trusted() };
        let options = |host: &str, tls: TlsSettings| StoreOptions { tls, ..patient(address(host)) };
        let (trusted, _) = store(options("localhost", presents.clone()));
        until(&trusted, true).await;
        let token = name("client");
        assert_eq!(trusted.acquire(&token, ask("r1")).await, Ok(AcquireReply::Lead(1)));
        let other = Authority::named("another authority");
        let foreign =
            TlsSettings { extra_ca_files: other.trusted().extra_ca_files, ..presents.clone() };
        for (host, tls, words) in [
            ("localhost", ca.trusted(), "was lost: "),
            ("localhost", foreign, "TLS with localhost"),
            ("127.0.0.1", presents, "TLS with 127.0.0.1"),
        ] {
            let error = super::super::connecting::open(
                &match address(host) {
                    Servers::Standalone(address) => address,
                    _ => unreachable!(),
                },
                &options(host, tls),
                None,
            )
            .await;
            let error = error.err().unwrap().to_string();
            assert!(error.contains(words), "{host}: {error}");
        }
    }
}
