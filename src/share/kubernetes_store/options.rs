//! `KubernetesOptions`: the settings of a store in a Kubernetes Secret.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::net::Origin;
use crate::net::tls::{Roots, TlsSettings};
use crate::secret::Reference;

/// The folder with what the kubelet gives to each pod.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The settings of a store in one Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesOptions {
    /// The API server; `None` for the one of the pod, which `KUBERNETES_SERVICE_HOST` and
    /// `KUBERNETES_SERVICE_PORT` name.
    pub server: Option<Origin>,
    /// The namespace of the Secret; `None` for that of the pod.
    pub namespace: Option<String>,
    /// The name of the Secret.
    pub secret: String,
    /// The source of the token of the service account, read again for each request.
    pub token: Reference,
    /// TLS of the API server. Its files are read again for each connection.
    pub tls: TlsSettings,
    /// Limit for DNS, TCP and TLS of one connection together.
    pub connect_timeout: Duration,
    /// Limit for one operation.
    pub operation_timeout: Duration,
}

impl Default for KubernetesOptions {
    /// The options of a pod: the Secret `bearer-proxy-tokens` of its namespace, 1 s to connect, 500 ms for an
    /// operation.
    fn default() -> Self {
        Self {
            server: None,
            namespace: None,
            secret: "bearer-proxy-tokens".to_owned(),
            token: Reference::File(file("token")),
            tls: TlsSettings {
                roots: Roots::OnlyExtra,
                extra_ca_files: vec![file("ca.crt")],
                ..TlsSettings::default()
            },
            connect_timeout: Duration::from_secs(1),
            operation_timeout: Duration::from_millis(500),
        }
    }
}

impl fmt::Display for KubernetesOptions {
    /// Such as `https://kubernetes.default.svc erp/bearer-proxy-tokens`, as far as it is configured.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(server) = &self.server {
            write!(f, "{server} ")?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.secret)
    }
}

/// The file that holds the namespace of the pod.
pub(super) fn namespace_file() -> PathBuf {
    file("namespace")
}

fn file(name: &str) -> PathBuf {
    [SERVICE_ACCOUNT, name].iter().collect()
}
