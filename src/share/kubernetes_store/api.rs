//! `Api`: the requests for one Secret, and their failures in words of this program. Of the server's own text
//! they hold its status and the reason of its `Status` object only.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OnceCell;

use super::super::state::ClockReading;
use super::super::store::StoreError;
use super::connection::{ApiConnection, read_whole};
use super::options::{KubernetesOptions, namespace_file};
use super::record::SecretObject;
use crate::net::Origin;
use crate::net::connect::{ConnectSettings, Connector};
use crate::net::control::CallError;
use crate::net::tls::{Alpn, TlsCache};

/// Time that sent bytes may stay unacknowledged before the connection counts as dead.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);
/// The media type of a patch (RFC 7396).
const MERGE_PATCH: HeaderValue = HeaderValue::from_static("application/merge-patch+json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The API server, as one Secret needs it.
pub(super) struct Api {
    pub(super) options: Arc<KubernetesOptions>,
    place: OnceCell<SecretPlace>,
    /// A connection that waits for the next operation.
    idle: Mutex<Option<ApiConnection>>,
    /// Answers to all requests but watches.
    answers: AtomicU64,
}

/// The place of the Secret.
#[derive(Debug, Clone)]
pub(super) struct SecretPlace {
    pub(super) server: Origin,
    pub(super) namespace: String,
}

/// The connection of one operation: the one that was idle, or a new one.
#[derive(Default)]
pub(super) struct ApiLink {
    connection: Option<ApiConnection>,
    /// True if requests of earlier operations went over it. The server may have closed it meanwhile.
    is_reused: bool,
}

/// An answer, read whole.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// The `Status` object of a failure.
#[derive(Deserialize)]
struct Status {
    reason: Option<String>,
}

impl Api {
    pub(super) fn new(options: Arc<KubernetesOptions>) -> Self {
        Self { options, place: OnceCell::new(), idle: Mutex::default(), answers: AtomicU64::new(0) }
    }

    /// The place of the Secret, from the options and the files and variables of the pod.
    pub(super) async fn place(&self) -> Result<&SecretPlace, StoreError> {
        self.place.get_or_try_init(|| place(&self.options)).await
    }

    pub(super) async fn connector(&self) -> Result<Connector, StoreError> {
        let settings = ConnectSettings {
            timeout: self.options.connect_timeout,
            tcp_user_timeout: TCP_USER_TIMEOUT,
        };
        let server = self.place().await?.server.clone();
        // Not cached: the files hold the certificates that count now.
        Connector::new(&TlsCache::default(), server, &self.options.tls, Alpn::Http1, settings)
            .map_err(|error| StoreError::Refused(error.to_string()))
    }

    async fn open(&self) -> Result<ApiConnection, StoreError> {
        let connector = self.connector().await?;
        let connected = connector.connect().await.map_err(CallError::Connect);
        let connected = connected.map_err(|error| self.lost(&error))?;
        let opened = ApiConnection::over(connected.stream, connector.origin()).await;
        opened.map_err(|error| self.lost(&error))
    }

    /// The number of answers so far, which grows while the server is there.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// A link for one operation.
    pub(super) fn link(&self) -> ApiLink {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        let connection = idle.filter(ApiConnection::is_usable);
        ApiLink { is_reused: connection.is_some(), connection }
    }

    /// Keeps the connection of an operation that ended well for the next one.
    pub(super) fn keep(&self, link: ApiLink) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = link.connection;
    }

    async fn connection<'l>(
        &self,
        link: &'l mut ApiLink,
    ) -> Result<&'l mut ApiConnection, StoreError> {
        let connection = match link.connection.take() {
            Some(connection) => connection,
            None => self.open().await?,
        };
        Ok(link.connection.insert(connection))
    }

    async fn send(
        &self,
        link: &mut ApiLink,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, StoreError> {
        let answer = exchange(self.connection(link).await?, request).await;
        self.answers.fetch_add(u64::from(answer.is_ok()), Ordering::Relaxed);
        answer.map_err(|error| {
            link.connection = None;
            self.lost(&error)
        })
    }

    async fn request(
        &self,
        method: Method,
        target: &str,
        body: Option<(HeaderValue, Vec<u8>)>,
    ) -> Result<Request<Full<Bytes>>, StoreError> {
        let place = self.place().await?;
        // Read each time: the kubelet replaces it before it expires.
        let token = self.options.token.read().await;
        let token = token.map_err(|error| StoreError::Refused(error.to_string()))?;
        let unusable = || {
            StoreError::Refused("the service account's token has bytes that no token has".into())
        };
        let authorization = token.header("Bearer ").ok_or_else(unusable)?;
        let target = format!("/api/v1/namespaces/{}/secrets{target}", place.namespace);
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(AUTHORIZATION, authorization)
            .header(ACCEPT, JSON)
            .header(USER_AGENT, "bearer-proxy");
        let body = body.map(|(media_type, body)| {
            request.headers_mut().map(|headers| headers.insert(CONTENT_TYPE, media_type));
            Bytes::from(body)
        });
        request.body(Full::new(body.unwrap_or_default())).map_err(|_| StoreError::Malformed)
    }

    /// Reads the Secret and the server's clock; `None` if there is no Secret.
    pub(super) async fn get(
        &self,
        link: &mut ApiLink,
    ) -> Result<(Option<SecretObject>, ClockReading), StoreError> {
        let target = format!("/{}", self.options.secret);
        let request = self.request(Method::GET, &target, None).await?;
        let answer = match self.send(link, request.clone()).await {
            // The server may have closed a connection that was idle. Reading twice changes nothing.
            Err(_) if std::mem::take(&mut link.is_reused) => self.send(link, request).await?,
            answered => answered?,
        };
        link.is_reused = false;
        let now = clock(&answer.headers).ok_or(StoreError::Malformed)?;
        match answer.status {
            StatusCode::OK => {
                let secret =
                    serde_json::from_slice(&answer.body).map_err(|_| StoreError::Malformed)?;
                Ok((Some(secret), now))
            }
            StatusCode::NOT_FOUND => Ok((None, now)),
            _ => Err(self.failure("get", &answer).await),
        }
    }

    /// Creates the Secret, or finds that another replica has.
    pub(super) async fn create(&self, link: &mut ApiLink) -> Result<(), StoreError> {
        let name = &self.options.secret;
        let labels = json!({ "app.kubernetes.io/managed-by": "bearer-proxy" });
        let body = json!({ "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": { "name": name, "labels": labels } });
        let body = (JSON, body.to_string().into_bytes());
        let request = self.request(Method::POST, "", Some(body)).await?;
        let answer = self.send(link, request).await?;
        let namespace = &self.place().await?.namespace;
        match answer.status {
            StatusCode::CREATED | StatusCode::OK | StatusCode::CONFLICT => Ok(()),
            StatusCode::FORBIDDEN => Err(StoreError::Refused(format!(
                "there is no secrets/{name} in the namespace {namespace}, and this service account may not create \
                 it; create an empty one, as the manifests in the documentation do, or permit the verb create"
            ))),
            StatusCode::NOT_FOUND => {
                Err(StoreError::Refused(format!("there is no namespace {namespace}")))
            }
            _ => Err(self.failure("create", &answer).await),
        }
    }

    /// Changes the Secret; `false` if it has changed since it was read, or is gone.
    pub(super) async fn patch(
        &self,
        link: &mut ApiLink,
        patch: Vec<u8>,
    ) -> Result<bool, StoreError> {
        let target = format!("/{}", self.options.secret);
        let request = self.request(Method::PATCH, &target, Some((MERGE_PATCH, patch))).await?;
        let answer = self.send(link, request).await?;
        match answer.status {
            StatusCode::OK => Ok(true),
            StatusCode::CONFLICT | StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.failure("patch", &answer).await),
        }
    }

    /// Begins a watch that the server ends after so many seconds. It begins with the Secret as it is now, so
    /// that it needs no version that the server may have forgotten. The connection is returned with its body.
    pub(super) async fn watch(
        &self,
        seconds: u64,
    ) -> Result<(ApiConnection, Incoming), StoreError> {
        let name = &self.options.secret;
        let target = format!(
            "?watch=1&fieldSelector=metadata.name%3D{name}&allowWatchBookmarks=true&timeoutSeconds={seconds}"
        );
        let request = self.request(Method::GET, &target, None).await?;
        let mut connection = self.open().await?;
        let response = connection.send(request).await.map_err(|error| self.lost(&error))?;
        if response.status() == StatusCode::OK {
            return Ok((connection, response.into_body()));
        }
        let answer = whole(response).await.map_err(|error| self.lost(&error))?;
        Err(self.failure("watch", &answer).await)
    }

    /// The error of a connection or an exchange that broke off.
    pub(super) fn lost(&self, error: &CallError) -> StoreError {
        let server = self.server();
        let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        StoreError::Unreachable(format!("{server}: {error}{hint}"))
    }

    /// The API server, for messages.
    pub(super) fn server(&self) -> String {
        let known = self.place.get().map(|place| place.server.to_string());
        known.unwrap_or_else(|| "the API server".to_owned())
    }

    /// The error that an answer to a verb means.
    async fn failure(&self, verb: &str, answer: &Answer) -> StoreError {
        let (server, name) = (self.server(), &self.options.secret);
        let namespace = self.place().await.map(|place| &*place.namespace).unwrap_or_default();
        match answer.status.as_u16() {
            401 => StoreError::Refused(format!(
                "{server} did not accept the service account's token; is it one of this cluster, and has it expired?"
            )),
            403 => StoreError::Refused(format!(
                "{server} does not permit this service account to {verb} secrets/{name} in the namespace {namespace}; \
                 compare its Role with the one in the documentation"
            )),
            status @ (429 | 500..=599) => {
                StoreError::Unreachable(format!("{server} answered {verb} with {status}"))
            }
            status => {
                let found: Option<Status> = serde_json::from_slice(&answer.body).ok();
                let is_word = |reason: &String| {
                    reason.len() <= 40 && reason.bytes().all(|byte| byte.is_ascii_alphabetic())
                };
                let reason = found.and_then(|status| status.reason).filter(is_word);
                let reason = reason.unwrap_or_else(|| "no reason".to_owned());
                StoreError::Refused(format!(
                    "{server} answered {verb} of secrets/{name} in the namespace {namespace} with {status}, {reason}"
                ))
            }
        }
    }
}

async fn exchange(
    connection: &mut ApiConnection,
    request: Request<Full<Bytes>>,
) -> Result<Answer, CallError> {
    whole(connection.send(request).await?).await
}

async fn whole(response: Response<Incoming>) -> Result<Answer, CallError> {
    let (head, body) = response.into_parts();
    Ok(Answer { status: head.status, headers: head.headers, body: read_whole(body).await? })
}

/// The server's clock, which tells whole seconds.
fn clock(headers: &HeaderMap) -> Option<ClockReading> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let earliest = u64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()?;
    Some(ClockReading { earliest, latest: earliest + 999 })
}

async fn place(options: &KubernetesOptions) -> Result<SecretPlace, StoreError> {
    let server = match &options.server {
        Some(server) => server.clone(),
        None => pod_server()?,
    };
    let namespace = match &options.namespace {
        Some(namespace) => namespace.clone(),
        None => pod_namespace().await?,
    };
    Ok(SecretPlace { server, namespace })
}

/// The API server that the kubelet names.
fn pod_server() -> Result<Origin, StoreError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let named = variable("KUBERNETES_SERVICE_HOST").zip(variable("KUBERNETES_SERVICE_PORT"));
    let Some((host, port)) = named else {
        return Err(StoreError::Refused(
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set, as they are in a pod; write url"
                .to_owned(),
        ));
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let uri = format!("https://{host}:{port}").parse::<http::Uri>();
    let origin = uri.ok().and_then(|uri| Origin::of(&uri).ok());
    origin.ok_or_else(|| {
        StoreError::Refused(
            "KUBERNETES_SERVICE_HOST and its port name no server; write url".to_owned(),
        )
    })
}

async fn pod_namespace() -> Result<String, StoreError> {
    let file = namespace_file();
    let shown = file.display().to_string();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(file)).await;
    let text = read.ok().and_then(Result::ok).map(|text| text.trim().to_owned());
    text.filter(|text| is_dns_label(text)).ok_or_else(|| {
        StoreError::Refused(format!(
            "{shown} names no namespace, as it does in a pod; write namespace"
        ))
    })
}

/// True for a name that a namespace may have (RFC 1123).
pub fn is_dns_label(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && !name.ends_with('-')
}
