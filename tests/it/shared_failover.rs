//! Replicas that share a token while the store fails over in the middle of a renewal: a master that Sentinels
//! name, and a cluster. Without a `redis-server` on this machine the stories do nothing, and say so.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::shared_tokens::{PASSWORD, Story};
use crate::support::{client, soon};

/// The time for which the token server keeps the answer back, in which the store loses its master.
const ANSWER: Duration = Duration::from_millis(500);
/// From the new master to one token in all replicas.
const AFTER_FAILOVER: Duration = Duration::from_secs(5);

/// A server, or a Sentinel; killed when dropped.
struct Server {
    child: Child,
    port: String,
    log: BufReader<ChildStdout>,
    _dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

impl Server {
    /// Starts it with these lines of configuration, and waits for this text in its log.
    #[expect(clippy::print_stderr, reason = "a story that does nothing says so")]
    fn start(lines: &str, arguments: &[&str], ready: &str) -> Option<Self> {
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let file = dir.path().join("redis.conf");
        std::fs::write(&file, format!("port {port}\n{lines}\n")).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(file).args(arguments).current_dir(dir.path()).stdout(Stdio::piped());
        let Ok(mut child) = command.spawn() else {
            eprintln!("SKIPPED: redis-server is not installed");
            return None;
        };
        let log = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self { child, port, log, _dir: dir };
        server.wait_for(ready);
        Some(server)
    }

    /// A server with the password of the stories, and further lines.
    fn data(lines: &str) -> Option<Self> {
        let lines = format!(
            "save \"\"\nrequirepass {PASSWORD}\nmasterauth {PASSWORD}\nrepl-diskless-sync-delay 0\n{lines}"
        );
        Self::start(&lines, &[], "eady to accept connections")
    }

    /// Reads the log up to a line that holds this text.
    fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "it ended before {text:?}");
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Runs `redis-cli` with these arguments.
    fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port, "-a", PASSWORD, "--no-auth-warning"]).args(arguments);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }
}

/// Renews the token of a story, kills a server while the token server answers, and waits with `failed_over`
/// for the end of the fail-over. Then all replicas have one live token soon, for at most two calls.
async fn renew_through_a_failover(
    story: &Story,
    mut killed: Server,
    failed_over: impl FnOnce() -> Server + Send + 'static,
) {
    let generation = story.one_generation(1).await;
    let ledger = story.bank.auth.ledger();
    let calls = ledger.calls().len();
    story.bank.auth.set_latency(ANSWER);
    let leads = |share: &serde_json::Value| share["leads"] == true;
    let leader = story.shares().await.iter().position(leads).unwrap();
    story.refresh(leader).await;
    soon(ledger.wait_calls(calls + 1)).await;
    killed.kill();
    let _serves_on = soon(tokio::task::spawn_blocking(failed_over)).await.unwrap();
    let began = Instant::now();
    story.one_generation(generation + 1).await;
    assert!(began.elapsed() <= AFTER_FAILOVER, "{:?} after the fail-over", began.elapsed());
    for replica in &story.replicas {
        // The bank keeps one live token: all replicas have it.
        let mut app = client(replica.addr).await;
        assert_eq!(soon(app.get("/v1/x")).await.status, 200);
    }
    let of_this_life = ledger.calls().len() - calls;
    assert!((1..=2).contains(&of_this_life), "{of_this_life} calls");
    // And they go on.
    let generation = story.one_generation(generation + 1).await;
    let calls = ledger.calls().len();
    story.refresh((leader + 1) % story.replicas.len()).await;
    soon(ledger.wait_answered(calls + 1)).await;
    story.one_generation(generation + 1).await;
    assert_eq!(ledger.calls().len(), calls + 1);
}

#[tokio::test]
async fn a_sentinel_that_fails_over_during_a_renewal_costs_at_most_a_call() {
    let Some(master) = Server::data("") else { return };
    let mut replica = Server::data(&format!("replicaof 127.0.0.1 {}", master.port)).unwrap();
    replica.wait_for("MASTER <-> REPLICA sync: Finished with success");
    let port = &master.port;
    let mut sentinel = Server::start(
        &format!(
            "sentinel monitor tokens 127.0.0.1 {port} 1\nsentinel auth-pass tokens {PASSWORD}\n\
             sentinel down-after-milliseconds tokens 300\nsentinel failover-timeout tokens 2000"
        ),
        &["--sentinel"],
        "+monitor master",
    )
    .unwrap();
    sentinel.wait_for("+slave slave");
    let store = format!(
        "sentinel = {{ urls = [\"redis://127.0.0.1:{}\"], service = \"tokens\" }}",
        sentinel.port
    );
    let story = Story::with_store(TempDir::new().unwrap(), &store).await;
    let failed_over = move || {
        sentinel.wait_for("+switch-master");
        sentinel
    };
    renew_through_a_failover(&story, master, failed_over).await;
}

#[tokio::test]
async fn a_cluster_whose_node_of_the_token_dies_during_a_renewal_costs_at_most_a_call() {
    let mut nodes = Vec::new();
    for _ in 0..6 {
        let bus = free_port();
        let lines = format!(
            "cluster-enabled yes\ncluster-port {bus}\ncluster-node-timeout 1000\n\
             cluster-replica-validity-factor 0"
        );
        let Some(node) = Server::data(&lines) else { return };
        nodes.push(node);
    }
    let addresses: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let mut create = vec!["--cluster", "create", "--cluster-yes", "--cluster-replicas", "1"];
    create.extend(addresses.iter().map(String::as_str));
    let created = nodes[0].cli(&create);
    assert!(created.contains("All 16384 slots covered"), "{created}");
    for node in &mut nodes {
        node.wait_for("Cluster state changed: ok");
    }
    let url = format!("url = \"redis://127.0.0.1:{}\"\ncluster = true", nodes[0].port);
    let story = Story::with_store(TempDir::new().unwrap(), &url).await;
    story.one_generation(1).await;
    // The name of a token has 32 digits; that of the check value of `name_key` has not.
    let pattern = format!("bearer-proxy:{{{}}}:s", "?".repeat(32));
    let has_token = |node: &Server| node.cli(&["--scan", "--pattern", &pattern]).contains(":s");
    let is_master = |node: &Server| node.cli(&["role"]).starts_with("master");
    let place = nodes.iter().position(|node| is_master(node) && has_token(node)).unwrap();
    let killed = nodes.remove(place);
    let replica = nodes.iter().position(has_token).unwrap();
    let mut replica = nodes.remove(replica);
    let failed_over = move || {
        replica.wait_for("Failover election won");
        replica
    };
    renew_through_a_failover(&story, killed, failed_over).await;
}
