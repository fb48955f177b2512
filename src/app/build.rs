//! `Config` -> `App`: bind, register metrics, make keepers and the first plan. All early failures
//! happen here.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue};

use super::health::AppHealth;
use crate::config::Config;
use crate::layer::admit::InFlight;
use crate::proxy::forward::Shared;
use crate::proxy::metrics::ProxyMetrics;
use crate::proxy::plan::{Ingredients, Plan, wanted};
use crate::proxy::settings::{HeaderText, ProxySettings};
use crate::secret::Store;
use crate::server::{BindError, Bound, bind};
use crate::telemetry::Registry;
use crate::token::{Keeper, TokenMetrics};

/// A program that is ready to run.
pub struct App {
    pub(super) config: Config,
    pub(super) registry: Registry,
    pub(super) keeper: Keeper,
    pub(super) shared: Shared,
    pub(super) listeners: Vec<Vec<Bound>>,
    pub(super) admin: Vec<Bound>,
    pub(super) health: Arc<AppHealth>,
    pub(super) reload: super::reload::ReloadMetrics,
}

/// Why the program cannot start.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be bound.
    Bind(BindError),
    /// Two parts want a metric of the same name: a defect of this program.
    Metrics(prometheus::Error),
    /// Routes conflict: a loaded configuration has none that do.
    Routes,
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
            Self::Metrics(error) => write!(f, "metrics cannot be registered: {error}"),
            Self::Routes => f.write_str("routes conflict; `bearer-proxy check` says which"),
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
    /// Addresses that cannot be bound. An unreadable secret or a dead token endpoint is no error
    /// here: it fails its own credential only.
    pub async fn build(config: Config) -> Result<Self, StartError> {
        let listeners = bind_all(&config)?;
        let admin = match &config.admin.listen {
            Some(listen) => bind(listen, false).map_err(StartError::Bind)?,
            None => Vec::new(),
        };
        let registry = Registry::with_process()?;
        let metrics = ProxyMetrics::register(&registry)?;
        let secrets = Arc::new(Store::register(&registry)?);
        let mut keeper = Keeper::new(TokenMetrics::register(&registry)?, Arc::clone(&secrets));
        let reload = super::reload::ReloadMetrics::register(&registry)?;
        let bound = addresses(&listeners);
        let plan = plan(&config, &mut keeper, &metrics, &bound).await?;
        let health = Arc::new(AppHealth::new(keeper.handle()));
        let shared = Shared {
            plan: Arc::new(ArcSwap::from_pointee(plan)),
            metrics,
            in_flight: InFlight::default(),
            access: config.log.access,
        };
        Ok(Self { config, registry, keeper, shared, listeners, admin, health, reload })
    }

    /// Addresses of the proxy's listeners, in the order of the configuration.
    pub fn addresses(&self) -> Vec<Vec<SocketAddr>> {
        addresses(&self.listeners)
    }

    /// Addresses of the admin listener.
    pub fn admin_addresses(&self) -> Vec<SocketAddr> {
        self.admin.iter().map(|bound| bound.local).collect()
    }
}

fn bind_all(config: &Config) -> Result<Vec<Vec<Bound>>, StartError> {
    let listeners = config.proxy.listeners.iter();
    listeners.map(|listener| bind(&listener.listen, false).map_err(StartError::Bind)).collect()
}

fn addresses(listeners: &[Vec<Bound>]) -> Vec<Vec<SocketAddr>> {
    listeners.iter().map(|bound| bound.iter().map(|one| one.local).collect()).collect()
}

/// The plan of a configuration; tokens still wanted keep their refreshers.
pub(super) async fn plan(
    config: &Config,
    keeper: &mut Keeper,
    metrics: &ProxyMetrics,
    bound: &[Vec<SocketAddr>],
) -> Result<Plan, StartError> {
    let set_headers = fixed_headers(&config.proxy).await;
    let readers = keeper.apply(wanted(&config.proxy, &config.credentials));
    let ingredients =
        Ingredients { credentials: &config.credentials, readers, set_headers, bound, metrics };
    Plan::build(&config.proxy, ingredients).map_err(|_| StartError::Routes)
}

/// Values of the upstreams' fixed headers; one that cannot be read fails its own upstream only.
async fn fixed_headers(settings: &ProxySettings) -> Vec<Vec<(HeaderName, Option<HeaderValue>)>> {
    let mut all = Vec::with_capacity(settings.upstreams.len());
    for upstream in &settings.upstreams {
        let mut headers = Vec::with_capacity(upstream.set_headers.len());
        for (name, text) in &upstream.set_headers {
            let value = match text {
                HeaderText::Value(value) => Some(value.clone()),
                HeaderText::Secret(reference) => match reference.read().await {
                    Ok(secret) => HeaderValue::try_from(secret.expose()).ok().map(|mut value| {
                        value.set_sensitive(true);
                        value
                    }),
                    Err(error) => {
                        tracing::error!(upstream = %upstream.connection.name, header = %name, %error,
                            "a fixed header cannot be set; requests to this upstream get 503");
                        None
                    }
                },
            };
            headers.push((name.clone(), value));
        }
        all.push(headers);
    }
    all
}
