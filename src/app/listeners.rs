//! The proxy's listeners across reloads: those that stay keep their number and their sockets, new
//! ones are bound before old ones close, and a failed bind changes nothing.

use std::num::NonZeroUsize;

use crate::proxy::plan::BoundListener;
use crate::proxy::settings::ListenerSettings;
use crate::server::settings::Listen;
use crate::server::{BindError, Claim, Local, WorkerListener, bind};

/// What is bound.
pub(super) struct Listeners {
    workers: NonZeroUsize,
    /// In the order of the configuration.
    open: Vec<Open>,
    /// The next listener's number; none is used twice, so that no connection is taken for another's.
    next: usize,
}

/// One listener whose sockets are with the workers.
struct Open {
    id: usize,
    listen: Listen,
    addresses: Vec<Local>,
    _claims: Vec<Claim>,
}

/// New listeners that are bound, and old ones that stay; nothing is in force yet.
pub(super) struct Change {
    places: Vec<Place>,
    /// Sockets of the new ones, for each worker.
    pub(super) sockets: Vec<Vec<WorkerListener>>,
    next: usize,
}

enum Place {
    /// One that is open, by its number.
    Kept(usize),
    New(Open),
}

/// Listeners that the workers are to close; their addresses are given up when this is dropped.
pub(super) struct Removed(Vec<Open>);

impl Removed {
    /// Their numbers.
    pub(super) fn ids(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().map(|open| open.id)
    }
}

impl Listeners {
    /// None yet, for this many workers.
    pub(super) fn new(workers: NonZeroUsize) -> Self {
        Self { workers, open: Vec::new(), next: 0 }
    }

    /// Binds what is wanted and not there.
    ///
    /// # Errors
    /// The first that cannot be bound; what this call has bound is closed again.
    pub(super) fn change(&self, wanted: &[ListenerSettings]) -> Result<Change, BindError> {
        let sockets = (0..self.workers.get()).map(|_| Vec::new()).collect();
        let mut change = Change { places: Vec::new(), sockets, next: self.next };
        for settings in wanted {
            let kept = self
                .open
                .iter()
                .find(|open| is_same(&open.listen, &settings.listen) && !change.keeps(open.id));
            match kept {
                Some(open) => {
                    give_access(&open.listen, &settings.listen)?;
                    change.places.push(Place::Kept(open.id));
                }
                None => change.bind(&settings.listen, self.workers)?,
            }
        }
        Ok(change)
    }

    /// Where the listeners are bound once the change is in force, in the configuration's order.
    pub(super) fn bound(&self, change: &Change) -> Vec<BoundListener> {
        let places = change.places.iter().filter_map(|place| match place {
            Place::Kept(id) => self.open.iter().find(|open| open.id == *id),
            Place::New(open) => Some(open),
        });
        places.map(Open::bound).collect()
    }

    /// Where they are bound now, in the configuration's order.
    pub(super) fn unchanged(&self) -> Vec<BoundListener> {
        self.open.iter().map(Open::bound).collect()
    }

    /// Puts the change in force.
    pub(super) fn apply(&mut self, change: Change, wanted: &[ListenerSettings]) -> Removed {
        let mut old = std::mem::take(&mut self.open);
        for (place, settings) in change.places.into_iter().zip(wanted) {
            let open = match place {
                Place::New(open) => Some(open),
                Place::Kept(id) => {
                    old.iter().position(|open| open.id == id).map(|at| old.remove(at))
                }
            };
            self.open.extend(open.map(|open| Open { listen: settings.listen.clone(), ..open }));
        }
        self.next = change.next;
        Removed(old)
    }

    /// Where they are bound now.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &[Local]> {
        self.open.iter().map(|open| &*open.addresses)
    }
}

impl Change {
    fn keeps(&self, id: usize) -> bool {
        self.places.iter().any(|place| matches!(place, Place::Kept(kept) if *kept == id))
    }

    fn bind(&mut self, listen: &Listen, workers: NonZeroUsize) -> Result<(), BindError> {
        let bound = bind(listen, workers)?;
        let id = self.next;
        self.next += 1;
        for (mine, new) in self.sockets.iter_mut().zip(bound.sockets) {
            mine.extend(new.into_iter().map(|listener| WorkerListener { id, listener }));
        }
        let (listen, addresses) = (listen.clone(), bound.addresses);
        self.places.push(Place::New(Open { id, listen, addresses, _claims: bound.claims }));
        Ok(())
    }
}

impl Open {
    fn bound(&self) -> BoundListener {
        let addresses = self.addresses.iter().filter_map(Local::tcp).collect();
        BoundListener { id: self.id, addresses }
    }
}

/// Whether both are the same socket; who may connect to it can differ.
fn is_same(a: &Listen, b: &Listen) -> bool {
    match (a, b) {
        (Listen::Unix(a), Listen::Unix(b)) => a.path == b.path,
        _ => a == b,
    }
}

fn give_access(old: &Listen, new: &Listen) -> Result<(), BindError> {
    match new {
        Listen::Unix(socket) if old != new => socket.give_access().map_err(|cause| BindError {
            listen: new.clone(),
            at: Local::Unix(socket.path.clone()),
            cause,
        }),
        _ => Ok(()),
    }
}
