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

/// Values of fixed headers (`set_headers`), by the name of the upstream and of the header; `None`
/// where the secret could not be read.
pub type SetHeaders = HashMap<(Arc<str>, HeaderName), Option<HeaderValue>>;

/// The sockets of listeners, by what `UpstreamSettings::listener` calls a listener: its index into
/// `ProxySettings::listeners`. The address is no key: with port 0, several listeners have the same.
pub type BoundListeners = HashMap<usize, BoundListener>;

/// What [`Plan::build`](crate::proxy::policy::plan::Plan::build) needs beside the settings.
pub struct PlanInputs<'a> {
    /// All credentials of the configuration.
    pub credentials: &'a [Arc<Credential>],
    /// A reader for each token that [`wanted`](crate::proxy::policy::plan::wanted) names.
    pub readers: TokenReaders,
    /// The values of all fixed headers.
    pub set_headers: SetHeaders,
    /// The local keys of all clients that have one.
    pub local_keys: LocalKeys,
    /// All listeners as they are bound.
    pub bound: BoundListeners,
    /// What is counted.
    pub metrics: &'a ProxyMetrics,
    /// Which requests leave a line in the log.
    pub request_log: RequestLog,
}

/// A listener as it is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundListener {
    /// Its number, which its connections carry.
    pub id: usize,
    /// Its addresses; none where it is a Unix socket.
    pub addresses: Vec<SocketAddr>,
}
