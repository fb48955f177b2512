//! `Config` -> `Plan`: the one place where tokens, header values and bound addresses meet.

use std::sync::Arc;

use super::error::StartError;
use super::headers::HeaderValues;
use crate::config::Config;
use crate::proxy::policy::metrics::ProxyMetrics;
use crate::proxy::policy::plan::{BoundListeners, Plan, PlanInputs, token_specs};
use crate::token::TokenManager;

/// Builds the plan of a configuration. Tokens that are still used keep their refreshers.
pub(super) fn build_plan(
    config: &Config,
    manager: &mut TokenManager,
    metrics: &ProxyMetrics,
    headers: &mut HeaderValues,
    bound: BoundListeners,
) -> Result<Plan, StartError> {
    let readers = manager.apply(token_specs(&config.proxy, &config.credentials));
    let (set_headers, local_keys) = headers.values();
    let inputs = PlanInputs {
        credentials: &config.credentials,
        readers,
        set_headers,
        local_keys,
        bound,
        metrics,
        request_log: config.log.requests,
        config_sha256: Arc::clone(&config.sha256),
    };
    Plan::build(&config.proxy, inputs).map_err(StartError::Plan)
}
