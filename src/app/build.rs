//! `Config` -> `App`: bind, register metrics, make keepers and the first plan. All early failures
//! happen here.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::admin_listeners::BoundAdminListeners;
use super::headers::HeaderValues;
use super::health::AppHealth;
use super::listeners::Listeners;
use super::reload::ReloadMetrics;
use crate::config::Config;
use crate::listen::{BindError, BoundAddress};
use crate::proxy::limits::in_flight::InFlight;
use crate::proxy::policy::metrics::ProxyMetrics;
use crate::proxy::policy::plan::{BoundListeners, Plan, PlanError, PlanInputs, wanted};
use crate::proxy::snapshot::SharedState;
use crate::secret::Store;
use crate::server::{ConnectionLimit, StopSignal, WorkerListener};
use crate::telemetry::Registry;
use crate::telemetry::metrics::MetricDescription;
use crate::token::{TokenManager, TokenMetrics};
use crate::x509::TlsSetupError;

/// A program that is ready to run.
pub struct App {
    pub(super) config: Config,
    pub(super) registry: Registry,
    pub(super) manager: TokenManager,
    pub(super) headers: HeaderValues,
    pub(super) shared: SharedState,
    pub(super) connection_limit: ConnectionLimit,
    pub(super) listeners: Listeners,
    pub(super) sockets: Vec<Vec<WorkerListener>>,
    pub(super) admin_listeners: BoundAdminListeners,
    pub(super) health: Arc<AppHealth>,
    pub(super) reload: ReloadMetrics,
}

/// Why the program cannot start.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be bound.
    Bind(BindError),
    /// The certificate of a listener cannot be used.
    Tls(TlsSetupError),
    /// Two parts want a metric of the same name: a defect of this program.
    Metrics(prometheus::Error),
    /// What a loaded configuration, and what was read and bound for it, does not lead to: a defect of
    /// this program.
    Plan(PlanError),
}

impl StartError {
    /// Whether it is about an address, which has an exit code of its own.
    pub fn is_address(&self) -> bool {
        matches!(self, Self::Bind(_))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "the certificate of a listener: {error}"),
            Self::Metrics(error) => write!(f, "metrics cannot be registered: {error}"),
            Self::Plan(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<prometheus::Error> for StartError {
    fn from(error: prometheus::Error) -> Self {
        Self::Metrics(error)
    }
}

impl App {
    /// Binds and resolves everything.
    ///
    /// # Errors
    /// Addresses that cannot be bound, certificates of listeners that cannot be used. An unreadable secret or a dead token endpoint is no error
    /// here: it fails its own credential only.
    pub async fn build(config: Config) -> Result<Self, StartError> {
        let registry = Registry::with_process()?;
        let mut listeners = Listeners::new(config.workers.count(), &registry)?;
        let mut change = listeners.change(&config.proxy.listeners)?;
        let admin_listeners = BoundAdminListeners::bind(&config.admin).map_err(StartError::Bind)?;
        let metrics = ProxyMetrics::register(&registry)?;
        let secrets = Arc::new(Store::register(&registry)?);
        let mut manager = TokenManager::new(TokenMetrics::register(&registry)?, secrets);
        let reload = ReloadMetrics::register(&registry)?;
        let connection_limit = ConnectionLimit::new(config.connections.max_connections);
        let counted = connection_limit.clone();
        registry.polled_gauge(
            "bearer_proxy_client_connections",
            "Open client connections.",
            move || counted.open() as f64,
        )?;
        let mut headers = HeaderValues::read(&config.proxy).await;
        let bound = listeners.bound(&change);
        let plan = plan(&config, &mut manager, &metrics, &mut headers, bound)?;
        let sockets = std::mem::take(&mut change.sockets);
        listeners.apply(change);
        let health = Arc::new(AppHealth::new(manager.handle()));
        let shared = SharedState {
            plan: Arc::new(ArcSwap::from_pointee(plan)),
            metrics,
            stop: StopSignal::new(),
            in_flight: InFlight::default(),
            workers: config.workers.count(),
        };
        Ok(Self {
            config,
            registry,
            manager,
            headers,
            shared,
            connection_limit,
            listeners,
            sockets,
            admin_listeners,
            health,
            reload,
        })
    }

    /// Addresses of the proxy's listeners, in the order of the configuration.
    pub fn addresses(&self) -> Vec<Vec<SocketAddr>> {
        let all = self.listeners.addresses();
        all.map(|(_, addresses)| addresses.iter().filter_map(BoundAddress::tcp).collect()).collect()
    }

    /// All families of metrics, for the reference in `docs/`.
    pub fn metrics(&self) -> Vec<MetricDescription> {
        self.registry.descriptions()
    }

    /// Addresses of the admin listener.
    pub fn admin_addresses(&self) -> Vec<SocketAddr> {
        self.admin_listeners.addresses().filter_map(BoundAddress::tcp).collect()
    }
}

/// The plan of a configuration; tokens still wanted keep their refreshers.
pub(super) fn plan(
    config: &Config,
    manager: &mut TokenManager,
    metrics: &ProxyMetrics,
    headers: &mut HeaderValues,
    bound: BoundListeners,
) -> Result<Plan, StartError> {
    let readers = manager.apply(wanted(&config.proxy, &config.credentials));
    let (set_headers, local_keys) = headers.values();
    let inputs = PlanInputs {
        credentials: &config.credentials,
        readers,
        set_headers,
        local_keys,
        bound,
        metrics,
        access: config.log.access,
    };
    Plan::build(&config.proxy, inputs).map_err(StartError::Plan)
}
