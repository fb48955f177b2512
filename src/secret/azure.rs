//! Secrets from Azure Key Vault, by the official SDK. The vault names its token server, and Entra issues
//! a token to a workload identity, a managed identity, a client with a secret, or the user of `az`.

use std::time::Duration;

use crate::net::Origin;

/// Domains of vaults in the public cloud, in China's and in the US government's.
const VAULTS: [&str; 3] = [".vault.azure.net", ".vault.azure.cn", ".vault.usgovcloudapi.net"];

/// One secret of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AzureSecret {
    /// The vault.
    pub vault: Vault,
    /// The secret's name.
    pub name: String,
    /// The version of the secret; `None`: the latest.
    pub version: Option<String>,
    /// The identity that reads it.
    pub identity: AzureIdentity,
    /// The time after which a cached value is read again.
    pub cache: Duration,
}

/// The identity that this program has towards a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AzureIdentity {
    /// The first that the environment has: a client secret, a federated token, a managed identity, or
    /// `az`.
    #[default]
    Auto,
    /// `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET`.
    ClientSecret,
    /// A Kubernetes service account: `AZURE_FEDERATED_TOKEN_FILE` and the like.
    Workload,
    /// The identity of the machine, or the one of `AZURE_CLIENT_ID` among them.
    Managed,
    /// The user who is logged in with `az` or `azd`.
    Cli,
}

/// The URL of a vault: a token for a vault is never sent to another host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Vault {
    pub(super) url: String,
    host: String,
    /// Set for a stub on loopback.
    pub(super) local: bool,
}

impl Vault {
    /// Reads `https://NAME.vault.azure.net`; a stub may stand on loopback.
    pub fn parse(url: &str) -> Option<Self> {
        let uri: http::Uri = url.parse().ok()?;
        let origin = Origin::of(&uri).ok().filter(Origin::is_https)?;
        let local = origin.is_loopback();
        let named = |domain: &str| origin.host().strip_suffix(domain).is_some_and(is_label);
        if !matches!(uri.path(), "" | "/")
            || uri.query().is_some()
            || !(local || VAULTS.iter().any(|domain| named(domain)))
        {
            return None;
        }
        Some(Self { url: origin.to_string(), host: origin.host().to_owned(), local })
    }

    /// The host of the vault, for messages.
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// Tells whether a text is one label of a host name.
fn is_label(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Tells whether a vault may hold a secret of this name.
pub fn is_vault_name(name: &str) -> bool {
    is_label(name) && name.len() <= 127
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vaults() {
        let check = |url: &str, expected: Option<&str>| {
            let vault = Vault::parse(url);
            assert_eq!(vault.as_ref().map(|vault| vault.url.as_str()), expected, "{url}");
        };
        check("https://erp-prod.vault.azure.net", Some("https://erp-prod.vault.azure.net"));
        check("https://ERP.vault.azure.cn/", Some("https://erp.vault.azure.cn"));
        check("https://localhost:8443", Some("https://localhost:8443"));
        for wrong in [
            "http://erp-prod.vault.azure.net",
            "http://localhost:8443",
            "https://vault.azure.net",
            "https://evil.example/.vault.azure.net",
            "https://a.b.vault.azure.net",
            "https://vault.azure.net.evil.example",
            "https://erp.vault.azure.net/secrets/x",
            "https://user@erp.vault.azure.net",
            "erp-prod",
        ] {
            check(wrong, None);
        }
    }
}
