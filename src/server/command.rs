//! Changes to a worker that runs.

use super::settings::ConnectionSettings;
use crate::listen::Listener;
use crate::listen::TlsCell;

/// A change to the listeners or limits of a worker.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Accepts connections on one more socket.
    Add(WorkerListener),
    /// Serves the connections that wait on the listeners with this id, then closes the listeners; all
    /// their connections finish.
    Remove(usize),
    /// Serves connections that are accepted from now on within these limits.
    Limits(ConnectionSettings),
}

/// A listener of one worker.
#[derive(Debug)]
pub struct WorkerListener {
    /// Its id, which its connections carry.
    pub id: usize,
    /// The socket, non-blocking.
    pub listener: Listener,
    /// The TLS of its connections.
    pub tls: TlsCell,
}
