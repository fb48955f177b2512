//! The reasons why Vault gives no secret, in words of this program. Texts of Vault are never repeated.

use std::borrow::Cow;

/// Field names of a secret that a message lists.
const MAX_LISTED: usize = 8;

/// A reason why Vault gives no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultFault {
    /// Vault is sealed.
    Sealed,
    /// Vault has no keys yet.
    NotInitialized,
    /// The answering node names another one, which this program does not follow.
    Standby,
    /// The token is good, and its policies do not allow the reading.
    Denied {
        /// The path that a policy must allow.
        path: String,
    },
    /// The token of the configuration is not accepted.
    TokenRefused,
    /// The login is not accepted.
    LoginRefused {
        /// The path of the method, such as `auth/approle`.
        method: String,
        /// True for AppRole.
        approle: bool,
        /// True if Vault says that the proof has expired.
        expired: bool,
    },
    /// The secret of the login cannot be read. The text is that of the error.
    LoginSecret(String),
    /// No engine or method is mounted at the path.
    NoMount {
        /// The path of the mount.
        mount: String,
    },
    /// The namespace does not exist.
    NoNamespace,
    /// The version was deleted.
    Deleted {
        /// The version's number.
        version: u64,
        /// True if its data are gone for good.
        destroyed: bool,
    },
    /// The secret lacks the field. These are the names of the others.
    NoField(Vec<String>),
    /// The value of the field is not a string.
    NotText,
    /// The engine is a KV engine with versions.
    Versioned,
}

impl VaultFault {
    /// The `result` label of `bearer_proxy_secret_reads_total`.
    pub(super) fn result(&self) -> &'static str {
        match self {
            Self::Denied { .. } | Self::TokenRefused | Self::LoginRefused { .. } => "refused",
            Self::NoMount { .. } | Self::NoNamespace | Self::Deleted { .. } => "missing",
            Self::NoField(_) | Self::NotText | Self::Versioned => "invalid",
            _ => "unreadable",
        }
    }

    /// Tells whether a later reading may succeed: the fault says nothing about the secret itself.
    pub(super) fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Sealed
                | Self::NotInitialized
                | Self::Standby
                | Self::TokenRefused
                | Self::LoginRefused { .. }
                | Self::LoginSecret(_)
        )
    }

    /// The predicate of a sentence whose subject is the secret, and the remedy.
    pub(super) fn explain(&self) -> Cow<'static, str> {
        match self {
            Self::Sealed => {
                "cannot be read: Vault is sealed; have it unsealed (`vault operator unseal`), and it is \
                 read again without a restart"
            }
            Self::NotInitialized => {
                "cannot be read: Vault is not initialized; run `vault operator init` and unseal it, and it \
                 is read again without a restart"
            }
            Self::Standby => {
                "cannot be read: this node of Vault sends requests elsewhere; name the active node or the \
                 load balancer in `address`"
            }
            Self::Denied { path } => {
                return format!(
                    "was refused: permission denied; a policy of this login must say  path \"{path}\" {{ \
                     capabilities = [\"read\"] }}, and until it does trying again is of no use"
                )
                .into();
            }
            Self::TokenRefused => {
                "was refused: Vault does not accept the token of [vault], which has expired, was revoked, or \
                 belongs to another namespace; put a new token into its source, which is read each time"
            }
            Self::LoginRefused { method, expired: true, .. } => {
                return format!(
                    "cannot be asked for: Vault refused the login at {method}: what proves it has expired; \
                     renew it in its source, which is read for each login"
                )
                .into();
            }
            Self::LoginRefused { method, approle: true, .. } => {
                return format!(
                    "cannot be asked for: Vault refused the login at {method}: role_id or secret_id is \
                     wrong, used up or expired, or no such method is there; make a new secret_id, or \
                     correct role_id and mount"
                )
                .into();
            }
            Self::LoginRefused { method, .. } => {
                return format!(
                    "cannot be asked for: Vault refused the login at {method}: the role does not exist, or \
                     does not accept the issuer, audience, subject or signature of the token, or no such \
                     method is there; correct role and mount, or the role in Vault"
                )
                .into();
            }
            Self::LoginSecret(reason) => {
                return format!("cannot be asked for without a login: {reason}").into();
            }
            Self::NoMount { mount } => {
                return format!(
                    "does not exist: nothing is mounted at `{mount}` in this namespace of Vault; correct \
                     mount or namespace (`vault secrets list`, `vault auth list`)"
                )
                .into();
            }
            Self::NoNamespace => {
                "does not exist: Vault has no such namespace; correct `namespace` of [vault]"
            }
            Self::Deleted { version, destroyed: true } => {
                return format!(
                    "does not exist: version {version} was destroyed for good; write a new version, or \
                     name another"
                )
                .into();
            }
            Self::Deleted { version, .. } => {
                return format!(
                    "does not exist: version {version} was deleted; restore it (`vault kv undelete`), write \
                     a new version, or name another"
                )
                .into();
            }
            Self::NoField(others) => return no_field(others).into(),
            Self::NotText => "is not a string; store it as text",
            Self::Versioned => {
                "does not exist: its engine is KV version 2; remove  kv_version = 1  from the reference"
            }
        }
        .into()
    }
}

fn no_field(others: &[String]) -> String {
    let listed = others.iter().take(MAX_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let rest = match others.len().saturating_sub(MAX_LISTED) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    };
    match others {
        [] => "is not there: the secret has no fields; write it again".to_owned(),
        _ => {
            format!("is not there; correct `field`: the secret has the fields {listed}{rest}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let denied = VaultFault::Denied { path: "secret/data/bank".into() };
        assert!(
            denied.explain().contains("path \"secret/data/bank\" { capabilities = [\"read\"] }")
        );
        assert!(!denied.is_transient() && VaultFault::Sealed.is_transient());
        let refused = |approle, expired| VaultFault::LoginRefused {
            method: "auth/jwt".into(),
            approle,
            expired,
        };
        assert!(refused(true, false).explain().contains("make a new secret_id"));
        assert!(refused(false, true).explain().contains("has expired"));
        let fields = |count: usize| (0..count).map(|field| format!("f{field}")).collect();
        let said = |count| VaultFault::NoField(fields(count)).explain().into_owned();
        assert!(said(0).contains("the secret has no fields"));
        assert!(said(2).ends_with("the secret has the fields f0, f1"));
        assert!(said(10).ends_with("f6, f7 and 2 more"), "{}", said(10));
    }
}
