//! The proxy's listeners across reloads: those that stay keep their number and their sockets, new
//! ones are bound before old ones close, and a failed bind changes nothing.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::UNIX_EPOCH;

use super::build::StartError;
use crate::listen::settings::{Listen, ServerTls};
use crate::listen::tls::Identity;
use crate::listen::{AddressLock, BindError, BoundAddress, TlsCell, bind};
use crate::proxy::policy::plan::{BoundListener, BoundListeners};
use crate::proxy::policy::settings::ListenerSettings;
use crate::server::WorkerListener;
use crate::telemetry::Registry;
use crate::telemetry::family::Gauges;
use crate::x509::TlsSetupError;

/// What is bound.
pub(super) struct Listeners {
    workers: NonZeroUsize,
    /// By their index in the listeners of the configuration, which is how its upstreams name them.
    open: BTreeMap<usize, OpenListener>,
    /// The next listener's number; none is used twice, so that no connection is taken for another's.
    next: usize,
    expiry: Gauges,
}

/// One listener whose sockets are with the workers.
struct OpenListener {
    id: usize,
    listen: Listen,
    addresses: Vec<BoundAddress>,
    tls: TlsCell,
    certificate: Option<Certificate>,
    _locks: Vec<AddressLock>,
}

/// The certificate of a listener that speaks TLS.
struct Certificate {
    settings: ServerTls,
    identity: Identity,
    /// Its files cannot be used as they are now, and the log says so.
    failing: bool,
}

/// New listeners that are bound, and old ones that stay; nothing is in force yet.
pub(super) struct ListenerChange {
    /// By their index in the listeners of the new configuration.
    wanted: BTreeMap<usize, WantedListener>,
    /// Sockets of the new ones, for each worker.
    pub(super) sockets: Vec<Vec<WorkerListener>>,
    next: usize,
}

/// One listener of the new configuration.
struct WantedListener {
    listen: Listen,
    certificate: Option<Certificate>,
    placement: Placement,
}

enum Placement {
    /// One that is open, by its number.
    Kept(usize),
    New(Box<OpenListener>),
}

/// Listeners that the workers are to close; their addresses are given up when this is dropped.
pub(super) struct Removed(Vec<OpenListener>);

impl Removed {
    /// Their numbers.
    pub(super) fn ids(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().map(|open| open.id)
    }
}

impl Listeners {
    /// None yet, for this many workers.
    pub(super) fn new(workers: NonZeroUsize, registry: &Registry) -> Result<Self, StartError> {
        let expiry = registry.gauge_vec(
            "bearer_proxy_tls_listener_certificate_expiry_timestamp_seconds",
            "When the certificate of a listener ends to be valid.",
            &["listener"],
        )?;
        Ok(Self { workers, open: BTreeMap::new(), next: 0, expiry })
    }

    /// Binds what is wanted and not there, and reads all certificates.
    ///
    /// # Errors
    /// The first that cannot be bound or read; what this call has bound is closed again.
    pub(super) fn change(&self, wanted: &[ListenerSettings]) -> Result<ListenerChange, StartError> {
        let sockets = (0..self.workers.get()).map(|_| Vec::new()).collect();
        let mut change = ListenerChange { wanted: BTreeMap::new(), sockets, next: self.next };
        for (index, settings) in wanted.iter().enumerate() {
            let certificate = settings.tls.as_ref().map(Certificate::read).transpose();
            let certificate = certificate.map_err(StartError::Tls)?;
            let kept = self
                .open
                .values()
                .find(|open| is_same(&open.listen, &settings.listen) && !change.keeps(open.id));
            let placement = match kept {
                Some(open) => {
                    give_access(&open.listen, &settings.listen).map_err(StartError::Bind)?;
                    Placement::Kept(open.id)
                }
                None => {
                    let identity = certificate.as_ref().map(|certificate| &certificate.identity);
                    let open = change.bind(&settings.listen, identity, self.workers);
                    Placement::New(Box::new(open.map_err(StartError::Bind)?))
                }
            };
            let listen = settings.listen.clone();
            change.wanted.insert(index, WantedListener { listen, certificate, placement });
        }
        Ok(change)
    }

    /// Where the listeners are bound once the change is in force.
    pub(super) fn bound(&self, change: &ListenerChange) -> BoundListeners {
        let open = |wanted: &WantedListener| match &wanted.placement {
            Placement::Kept(id) => {
                self.open.values().find(|open| open.id == *id).map(OpenListener::bound)
            }
            Placement::New(open) => Some(open.bound()),
        };
        let all = change.wanted.iter();
        // One that were not there would be missing under its index, which the plan refuses; the others
        // keep theirs.
        all.filter_map(|(index, wanted)| Some((*index, open(wanted)?))).collect()
    }

    /// Where they are bound now.
    pub(super) fn unchanged(&self) -> BoundListeners {
        self.open.iter().map(|(index, open)| (*index, open.bound())).collect()
    }

    /// Puts the change in force.
    pub(super) fn apply(&mut self, change: ListenerChange) -> Removed {
        let old = std::mem::take(&mut self.open);
        // From here on by the number of the socket: its index may be another in this configuration.
        let mut old: BTreeMap<usize, OpenListener> =
            old.into_values().map(|open| (open.id, open)).collect();
        for (index, WantedListener { listen, certificate, placement }) in change.wanted {
            let open = match placement {
                Placement::New(open) => Some(*open),
                Placement::Kept(id) => old.remove(&id),
            };
            self.open.extend(open.map(|open| {
                open.tls.set(certificate.as_ref().map(|certificate| &certificate.identity));
                (index, OpenListener { listen, certificate, ..open })
            }));
        }
        self.next = change.next;
        self.publish_expiry();
        Removed(old.into_values().collect())
    }

    /// Reads the certificates again; those that have changed are shown to clients from now on.
    pub(super) fn reread(&mut self) {
        for open in self.open.values_mut() {
            let Some(certificate) = &mut open.certificate else { continue };
            if certificate.reread(&open.listen) {
                open.tls.set(Some(&certificate.identity));
                tracing::info!(listen = %open.listen, "a listener has a new certificate");
            }
        }
        self.publish_expiry();
    }

    fn publish_expiry(&self) {
        self.expiry.reset();
        for OpenListener { listen, certificate, .. } in self.open.values() {
            let expires = certificate.as_ref().and_then(|known| known.identity.expires);
            if let Some(since) = expires.and_then(|end| end.duration_since(UNIX_EPOCH).ok()) {
                self.expiry.with_label_values(&[&listen.to_string()]).set(since.as_secs_f64());
            }
        }
    }

    /// The addresses of each, with its index in the listeners of the configuration.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (usize, &[BoundAddress])> {
        self.open.iter().map(|(index, open)| (*index, &*open.addresses))
    }
}

impl ListenerChange {
    fn keeps(&self, id: usize) -> bool {
        let is = |wanted: &WantedListener| matches!(wanted.placement, Placement::Kept(kept) if kept == id);
        self.wanted.values().any(is)
    }

    fn bind(
        &mut self,
        listen: &Listen,
        identity: Option<&Identity>,
        workers: NonZeroUsize,
    ) -> Result<OpenListener, BindError> {
        let bound = bind(listen, workers)?;
        let id = self.next;
        self.next += 1;
        let tls = TlsCell::default();
        // Before the first connection: it is never served without.
        tls.set(identity);
        for (mine, new) in self.sockets.iter_mut().zip(bound.sockets) {
            let listener = |listener| WorkerListener { id, listener, tls: tls.clone() };
            mine.extend(new.into_iter().map(listener));
        }
        let (listen, addresses) = (listen.clone(), bound.addresses);
        Ok(OpenListener { id, listen, addresses, tls, certificate: None, _locks: bound.locks })
    }
}

impl Certificate {
    fn read(settings: &ServerTls) -> Result<Self, TlsSetupError> {
        let (settings, identity) = (settings.clone(), Identity::read(settings)?);
        Ok(Self { settings, identity, failing: false })
    }

    /// Whether it is another now. Files that do not fit together may be in the middle of a renewal.
    fn reread(&mut self, listen: &Listen) -> bool {
        let read = self.identity.reread(&self.settings);
        if let Err(error) = &read
            && !self.failing
        {
            tracing::error!(%listen, %error, "a listener's certificate cannot be read again; it stays");
        }
        self.failing = read.is_err();
        let Ok(Some(identity)) = read else { return false };
        self.identity = identity;
        true
    }
}

impl OpenListener {
    fn bound(&self) -> BoundListener {
        let addresses = self.addresses.iter().filter_map(BoundAddress::tcp).collect();
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
            at: BoundAddress::Unix(socket.path.clone()),
            cause,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::policy::settings::AllowedHosts;

    fn listener(listen: Listen) -> ListenerSettings {
        ListenerSettings {
            listen,
            peers: Default::default(),
            tls: None,
            allowed_hosts: AllowedHosts::Own,
            allowed_origins: Vec::new(),
        }
    }

    #[test]
    fn sockets_follow_their_listener_to_another_place_of_the_configuration() {
        let mut listeners = Listeners::new(NonZeroUsize::MIN, &Registry::new()).unwrap();
        let one = listener(Listen::Localhost(0));
        let other = listener(Listen::Tcp("127.0.0.1:0".parse().unwrap()));
        let change = listeners.change(&[one.clone(), other.clone()]).unwrap();
        let first = listeners.bound(&change);
        assert_eq!(listeners.apply(change).ids().count(), 0);
        assert_eq!(listeners.unchanged(), first);

        let change = listeners.change(&[other.clone(), one]).unwrap();
        let swapped = listeners.bound(&change);
        assert_eq!((&swapped[&0], &swapped[&1]), (&first[&1], &first[&0]));
        assert_eq!(listeners.apply(change).ids().count(), 0);
        assert_eq!(listeners.unchanged(), swapped);

        let change = listeners.change(&[other]).unwrap();
        let removed = listeners.apply(change);
        assert_eq!(removed.ids().collect::<Vec<_>>(), [first[&0].id]);
        assert_eq!(listeners.unchanged()[&0], first[&1]);
    }
}
