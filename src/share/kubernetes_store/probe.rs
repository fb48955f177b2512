//! [`probe`]: the steps of `check --live` for a Secret, in their order, each with what was found.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::metrics::ShareMetrics;
use super::super::names::TokenName;
use super::super::probe::{Ended, ProbeStep, ProbeVerdict, Steps, run_all};
use super::super::store::StoreError;
use super::KubernetesStore;
use super::api::Api;
use super::options::KubernetesOptions;
use crate::telemetry::Registry;

/// Answers that the round trip is the shortest of.
const READINGS: usize = 3;

/// Goes through the steps, up to the first that the next ones need. The Secret is created where there is
/// none, if the service account may do so.
pub async fn probe(options: &KubernetesOptions) -> Vec<ProbeStep> {
    let mut steps = Steps::default();
    let _ = all(&mut steps, options).await;
    steps.0
}

async fn all(steps: &mut Steps, options: &KubernetesOptions) -> Result<(), Ended> {
    let api = Api::new(Arc::new(options.clone()));
    let place = api.place().await.cloned();
    let place = steps.need("server", place)?;
    steps.ok("server", format!("{}, namespace {}", place.server, place.namespace));
    let connector = api.connector().await;
    let connector = steps.need("tls", connector)?;
    // Only its phases: the requests have connections of their own.
    steps.connect(connector).await?;
    let found = secret(&api, options).await;
    let theirs = steps.need("login", found)?;
    steps.ok("login", format!("reads secrets/{}", options.secret));
    match api.watch(1).await {
        Ok(_) => steps.ok("watch", "begins"),
        Err(error) => {
            let found = format!("{error}; without it tokens of others are found at each poll only");
            steps.note("watch", ProbeVerdict::Warning, found);
        }
    }
    round_trip(steps, &api).await?;
    steps.clock(Duration::from_millis(theirs));
    rights(steps, options).await
}

/// Reads the Secret, and creates it where there is none. Returns the server's clock.
async fn secret(api: &Api, options: &KubernetesOptions) -> Result<u64, StoreError> {
    let limit = options.connect_timeout + options.operation_timeout;
    let reading = async {
        let mut link = api.link();
        let (found, now) = api.get(&mut link).await?;
        if found.is_none() {
            api.create(&mut link).await?;
        }
        api.keep(link);
        Ok(now.earliest)
    };
    let read = tokio::time::timeout(limit, reading).await;
    read.unwrap_or_else(|_| Err(StoreError::Unreachable(format!("no answer within {limit:?}"))))
}

async fn round_trip(steps: &mut Steps, api: &Api) -> Result<(), Ended> {
    let mut shortest = Duration::MAX;
    let mut link = api.link();
    for _ in 0..READINGS {
        let begun = Instant::now();
        let read = api.get(&mut link).await;
        steps.need("round trip", read)?;
        shortest = shortest.min(begun.elapsed());
    }
    steps.ok("round trip", format!("{shortest:.1?}"));
    Ok(())
}

/// Runs all operations on a token that is thrown away.
async fn rights(steps: &mut Steps, options: &KubernetesOptions) -> Result<(), Ended> {
    let registered = ShareMetrics::register(&Registry::new());
    let metrics =
        steps.need("rights", registered.map_err(|error| StoreError::Refused(error.to_string())))?;
    let store = KubernetesStore::start(options.clone(), metrics);
    let name = TokenName::random();
    let ran = run_all(&store, &name, "may the service account watch the Secret?").await;
    let removed = match &ran {
        Ok(()) => store.remove(&name).await,
        // The reason comes first; what was written is removed after a week.
        Err(_) => store.remove(&name).await.or(Ok(())),
    };
    steps.need("rights", ran.and(removed))?;
    steps.ok(
        "rights",
        "acquire, renew, publish, fail and announcements work on a token that was thrown away",
    );
    Ok(())
}
