//! The proxy's listeners across reloads: those that stay keep their number and their sockets, new
//! ones are bound before old ones close, and a failed bind changes nothing.

use std::num::NonZeroUsize;
use std::time::UNIX_EPOCH;

use super::build::StartError;
use crate::net::tls::TlsSetupError;
use crate::proxy::plan::BoundListener;
use crate::proxy::settings::ListenerSettings;
use crate::server::settings::{Listen, ServerTls};
use crate::server::tls::Identity;
use crate::server::{BindError, Claim, Local, TlsCell, WorkerListener, bind};
use crate::telemetry::Registry;
use crate::telemetry::family::Gauges;

/// What is bound.
pub(super) struct Listeners {
    workers: NonZeroUsize,
    /// In the order of the configuration.
    open: Vec<Open>,
    /// The next listener's number; none is used twice, so that no connection is taken for another's.
    next: usize,
    expiry: Gauges,
}

/// One listener whose sockets are with the workers.
struct Open {
    id: usize,
    listen: Listen,
    addresses: Vec<Local>,
    tls: TlsCell,
    certificate: Option<Certificate>,
    _claims: Vec<Claim>,
}

/// The certificate of a listener that speaks TLS.
struct Certificate {
    settings: ServerTls,
    identity: Identity,
    /// Its files cannot be used as they are now, and the log says so.
    failing: bool,
}

/// New listeners that are bound, and old ones that stay; nothing is in force yet.
pub(super) struct Change {
    places: Vec<(Place, Option<Certificate>)>,
    /// Sockets of the new ones, for each worker.
    pub(super) sockets: Vec<Vec<WorkerListener>>,
    next: usize,
}

enum Place {
    /// One that is open, by its number.
    Kept(usize),
    New(Box<Open>),
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
    pub(super) fn new(workers: NonZeroUsize, registry: &Registry) -> Result<Self, StartError> {
        let expiry = registry.gauge_vec(
            "bearer_proxy_tls_listener_certificate_expiry_timestamp_seconds",
            "When the certificate of a listener ends to be valid.",
            &["listener"],
        )?;
        Ok(Self { workers, open: Vec::new(), next: 0, expiry })
    }

    /// Binds what is wanted and not there, and reads all certificates.
    ///
    /// # Errors
    /// The first that cannot be bound or read; what this call has bound is closed again.
    pub(super) fn change(&self, wanted: &[ListenerSettings]) -> Result<Change, StartError> {
        let sockets = (0..self.workers.get()).map(|_| Vec::new()).collect();
        let mut change = Change { places: Vec::new(), sockets, next: self.next };
        for settings in wanted {
            let certificate = settings.tls.as_ref().map(Certificate::read).transpose();
            let certificate = certificate.map_err(StartError::Tls)?;
            let kept = self
                .open
                .iter()
                .find(|open| is_same(&open.listen, &settings.listen) && !change.keeps(open.id));
            match kept {
                Some(open) => {
                    give_access(&open.listen, &settings.listen).map_err(StartError::Bind)?;
                    change.places.push((Place::Kept(open.id), certificate));
                }
                None => change
                    .bind(&settings.listen, certificate, self.workers)
                    .map_err(StartError::Bind)?,
            }
        }
        Ok(change)
    }

    /// Where the listeners are bound once the change is in force, in the configuration's order.
    pub(super) fn bound(&self, change: &Change) -> Vec<BoundListener> {
        let places = change.places.iter().filter_map(|(place, _)| match place {
            Place::Kept(id) => self.open.iter().find(|open| open.id == *id),
            Place::New(open) => Some(&**open),
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
        for ((place, certificate), settings) in change.places.into_iter().zip(wanted) {
            let open = match place {
                Place::New(open) => Some(*open),
                Place::Kept(id) => {
                    old.iter().position(|open| open.id == id).map(|at| old.remove(at))
                }
            };
            self.open.extend(open.map(|open| {
                open.tls.set(certificate.as_ref().map(|certificate| &certificate.identity));
                Open { listen: settings.listen.clone(), certificate, ..open }
            }));
        }
        self.next = change.next;
        self.tell_expiry();
        Removed(old)
    }

    /// Reads the certificates again; those that have changed are shown to clients from now on.
    pub(super) fn reread(&mut self) {
        for open in &mut self.open {
            let Some(certificate) = &mut open.certificate else { continue };
            if certificate.reread(&open.listen) {
                open.tls.set(Some(&certificate.identity));
                tracing::info!(listen = %open.listen, "a listener has a new certificate");
            }
        }
        self.tell_expiry();
    }

    fn tell_expiry(&self) {
        self.expiry.reset();
        for Open { listen, certificate, .. } in &self.open {
            let expires = certificate.as_ref().and_then(|known| known.identity.expires);
            if let Some(since) = expires.and_then(|end| end.duration_since(UNIX_EPOCH).ok()) {
                self.expiry.with_label_values(&[&listen.to_string()]).set(since.as_secs_f64());
            }
        }
    }

    /// Where they are bound now.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &[Local]> {
        self.open.iter().map(|open| &*open.addresses)
    }
}

impl Change {
    fn keeps(&self, id: usize) -> bool {
        self.places.iter().any(|(place, _)| matches!(place, Place::Kept(kept) if *kept == id))
    }

    fn bind(
        &mut self,
        listen: &Listen,
        certificate: Option<Certificate>,
        workers: NonZeroUsize,
    ) -> Result<(), BindError> {
        let bound = bind(listen, workers)?;
        let id = self.next;
        self.next += 1;
        let tls = TlsCell::default();
        // Before the first connection: it is never served without.
        tls.set(certificate.as_ref().map(|certificate| &certificate.identity));
        for (mine, new) in self.sockets.iter_mut().zip(bound.sockets) {
            let listener = |listener| WorkerListener { id, listener, tls: tls.clone() };
            mine.extend(new.into_iter().map(listener));
        }
        let (listen, addresses) = (listen.clone(), bound.addresses);
        let open = Open { id, listen, addresses, tls, certificate: None, _claims: bound.claims };
        self.places.push((Place::New(Box::new(open)), certificate));
        Ok(())
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
