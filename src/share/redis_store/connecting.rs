//! The task that keeps a connection to the store: it connects, watches, and connects again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::super::store::StoreError;
use super::address::ServerAddress;
use super::announcer::Announcer;
use super::options::{Servers, StoreOptions};
use super::sentinel;
use super::session::{self, Limit, OpenSession, Session};
use crate::telemetry::throttle::Throttle;

/// Mean time between two attempts.
const RETRY: Duration = Duration::from_millis(500);
/// Mean time between two attempts that the server refused: what helps is done by people, and each attempt
/// reads the password and leaves a line in the server's ACL log.
const RETRY_REFUSED: Duration = Duration::from_secs(5);
/// Time after which a connection is tested. Announcements alone would not show that it is dead.
const PING: Duration = Duration::from_secs(5);

/// The state of the connection.
#[derive(Debug, Clone)]
pub(super) enum Link {
    /// The first attempt is under way.
    Connecting,
    /// Commands go over this session.
    Up(Session),
    /// There is none, for this reason.
    Down(StoreError),
}

/// Keeps the connection of a store.
pub(super) struct Connecting {
    pub(super) options: Arc<StoreOptions>,
    pub(super) announcer: Announcer,
    pub(super) link: watch::Sender<Link>,
    pub(super) reached: watch::Sender<bool>,
    /// The nodes of a cluster: those that were configured, then those that one of them named.
    nodes: Vec<ServerAddress>,
    /// Attempts that failed since the last success, which choose the node of a cluster.
    attempts: usize,
    log: Throttle,
}

impl Connecting {
    pub(super) fn new(
        options: Arc<StoreOptions>,
        announcer: Announcer,
        link: watch::Sender<Link>,
        reached: watch::Sender<bool>,
    ) -> Self {
        let nodes = match &options.servers {
            Servers::Cluster(addresses) => addresses.clone(),
            Servers::Standalone(_) | Servers::Sentinel(_) => Vec::new(),
        };
        Self { options, announcer, link, reached, nodes, attempts: 0, log: Throttle::default() }
    }

    /// Runs until it is aborted.
    pub(super) async fn run(mut self) {
        loop {
            let error = match self.open().await {
                Ok(opened) => self.watch(opened).await,
                Err(error) => error,
            };
            self.link.send_replace(Link::Down(error.clone()));
            self.reached.send_replace(false);
            if let Some(suppressed) = self.log.allow() {
                tracing::warn!(%error, suppressed, "the store of shared tokens is away; held tokens stay in use");
            }
            let mean = if matches!(error, StoreError::Refused(_)) { RETRY_REFUSED } else { RETRY };
            // Jitter, so that replicas that lost the store together do not come back together.
            tokio::time::sleep(mean.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    async fn open(&mut self) -> Result<OpenSession, StoreError> {
        let address = match &self.options.servers {
            Servers::Standalone(address) => address.clone(),
            Servers::Sentinel(sentinels) => sentinel::master(sentinels, &self.options).await?,
            Servers::Cluster(_) => {
                let next = self.attempts.checked_rem(self.nodes.len()).unwrap_or_default();
                let none = || StoreError::Refused("no node of the cluster is configured".into());
                self.nodes.get(next).cloned().ok_or_else(none)?
            }
        };
        self.attempts = self.attempts.wrapping_add(1);
        let mut opened = open(&address, &self.options, Some(&self.announcer)).await?;
        if let Servers::Cluster(configured) = &self.options.servers {
            let limit = Limit::of(self.options.operation_timeout);
            let session = opened.session.clone();
            // The node that let us in is the one to begin with, as long as it does.
            let named = opened.with_driver(session.nodes(limit)).await?;
            self.nodes =
                [address].into_iter().chain(configured.iter().cloned()).chain(named).collect();
            self.attempts = 0;
        }
        Ok(opened)
    }

    /// Serves a session to its end, and returns the reason.
    async fn watch(&mut self, opened: OpenSession) -> StoreError {
        let OpenSession { session, mut driver, broken } = opened;
        tracing::info!(server = %session.address, "the store of shared tokens is reached");
        self.link.send_replace(Link::Up(session.clone()));
        self.reached.send_replace(true);
        tokio::select! {
            // An error first: it says more than the end that it leads to.
            biased;
            error = test(&session, broken, self.options.operation_timeout) => error,
            () = &mut driver => session.lost(),
        }
    }
}

/// Tests a session now and then. Ends with the first error that makes it useless.
async fn test(
    session: &Session,
    mut broken: mpsc::Receiver<StoreError>,
    operation_timeout: Duration,
) -> StoreError {
    loop {
        match tokio::time::timeout(PING, broken.recv()).await {
            Ok(error) => return error.unwrap_or_else(|| session.lost()),
            Err(_) => {
                if let Err(error) = session.ping(Limit::of(operation_timeout)).await {
                    return error;
                }
            }
        }
    }
}

/// Opens a session to a server within the connect time-out. With an announcer it subscribes to all tokens.
pub(super) async fn open(
    address: &ServerAddress,
    options: &StoreOptions,
    announcer: Option<&Announcer>,
) -> Result<OpenSession, StoreError> {
    let limit = Limit::of(options.connect_timeout);
    let opening = async {
        let stream = session::open_stream(address, options).await?;
        let mut opened =
            session::log_in(stream, address, &options.login, options.database, announcer).await?;
        let session = opened.session.clone();
        opened.with_driver(greet(&session, options, announcer, limit)).await?;
        Ok(opened)
    };
    limit.bound(opening).await.unwrap_or_else(|| {
        let limit = limit.duration();
        Err(StoreError::Unreachable(format!("{address} did not let us in within {limit:?}")))
    })
}

/// The first commands of a session. It counts as open once it takes writes and announcements arrive.
async fn greet(
    session: &Session,
    options: &StoreOptions,
    announcer: Option<&Announcer>,
    limit: Limit,
) -> Result<(), StoreError> {
    session.name(limit).await?;
    session.ping(limit).await?;
    // Any node of a cluster will do: it redirects what it does not have.
    if !matches!(options.servers, Servers::Cluster(_)) && session.role(limit).await? != "master" {
        let address = &session.address;
        return Err(StoreError::Unreachable(format!(
            "{address} is a replica that takes no writes"
        )));
    }
    match announcer {
        Some(announcer) => session.subscribe(announcer, limit).await,
        None => Ok(()),
    }
}
