//! `Cluster`: the nodes that redirections led to. Both keys of a token are in one slot, so that a token has one
//! node at a time.

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
        // Held while the node is connected to, so that two tokens do not connect to it twice. The caller's limit
        // bounds it.
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
