//! `TokenManager`: owns the refreshers. Across a reload it keeps those still wanted, with their tokens;
//! the others end, and their tokens are dropped at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::clock_watch::watch;
use super::credential::{Credential, Grouping};
use super::fetch::{Fetch, MakeFetch, TokenClients};
use super::gate::Gate;
use super::handle::{ManagedToken, ManagerHandle};
use super::metrics::TokenMetrics;
use super::refresher::{Inner, Refresher, Retired};
use super::status::TokenStatus;
use super::token_cell::{Reader, channel};
use crate::oauth::revoke::RevokedToken;
use crate::oauth::{ScopeSet, TokenEndpoint};
use crate::secret::Store;

/// Calls in flight to one token endpoint.
const CALLS_PER_ENDPOINT: usize = 4;

/// Time for revocations altogether: they are the last thing that the program does.
const REVOCATION_TIME: Duration = Duration::from_millis(800);

/// A token that a route needs.
#[derive(Debug, Clone)]
pub struct TokenSpec {
    /// Whose token.
    pub credential: Arc<Credential>,
    /// With which scopes.
    pub scopes: ScopeSet,
}

impl TokenSpec {
    /// The key under which [`TokenManager::apply`] gives the reader of this token.
    pub fn key(&self) -> TokenKey {
        TokenKey { credential: Arc::clone(&self.credential.name), scopes: self.scopes.clone() }
    }
}

/// Identifies, within one configuration, the token that a route needs: by the name of the
/// credential and the scopes of the route, in any order.
///
/// These are the scopes that the route asks for, not those that the token server is asked for: with
/// `tokens = "union"`, and where the dialect sends no scopes, all keys of a credential lead to one
/// token. So a key can be made from a route alone, without knowing what other routes need.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenKey {
    credential: Arc<str>,
    scopes: ScopeSet,
}

impl TokenKey {
    /// The name of the credential.
    pub fn credential(&self) -> &Arc<str> {
        &self.credential
    }
}

/// The readers of the tokens that a configuration needs. There is no order to rely on: a reader is
/// found by the key of its token only.
#[derive(Clone, Default)]
pub struct TokenReaders(HashMap<TokenKey, Reader>);

impl TokenReaders {
    /// The reader of a token; `None` where the manager was not asked to keep that token.
    pub fn get(&self, key: &TokenKey) -> Option<&Reader> {
        self.0.get(key)
    }
}

/// Owns the refreshers of this process.
pub struct TokenManager<M: MakeFetch = TokenClients> {
    metrics: TokenMetrics,
    make_fetch: M,
    kept: Vec<Kept<M::Fetch>>,
    /// Those that the last [`apply`](Self::apply) had no use for, until it is settled.
    leaving: Vec<Kept<M::Fetch>>,
    gates: HashMap<Arc<str>, (Arc<Credential>, Arc<Gate>)>,
    endpoints: HashMap<TokenEndpoint, Arc<Semaphore>>,
    handle: ManagerHandle,
    watch: Option<JoinHandle<()>>,
}

/// One refresher and what two routes must share to share it.
struct Kept<F> {
    credential: Arc<Credential>,
    scopes: ScopeSet,
    number: usize,
    reader: Reader,
    status: Arc<Mutex<TokenStatus>>,
    gate: Arc<Gate>,
    stop: CancellationToken,
    task: JoinHandle<Retired<F>>,
}

impl<F> Kept<F> {
    fn is(&self, wanted: &TokenSpec) -> bool {
        self.credential == wanted.credential && self.scopes == wanted.scopes
    }
}

impl TokenManager {
    /// A manager of nothing, which will read secrets through `store`.
    pub fn new(metrics: TokenMetrics, store: Arc<Store>) -> Self {
        Self::with(TokenClients::new(store, metrics.clone()), metrics)
    }
}

impl<M: MakeFetch> TokenManager<M> {
    /// A manager of nothing, whose tokens are fetched in a way of their own.
    pub(super) fn with(make_fetch: M, metrics: TokenMetrics) -> Self {
        let (kept, leaving) = (Vec::new(), Vec::new());
        let (gates, endpoints) = (HashMap::new(), HashMap::new());
        let handle = metrics.tokens();
        Self { metrics, make_fetch, kept, leaving, gates, endpoints, handle, watch: None }
    }

    /// The tokens' states.
    pub fn handle(&self) -> ManagerHandle {
        self.handle.clone()
    }

    /// Keeps these tokens from now on; gives the reader of each by its [`TokenSpec::key`]. Those that
    /// are no longer wanted are kept too until [`commit`](Self::commit), so that a reload can still
    /// be taken back by applying what was wanted before. Must be called in the control plane's
    /// runtime, where the refreshers run.
    pub fn apply(&mut self, wanted: Vec<TokenSpec>) -> TokenReaders {
        let unions = Unions::of(&wanted);
        self.leaving.append(&mut self.kept);
        let mut readers = TokenReaders::default();
        for one in wanted {
            // The key is what the route asks for, the token what the server is asked for.
            let key = one.key();
            let reader = self.keep(&unions.effective(one));
            readers.0.insert(key, reader);
        }
        let shown = |kept: &Kept<_>| ManagedToken {
            status: Arc::clone(&kept.status),
            reader: kept.reader.clone(),
            gate: Arc::clone(&kept.gate),
        };
        self.handle.show(self.kept.iter().map(shown).collect());
        let handle = self.handle.clone();
        let metrics = self.metrics.clone();
        self.watch.get_or_insert_with(|| tokio::spawn(watch(handle, metrics)));
        readers
    }

    /// The reader of one token, whose refresher is kept or, where there is none yet, started.
    fn keep(&mut self, wanted: &TokenSpec) -> Reader {
        if let Some(kept) = self.kept.iter().find(|kept| kept.is(wanted)) {
            return kept.reader.clone();
        }
        let kept = match self.leaving.iter().position(|kept| kept.is(wanted)) {
            Some(at) => self.leaving.swap_remove(at),
            None => self.start(wanted),
        };
        let reader = kept.reader.clone();
        self.kept.push(kept);
        reader
    }

    /// Ends the refreshers that are no longer wanted and drops their tokens at once.
    pub fn commit(&mut self) {
        self.leaving.drain(..).for_each(|kept| kept.stop.cancel());
        let (kept, now) = (&self.kept, Instant::now());
        self.endpoints
            .retain(|endpoint, _| kept.iter().any(|kept| kept.credential.endpoint == *endpoint));
        // What counts against a credential is remembered although it is gone: it may come back.
        self.gates.retain(|name, (_, gate)| {
            gate.remembers(now) || kept.iter().any(|kept| kept.credential.name == *name)
        });
    }

    /// Ends all refreshers and drops their tokens. Where there is time, those whose credential asks
    /// for it are revoked.
    pub async fn shutdown(mut self, in_peace: bool) {
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
        self.leaving.append(&mut self.kept);
        self.handle.show(Vec::new());
        self.leaving.iter().for_each(|kept| kept.stop.cancel());
        let mut revoking = JoinSet::new();
        for kept in self.leaving.drain(..) {
            let Ok(retired) = kept.task.await else { continue };
            if in_peace && kept.credential.revocation.is_some() {
                revoking.spawn(revoke(kept.credential, retired));
            }
        }
        let revoked = async { while revoking.join_next().await.is_some() {} };
        if tokio::time::timeout(REVOCATION_TIME, revoked).await.is_err() {
            tracing::warn!("some tokens were not revoked in time");
        }
    }

    fn start(&mut self, wanted: &TokenSpec) -> Kept<M::Fetch> {
        let credential = Arc::clone(&wanted.credential);
        let number = self.free_number(&credential.name);
        let status = Arc::new(Mutex::new(status(wanted, number)));
        let (writer, reader) = channel();
        let stop = CancellationToken::new();
        let endpoint = self.endpoints.entry(credential.endpoint.clone());
        let endpoint = endpoint.or_insert_with(|| Arc::new(Semaphore::new(CALLS_PER_ENDPOINT)));
        let endpoint = Arc::clone(endpoint);
        let gate = self.gate(&credential);
        let refresher = Refresher {
            fetch: self.make_fetch.make_fetch(&credential, &wanted.scopes),
            scopes: wanted.scopes.clone(),
            writer,
            gate: Arc::clone(&gate),
            endpoint,
            metrics: self.metrics.of(&credential.name),
            status: Arc::clone(&status),
            inner: Inner::new(&credential),
            credential: Arc::clone(&credential),
        };
        let task = tokio::spawn(refresher.run(stop.clone()));
        Kept { credential, scopes: wanted.scopes.clone(), number, reader, status, gate, stop, task }
    }

    /// What a server thinks of a login outlives changes of everything else.
    fn gate(&mut self, credential: &Arc<Credential>) -> Arc<Gate> {
        let fresh = || (Arc::clone(credential), Arc::new(Gate::default()));
        let entry = self.gates.entry(Arc::clone(&credential.name)).or_insert_with(fresh);
        if !entry.0.same_login(credential) {
            *entry = fresh();
        }
        Arc::clone(&entry.1)
    }

    /// The lowest number that no token of the credential has, not even one that is about to end.
    fn free_number(&self, credential: &Arc<str>) -> usize {
        let all = || self.kept.iter().chain(&self.leaving);
        let taken = |number: &usize| {
            all().any(|kept| kept.credential.name == *credential && kept.number == *number)
        };
        (0..).find(|number| !taken(number)).unwrap_or_default()
    }
}

/// Asks the server to end what is left; a refresh token first, since its access tokens may end with
/// it. A failure is said and nothing more: tokens end by themselves.
async fn revoke<F: Fetch>(credential: Arc<Credential>, retired: Retired<F>) {
    let Retired { fetch, bearer, refresh_token } = retired;
    let access = bearer.map(|bearer| bearer.token());
    let refresh = refresh_token.as_ref().map(RevokedToken::Refresh);
    for token in refresh.into_iter().chain(access.as_ref().map(RevokedToken::Access)) {
        match fetch.revoke(token).await {
            Ok(()) => tracing::info!(credential = %credential.name, "token revoked"),
            Err(error) => {
                tracing::warn!(credential = %credential.name, %error, "a token was not revoked");
            }
        }
    }
}

/// Settles which scopes each token is asked with: all of the credential's with `union`, and none
/// that would be sent where the dialect sends none.
pub fn effective_specs(wanted: Vec<TokenSpec>) -> Vec<TokenSpec> {
    let unions = Unions::of(&wanted);
    wanted.into_iter().map(|one| unions.effective(one)).collect()
}

/// For each credential all of whose routes share one token, the scopes of those routes together.
struct Unions(HashMap<Arc<str>, ScopeSet>);

impl Unions {
    fn of(wanted: &[TokenSpec]) -> Self {
        let mut unions: HashMap<Arc<str>, ScopeSet> = HashMap::new();
        for one in wanted.iter().filter(|one| Self::unites(one)) {
            let union = unions.entry(Arc::clone(&one.credential.name)).or_default();
            *union = union.union(&one.scopes);
        }
        Self(unions)
    }

    fn unites(one: &TokenSpec) -> bool {
        one.credential.grouping == Grouping::Union || !one.credential.dialect.send_scope
    }

    /// The token that the server is asked for, so that this need is met.
    fn effective(&self, one: TokenSpec) -> TokenSpec {
        match self.0.get(&one.credential.name) {
            Some(union) if Self::unites(&one) => TokenSpec { scopes: union.clone(), ..one },
            _ => one,
        }
    }
}

fn status(wanted: &TokenSpec, number: usize) -> TokenStatus {
    TokenStatus {
        credential: Arc::clone(&wanted.credential.name),
        token: number.to_string(),
        token_url: wanted.credential.endpoint.uri().to_string(),
        scopes: wanted.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        missing_scopes: Vec::new(),
        lazy: wanted.credential.policy.lazy.is_some(),
        contended: false,
        clock_offset: None,
        budget: wanted.credential.policy.budget,
        budget_left: None,
        secret_refused: false,
        last_success: None,
        usable_until: None,
        expires: None,
        refresh_due: None,
        attempted: false,
        failing_since: None,
        failures: 0,
        last_error: None,
    }
}
