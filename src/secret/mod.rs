//! The sources of client secrets.
//!
//! A configuration names secrets by [`Reference`], never by value. A reference is read again for each
//! token request, so that a rotated secret needs no restart. Each source has a file of its own.

mod aws;
#[cfg(feature = "aws")]
mod aws_sdk;
mod azure;
#[cfg(feature = "azure")]
mod azure_sdk;
mod env;
mod error;
mod exec;
mod file;
#[cfg(any(feature = "aws", test))]
mod json;
mod keyring;
mod name;
mod reference;
mod source_states;
mod store;
mod systemd;
mod text;
#[cfg(any(feature = "aws", feature = "azure", feature = "vault"))]
mod transport;
#[cfg(feature = "vault")]
mod vault;
#[cfg(feature = "vault")]
mod vault_api;
#[cfg(feature = "vault")]
mod vault_fault;
#[cfg(feature = "vault")]
mod vault_session;

pub use aws::AwsSecret;
pub use azure::{AzureIdentity, AzureSecret, Vault, is_vault_name};
pub use error::{MAX_BYTES, SecretError, SecretFault, SourceKind};
pub use keyring::{KeyringSecret, SERVICE};
#[cfg(feature = "vault")]
pub use reference::VaultServer;
pub use reference::{
    EgressLogin, EgressProxy, Reference, StoreHttpSettings, missing_feature, read_from,
};
pub use source_states::{SourceState, SourceStates};
pub use store::{Freshness, Store};
pub use systemd::is_credential_name;
pub use text::CredentialPart;
#[cfg(feature = "vault")]
pub use vault::{KvEngine, VaultLogin, VaultSecret, VaultSettings};
#[cfg(feature = "vault")]
pub use vault_fault::VaultFault;
