//! One request of an HTTP/2 connection: from its head to the last byte of its answer.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{
    CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::timeout;
use tower::Service;
use tower::util::Oneshot;

use super::super::client_stream::PeerState;
use super::super::connection::{ClientProbe, ConnectionInfo, HeadError, Inbound, RefusedHeads};
use super::super::io::WeakIo;
use super::super::settings::ConnectionSettings;
use super::{OpenStream, Streams};
use crate::body::{Body, BodyError, Delivery};

/// What a request is served with.
pub(super) struct StreamContext {
    pub(super) info: Rc<ConnectionInfo>,
    pub(super) io: WeakIo,
    pub(super) streams: Rc<Streams>,
    pub(super) limits: ConnectionSettings,
    pub(super) refused: Rc<RefusedHeads>,
}

/// Serves one request.
pub(super) async fn serve<S>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    service: S,
    context: StreamContext,
) where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible> + 'static,
{
    let StreamContext { info, io, streams, limits, refused } = context;
    let open = Rc::new(streams.begin());
    let client = Rc::new(Client::default());
    let head_request = request.method() == Method::HEAD;
    let lines = request.headers().len();
    if lines > limits.max_headers {
        refused.add(HeadError::TooLarge, &format_args!("{lines} header fields"), &info.peer);
        // Like hyper's 431 to HTTP/1: bare, since no head was accepted.
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let _ = respond.send_response(answer, true);
        return;
    }
    let answered = {
        let asked = Rc::clone(&client);
        let probe = ClientProbe::multiplexed(limits.half_closed, move || match asked.reset.get() {
            true => PeerState::Disconnected,
            false => io.peer_state(),
        });
        let request = received(request, &client, &open);
        let inbound = Inbound { request, connection: info, client: probe, upgrade: None };
        let mut answer = pin!(Oneshot::new(service, inbound));
        poll_fn(|cx| {
            // The reset is looked at first: nothing is done for a client that has cancelled.
            if client.poll_reset(&mut respond, cx).is_ready() {
                return Poll::Ready(None);
            }
            // 100 goes out once somebody wants the body.
            let answered = answer.as_mut().poll(cx);
            client.continue_if_wanted(&mut respond, cx);
            answered.map(|answer| match answer {
                Ok(answer) => Some(answer),
                Err(never) => match never {},
            })
        })
        .await
    };
    let Some(mut answer) = answered else { return streams.cancelled() };
    let observer = answer.body_mut().take_observer();
    let mut begun = false;
    let sent = send(answer, head_request, respond, limits.send_timeout, &mut begun).await;
    let delivery = sent.is_ok().then_some(Delivery::Complete);
    if let (Some(observer), Some(delivery)) =
        (observer, delivery.or(begun.then_some(Delivery::Partial)))
    {
        observer.delivered(delivery);
    }
    if matches!(sent, Err(Unsent::Cancelled)) {
        streams.cancelled();
    }
}

/// What is known of the client of a stream.
#[derive(Default)]
struct Client {
    /// Whether it has reset the stream, or its connection has ended.
    reset: Cell<bool>,
    /// Whether it waits for `:status 100` (RFC 9110 section 10.1.1).
    expects: Cell<bool>,
    /// Whether somebody wants the body that it holds back.
    wanted: Cell<bool>,
    /// The task that owns the stream.
    task: RefCell<Option<Waker>>,
}

impl Client {
    fn poll_reset(&self, respond: &mut SendResponse<Bytes>, cx: &mut Context<'_>) -> Poll<()> {
        // An error is the end of the connection, which ends the stream as well.
        let _reason = ready!(respond.poll_reset(cx));
        self.reset.set(true);
        Poll::Ready(())
    }

    /// Asks the client for its body, if that is due; the task is woken when it is.
    fn continue_if_wanted(&self, respond: &mut SendResponse<Bytes>, cx: &Context<'_>) {
        if !self.expects.get() {
            return;
        }
        if self.wanted.get() {
            self.expects.set(false);
            let mut interim = Response::new(());
            *interim.status_mut() = StatusCode::CONTINUE;
            // An error means that the stream has ended.
            let _ = respond.send_informational(interim);
        } else {
            *self.task.borrow_mut() = Some(cx.waker().clone());
        }
    }

    /// Somebody wants the body.
    fn want_body(&self) {
        if self.expects.get()
            && !self.wanted.replace(true)
            && let Some(task) = self.task.borrow_mut().take()
        {
            task.wake();
        }
    }
}

/// A request as it travels on.
fn received(
    request: Request<RecvStream>,
    client: &Rc<Client>,
    open: &Rc<OpenStream>,
) -> Request<Body> {
    let expects = request
        .headers()
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    client.expects.set(expects && !request.body().is_end_stream());
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    request.map(|stream| {
        if stream.is_end_stream() {
            return Body::empty();
        }
        let (client, open) = (Rc::clone(client), Rc::clone(open));
        Body::boxed(RequestBody { stream, length, data_ended: false, client, _open: open })
    })
}

/// The body of a request. h2 compares it with its `Content-Length` (RFC 9113 section 8.1.1).
struct RequestBody {
    stream: RecvStream,
    /// Bytes that are still to come, where the head said so.
    length: Option<u64>,
    data_ended: bool,
    client: Rc<Client>,
    /// A body may go on after its answer: its connection is not idle before both have ended.
    _open: Rc<OpenStream>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { stream, length, data_ended, client, .. } = &mut *self;
        client.want_body();
        if !*data_ended {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Taken is taken: whoever polls a frame has room for it.
                    let _ = stream.flow_control().release_capacity(data.len());
                    *length = length.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(BodyError::new(error)))),
                None => *data_ended = true,
            }
        }
        let trailers = ready!(stream.poll_trailers(cx)).transpose();
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers).map_err(BodyError::new)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Why an answer was not sent to its end.
enum Unsent {
    /// The client has reset the stream.
    Cancelled,
    /// The client takes nothing of it, the body failed, or the connection has ended.
    Failed,
}

/// Fields of a connection, which HTTP/2 has no place for (RFC 9113 section 8.2.2).
const CONNECTION_FIELDS: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Sends an answer; each piece of it is to be taken within `limit`. `begun` is set once h2 has its head.
async fn send(
    answer: Response<Body>,
    head_request: bool,
    mut respond: SendResponse<Bytes>,
    limit: Duration,
    begun: &mut bool,
) -> Result<(), Unsent> {
    let (mut parts, mut body) = answer.into_parts();
    parts.version = Version::HTTP_2;
    for name in CONNECTION_FIELDS {
        parts.headers.remove(name);
    }
    let has_body = !head_request && !body.is_end_stream();
    frame(&mut parts.headers, &body, has_body);
    let head = Response::from_parts(parts, ());
    let Ok(mut stream) = respond.send_response(head, !has_body) else { return Err(Unsent::Failed) };
    *begun = true;
    if !has_body {
        return Ok(());
    }
    loop {
        let frame = poll_fn(|cx| {
            if let Poll::Ready(reset) = stream.poll_reset(cx) {
                return Poll::Ready(Err(reset.map_or(Unsent::Failed, |_| Unsent::Cancelled)));
            }
            Pin::new(&mut body).poll_frame(cx).map(Ok)
        });
        match frame.await? {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let last = body.is_end_stream();
                    let sent = send_data(&mut stream, data, last, limit).await;
                    if sent.is_err() {
                        stream.send_reset(Reason::CANCEL);
                    }
                    sent?;
                    if last {
                        return Ok(());
                    }
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return stream.send_trailers(trailers).map_err(|_| Unsent::Failed);
                }
            },
            Some(Err(_)) => {
                // A cut answer must not look whole.
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Err(Unsent::Failed);
            }
            None => return stream.send_data(Bytes::new(), true).map_err(|_| Unsent::Failed),
        }
    }
}

/// Adds what every answer has: `Date` (RFC 9110 section 6.6.1), and its length where that is known.
fn frame(headers: &mut HeaderMap, body: &Body, has_body: bool) {
    if let (true, Some(length)) = (has_body, body.size_hint().exact()) {
        headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    if !headers.contains_key(DATE) {
        let now = httpdate::HttpDate::from(SystemTime::now()).to_string();
        if let Ok(now) = HeaderValue::try_from(now) {
            headers.insert(DATE, now);
        }
    }
}

/// Sends data as fast as the client's windows allow, for at most `limit` without any progress.
async fn send_data(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    last: bool,
    limit: Duration,
) -> Result<(), Unsent> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = timeout(limit, poll_fn(|cx| stream.poll_capacity(cx))).await;
        let Ok(Some(Ok(room))) = room else { return Err(Unsent::Failed) };
        let piece = data.split_to(room.min(data.len()));
        let ends = last && data.is_empty();
        stream.send_data(piece, ends).map_err(|_| Unsent::Failed)?;
        if ends {
            return Ok(());
        }
    }
    match last {
        // The last piece was empty: the end of the stream goes by itself.
        true => stream.send_data(data, true).map_err(|_| Unsent::Failed),
        false => Ok(()),
    }
}
