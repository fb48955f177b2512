//! Secrets from AWS Secrets Manager, by the official SDK: it finds out who we are from the
//! environment, a profile, SSO, a web identity (IRSA), EKS Pod Identity, ECS or the instance, and
//! signs the request.

use std::time::Duration;

use super::SecretFault;
use super::http_settings::StoreHttpSettings;
use crate::sensitive::Sensitive;

/// One secret of Secrets Manager.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AwsSecret {
    /// Its name or ARN.
    pub id: String,
    /// The key of a secret that is a JSON object; `None`: the whole text.
    pub key: Option<String>,
    /// The region; `None`: as the environment, the profile or the instance says.
    pub region: Option<String>,
    /// The staging label; `None`: `AWSCURRENT`.
    pub version_stage: Option<String>,
    /// The profile of the shared configuration files; `None`: `AWS_PROFILE` or `default`.
    pub profile: Option<String>,
    /// Another endpoint than the region's own, such as a VPC's.
    pub endpoint: Option<String>,
    /// How long a value is kept before it is asked for again.
    pub cache: Duration,
    /// How AWS is reached.
    pub http: StoreHttpSettings,
}

#[cfg(not(feature = "aws"))]
pub(super) async fn read(_: &AwsSecret) -> Result<Sensitive, SecretFault> {
    Err(SecretFault::NotBuilt("aws"))
}

#[cfg(feature = "aws")]
mod sdk;
#[cfg(feature = "aws")]
pub(super) use sdk::read;
