//! The store through which the replicas of this program share tokens (feature `share`).

use std::sync::Arc;

use crate::config::Config;
use crate::secret::Store;
use crate::share::metrics::ShareMetrics;
use crate::telemetry::Registry;
use crate::token::TokenMetrics;
use crate::token::sharing::SharedStore;

/// Starts the store of a configuration, which connects in the background; `None` without `[share]`.
///
/// # Errors
/// A metric of the same name is registered already.
pub(super) fn start(
    config: &Config,
    tokens: &TokenMetrics,
    secrets: &Arc<Store>,
    registry: &Registry,
) -> Result<Option<Arc<SharedStore>>, prometheus::Error> {
    let Some(settings) = &config.share else { return Ok(None) };
    tokens.register_shared(registry)?;
    let store = settings.store.start(ShareMetrics::register(registry)?);
    let secrets = Arc::clone(secrets);
    SharedStore::register(store, settings.clone(), secrets, registry)
        .map(|shared| Some(Arc::new(shared)))
}
