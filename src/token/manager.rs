//! `TokenManager`: owns the refreshers. Across a reload it keeps those that the new configuration
//! needs, with their tokens; the others end, and their tokens are dropped at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::clock_watch::watch_clocks;
use super::credential::{Credential, TokenSource};
use super::fetch::{Fetch, MakeFetch};
use super::fetchers::TokenClients;
use super::gate::Gate;
use super::handle::{ManagedToken, ManagerHandle};
use super::metrics::TokenMetrics;
use super::refresher::{Refresher, Retired};
#[cfg(feature = "share")]
use super::sharing::{SharedStore, renewal::SharedRenewal};
use super::spec::{TokenReaders, TokenSpec, Unions, with_vias};
use super::status::TokenStatus;
use super::token_cell::{Reader, channel};
use crate::oauth::{RevokedToken, ScopeSet};
use crate::secret::Store;
use crate::task;

/// Calls in flight to one token endpoint.
const CALLS_PER_ENDPOINT: usize = 4;

/// Time for all revocations together: they are the last thing that the program does.
const REVOCATION_TIME: Duration = Duration::from_millis(800);

/// Owns the refreshers of this process.
pub struct TokenManager<M: MakeFetch = TokenClients> {
    metrics: TokenMetrics,
    make_fetch: M,
    managed: Vec<Managed<M::Fetch>>,
    /// Refreshers that the last [`apply`](Self::apply) no longer needs. They run until
    /// [`commit`](Self::commit), so that a failed reload can be undone.
    leaving: Vec<Managed<M::Fetch>>,
    gates: HashMap<Arc<str>, (Arc<Credential>, Arc<Gate>)>,
    endpoints: HashMap<TokenSource, Arc<Semaphore>>,
    handle: ManagerHandle,
    clock_watch: Option<JoinHandle<()>>,
    /// The store through which tokens are shared with other replicas.
    #[cfg(feature = "share")]
    shared: Option<Arc<SharedStore>>,
}

/// One running refresher.
struct Managed<F> {
    credential: Arc<Credential>,
    scopes: ScopeSet,
    number: usize,
    reader: Reader,
    /// The reader of the token that authorizes its token requests.
    via: Option<Reader>,
    status: Arc<Mutex<TokenStatus>>,
    gate: Arc<Gate>,
    stop: CancellationToken,
    task: JoinHandle<Retired<F>>,
}

impl<F> Managed<F> {
    fn serves(&self, spec: &TokenSpec, via: Option<&Reader>) -> bool {
        let same_via = match (&self.via, via) {
            (Some(mine), Some(other)) => mine.reads_same(other),
            (mine, other) => mine.is_none() && other.is_none(),
        };
        same_via && self.credential == spec.credential && self.scopes == spec.scopes
    }
}

impl TokenManager {
    /// A manager without tokens, which reads secrets through `store`.
    pub fn new(metrics: TokenMetrics, store: Arc<Store>) -> Self {
        Self::with(TokenClients::new(store), metrics)
    }
}

impl<M: MakeFetch> TokenManager<M> {
    /// A manager without tokens, which fetches them by `make_fetch`.
    pub(super) fn with(make_fetch: M, metrics: TokenMetrics) -> Self {
        let handle = metrics.tokens();
        Self {
            metrics,
            make_fetch,
            managed: Vec::new(),
            leaving: Vec::new(),
            gates: HashMap::new(),
            endpoints: HashMap::new(),
            handle,
            clock_watch: None,
            #[cfg(feature = "share")]
            shared: None,
        }
    }

    /// Shares the tokens of credentials with `share` through this store from now on.
    #[cfg(feature = "share")]
    pub fn share_through(&mut self, store: Arc<SharedStore>) {
        self.shared = Some(store);
    }

    /// A handle on the tokens.
    pub fn handle(&self) -> ManagerHandle {
        self.handle.clone()
    }

    /// Keeps these tokens from now on; returns the reader of each by its [`TokenSpec::key`]. Other
    /// tokens are kept too until [`commit`](Self::commit), so that a reload can be undone by applying
    /// the earlier specs. It must be called in the control plane's runtime, where the refreshers run.
    pub fn apply(&mut self, specs: Vec<TokenSpec>) -> TokenReaders {
        let specs = with_vias(specs);
        let unions = Unions::of(&specs);
        self.leaving.append(&mut self.managed);
        let mut readers = TokenReaders::default();
        for spec in specs {
            // The key has the scopes of the route, the token those of its token request.
            let key = spec.key();
            readers.0.insert(key, self.keep(&unions.effective(spec), &unions));
        }
        for managed in &self.managed {
            let same = |other: &&Managed<_>| other.credential.name == managed.credential.name;
            managed.gate.set_tokens(self.managed.iter().filter(same).count());
        }
        let entry = |managed: &Managed<_>| ManagedToken {
            status: Arc::clone(&managed.status),
            reader: managed.reader.clone(),
            gate: Arc::clone(&managed.gate),
            issuer: managed.credential.issuer().cloned(),
        };
        self.handle.set(self.managed.iter().map(entry).collect());
        let (handle, metrics) = (self.handle.clone(), self.metrics.clone());
        self.clock_watch.get_or_insert_with(|| task::spawn(watch_clocks(handle, metrics)));
        readers
    }

    /// The reader of one token, whose refresher is kept or, for a new token, started.
    fn keep(&mut self, spec: &TokenSpec, unions: &Unions) -> Reader {
        // First the token that authorizes its requests: with another reader the refresher is another.
        let via = spec.via().map(|via| self.keep(&unions.effective(via), unions));
        let serves = |managed: &Managed<_>| managed.serves(spec, via.as_ref());
        if let Some(managed) = self.managed.iter().find(|managed| serves(managed)) {
            return managed.reader.clone();
        }
        let managed = match self.leaving.iter().position(serves) {
            Some(at) => self.leaving.swap_remove(at),
            None => self.start(spec, via),
        };
        let reader = managed.reader.clone();
        self.managed.push(managed);
        reader
    }

    /// Ends the refreshers that are no longer needed and drops their tokens at once.
    pub fn commit(&mut self) {
        self.leaving.drain(..).for_each(|managed| managed.stop.cancel());
        let (credentials, now) =
            (|| self.managed.iter().map(|kept| &kept.credential), Instant::now());
        self.endpoints.retain(|endpoint, _| credentials().any(|one| one.source == *endpoint));
        self.gates.retain(|name, (_, gate)| {
            // Refusals and calls count against a credential after it is gone: it may come back.
            gate.has_history(now) || credentials().any(|credential| credential.name == *name)
        });
    }

    /// Ends all refreshers and drops their tokens. With `revoke`, tokens are revoked where their
    /// credential asks for it.
    pub async fn shutdown(mut self, revoke: bool) {
        if let Some(watch) = self.clock_watch.take() {
            watch.abort();
        }
        self.leaving.append(&mut self.managed);
        self.handle.set(Vec::new());
        self.leaving.iter().for_each(|managed| managed.stop.cancel());
        let mut revocations = JoinSet::new();
        for managed in self.leaving.drain(..) {
            let Ok(retired) = managed.task.await else { continue };
            if revoke && managed.credential.revokes() {
                revocations.spawn(task::boxed(revoke_tokens(managed.credential, retired)));
            }
        }
        let all = async { while revocations.join_next().await.is_some() {} };
        if tokio::time::timeout(REVOCATION_TIME, all).await.is_err() {
            tracing::warn!("revocation timeout reached; some tokens were not revoked");
        }
    }

    fn start(&mut self, spec: &TokenSpec, via: Option<Reader>) -> Managed<M::Fetch> {
        let TokenSpec { credential, scopes } = spec.clone();
        let number = self.free_number(&credential.name);
        let status = Arc::new(Mutex::new(TokenStatus::new(spec, number)));
        let (writer, reader) = channel();
        let stop = CancellationToken::new();
        let endpoint = self.endpoints.entry(credential.source.clone());
        let endpoint = endpoint.or_insert_with(|| Arc::new(Semaphore::new(CALLS_PER_ENDPOINT)));
        let endpoint = Arc::clone(endpoint);
        let gate = self.gate(&credential);
        let refresher = Refresher::new(
            spec,
            self.make_fetch.make_fetch(&credential, &scopes, via.clone()),
            writer,
            endpoint,
            Arc::clone(&gate),
            self.metrics.of(&credential.name, credential.policy.one_live_token),
            Arc::clone(&status),
        );
        // A reload that changes a credential leaves the client and its one live token what they are.
        let replaced = self.leaving.iter().find(|leaving| {
            credential.policy.one_live_token && leaving.credential.is_client_of(&credential)
        });
        let refresher = refresher.replacing(replaced.and_then(|leaving| leaving.reader.peek()));
        #[cfg(feature = "share")]
        let refresher = refresher.sharing(self.shared_renewal(&credential, &scopes));
        let task = tokio::spawn(refresher.run(stop.clone()));
        Managed { credential, scopes, number, reader, via, status, gate, stop, task }
    }

    #[cfg(feature = "share")]
    fn shared_renewal(
        &self,
        credential: &Arc<Credential>,
        scopes: &ScopeSet,
    ) -> Option<SharedRenewal> {
        let shared = self.shared.as_ref().filter(|_| credential.policy.share)?;
        Some(SharedRenewal::new(Arc::clone(shared), Arc::clone(credential), scopes.clone()))
    }

    /// The gate of a credential. It outlives changes of everything but the client's id, secret,
    /// authentication and endpoint, on which the server's verdict depends.
    fn gate(&mut self, credential: &Arc<Credential>) -> Arc<Gate> {
        let new = || (Arc::clone(credential), Arc::new(Gate::default()));
        let entry = self.gates.entry(Arc::clone(&credential.name)).or_insert_with(new);
        if !entry.0.same_client(credential) {
            *entry = new();
        }
        Arc::clone(&entry.1)
    }

    /// The lowest number that no token of the credential has, not even one that is about to end.
    fn free_number(&self, credential: &Arc<str>) -> usize {
        let all = || self.managed.iter().chain(&self.leaving);
        let taken = |number: &usize| {
            all().any(|managed| managed.credential.name == *credential && managed.number == *number)
        };
        (0..).find(|number| !taken(number)).unwrap_or_default()
    }
}

/// Revokes a refresh token and then its access token: a server may end access tokens with their
/// refresh token. A failure is only logged, because tokens expire by themselves.
async fn revoke_tokens<F: Fetch>(credential: Arc<Credential>, retired: Retired<F>) {
    let Retired { fetch, bearer, refresh_token } = retired;
    let access = bearer.map(|bearer| bearer.token());
    let refresh = refresh_token.as_ref().map(RevokedToken::Refresh);
    for token in refresh.into_iter().chain(access.as_ref().map(RevokedToken::Access)) {
        match fetch.revoke(token).await {
            Ok(()) => tracing::info!(credential = %credential.name, "token revoked"),
            Err(error) => {
                tracing::warn!(credential = %credential.name, %error, "token revocation failed");
            }
        }
    }
}
