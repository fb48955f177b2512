//! Secrets from HashiCorp Vault or OpenBao: the settings of the server, of the login and of one secret.

use std::time::Duration;

use crate::sensitive::looks_random;

/// One field of a secret in a KV secrets engine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VaultSecret {
    /// The path at which the engine is mounted.
    pub mount: String,
    /// The path of the secret below the mount, without `data/`.
    pub path: String,
    /// The name of the field.
    pub field: String,
    /// The version of the secret; `None`: the latest.
    pub version: Option<u64>,
    /// The version of the engine.
    pub engine: KvEngine,
    /// The time after which a cached value is read again.
    pub cache: Duration,
}

impl VaultSecret {
    /// The path that a policy must allow to read, such as `secret/data/bank`.
    pub(super) fn api_path(&self) -> String {
        let Self { mount, path, .. } = self;
        match self.engine {
            KvEngine::V1 => format!("{mount}/{path}"),
            KvEngine::V2 => format!("{mount}/data/{path}"),
        }
    }

    /// The secret as messages name it, without a name that may be the secret itself.
    pub(super) fn describe(&self) -> String {
        let path = format!("{}/{}", self.mount, self.path);
        let field = match looks_random(&self.field) {
            true => "a field",
            false => &format!("field {}", self.field),
        };
        format!("{field} of Vault secret {}", displayed(&path))
    }
}

/// A path as messages show it.
pub(super) fn displayed(path: &str) -> &str {
    match path.split('/').any(looks_random) {
        true => "(not named here: it may be the secret itself)",
        false => path,
    }
}

/// The version of a KV secrets engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvEngine {
    /// Values without versions.
    V1,
    /// Values with versions.
    #[default]
    V2,
}

/// A server and the login to it, without the secret of the login.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VaultSettings {
    /// The origin of the server, such as `https://vault.example:8200`.
    pub address: String,
    /// The namespace in which all requests are made; `None`: the root namespace.
    pub namespace: Option<String>,
    /// The authentication method.
    pub login: VaultLogin,
}

/// An authentication method. Each has one secret of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VaultLogin {
    /// A token of Vault, which is the secret.
    Token,
    /// AppRole, whose secret is the secret id.
    AppRole {
        /// The path at which the method is mounted.
        mount: String,
        /// The id of the role.
        role_id: String,
    },
    /// A JWT that Vault verifies, or that of a Kubernetes service account.
    Jwt {
        /// The path at which the method is mounted.
        mount: String,
        /// The name of the role.
        role: String,
    },
}
