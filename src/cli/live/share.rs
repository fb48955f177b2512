//! `[share]`: the store of shared tokens step by step, and the tokens that it holds.

use std::sync::Arc;

use tokio::time::timeout;

use super::references;
use super::result::{CheckGroup, CheckResult};
use crate::config::Config;
use crate::oauth::ScopeSet;
use crate::secret::Store;
use crate::share::metrics::ShareMetrics;
use crate::share::probe::{ProbeStep, ProbeVerdict};
use crate::telemetry::Registry;
use crate::token::Credential;
use crate::token::sharing::SharedStore;
use crate::token::sharing::probe::{FoundToken, OpenedToken, find};
use crate::token::sharing::settings::ShareSettings;

/// The scope sets of the tokens of a credential.
type ScopeSets = fn(&Config, &Arc<Credential>) -> Vec<ScopeSet>;

/// Checks the store; `None` without `[share]`.
pub(super) async fn check_share(config: &Config, scope_sets: ScopeSets) -> Option<CheckGroup> {
    let settings = config.share.as_ref()?;
    let mut steps = Vec::new();
    if let Some((name, source)) = settings.store.login() {
        steps.push(references::secret(name, source).await);
    }
    steps.push(references::secret("name_key", &settings.name_key).await);
    for key in &settings.encryption {
        steps.push(references::secret(&format!("encryption.{}", key.id), &key.key).await);
    }
    let readable = !steps.iter().any(CheckResult::has_failed);
    if readable {
        steps.extend(settings.store.probe().await.iter().map(step));
    }
    if !steps.iter().any(CheckResult::has_failed) {
        tokens(&mut steps, config, settings, scope_sets).await;
    }
    let (name, url) = (settings.store.kind().to_owned(), Some(settings.store.address()));
    Some(CheckGroup { kind: "share", name, url, steps })
}

fn step(step: &ProbeStep) -> CheckResult {
    match step.verdict {
        ProbeVerdict::Ok => CheckResult::ok(step.name, &*step.found),
        ProbeVerdict::Warning => CheckResult::from_error(step.name, &step.found).warning(),
        ProbeVerdict::Failed => CheckResult::from_error(step.name, &step.found),
    }
}

/// Looks at each token that is shared.
async fn tokens(
    steps: &mut Vec<CheckResult>,
    config: &Config,
    settings: &ShareSettings,
    scope_sets: ScopeSets,
) {
    let shared = match store(settings).await {
        Ok(shared) => shared,
        Err(error) => return steps.push(CheckResult::failed("keys", error.to_string())),
    };
    steps.push(match shared.probe_name_key().await {
        Ok(Some(owner)) => CheckResult::ok("names", format!("name_key is that of {owner}")),
        Ok(None) => CheckResult::ok("names", "no replica has left its name_key to compare"),
        Err(error) => CheckResult::from_error("names", &error.to_string()),
    });
    for credential in config.credentials.iter().filter(|credential| credential.policy.share) {
        for scopes in scope_sets(config, credential) {
            let found = find(&shared, credential, &scopes).await;
            steps.push(token(credential, &scopes.to_string(), found));
        }
    }
}

/// A store that is reached, as it was a moment ago; else its first operation says why it is not.
async fn store(settings: &ShareSettings) -> Result<SharedStore, prometheus::Error> {
    let registry = Registry::new();
    let metrics = ShareMetrics::register(&registry)?;
    let store = settings.store.start(metrics);
    let mut state = store.reached();
    let _ = timeout(settings.store.connect_timeout(), state.wait_for(|reached| *reached)).await;
    let secrets = Arc::new(Store::register(&registry)?);
    SharedStore::register(store, settings.clone(), secrets, &registry)
}

fn token(
    credential: &Credential,
    scopes: &str,
    found: Result<Option<FoundToken>, String>,
) -> CheckResult {
    let name = format!("token {} {scopes}", credential.name);
    let name = name.trim_end();
    let FoundToken { generation, life_left, opened } = match found {
        Ok(Some(found)) => found,
        Ok(None) => return CheckResult::ok(name, "the store holds none"),
        Err(error) => return CheckResult::from_error(name, &error),
    };
    match opened {
        Ok(OpenedToken { owner, key_id }) => {
            let left = life_left.as_secs();
            let found = format!("generation {generation} of {owner}, key {key_id}, {left} s left");
            CheckResult::ok(name, found)
        }
        Err(unreadable) => {
            let why = unreadable.label();
            CheckResult::failed(name, format!("generation {generation} does not open ({why})"))
                .hint("do all replicas have the same keys in encryption, and the same version?")
        }
    }
}
