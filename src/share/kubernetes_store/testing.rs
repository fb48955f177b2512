//! `ApiServer`: an API server of the tests with Secrets only. It has the rules of the real one that a client
//! may depend on: versions that rise, conflicts with a `Status` object, merge patches, watches that begin
//! with the present or replay what came after a version, 410 for a version that it has forgotten, and rights
//! by verb.
//!
//! It uses nothing of the crate, so that the stories of `tests/it` include it too.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Most bytes of the data of a Secret.
const MAX_SECRET_BYTES: usize = 1024 * 1024;

/// The body of an answer: what is sent to it, until the sender is dropped.
struct ChannelBody(mpsc::UnboundedReceiver<Bytes>);

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

struct Stored {
    data: BTreeMap<String, String>,
    version: u64,
}

struct Watcher {
    name: String,
    events: mpsc::UnboundedSender<Bytes>,
}

struct State {
    namespace: String,
    token: String,
    rights: BTreeSet<&'static str>,
    secrets: BTreeMap<String, Stored>,
    revision: u64,
    /// All changes: the revision, the name and the event.
    history: Vec<(u64, String, Value)>,
    /// Versions before this one are forgotten.
    compacted: u64,
    watchers: Vec<Watcher>,
    /// Changes by another client that come first, one before each of the next patches.
    disturbances: usize,
    /// The status of all answers, where they are to fail.
    failing: Option<StatusCode>,
    /// Its clock is ahead of this machine's by so many seconds.
    ahead: i64,
    /// Its clock stands at this time.
    stopped: Option<SystemTime>,
    latency: Duration,
    requests: Vec<String>,
}

/// The server. It is stopped when it is dropped.
pub struct ApiServer {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    hangs: watch::Sender<bool>,
    serving: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl ApiServer {
    /// Starts a server that accepts a token, with a namespace and without Secrets.
    pub async fn start(namespace: &str, token: &str) -> Self {
        let state = State {
            namespace: namespace.to_owned(),
            token: token.to_owned(),
            rights: BTreeSet::from(["get", "patch", "watch", "create"]),
            secrets: BTreeMap::new(),
            revision: 1000,
            history: Vec::new(),
            compacted: 0,
            watchers: Vec::new(),
            disturbances: 0,
            failing: None,
            ahead: 0,
            stopped: None,
            latency: Duration::ZERO,
            requests: Vec::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, hangs) = (Arc::new(Mutex::new(state)), watch::Sender::new(false));
        let serving = Mutex::new(Some(serve(listener, Arc::clone(&state), hangs.subscribe())));
        Self { address, state, hangs, serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes the listener and all connections.
    pub fn stop(&self) {
        self.lock().watchers.clear();
        if let Some(serving) = self.serving.lock().unwrap().take() {
            serving.abort();
        }
    }

    /// Listens again, with all that it had.
    pub async fn start_again(&self) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        let listener = socket.listen(64).unwrap();
        let serving = serve(listener, Arc::clone(&self.state), self.hangs.subscribe());
        *self.serving.lock().unwrap() = Some(serving);
    }

    /// Loses all Secrets, as a cluster that was restored from nothing.
    pub fn lose(&self) {
        let mut state = self.lock();
        state.secrets.clear();
        state.history.clear();
        state.revision = 10;
    }

    /// While it hangs it takes requests and answers none.
    pub fn set_hangs(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    pub fn set_token(&self, token: &str) {
        self.lock().token = token.to_owned();
    }

    pub fn set_rights(&self, rights: &[&'static str]) {
        self.lock().rights = rights.iter().copied().collect();
    }

    pub fn set_failing(&self, status: Option<StatusCode>) {
        self.lock().failing = status;
    }

    pub fn set_latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    pub fn set_ahead(&self, seconds: i64) {
        self.lock().ahead = seconds;
    }

    /// Stops the clock at so many seconds since 1970.
    pub fn stop_clock(&self, seconds: u64) {
        self.lock().stopped = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    }

    /// Lets another client change the Secret right before each of the next patches.
    pub fn disturb(&self, patches: usize) {
        self.lock().disturbances = patches;
    }

    /// Ends all watches.
    pub fn cut_watches(&self) {
        self.lock().watchers.clear();
    }

    /// Ends all watches with the event of a version that is forgotten.
    pub fn expire_watches(&self) {
        let mut state = self.lock();
        (state.compacted, state.history) = (state.revision, Vec::new());
        let error = json!({ "type": "ERROR", "object": status(StatusCode::GONE, "Expired") });
        state.watchers.drain(..).for_each(|watcher| send(&watcher.events, &error));
    }

    /// Sends a bookmark to all watches.
    pub fn bookmark(&self) {
        let state = self.lock();
        let metadata = json!({ "resourceVersion": state.revision.to_string() });
        let event =
            json!({ "type": "BOOKMARK", "object": { "kind": "Secret", "metadata": metadata } });
        state.watchers.iter().for_each(|watcher| send(&watcher.events, &event));
    }

    /// Changes the data of a Secret as another client does. It is made where there is none.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut BTreeMap<String, String>)) {
        let mut state = self.lock();
        let mut data = state.secrets.get(name).map_or_else(BTreeMap::new, |it| it.data.clone());
        change(&mut data);
        state.store(name, data);
    }

    /// Removes a Secret as another client does.
    pub fn remove(&self, name: &str) {
        self.lock().delete(name);
    }

    /// The data of a Secret, decoded.
    pub fn data(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let state = self.lock();
        let data = state.secrets.get(name).map(|secret| secret.data.clone()).unwrap_or_default();
        data.into_iter().map(|(key, value)| (key, STANDARD.decode(value).unwrap())).collect()
    }

    /// The verbs of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    pub fn watchers(&self) -> usize {
        let mut state = self.lock();
        state.watchers.retain(|watcher| !watcher.events.is_closed());
        state.watchers.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn serve(
    listener: TcpListener,
    state: Arc<Mutex<State>>,
    hangs: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (state, hangs) = (Arc::clone(&state), hangs.clone());
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (state, mut hangs) = (Arc::clone(&state), hangs.clone());
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                    let _ = hangs.wait_for(|hangs| !hangs).await;
                    let latency = state.lock().unwrap().latency;
                    tokio::time::sleep(latency).await;
                    let answer = answer(&state, &Request::from_parts(head, body));
                    // Nor does a server that hangs send what it has done.
                    let _ = hangs.wait_for(|hangs| !hangs).await;
                    Ok::<_, Infallible>(answer)
                }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.auto_date_header(false);
            connections.spawn(async move {
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

fn answer(state: &Arc<Mutex<State>>, request: &Request<Bytes>) -> Response<ChannelBody> {
    let mut locked = state.lock().unwrap();
    let now = SystemTime::now();
    let shift = Duration::from_secs(locked.ahead.unsigned_abs());
    let running = if locked.ahead < 0 { now - shift } else { now + shift };
    let date = locked.stopped.unwrap_or(running);
    let (events, body) = mpsc::unbounded_channel();
    let status = locked.handle(request, &events).unwrap_or_else(|(code, reason)| {
        send(&events, &self::status(code, reason));
        code
    });
    let mut response = Response::new(ChannelBody(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("date", httpdate::fmt_http_date(date).parse().unwrap());
    headers.insert("content-type", "application/json".parse().unwrap());
    response
}

fn send(events: &mpsc::UnboundedSender<Bytes>, value: &Value) {
    let _ = events.send(Bytes::from(format!("{value}\n")));
}

fn status(code: StatusCode, reason: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("canary: {reason}"), "reason": reason,
        "details": { "kind": "secrets" }, "code": code.as_u16() })
}

type Failure = (StatusCode, &'static str);

impl State {
    fn handle(
        &mut self,
        request: &Request<Bytes>,
        events: &mpsc::UnboundedSender<Bytes>,
    ) -> Result<StatusCode, Failure> {
        if let Some(status) = self.failing {
            return Err((status, "InternalError"));
        }
        let query = request.uri().query().unwrap_or_default();
        let parameter = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        };
        let authorization = request.headers().get("authorization").map(|value| value.as_bytes());
        if authorization != Some(format!("Bearer {}", self.token).as_bytes()) {
            return Err((StatusCode::UNAUTHORIZED, "Unauthorized"));
        }
        let path = request.uri().path().strip_prefix("/api/v1/namespaces/");
        let (namespace, rest) =
            path.and_then(|path| path.split_once("/secrets")).ok_or(NOT_FOUND)?;
        let name = rest.trim_start_matches('/');
        let verb = match *request.method() {
            Method::GET if parameter("watch") == Some("1") => "watch",
            Method::GET if name.is_empty() => "list",
            Method::GET => "get",
            Method::POST => "create",
            Method::PATCH => "patch",
            Method::PUT => "update",
            Method::DELETE => "delete",
            _ => return Err((StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed")),
        };
        self.requests.push(verb.to_owned());
        if !self.rights.contains(verb) {
            return Err((StatusCode::FORBIDDEN, "Forbidden"));
        }
        let given: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        if namespace != self.namespace {
            return Err(NOT_FOUND);
        }
        match verb {
            "watch" => {
                let name = parameter("fieldSelector")
                    .and_then(|text| text.strip_prefix("metadata.name%3D"));
                self.watch(
                    name.ok_or((StatusCode::FORBIDDEN, "Forbidden"))?,
                    parameter("resourceVersion"),
                    events,
                );
                return Ok(StatusCode::OK);
            }
            "create" => {
                let name = given["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                if self.secrets.contains_key(&name) {
                    return Err((StatusCode::CONFLICT, "AlreadyExists"));
                }
                self.store(&name, checked(&given, BTreeMap::new())?);
                send(events, &self.object(&name));
                return Ok(StatusCode::CREATED);
            }
            _ => {}
        }
        if verb == "patch" && self.disturbances > 0 {
            self.disturbances -= 1;
            let mut data = self.secrets.get(name).ok_or(NOT_FOUND)?.data.clone();
            data.insert("disturbance".to_owned(), STANDARD.encode(self.disturbances.to_string()));
            self.store(name, data);
        }
        let found = self.secrets.get(name).ok_or(NOT_FOUND)?;
        let expected = given["metadata"]["resourceVersion"].as_str();
        if expected.is_some_and(|version| version != found.version.to_string()) {
            return Err((StatusCode::CONFLICT, "Conflict"));
        }
        match verb {
            "patch" => {
                let media_type =
                    request.headers().get("content-type").map(|value| value.as_bytes());
                if media_type != Some(b"application/merge-patch+json") {
                    return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType"));
                }
                let data = checked(&given, found.data.clone())?;
                self.store(name, data);
            }
            // Without a version it overwrites.
            "update" => self.store(name, checked(&given, BTreeMap::new())?),
            "delete" => {
                self.delete(name);
                send(events, &json!({ "kind": "Status", "status": "Success" }));
                return Ok(StatusCode::OK);
            }
            _ => {}
        }
        send(events, &self.object(name));
        Ok(StatusCode::OK)
    }

    /// Begins with the Secret as it is, or after a version with what came since.
    fn watch(&mut self, name: &str, version: Option<&str>, events: &mpsc::UnboundedSender<Bytes>) {
        match version.and_then(|version| version.parse::<u64>().ok()).filter(|version| *version > 0)
        {
            None if self.secrets.contains_key(name) => {
                send(events, &json!({ "type": "ADDED", "object": self.object(name) }));
            }
            None => {}
            Some(version) if version < self.compacted => {
                let status = status(StatusCode::GONE, "Expired");
                return send(events, &json!({ "type": "ERROR", "object": status }));
            }
            Some(version) => {
                let since = self.history.iter().filter(|(at, of, _)| *at > version && of == name);
                since.for_each(|(_, _, event)| send(events, event));
            }
        }
        self.watchers.push(Watcher { name: name.to_owned(), events: events.clone() });
    }

    fn store(&mut self, name: &str, data: BTreeMap<String, String>) {
        let before = self.secrets.get(name);
        // A change that changes nothing makes no version.
        if before.is_some_and(|before| before.data == data) {
            return;
        }
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.revision += 1;
        self.secrets.insert(name.to_owned(), Stored { data, version: self.revision });
        self.notify(name, kind, self.object(name));
    }

    fn delete(&mut self, name: &str) {
        let last = self.object(name);
        if self.secrets.remove(name).is_some() {
            self.revision += 1;
            self.notify(name, "DELETED", last);
        }
    }

    fn notify(&mut self, name: &str, kind: &str, object: Value) {
        let event = json!({ "type": kind, "object": object });
        self.watchers.retain(|watcher| !watcher.events.is_closed());
        for watcher in self.watchers.iter().filter(|watcher| watcher.name == name) {
            send(&watcher.events, &event);
        }
        self.history.push((self.revision, name.to_owned(), event));
    }

    fn object(&self, name: &str) -> Value {
        let Some(secret) = self.secrets.get(name) else { return Value::Null };
        let metadata = json!({ "name": name, "namespace": self.namespace, "uid": "0-0",
            "resourceVersion": secret.version.to_string(), "managedFields": [] });
        // An empty map is left out, as with `omitempty`.
        match secret.data.is_empty() {
            true => {
                json!({ "kind": "Secret", "apiVersion": "v1", "metadata": metadata, "type": "Opaque" })
            }
            false => {
                json!({ "kind": "Secret", "apiVersion": "v1", "metadata": metadata, "type": "Opaque",
                "data": secret.data })
            }
        }
    }
}

const NOT_FOUND: Failure = (StatusCode::NOT_FOUND, "NotFound");

/// The data after a change: `null` removes a key, and `stringData` is encoded and not shown again.
fn checked(
    given: &Value,
    mut data: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Failure> {
    let invalid = (StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
    for (key, value) in given["data"].as_object().into_iter().flatten() {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if key.is_empty() || key.len() > 253 || !key.bytes().all(plain) {
            return Err(invalid);
        }
        match value {
            Value::Null => drop(data.remove(key)),
            Value::String(text) if STANDARD.decode(text).is_ok() => {
                data.insert(key.clone(), text.clone());
            }
            _ => return Err((StatusCode::BAD_REQUEST, "BadRequest")),
        }
    }
    for (key, value) in given["stringData"].as_object().into_iter().flatten() {
        data.insert(key.clone(), STANDARD.encode(value.as_str().unwrap_or_default()));
    }
    let size: usize =
        data.values().map(|value| STANDARD.decode(value).map_or(0, |it| it.len())).sum();
    if size > MAX_SECRET_BYTES { Err(invalid) } else { Ok(data) }
}
