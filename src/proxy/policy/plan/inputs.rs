//! The inputs of a plan beside the settings.
//!
//! Each input is found by a key that the settings name too, never by its place in a list: were one
//! missing from a list, all later routes would get the token, header or listener of another.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::proxy::policy::clients::LocalKeys;
use crate::proxy::policy::metrics::ProxyMetrics;
use crate::telemetry::log::RequestLog;
use crate::token::{Credential, TokenReaders};

/// Values of fixed headers (`set_headers`), by the names of upstream and header; `None` for a secret
/// that could not be read.
pub type SetHeaders = HashMap<(Arc<str>, HeaderName), Option<HeaderValue>>;

/// Bound listeners, by their index into `ProxySettings::listeners`. The address cannot be the key, since
/// several listeners with port 0 share it.
pub type BoundListeners = HashMap<usize, BoundListener>;

/// The inputs of [`Plan::build`](crate::proxy::policy::plan::Plan::build) beside the settings.
pub struct PlanInputs<'a> {
    /// All credentials of the configuration.
    pub credentials: &'a [Arc<Credential>],
    /// A reader for each token that [`token_specs`](crate::proxy::policy::plan::token_specs) names.
    pub readers: TokenReaders,
    /// The values of all fixed headers.
    pub set_headers: SetHeaders,
    /// The local keys of all clients that have one.
    pub local_keys: LocalKeys,
    /// All listeners as they are bound.
    pub bound: BoundListeners,
    /// The metrics to take handles from.
    pub metrics: &'a ProxyMetrics,
    /// The requests that leave a line in the log.
    pub request_log: RequestLog,
    /// SHA-256 of the configuration file, in hexadecimal digits.
    pub config_sha256: Arc<str>,
}

/// A bound listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundListener {
    /// Its number, which its connections carry.
    pub id: usize,
    /// Its addresses; none for a Unix socket.
    pub addresses: Vec<SocketAddr>,
}
