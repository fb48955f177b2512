//! `Cluster`: the nodes that redirections led to. Both keys of a token are in one slot, so that a token has
//! one node at a time.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::super::names::TokenName;
use super::super::store::StoreError;
use super::address::ServerAddress;
use super::connecting;
use super::options::{Servers, StoreOptions};
use super::session::{Limit, Session};

/// The nodes of a cluster beside the one that the connection task keeps.
pub(super) struct Cluster {
    options: Arc<StoreOptions>,
    nodes: Mutex<Nodes>,
}

#[derive(Default)]
struct Nodes {
    sessions: HashMap<ServerAddress, Session>,
    /// The node of each token that was redirected.
    tokens: HashMap<TokenName, ServerAddress>,
    /// The drivers of the sessions; they end with them, or with this set.
    drivers: JoinSet<()>,
}

impl Cluster {
    pub(super) fn new(options: Arc<StoreOptions>) -> Self {
        Self { options, nodes: Mutex::default() }
    }

    /// True if the store is a cluster.
    pub(super) fn is_used(&self) -> bool {
        matches!(self.options.servers, Servers::Cluster(_))
    }

    /// The session to the node that had the token last.
    pub(super) async fn known(&self, name: &TokenName) -> Option<Session> {
        if !self.is_used() {
            return None;
        }
        let nodes = self.nodes.lock().await;
        nodes.sessions.get(nodes.tokens.get(name)?).cloned()
    }

    /// The session to a node that another one named. It is remembered, unless the answer was for one command.
    pub(super) async fn follow(
        &self,
        name: &TokenName,
        address: ServerAddress,
        once: bool,
        limit: Limit,
    ) -> Result<Session, StoreError> {
        let opening = self.session(&address);
        let session = limit.bound(opening).await.unwrap_or_else(|| {
            let limit = limit.duration();
            Err(StoreError::Unreachable(format!("{address} did not let us in within {limit:?}")))
        })?;
        if !once {
            self.nodes.lock().await.tokens.insert(name.clone(), address);
        }
        Ok(session)
    }

    async fn session(&self, address: &ServerAddress) -> Result<Session, StoreError> {
        // Held while the node is connected to, so that two tokens do not connect to it twice. The caller's
        // limit bounds it.
        let mut nodes = self.nodes.lock().await;
        if let Some(session) = nodes.sessions.get(address) {
            return Ok(session.clone());
        }
        let opened = connecting::open(address, &self.options, None).await?;
        // Drivers of sessions that were forgotten have ended.
        while nodes.drivers.try_join_next().is_some() {}
        nodes.drivers.spawn(opened.driver);
        nodes.sessions.insert(address.clone(), opened.session.clone());
        Ok(opened.session)
    }

    /// Forgets the node of a token after an error: the next operation asks the cluster again.
    pub(super) async fn forget(&self, name: &TokenName) {
        if !self.is_used() {
            return;
        }
        let mut nodes = self.nodes.lock().await;
        if let Some(address) = nodes.tokens.remove(name) {
            nodes.sessions.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::super::testing::{
        PATIENCE, Server, ask, free_port, name, patient, run, store, until,
    };
    use super::*;
    use crate::share::probe::ProbeVerdict;
    use crate::share::protocol::AcquireReply;
    use crate::share::redis_store::RedisStore;
    use crate::share::redis_store::probe::probe;
    use crate::share::store::{Announcement, StoreError, TokenStore};

    const LIFE: Duration = Duration::from_secs(600);

    /// A node and its port.
    type Node = (Server, u16);

    /// Three masters, each with a third of the slots.
    fn start() -> Option<Vec<Node>> {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let (port, bus) = (free_port(), free_port().to_string());
            let text = port.to_string();
            let arguments = ["--port", &text, "--cluster-enabled", "yes", "--cluster-port", &bus];
            nodes.push((Server::start(&arguments)?, port));
        }
        let addresses = nodes.iter().map(|(_, port)| format!("127.0.0.1:{port}"));
        let created = Command::new("redis-cli")
            .args(["--cluster", "create", "--cluster-yes"])
            .args(addresses)
            .output()
            .unwrap();
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
        for (node, _) in &mut nodes {
            node.wait_for("Cluster state changed: ok");
        }
        Some(nodes)
    }

    fn options(node: &Node) -> StoreOptions {
        let url = format!("redis://127.0.0.1:{}", node.1);
        patient(Servers::Cluster(vec![ServerAddress::parse(&url).unwrap().0]))
    }

    /// The number of the node that has the token.
    fn node_of(nodes: &[Node], token: &TokenName) -> usize {
        let key = token.state_key("bearer-proxy");
        let found = nodes.iter().position(|(node, _)| {
            run::<Option<String>>(&mut node.connect(), &format!("HGET {key} gen")).is_ok()
        });
        found.unwrap()
    }

    async fn publish(store: &RedisStore, token: &TokenName) {
        assert_eq!(store.acquire(token, ask("r1")).await, Ok(AcquireReply::Lead(1)));
        store.publish(token, "r1", 1, b"sealed", LIFE).await.unwrap();
    }

    #[tokio::test]
    async fn tokens_are_found_on_whichever_node_they_are() {
        let Some(mut nodes) = start() else { return };
        let (one, _) = store(options(&nodes[0]));
        let (other, _) = store(options(&nodes[1]));
        until(&other, true).await;
        let tokens: Vec<TokenName> =
            (0..12).map(|number| name(&format!("client {number}"))).collect();
        let mut announced = other.announcements(&tokens[0]);
        for token in &tokens {
            publish(&one, token).await;
            let reply = other.acquire(token, ask("r2")).await;
            assert!(matches!(reply, Ok(AcquireReply::Token(_))), "{reply:?}");
        }
        let places: Vec<usize> = tokens.iter().map(|token| node_of(&nodes, token)).collect();
        assert!((0..3).all(|node| places.contains(&node)), "{places:?}");
        // The bus carries announcements from node to node.
        let announcement = tokio::time::timeout(PATIENCE, announced.recv()).await.unwrap();
        assert_eq!(announcement, Ok(Announcement::Published(1)));
        let steps = probe(&options(&nodes[0])).await;
        assert!(steps.iter().all(|step| step.verdict != ProbeVerdict::Failed), "{steps:?}");

        // One node dies: its tokens are out of reach, the others are not, and nothing waits for it.
        nodes[2].0.kill();
        for (token, place) in tokens.iter().zip(places) {
            let reply = one.acquire(token, ask("r2")).await;
            match place {
                2 => assert!(matches!(reply, Err(StoreError::Unreachable(_))), "{reply:?}"),
                _ => assert!(matches!(reply, Ok(AcquireReply::Token(_))), "{reply:?}"),
            }
        }
    }

    #[tokio::test]
    async fn another_node_takes_the_place_of_the_one_that_was_configured() {
        let Some(mut nodes) = start() else { return };
        let (store, _) = store(options(&nodes[0]));
        until(&store, true).await;
        nodes[0].0.kill();
        until(&store, false).await;
        until(&store, true).await;
        // Before the nodes agree that it is dead, which takes longer, the others serve what they have.
        let tokens = (0..12).map(|number| name(&format!("client {number}")));
        let mut replies = Vec::new();
        for token in tokens {
            replies.push(store.acquire(&token, ask("r1")).await);
        }
        assert!(replies.contains(&Ok(AcquireReply::Lead(1))), "{replies:?}");
    }

    #[tokio::test]
    async fn a_slot_that_moves_is_followed() {
        let Some(nodes) = start() else { return };
        let (store, _) = store(options(&nodes[0]));
        until(&store, true).await;
        let token = name("client");
        publish(&store, &token).await;
        let (from, slot) = (node_of(&nodes, &token), slot(&nodes, &token));
        let to = (from + 1) % 3;
        let id = |node: usize| nodes[node].0.run::<String>("CLUSTER MYID");
        let (from_id, to_id) = (id(from), id(to));
        let () = nodes[to].0.run(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
        let () = nodes[from].0.run(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
        let keys = [token.state_key("bearer-proxy"), token.token_key("bearer-proxy")];
        migrate(&nodes[from], nodes[to].1, &keys[..1]);
        // Between the two: neither node has both keys. The connection stays.
        let reply = store.acquire(&token, ask("r2")).await;
        let between = reply.unwrap_err().to_string();
        assert!(between.contains("while it moves"), "{between}");
        assert!(*store.reached().borrow());
        migrate(&nodes[from], nodes[to].1, &keys[1..]);
        // The old node answers ASK, and then MOVED.
        let reply = store.acquire(&token, ask("r2")).await;
        assert!(matches!(reply, Ok(AcquireReply::Token(_))), "{reply:?}");
        let asked: String = nodes[to].0.run("INFO commandstats");
        assert!(asked.contains("cmdstat_asking:"), "{asked}");
        for node in [to, from] {
            let () = nodes[node].0.run(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
        }
        let reply = store.acquire(&token, ask("r2")).await;
        assert!(matches!(reply, Ok(AcquireReply::Token(_))), "{reply:?}");
        assert_eq!(node_of(&nodes, &token), to);
    }

    fn migrate(from: &Node, to: u16, keys: &[String]) {
        let mut command = redis::cmd("MIGRATE");
        command.arg("127.0.0.1").arg(to).arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
        let () = command.query(&mut from.0.connect()).unwrap();
    }

    fn slot(nodes: &[Node], token: &TokenName) -> i64 {
        nodes[0].0.run(&format!("CLUSTER KEYSLOT {}", token.state_key("bearer-proxy")))
    }

    #[tokio::test]
    async fn a_cluster_that_is_taken_for_one_server_is_named() {
        let Some(nodes) = start() else { return };
        let Servers::Cluster(addresses) = options(&nodes[0]).servers else { unreachable!() };
        let (store, _) = store(patient(Servers::Standalone(addresses[0].clone())));
        let tokens = (0..12).map(|number| name(&format!("client {number}")));
        let token = tokens.into_iter().find(|token| node_of(&nodes, token) != 0).unwrap();
        let error = store.acquire(&token, ask("r1")).await.unwrap_err().to_string();
        assert!(error.contains("cluster = true"), "{error}");
    }
}
