//! The program as its users run it: a child process with a configuration file.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::sync::watch;

use super::{client, soon};

/// A running `bearer-proxy run`; killed when dropped.
pub struct Proxy {
    /// Where it takes requests.
    pub addr: SocketAddr,
    /// Where it answers operators.
    pub admin_addr: SocketAddr,
    /// The configuration file, to be changed by stories about reload.
    pub config_path: std::path::PathBuf,
    child: Child,
    log: watch::Receiver<Vec<String>>,
    output: watch::Receiver<Vec<String>>,
    _dir: tempfile::TempDir,
}

impl Proxy {
    /// Starts the program with this configuration and waits until both listeners are bound.
    pub async fn start(config: &str) -> Self {
        Self::start_in(config, &[]).await
    }

    /// The same, with further environment variables.
    pub async fn start_in(config: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_with(config, environment, &[], Stdio::null()).await
    }

    /// The same, with a command beside it.
    pub async fn start_beside(config: &str, command: &[&str]) -> Self {
        Self::start_with(config, &[], command, Stdio::null()).await
    }

    /// The same, with something to read from.
    pub async fn start_reading(config: &str, stdin: impl Into<Stdio>) -> Self {
        Self::start_with(config, &[], &[], stdin.into()).await
    }

    /// The same with a listening socket, as systemd passes it: as descriptor 3, under the name `proxy`.
    pub async fn start_inheriting(config: &str, listener: &std::net::TcpListener) -> Self {
        // The shell becomes the program, which keeps its process id.
        let script = "exec 3<&0 0</dev/null; \
            export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=proxy; exec \"$@\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh", env!("CARGO_BIN_EXE_bearer-proxy")]);
        let passed = std::os::fd::OwnedFd::from(listener.try_clone().unwrap());
        Self::start_by(shell, config, &[], &[], passed.into()).await
    }

    async fn start_with(
        config: &str,
        environment: &[(&str, &str)],
        command: &[&str],
        stdin: Stdio,
    ) -> Self {
        let program = Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
        Self::start_by(program, config, environment, command, stdin).await
    }

    async fn start_by(
        mut program: Command,
        config: &str,
        environment: &[(&str, &str)],
        command: &[&str],
        stdin: Stdio,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config_path = dir.path().join("bearer-proxy.toml");
        std::fs::write(&config_path, config).unwrap();
        let mut child = program
            .args(["run", "--config"])
            .arg(&config_path)
            .args(command.first().map(|_| "--"))
            .args(command)
            .current_dir(dir.path())
            .envs(environment.iter().copied())
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = collect(child.stderr.take().unwrap());
        let output = collect(child.stdout.take().unwrap());
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut proxy =
            Self { addr: unknown, admin_addr: unknown, config_path, child, log, output, _dir: dir };
        proxy.addr = proxy.listener("proxy").await;
        proxy.admin_addr = proxy.listener("admin").await;
        proxy
    }

    /// Waits for a log line that `wanted` makes something of.
    pub async fn wait_log<T>(&self, wanted: impl Fn(&str) -> Option<T>) -> T {
        let mut log = self.log.clone();
        let found = async {
            loop {
                // A copy: `wanted` may look at the log itself, and a second borrow of it waits for
                // a line that wants to be written, which waits for the first.
                let lines = log.borrow_and_update().clone();
                if let Some(found) = lines.iter().find_map(|line| wanted(line)) {
                    return Some(found);
                }
                if log.changed().await.is_err() {
                    // The last lines may have come together with the end.
                    return log.borrow().iter().find_map(|line| wanted(line));
                }
            }
        };
        soon(found).await.unwrap_or_else(|| panic!("it ended; its log:\n{}", self.log()))
    }

    /// Everything it has written to stderr so far.
    pub fn log(&self) -> String {
        self.log.borrow().join("\n")
    }

    /// Nobody reads its log until what is returned is dropped.
    pub fn hold_log(&self) -> watch::Ref<'_, Vec<String>> {
        // The thread that reads the log waits for this borrow before it adds the next line.
        self.log.borrow()
    }

    /// Everything it has written to stdout so far.
    pub fn output(&self) -> String {
        self.output.borrow().join("\n")
    }

    /// Waits until `/readyz` says 200. Between tries it waits for the next log line, at most 20 ms.
    pub async fn wait_ready(&self) {
        let mut log = self.log.clone();
        soon(async {
            while client(self.admin_addr).await.get("/readyz").await.status != 200 {
                let next = tokio::time::timeout(Duration::from_millis(20), log.changed());
                assert!(!matches!(next.await, Ok(Err(_))), "it ended; its log:\n{}", self.log());
            }
        })
        .await;
    }

    /// The process id, for signals.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Waits until it has ended by itself.
    pub async fn wait_exit(&mut self) -> ExitStatus {
        let mut log = self.log.clone();
        // Its stderr closes when it ends: the event that needs no polling.
        soon(async { while log.changed().await.is_ok() {} }).await;
        self.child.wait().unwrap()
    }

    async fn listener(&self, role: &str) -> SocketAddr {
        self.wait_log(|line| listening(line, role)).await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Gathers lines until the stream closes; the receiver then sees the end.
pub fn collect(stream: impl Read + Send + 'static) -> watch::Receiver<Vec<String>> {
    let (sender, receiver) = watch::channel(Vec::new());
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            sender.send_modify(|lines| lines.push(line));
        }
    });
    receiver
}

/// The address in a line that says that the `role` listener is bound, as JSON, as `key=value`
/// or as prose.
fn listening(line: &str, role: &str) -> Option<SocketAddr> {
    let words: Vec<&str> =
        line.split(|c: char| c.is_whitespace() || "\"'=,{}()/".contains(c)).collect();
    let words: Vec<&str> =
        words.into_iter().filter(|word| !word.is_empty() && *word != ":").collect();
    let pair = |first: &str, second: &str| words.windows(2).any(|two| two == [first, second]);
    let ours = pair("listener", role) || pair(role, "listening");
    if !(ours && words.contains(&"listening")) {
        return None;
    }
    words.iter().find_map(|word| word.parse().ok())
}

#[test]
fn the_listening_line_is_found_in_any_format() {
    let check = |line: &str, role: &str, expected: Option<&str>| {
        assert_eq!(listening(line, role), expected.map(|addr| addr.parse().unwrap()), "{line}");
    };
    let json = r#"{"level":"INFO","target":"bearer_proxy::app","message":"listening","listener":"proxy","addr":"127.0.0.1:4000"}"#;
    check(json, "proxy", Some("127.0.0.1:4000"));
    check(json, "admin", None);
    check("INFO bearer_proxy: listening listener=admin addr=[::1]:5", "admin", Some("[::1]:5"));
    check("INFO listening listener=\"proxy\" addr=127.0.0.1:5", "proxy", Some("127.0.0.1:5"));
    check("proxy listening on http://127.0.0.1:6", "proxy", Some("127.0.0.1:6"));
    check("proxy connects to 127.0.0.1:6", "proxy", None);
}
