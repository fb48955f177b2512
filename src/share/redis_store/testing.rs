//! Real servers for tests: `redis-server` on a Unix socket, and where a test needs it on TCP.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use redis::{Connection, FromRedisValue};
use tempfile::TempDir;
use tokio::sync::watch;

use super::super::metrics::ShareMetrics;
use super::super::names::{NameKey, TokenIdentity, TokenName};
use super::super::store::{Acquire, TokenStore};
use super::options::{Servers, StoreOptions};
use super::{RedisStore, ServerAddress};
use crate::sensitive::Sensitive;
use crate::telemetry::Registry;

/// Longest wait for an event.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The argument that makes a server a Sentinel; the others are lines of its configuration.
const SENTINEL: &str = "--sentinel";

/// The name of a token of this client.
pub(super) fn name(client: &str) -> TokenName {
    let identity = TokenIdentity {
        token_url: "https://canary-host.example/token",
        client_id: client,
        client_auth: "client_secret_post",
        grant: "client_credentials",
        scopes: Vec::new(),
        parameters: Default::default(),
    };
    let key = Sensitive::new("QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8=");
    TokenName::new(&NameKey::new(&key).unwrap(), &identity).unwrap()
}

/// A replica that asks for the lead.
pub(super) fn ask(owner: &str) -> Acquire<'_> {
    let lead = Some(Duration::from_secs(5));
    Acquire { owner, generation: 0, token_owner: "", lead, secret: "", budget: 0 }
}

/// A server of its own.
pub(super) struct Server {
    arguments: Vec<String>,
    child: Child,
    pub(super) dir: Arc<TempDir>,
    /// Open for as long as the server may write.
    log: BufReader<ChildStdout>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port on which nothing listens at the moment.
pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts it with further arguments, and waits until it listens. `None`, and a line on stderr, where none
    /// is installed.
    #[expect(clippy::print_stderr, reason = "a test that does nothing says so")]
    pub(super) fn start(arguments: &[&str]) -> Option<Self> {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let Some((child, log)) = spawn(&arguments, &dir) else {
            eprintln!("SKIPPED: redis-server is not installed");
            return None;
        };
        Some(Self { arguments, child, dir, log })
    }

    /// Starts a Sentinel, whose decision alone counts.
    pub(super) fn start_sentinel(port: &str, monitor: &str) -> Option<Self> {
        Self::start(&[
            SENTINEL,
            &format!("port {port}"),
            &format!("sentinel monitor {monitor}"),
            "sentinel down-after-milliseconds tokens 300",
            "sentinel failover-timeout tokens 2000",
        ])
    }

    /// Starts it again after [`Self::kill`], with the files that it left.
    pub(super) fn start_again(&mut self) {
        let started = spawn(&self.arguments, &self.dir);
        (self.child, self.log) = started.unwrap();
    }

    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(super) fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    pub(super) fn address(&self) -> ServerAddress {
        ServerAddress::Unix(self.socket())
    }

    pub(super) fn options(&self) -> StoreOptions {
        patient(Servers::Standalone(self.address()))
    }

    /// A connection of the administrator.
    pub(super) fn connect(&self) -> Connection {
        let url = format!("redis+unix://{}", self.socket().display());
        redis::Client::open(url).unwrap().get_connection().unwrap()
    }

    /// Runs one command as the administrator.
    pub(super) fn run<T: FromRedisValue>(&self, command: &str) -> T {
        run(&mut self.connect(), command).unwrap()
    }

    /// Reads the server's log up to a line that holds this text.
    pub(super) fn wait_for(&mut self, text: &str) {
        wait_for(&mut self.log, text);
    }
}

/// Runs one command, whose words are separated by spaces.
pub(super) fn run<T: FromRedisValue>(
    connection: &mut Connection,
    command: &str,
) -> redis::RedisResult<T> {
    let mut words = command.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        command.arg(word);
    });
    command.query(connection)
}

fn spawn(arguments: &[String], dir: &TempDir) -> Option<(Child, BufReader<ChildStdout>)> {
    let mut command = Command::new("redis-server");
    let ready = match arguments {
        [first, settings @ ..] if first == SENTINEL => {
            // It writes its state there.
            let file = dir.path().join("sentinel.conf");
            std::fs::write(&file, settings.join("\n")).unwrap();
            command.arg(file).arg(SENTINEL);
            "+monitor master"
        }
        _ => {
            command.args(["--port", "0", "--save", ""]).args(arguments);
            command.arg("--unixsocket").arg(dir.path().join("redis.sock"));
            "eady to accept connections"
        }
    };
    let mut child = command.current_dir(dir.path()).stdout(Stdio::piped()).spawn().ok()?;
    let mut log = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut log, ready);
    Some((child, log))
}

fn wait_for(log: &mut BufReader<ChildStdout>, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the server ended before {text:?}");
    }
}

/// Options for a busy machine: no time-out ends what would succeed.
pub(super) fn patient(servers: Servers) -> StoreOptions {
    StoreOptions {
        connect_timeout: PATIENCE,
        operation_timeout: PATIENCE,
        ..StoreOptions::new(servers)
    }
}

/// A store, and the registry of its metrics.
pub(super) fn store(options: StoreOptions) -> (RedisStore, Registry) {
    let registry = Registry::new();
    let metrics = ShareMetrics::register(&registry).unwrap();
    (RedisStore::start(options, metrics), registry)
}

/// Waits until the store is reached, or is not.
pub(super) async fn until(store: &RedisStore, reached: bool) {
    let mut state: watch::Receiver<bool> = store.reached();
    let changed = state.wait_for(|now| *now == reached);
    tokio::time::timeout(PATIENCE, changed).await.expect("the store's state").unwrap();
}
