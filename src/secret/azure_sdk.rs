//! The Azure SDK over this program's own connector.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{Secret, TokenCredential};
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, HeaderValue, Headers};
use azure_core::http::{
    AsyncRawResponse, Body, ClientOptions, ExponentialRetryOptions, HttpClient, Request,
    RetryOptions, StatusCode, Transport as SdkTransport,
};
use azure_core::{Error, Result as SdkResult};
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    DeveloperToolsCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use azure_security_keyvault_secrets::models::SecretClientGetSecretOptions;
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};
use bytes::Bytes;

use super::azure::{AzureIdentity, AzureSecret};
use super::error::SecretFault;
use super::transport::{StoreClient, transport_error};
use crate::sensitive::Sensitive;

/// Time for the token of Entra and the secret together.
const LIMIT: Duration = Duration::from_secs(10);

/// The metadata service of a machine at Azure.
const METADATA: &str = "http://169.254.169.254/metadata";

/// Reads a secret. The identity is found again for each reading, because a kept one would outlive its
/// rotation.
pub(super) async fn read(
    secret: &AzureSecret,
    client: StoreClient,
) -> Result<Sensitive, SecretFault> {
    let found = tokio::time::timeout(LIMIT, fetch(secret, client));
    found.await.unwrap_or(Err(SecretFault::TimedOut(LIMIT)))
}

async fn fetch(secret: &AzureSecret, client: StoreClient) -> Result<Sensitive, SecretFault> {
    let connector = Arc::new(SdkConnector(client));
    let options = options(Arc::clone(&connector));
    let mut last = SecretFault::NoIdentity;
    for credential in credentials(secret.identity, &options, &connector).await {
        match get(secret, credential, options.clone()).await {
            // The environment lacks this kind of identity; the next one may be there.
            Err(error) if matches!(error.kind(), ErrorKind::Credential) => last = fault(&error),
            Err(error) => return Err(fault(&error)),
            Ok(value) => return value.ok_or(SecretFault::Empty),
        }
    }
    Err(last)
}

async fn get(
    secret: &AzureSecret,
    credential: Arc<dyn TokenCredential>,
    client_options: ClientOptions,
) -> SdkResult<Option<Sensitive>> {
    let options = SecretClientOptions {
        client_options,
        // A stub on loopback answers for a vault that is elsewhere, so that its challenge names
        // another host.
        verify_challenge_resource: Some(!secret.vault.local),
        ..SecretClientOptions::default()
    };
    let client = SecretClient::new(&secret.vault.url, credential, Some(options))?;
    let version = SecretClientGetSecretOptions {
        secret_version: secret.version.clone(),
        ..SecretClientGetSecretOptions::default()
    };
    let answer = client.get_secret(&secret.name, Some(version)).await?.into_model()?;
    // Copies inside the SDK are not wiped.
    Ok(answer.value.map(Sensitive::new))
}

fn options(connector: Arc<SdkConnector>) -> ClientOptions {
    let retry = ExponentialRetryOptions {
        max_retries: 1,
        max_total_elapsed: azure_core::time::Duration::seconds(5),
        ..ExponentialRetryOptions::default()
    };
    ClientOptions {
        transport: Some(SdkTransport::new(connector)),
        retry: RetryOptions::exponential(retry),
        ..ClientOptions::default()
    }
}

/// The identities to be tried, in order, without those that the environment does not name.
async fn credentials(
    identity: AzureIdentity,
    options: &ClientOptions,
    connector: &SdkConnector,
) -> Vec<Arc<dyn TokenCredential>> {
    let made: Vec<Option<Arc<dyn TokenCredential>>> = match identity {
        AzureIdentity::ClientSecret => vec![client_secret(options)],
        AzureIdentity::Workload => vec![workload(options)],
        AzureIdentity::Managed => vec![managed(options)],
        AzureIdentity::Cli => vec![cli()],
        // A configured client secret or federated token is the one that is meant.
        AzureIdentity::Auto => match client_secret(options).or_else(|| workload(options)) {
            Some(meant) => vec![Some(meant)],
            None if connector.may_be_managed().await => vec![managed(options), cli()],
            None => vec![cli()],
        },
    };
    made.into_iter().flatten().collect()
}

fn client_secret(options: &ClientOptions) -> Option<Arc<dyn TokenCredential>> {
    let secret = Secret::new(variable("AZURE_CLIENT_SECRET")?);
    let options = ClientSecretCredentialOptions { client_options: options.clone() };
    let (tenant, client) = (variable("AZURE_TENANT_ID")?, variable("AZURE_CLIENT_ID")?);
    let made = ClientSecretCredential::new(&tenant, client, secret, Some(options)).ok()?;
    Some(made)
}

fn workload(options: &ClientOptions) -> Option<Arc<dyn TokenCredential>> {
    variable("AZURE_FEDERATED_TOKEN_FILE")?;
    let credential_options = ClientAssertionCredentialOptions { client_options: options.clone() };
    let options = WorkloadIdentityCredentialOptions { credential_options, ..Default::default() };
    Some(WorkloadIdentityCredential::new(Some(options)).ok()?)
}

fn managed(options: &ClientOptions) -> Option<Arc<dyn TokenCredential>> {
    let options = ManagedIdentityCredentialOptions {
        user_assigned_id: variable("AZURE_CLIENT_ID").map(UserAssignedId::ClientId),
        client_options: options.clone(),
    };
    Some(ManagedIdentityCredential::new(Some(options)).ok()?)
}

fn cli() -> Option<Arc<dyn TokenCredential>> {
    Some(DeveloperToolsCredential::new(None).ok()?)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Keeps codes of the service and errors of our own network only.
fn fault(error: &Error) -> SecretFault {
    if let Some(error) = transport_error(error) {
        return SecretFault::Unreachable(error.to_string());
    }
    match error.kind() {
        ErrorKind::HttpResponse { status: StatusCode::NotFound, .. } => SecretFault::Missing,
        ErrorKind::HttpResponse { status, error_code, .. } => {
            let code = error_code.clone().unwrap_or_else(|| status.to_string());
            SecretFault::refused(&code, status.is_server_error())
        }
        ErrorKind::Credential => SecretFault::NoIdentity,
        _ => SecretFault::Unreachable("the vault gave an answer that cannot be read".into()),
    }
}

/// Sends the requests of the SDK through `net`.
#[derive(Debug)]
struct SdkConnector(StoreClient);

impl SdkConnector {
    /// Tells whether a managed identity is available. The SDK itself would wait for the metadata
    /// service for more than a minute, even on a machine without one.
    async fn may_be_managed(&self) -> bool {
        let hosted =
            ["IDENTITY_ENDPOINT", "MSI_ENDPOINT"].into_iter().any(|name| variable(name).is_some());
        let anything = http::Request::get(METADATA).body(Bytes::new());
        match anything {
            Ok(anything) if !hosted => self.0.send(anything).await.is_ok(),
            _ => hosted,
        }
    }
}

impl HttpClient for SdkConnector {
    fn execute_request<'this, 'request, 'future>(
        &'this self,
        request: &'request Request,
    ) -> Pin<Box<dyn Future<Output = SdkResult<AsyncRawResponse>> + Send + 'future>>
    where
        Self: 'future,
        'this: 'future,
        'request: 'future,
    {
        Box::pin(async move {
            let io_error = |error| Error::with_error(ErrorKind::Io, error, "no answer");
            let answer = self.0.send(translated(request)?).await.map_err(io_error)?;
            let mut headers = Headers::new();
            for (name, value) in answer.headers() {
                if let Ok(value) = value.to_str() {
                    let name = HeaderName::from(name.as_str().to_owned());
                    headers.insert(name, HeaderValue::from(value.to_owned()));
                }
            }
            let status = StatusCode::from(answer.status().as_u16());
            Ok(AsyncRawResponse::from_bytes(status, headers, answer.into_body()))
        })
    }
}

fn translated(request: &Request) -> SdkResult<http::Request<Bytes>> {
    let bad = |error| Error::with_error(ErrorKind::Other, error, "a request cannot be sent");
    let Body::Bytes(body) = request.body() else {
        return Err(Error::with_message(ErrorKind::Other, "a body cannot be streamed"));
    };
    let mut made =
        http::Request::builder().method(request.method().as_ref()).uri(request.url().as_str());
    for (name, value) in request.headers().iter() {
        made = made.header(name.as_str(), value.as_str());
    }
    made.body(body.clone()).map_err(bad)
}
