//! The admin listeners across reloads, with the same rules as the proxy's: bound before old ones
//! close, and a failed bind changes nothing.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use crate::admin::service::Admin;
use crate::admin::settings::AdminSettings;
use crate::listen::settings::Listen;
use crate::listen::{AddressLock, BindError, Bound, BoundAddress, bind};
use crate::server::StopSignal;

/// Admin listeners that are bound and not served yet.
pub(super) struct BoundAdminListeners(Vec<(Listen, Bound)>);

impl BoundAdminListeners {
    /// Binds all that is wanted.
    ///
    /// # Errors
    /// The first that cannot be bound.
    pub(super) fn bind(settings: &AdminSettings) -> Result<Self, BindError> {
        Self::bind_new(settings, |_| false)
    }

    fn bind_new(
        settings: &AdminSettings,
        is_open: impl Fn(&Listen) -> bool,
    ) -> Result<Self, BindError> {
        let new = settings.wanted().filter(|(listen, _)| !is_open(listen));
        new.map(|(listen, _)| Ok((listen.clone(), bind(listen, NonZeroUsize::MIN)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Where it is bound.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &BoundAddress> {
        self.0.iter().flat_map(|(_, bound)| &bound.addresses)
    }
}

/// Admin listeners that are served.
pub(super) struct AdminListeners {
    admin: Arc<Admin>,
    listeners: Vec<AdminListener>,
}

/// One of them.
struct AdminListener {
    listen: Listen,
    /// Whether it shows more than probes and metrics; a reload can change that.
    control: Arc<AtomicBool>,
    addresses: Vec<BoundAddress>,
    stop: StopSignal,
    tasks: Vec<JoinHandle<()>>,
    _locks: Vec<AddressLock>,
}

impl AdminListeners {
    /// Nothing is open yet.
    pub(super) fn new(admin: Arc<Admin>) -> Self {
        Self { admin, listeners: Vec::new() }
    }

    /// Binds what is wanted and not open.
    ///
    /// # Errors
    /// The first that cannot be bound.
    pub(super) fn change(
        &self,
        settings: &AdminSettings,
    ) -> Result<BoundAdminListeners, BindError> {
        BoundAdminListeners::bind_new(settings, |listen| {
            self.listeners.iter().any(|listener| listener.listen == *listen)
        })
    }

    /// Serves what was bound, and closes what is no longer wanted.
    pub(super) fn apply(&mut self, settings: &AdminSettings, new: BoundAdminListeners) {
        let wanted = |listen: &Listen| settings.wanted().find(|(wanted, _)| *wanted == listen);
        let opened: Vec<_> =
            new.0.into_iter().map(|(listen, bound)| self.open(listen, bound)).collect();
        self.listeners.extend(opened);
        self.listeners.retain(|listener| match wanted(&listener.listen) {
            Some((_, control)) => {
                listener.control.store(control, Ordering::Relaxed);
                true
            }
            None => {
                listener.stop.finish();
                false
            }
        });
    }

    /// Where they are bound.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &BoundAddress> {
        self.listeners.iter().flat_map(|listener| &listener.addresses)
    }

    fn open(&self, listen: Listen, bound: Bound) -> AdminListener {
        let (control, stop) = (Arc::new(AtomicBool::new(false)), StopSignal::new());
        let serve = |listener| {
            let served =
                Arc::clone(&self.admin).serve(listener, Arc::clone(&control), stop.clone());
            tokio::spawn(async move {
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

    /// Ends all of it at once.
    pub(super) async fn close(self) {
        for listener in self.listeners {
            listener.stop.abort();
            for task in listener.tasks {
                let _ = task.await;
            }
        }
    }
}
