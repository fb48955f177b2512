//! The admin listeners across reloads. New ones are bound before old ones close, and a failed bind
//! changes nothing, as for the proxy's own.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use crate::admin::service::Admin;
use crate::admin::settings::AdminSettings;
use crate::listen::settings::Listen;
use crate::listen::{AddressLock, BindError, Bound, BoundAddress, bind};
use crate::server::{ShutdownPhase, StopSignal};
use crate::task;

/// Admin listeners that are bound, and not served yet.
pub(super) struct BoundAdminListeners(Vec<(Listen, Bound)>);

impl BoundAdminListeners {
    /// Binds all configured listeners.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub(super) fn bind(settings: &AdminSettings) -> Result<Self, BindError> {
        Self::bind_new(settings, |_| false)
    }

    fn bind_new(
        settings: &AdminSettings,
        is_open: impl Fn(&Listen) -> bool,
    ) -> Result<Self, BindError> {
        let new = settings.listeners().filter(|(listen, _)| !is_open(listen));
        new.map(|(listen, _)| Ok((listen.clone(), bind(listen, NonZeroUsize::MIN)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The bound addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &BoundAddress> {
        self.0.iter().flat_map(|(_, bound)| &bound.addresses)
    }
}

/// Admin listeners that are being served.
pub(super) struct AdminListeners {
    admin: Arc<Admin>,
    listeners: Vec<AdminListener>,
}

/// One admin listener.
struct AdminListener {
    listen: Listen,
    /// True if it serves more than probes and metrics; a reload can change it.
    control: Arc<AtomicBool>,
    addresses: Vec<BoundAddress>,
    stop: StopSignal,
    tasks: Vec<JoinHandle<()>>,
    _locks: Vec<AddressLock>,
}

impl AdminListeners {
    /// No listeners yet.
    pub(super) fn new(admin: Arc<Admin>) -> Self {
        Self { admin, listeners: Vec::new() }
    }

    /// Binds configured listeners that are not open.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub(super) fn prepare(
        &self,
        settings: &AdminSettings,
    ) -> Result<BoundAdminListeners, BindError> {
        BoundAdminListeners::bind_new(settings, |listen| {
            self.listeners.iter().any(|listener| listener.listen == *listen)
        })
    }

    /// Applies the readiness rule, serves new listeners and closes those that are no longer configured.
    pub(super) fn apply(&mut self, settings: &AdminSettings, new: BoundAdminListeners) {
        self.admin.set_ready(settings.ready);
        let wanted = |listen: &Listen| settings.listeners().find(|(wanted, _)| *wanted == listen);
        let opened: Vec<_> =
            new.0.into_iter().map(|(listen, bound)| self.open(listen, bound)).collect();
        self.listeners.extend(opened);
        self.listeners.retain(|listener| match wanted(&listener.listen) {
            Some((_, control)) => {
                listener.control.store(control, Ordering::Relaxed);
                true
            }
            None => {
                listener.stop.advance(ShutdownPhase::Finishing);
                false
            }
        });
    }

    /// The bound addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &BoundAddress> {
        self.listeners.iter().flat_map(|listener| &listener.addresses)
    }

    fn open(&self, listen: Listen, bound: Bound) -> AdminListener {
        let (control, stop) = (Arc::new(AtomicBool::new(false)), StopSignal::new());
        let serve = |listener| {
            let served =
                Arc::clone(&self.admin).serve(listener, Arc::clone(&control), stop.clone());
            task::spawn(async move {
                if let Err(error) = served.await {
                    tracing::error!(%error, "an admin listener cannot be served");
                }
            })
        };
        let tasks = bound.sockets.into_iter().flatten().map(serve).collect();
        AdminListener {
            listen,
            control,
            addresses: bound.addresses,
            stop,
            tasks,
            _locks: bound.locks,
        }
    }

    /// Closes all listeners and aborts their connections.
    pub(super) async fn close(self) {
        for listener in self.listeners {
            listener.stop.advance(ShutdownPhase::Aborting);
            for task in listener.tasks {
                let _ = task.await;
            }
        }
    }
}
