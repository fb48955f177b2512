//! Secrets from AWS Secrets Manager, by the official SDK. It takes its identity from the environment,
//! a profile, SSO, a web identity (IRSA), EKS Pod Identity, ECS or the instance, and signs requests.

use std::time::Duration;

/// One secret of Secrets Manager.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AwsSecret {
    /// The name or ARN of the secret.
    pub id: String,
    /// The key of a secret that is a JSON object; `None`: the whole text.
    pub key: Option<String>,
    /// The region; `None`: that of the environment, the profile or the instance.
    pub region: Option<String>,
    /// The staging label; `None`: `AWSCURRENT`.
    pub version_stage: Option<String>,
    /// The profile of the shared configuration files; `None`: `AWS_PROFILE` or `default`.
    pub profile: Option<String>,
    /// An endpoint in place of the region's own, such as that of a VPC.
    pub endpoint: Option<String>,
    /// The time after which a cached value is read again.
    pub cache: Duration,
}
