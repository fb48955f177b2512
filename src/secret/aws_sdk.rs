//! The AWS SDK over this program's own connector.

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::Builder;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;

use super::aws::AwsSecret;
use super::error::SecretFault;
use super::json;
use super::transport::{StoreClient, transport_error};
use crate::sensitive::Sensitive;

/// Time for finding an identity and reading the secret together.
const LIMIT: Duration = Duration::from_secs(10);
const TRIES: u32 = 2;

/// Reads a secret. The identity is found again for each reading, because a kept one would outlive its
/// rotation.
pub(super) async fn read(
    secret: &AwsSecret,
    client: StoreClient,
) -> Result<Sensitive, SecretFault> {
    let found = tokio::time::timeout(LIMIT, fetch(secret, client));
    let text = found.await.unwrap_or(Err(SecretFault::TimedOut(LIMIT)))?;
    match &secret.key {
        Some(key) => json::select(&text, key),
        None => Ok(text),
    }
}

async fn fetch(secret: &AwsSecret, client: StoreClient) -> Result<Sensitive, SecretFault> {
    let settings = settings(secret, client).await;
    if settings.region().is_none() {
        return Err(SecretFault::NoRegion);
    }
    let mut service = Builder::from(&settings);
    if let Some(endpoint) = &secret.endpoint {
        service.set_endpoint_url(Some(endpoint.clone()));
    }
    let client = Client::from_conf(service.build());
    let answer = client
        .get_secret_value()
        .secret_id(&secret.id)
        .set_version_stage(secret.version_stage.clone())
        .send()
        .await
        .map_err(|error| fault(&error))?;
    // Copies inside the SDK are not wiped.
    answer.secret_string.map(Sensitive::new).ok_or(SecretFault::Binary)
}

async fn settings(secret: &AwsSecret, client: StoreClient) -> SdkConfig {
    let connector = SharedHttpConnector::new(SdkConnector(Arc::new(client)));
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client_fn(move |_, _| connector.clone()))
        .sleep_impl(TokioSleep::new())
        .retry_config(RetryConfig::standard().with_max_attempts(TRIES));
    if let Some(region) = &secret.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &secret.profile {
        loader = loader.profile_name(profile);
    }
    loader.load().await
}

/// Keeps codes of the service and errors of our own network only: the SDK's texts may repeat the
/// answer of a source of credentials.
fn fault(error: &SdkError<impl ProvideErrorMetadata, HttpResponse>) -> SecretFault {
    match error {
        SdkError::ServiceError(refused) => {
            let status = refused.raw().status();
            match refused.err().code() {
                Some("ResourceNotFoundException") => SecretFault::Missing,
                Some(code) => SecretFault::refused(code, status.is_server_error()),
                None => SecretFault::refused(&status.to_string(), status.is_server_error()),
            }
        }
        SdkError::TimeoutError(_) => SecretFault::TimedOut(LIMIT),
        SdkError::ResponseError(_) => {
            SecretFault::Unreachable("AWS gave an answer that cannot be read".into())
        }
        // The SDK looks for an identity while it sends, so that a failure without a cause in our network
        // is one of the identity.
        SdkError::DispatchFailure(failed) => {
            match failed.as_connector_error().and_then(|error| transport_error(error)) {
                Some(error) => SecretFault::Unreachable(error.to_string()),
                None => SecretFault::NoIdentity,
            }
        }
        _ => SecretFault::NoIdentity,
    }
}

/// Sends the requests of the SDK through `net`.
#[derive(Debug)]
struct SdkConnector(Arc<StoreClient>);

impl HttpConnector for SdkConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x();
            let request = request.map_err(|error| ConnectorError::user(error.into()))?;
            let body = |body: SdkBody| Bytes::copy_from_slice(body.bytes().unwrap_or_default());
            let answer = client.send(request.map(body)).await;
            let answer = answer.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(answer.map(SdkBody::from))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}
