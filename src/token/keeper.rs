//! `Keeper`: owns the refreshers. Across a reload it keeps those still wanted, with their tokens;
//! the others end, and their tokens are dropped at once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cell::{Reader, channel};
use super::credential::{Credential, Grouping};
use super::fetch::Trip;
use super::gate::Gate;
use super::login::Login;
use super::metrics::TokenMetrics;
use super::refresher::Refresher;
use super::schedule::Schedule;
use super::status::TokenStatus;
use crate::oauth::ScopeSet;
use crate::secret::Store;

/// Calls in flight to one token endpoint.
const CALLS_PER_ENDPOINT: usize = 4;

/// A token that a route needs.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Whose token.
    pub credential: Arc<Credential>,
    /// With which scopes.
    pub scopes: ScopeSet,
}

/// Owns the refreshers of this process.
pub struct Keeper {
    metrics: TokenMetrics,
    kept: Vec<Kept>,
    gates: HashMap<Arc<str>, (Arc<Credential>, Arc<Gate>)>,
    logins: HashMap<Arc<str>, (Arc<Credential>, Arc<Login>)>,
    endpoints: HashMap<String, Arc<Semaphore>>,
    store: Arc<Store>,
    handle: KeeperHandle,
}

/// One refresher and what two routes must share to share it.
struct Kept {
    credential: Arc<Credential>,
    scopes: ScopeSet,
    number: usize,
    reader: Reader,
    status: Arc<Mutex<TokenStatus>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// The tokens' states, for the operator's window.
#[derive(Clone, Default)]
pub struct KeeperHandle(Arc<Mutex<Vec<Arc<Mutex<TokenStatus>>>>>);

impl KeeperHandle {
    /// The state of each token.
    pub fn statuses(&self) -> Vec<TokenStatus> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|one| one.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }
}

impl Keeper {
    /// A keeper of nothing, which will read secrets through `store`.
    pub fn new(metrics: TokenMetrics, store: Arc<Store>) -> Self {
        let (gates, logins, endpoints) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (kept, handle) = (Vec::new(), KeeperHandle::default());
        Self { metrics, kept, gates, logins, endpoints, store, handle }
    }

    /// The tokens' states.
    pub fn handle(&self) -> KeeperHandle {
        self.handle.clone()
    }

    /// Keeps these tokens from now on, and no others; gives their readers in the same order. Must
    /// be called in the control plane's runtime, where the refreshers run.
    pub fn apply(&mut self, wanted: Vec<Wanted>) -> Vec<Reader> {
        let wanted = grouped(wanted);
        let mut old = std::mem::take(&mut self.kept);
        for one in &wanted {
            let same = |kept: &Kept| kept.credential == one.credential && kept.scopes == one.scopes;
            if self.kept.iter().any(same) {
                continue;
            }
            match old.iter().position(same) {
                Some(at) => self.kept.push(old.swap_remove(at)),
                None => {
                    let started = self.start(one, &old);
                    self.kept.push(started);
                }
            }
        }
        for unwanted in old {
            unwanted.stop.cancel();
        }
        self.gates.retain(|name, _| self.kept.iter().any(|kept| kept.credential.name == *name));
        self.logins.retain(|name, _| self.kept.iter().any(|kept| kept.credential.name == *name));
        let statuses = self.kept.iter().map(|kept| Arc::clone(&kept.status)).collect();
        *self.handle.0.lock().unwrap_or_else(PoisonError::into_inner) = statuses;
        let reader_of = |one: &Wanted| {
            let mut all = self.kept.iter();
            all.find(|kept| kept.credential == one.credential && kept.scopes == one.scopes)
                .map(|kept| kept.reader.clone())
        };
        wanted.iter().filter_map(reader_of).collect()
    }

    /// Ends all refreshers and drops their tokens.
    pub async fn shutdown(mut self) {
        for kept in &self.kept {
            kept.stop.cancel();
        }
        for kept in self.kept.drain(..) {
            let _ = kept.task.await;
        }
    }

    fn start(&mut self, wanted: &Wanted, leaving: &[Kept]) -> Kept {
        let credential = Arc::clone(&wanted.credential);
        let gate = self.gate(&credential);
        let login = self.login(&credential);
        let endpoint = self.endpoints.entry(credential.endpoint.uri().to_string());
        let endpoint = endpoint.or_insert_with(|| Arc::new(Semaphore::new(CALLS_PER_ENDPOINT)));
        let trip = Trip {
            credential: Arc::clone(&credential),
            scopes: wanted.scopes.clone(),
            login,
            endpoint: Arc::clone(endpoint),
        };
        let number = self.free_number(&credential.name, leaving);
        let status = Arc::new(Mutex::new(status(wanted, number)));
        let (writer, reader) = channel();
        let stop = CancellationToken::new();
        let refresher = Refresher {
            credential: Arc::clone(&credential),
            scopes: wanted.scopes.clone(),
            fetch: trip,
            writer,
            schedule: Schedule::new(credential.policy, Instant::now()),
            gate,
            metrics: self.metrics.of(&credential.name, &number.to_string()),
            status: Arc::clone(&status),
            refresh_token: None,
            generation: 0,
            blamed: VecDeque::new(),
            life: std::time::Duration::ZERO,
        };
        let task = tokio::spawn(refresher.run(stop.clone()));
        Kept { credential, scopes: wanted.scopes.clone(), number, reader, status, stop, task }
    }

    /// A credential that has changed deserves a new chance.
    fn gate(&mut self, credential: &Arc<Credential>) -> Arc<Gate> {
        let fresh = || (Arc::clone(credential), Arc::new(Gate::default()));
        let entry = self.gates.entry(Arc::clone(&credential.name)).or_insert_with(fresh);
        if entry.0 != *credential {
            *entry = fresh();
        }
        Arc::clone(&entry.1)
    }

    /// The login of a credential; what is known of its secrets holds as long as it is not changed.
    fn login(&mut self, credential: &Arc<Credential>) -> Arc<Login> {
        if let Some((of, login)) = self.logins.get(&credential.name)
            && of == credential
        {
            return Arc::clone(login);
        }
        let metrics = self.metrics.of_login(&credential.name);
        let login = Login::new(Arc::clone(credential), Arc::clone(&self.store), metrics);
        let entry = (Arc::clone(credential), Arc::new(login));
        self.logins.entry(Arc::clone(&credential.name)).insert_entry(entry).get().1.clone()
    }

    /// The lowest number that no token of the credential has, not even one about to end: its
    /// gauges would take the new token's with them.
    fn free_number(&self, credential: &Arc<str>, leaving: &[Kept]) -> usize {
        let taken = |number: &usize| {
            self.kept
                .iter()
                .chain(leaving)
                .any(|kept| kept.credential.name == *credential && kept.number == *number)
        };
        (0..).find(|number| !taken(number)).unwrap_or_default()
    }
}

/// Settles which scopes each token is asked with: all of the credential's with `union`, and none
/// that would be sent where the dialect sends none.
fn grouped(wanted: Vec<Wanted>) -> Vec<Wanted> {
    let mut unions: HashMap<Arc<str>, ScopeSet> = HashMap::new();
    let unites = |one: &Wanted| {
        one.credential.grouping == Grouping::Union || !one.credential.dialect.send_scope
    };
    for one in wanted.iter().filter(|one| unites(one)) {
        let union = unions.entry(Arc::clone(&one.credential.name)).or_default();
        *union = union.union(&one.scopes);
    }
    let settle = |one: Wanted| match unions.get(&one.credential.name) {
        Some(union) if unites(&one) => Wanted { scopes: union.clone(), ..one },
        _ => one,
    };
    wanted.into_iter().map(settle).collect()
}

fn status(wanted: &Wanted, number: usize) -> TokenStatus {
    TokenStatus {
        credential: Arc::clone(&wanted.credential.name),
        token: number.to_string(),
        scopes: wanted.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        usable_until: None,
        expires: None,
        refresh_due: None,
        attempted: false,
        failing_since: None,
        failures: 0,
        last_error: None,
    }
}
