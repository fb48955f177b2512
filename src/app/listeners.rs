//! The proxy's listeners across reloads: listeners that stay keep their id and sockets, new ones are
//! bound before old ones close, and a failed bind changes nothing.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use super::error::StartError;
use crate::clock::unix_seconds;
use crate::listen::settings::{Listen, ServerTls};
use crate::listen::tls::Identity;
use crate::listen::{AddressLock, BindError, BoundAddress, TlsCell, bind};
use crate::proxy::policy::plan::{BoundListener, BoundListeners};
use crate::proxy::policy::settings::ListenerSettings;
use crate::server::WorkerListener;
use crate::telemetry::Registry;
use crate::telemetry::family::Gauges;
use crate::x509::TlsSetupError;

/// All bound listeners.
pub(super) struct Listeners {
    workers: NonZeroUsize,
    /// By index in the configuration's list of listeners; upstreams refer to them by it.
    open: BTreeMap<usize, OpenListener>,
    /// The id of the next new listener. Ids are never reused: an old connection may still carry one.
    next: usize,
    expiry: Gauges,
}

/// A listener whose sockets the workers have.
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
    /// True if the files cannot be used at the moment, which has been logged.
    failing: bool,
}

/// The listeners of a new configuration: bound, and not in use yet.
pub(super) struct ListenerChange {
    /// By index in the new configuration's list of listeners.
    wanted: BTreeMap<usize, WantedListener>,
    /// Sockets of new listeners, one list for each worker.
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
    /// A listener that is open, by its id.
    Kept(usize),
    New(Box<OpenListener>),
}

/// Listeners that the workers must close. Dropping this unlocks their addresses.
pub(super) struct Removed(Vec<OpenListener>);

impl Removed {
    /// The ids of the listeners.
    pub(super) fn ids(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().map(|open| open.id)
    }
}

impl Listeners {
    /// No listeners yet; each will have sockets for this many workers.
    pub(super) fn new(workers: NonZeroUsize, registry: &Registry) -> Result<Self, StartError> {
        let expiry = registry.gauge_vec(
            "bearer_proxy_tls_listener_certificate_expiry_timestamp_seconds",
            "Expiry time of the listener certificate.",
            &["listener"],
        )?;
        Ok(Self { workers, open: BTreeMap::new(), next: 0, expiry })
    }

    /// Binds listeners that are not open yet, and reads all certificates.
    ///
    /// # Errors
    /// The first address or certificate that fails; this call's sockets are closed again.
    pub(super) fn prepare(
        &self,
        wanted: &[ListenerSettings],
    ) -> Result<ListenerChange, StartError> {
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

    /// The bound addresses after [`apply`](Self::apply).
    pub(super) fn bound(&self, change: &ListenerChange) -> BoundListeners {
        let open = |wanted: &WantedListener| match &wanted.placement {
            Placement::Kept(id) => {
                self.open.values().find(|open| open.id == *id).map(OpenListener::bound)
            }
            Placement::New(open) => Some(open.bound()),
        };
        let all = change.wanted.iter();
        // If one were missing, the plan would be refused for its index; the others keep theirs.
        all.filter_map(|(index, wanted)| Some((*index, open(wanted)?))).collect()
    }

    /// The bound addresses now.
    pub(super) fn unchanged(&self) -> BoundListeners {
        self.open.iter().map(|(index, open)| (*index, open.bound())).collect()
    }

    /// Takes the change over.
    pub(super) fn apply(&mut self, change: ListenerChange) -> Removed {
        let old = std::mem::take(&mut self.open);
        // By id from here on: the index of a listener may differ between the configurations.
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

    /// Re-reads all certificates; new connections get those that have changed.
    pub(super) fn reread_certificates(&mut self) {
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
            if let Some(expires) = expires.and_then(unix_seconds) {
                self.expiry.with_label_values(&[&listen.to_string()]).set(expires);
            }
        }
    }

    /// The addresses of each listener, with its index in the configuration.
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
        // Before the workers get the socket: no connection is served without TLS.
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

    /// Re-reads the files; returns true if the certificate has changed. Files that do not match may be in
    /// the middle of a renewal, so a failure keeps the old certificate.
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

/// True if both are the same socket; permissions on it may differ.
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

/// Logs all addresses; scripts and tests wait for these lines.
pub(super) fn log_addresses<'a>(
    proxy: &'a Listeners,
    admin: impl IntoIterator<Item = &'a BoundAddress>,
) {
    for addr in proxy.addresses().flat_map(|(_, addresses)| addresses) {
        tracing::info!(listener = "proxy", %addr, "listening");
    }
    for addr in admin {
        tracing::info!(listener = "admin", %addr, "listening");
    }
}

/// True if this is the first process of a container and all listeners are on the container's loopback.
///
/// That is right for a sidecar, which shares its loopback with the app. A port that `docker run -p`
/// publishes leads to another address of the container, where nothing listens.
pub(super) fn is_container_only<'a>(
    process: u32,
    listeners: impl IntoIterator<Item = &'a Listen>,
) -> bool {
    let local = |listen: &Listen| listen.is_loopback() && !matches!(listen, Listen::Unix(_));
    process == 1 && listeners.into_iter().all(local)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::settings::UnixSocket;
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
    fn sockets_follow_their_listener_to_another_index() {
        let mut listeners = Listeners::new(NonZeroUsize::MIN, &Registry::new()).unwrap();
        let first_listener = listener(Listen::Localhost(0));
        let other = listener(Listen::Tcp("127.0.0.1:0".parse().unwrap()));
        let change = listeners.prepare(&[first_listener.clone(), other.clone()]).unwrap();
        let first = listeners.bound(&change);
        assert_eq!(listeners.apply(change).ids().count(), 0);
        assert_eq!(listeners.unchanged(), first);

        let change = listeners.prepare(&[other.clone(), first_listener]).unwrap();
        let swapped = listeners.bound(&change);
        assert_eq!((&swapped[&0], &swapped[&1]), (&first[&1], &first[&0]));
        assert_eq!(listeners.apply(change).ids().count(), 0);
        assert_eq!(listeners.unchanged(), swapped);

        let change = listeners.prepare(&[other]).unwrap();
        let removed = listeners.apply(change);
        assert_eq!(removed.ids().collect::<Vec<_>>(), [first[&0].id]);
        assert_eq!(listeners.unchanged()[&0], first[&1]);
    }

    #[test]
    fn a_container_that_listens_on_loopback_alone_is_recognized() {
        let check = |process, listeners: &[Listen], expected| {
            assert_eq!(is_container_only(process, listeners), expected, "{process} {listeners:?}");
        };
        let local = Listen::Localhost(6750);
        let ip = Listen::Tcp("[::1]:6750".parse().unwrap());
        // A socket in a volume is reached by every container that mounts it.
        let unix = Listen::Unix(UnixSocket::at("/run/bearer-proxy/proxy.sock".into()));
        check(1, &[local.clone(), ip.clone()], true);
        check(2, &[local.clone(), ip], false);
        check(1, &[local.clone(), Listen::All(6751)], false);
        check(1, &[local, unix], false);
    }
}
