//! `Config` -> `App`: binds addresses, registers metrics, makes refreshers and the first plan. All early
//! failures happen here.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use super::admin_listeners::BoundAdminListeners;
use super::client_certificates::ClientCertificateWatch;
use super::error::StartError;
use super::headers::HeaderValues;
use super::health::AppHealth;
use super::listeners::Listeners;
use super::metrics::ReloadMetrics;
use super::open_files::OpenFilesNeed;
use super::plan::build_plan;
use super::report::Reporter;
use crate::config::Config;
use crate::listen::BoundAddress;
use crate::proxy::limits::in_flight::InFlight;
use crate::proxy::policy::metrics::ProxyMetrics;
use crate::proxy::requests::Inspector;
use crate::proxy::snapshot::SharedState;
use crate::secret::{SourceStates, Store};
use crate::server::{ConnectionLimit, StopSignal, WorkerListener};
use crate::telemetry::Registry;
use crate::telemetry::log::DroppedLines;
use crate::telemetry::metrics::MetricDescription;
use crate::telemetry::recent::RecentLines;
use crate::token::{TokenManager, TokenMetrics};
use tokio::time::Instant;

/// A program that is ready to run.
pub struct App {
    pub(super) config: Config,
    pub(super) registry: Registry,
    pub(super) manager: TokenManager,
    pub(super) headers: HeaderValues,
    pub(super) client_certificates: ClientCertificateWatch,
    /// The states of all sources of secrets.
    pub(super) sources: SourceStates,
    pub(super) shared: SharedState,
    pub(super) connection_limit: ConnectionLimit,
    pub(super) listeners: Listeners,
    pub(super) sockets: Vec<Vec<WorkerListener>>,
    pub(super) admin_listeners: BoundAdminListeners,
    pub(super) health: Arc<AppHealth>,
    pub(super) reload: ReloadMetrics,
    /// The log's count of dropped lines; empty until the program runs.
    pub(super) dropped_lines: Arc<OnceLock<DroppedLines>>,
    pub(super) open_files: OpenFilesNeed,
    /// The newest lines of the log; empty until the program runs.
    pub(super) recent_lines: Arc<OnceLock<RecentLines>>,
}

impl App {
    /// Binds all addresses and builds all parts.
    ///
    /// An unreadable secret or an unreachable token endpoint is no error here: it affects its own
    /// credential only.
    ///
    /// # Errors
    /// An address that cannot be bound, or a certificate of a listener that cannot be used.
    pub async fn build(config: Config) -> Result<Self, StartError> {
        let registry = Registry::with_process()?;
        let mut listeners = Listeners::new(config.workers.count(), &registry)?;
        let mut change = listeners.prepare(&config.proxy.listeners)?;
        let admin_listeners = BoundAdminListeners::bind(&config.admin).map_err(StartError::Bind)?;
        let metrics = ProxyMetrics::register(&registry)?;
        let secrets = Arc::new(Store::register(&registry)?);
        let sources = secrets.sources().clone();
        let token_metrics = TokenMetrics::register(&registry)?;
        #[cfg(feature = "share")]
        let shared = super::share::start(&config, &token_metrics, &secrets, &registry)?;
        let mut manager = TokenManager::new(token_metrics, secrets);
        #[cfg(feature = "share")]
        shared.into_iter().for_each(|store| manager.share_through(store));
        let reload = ReloadMetrics::register(&registry)?;
        let client_certificates = ClientCertificateWatch::register(&registry)?;
        let connection_limit = ConnectionLimit::new(config.connections.max_connections);
        let counted = connection_limit.clone();
        registry.polled_gauge(
            "bearer_proxy_client_connections",
            "Open client connections.",
            move || counted.open() as f64,
        )?;
        let dropped_lines = Arc::new(OnceLock::<DroppedLines>::new());
        let lines = Arc::clone(&dropped_lines);
        registry.polled_counter(
            "bearer_proxy_log_lines_dropped_total",
            "Log lines that were dropped because their reader was too slow.",
            move || lines.get().map_or(0, |lines| lines.get() as u64),
        )?;
        let mut headers = HeaderValues::read(&config.proxy, &sources).await;
        let bound = listeners.bound(&change);
        let plan = build_plan(&config, &mut manager, &metrics, &mut headers, bound)?;
        let sockets = std::mem::take(&mut change.sockets);
        listeners.apply(change);
        let shared = SharedState {
            plan: Arc::new(ArcSwap::from_pointee(plan)),
            metrics,
            stop: StopSignal::new(),
            in_flight: InFlight::default(),
            inspector: Inspector::default(),
            workers: config.workers.count(),
        };
        let recent_lines = Arc::new(OnceLock::new());
        let open_files = OpenFilesNeed::default();
        let reporter = Reporter {
            config: config.path.clone(),
            started: Instant::now(),
            shared: shared.clone(),
            last_reload: reload.last(),
            sources: sources.clone(),
            dropped_lines: Arc::clone(&dropped_lines),
            recent_lines: Arc::clone(&recent_lines),
            open_files: open_files.clone(),
            client_certificates: client_certificates.statuses(),
        };
        let health = Arc::new(AppHealth::new(manager.handle(), reporter));
        Ok(Self {
            config,
            registry,
            manager,
            headers,
            client_certificates,
            sources,
            shared,
            connection_limit,
            listeners,
            sockets,
            admin_listeners,
            health,
            reload,
            dropped_lines,
            recent_lines,
            open_files,
        })
    }

    /// Addresses of the proxy's listeners, in the order of the configuration.
    pub fn addresses(&self) -> Vec<Vec<SocketAddr>> {
        let tcp = |addresses: &[BoundAddress]| {
            addresses.iter().filter_map(BoundAddress::tcp).collect::<Vec<_>>()
        };
        self.listeners.addresses().map(|(_, addresses)| tcp(addresses)).collect()
    }

    /// All metric families, for the reference in `docs/`.
    pub fn metrics(&self) -> Vec<MetricDescription> {
        self.registry.descriptions()
    }

    /// Addresses of the admin listeners.
    pub fn admin_addresses(&self) -> Vec<SocketAddr> {
        self.admin_listeners.addresses().filter_map(BoundAddress::tcp).collect()
    }
}
