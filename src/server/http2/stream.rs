//! One request of an HTTP/2 connection: from its head to the last byte of its response.

use std::cell::{Cell, RefCell};
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
use tower::util::Oneshot;

use super::super::client_stream::PeerState;
use super::super::head_error::{HeadError, RefusedHeads};
use super::super::inbound::{ClientProbe, ConnectionInfo, Inbound, RequestService};
use super::super::io::WeakIo;
use super::super::settings::ConnectionSettings;
use super::{OpenStream, Streams};
use crate::body::{Body, BodyError, Delivery, PollFrame};

/// The parts of a connection that its requests use.
pub(super) struct StreamContext {
    pub(super) info: Rc<ConnectionInfo>,
    pub(super) io: WeakIo,
    pub(super) streams: Rc<Streams>,
    pub(super) settings: ConnectionSettings,
    pub(super) refused: Rc<RefusedHeads>,
}

/// Serves one request.
pub(super) async fn serve<S: RequestService>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    service: S,
    context: Rc<StreamContext>,
) {
    let open = Rc::new(context.streams.begin());
    let client = Rc::new(StreamClient::default());
    let is_head_request = request.method() == Method::HEAD;
    let lines = request.headers().len();
    if lines > context.settings.max_headers {
        let error = format_args!("{lines} header fields");
        context.refused.add(HeadError::TooLarge, &error, &context.info.peer);
        // Bare like hyper's 431 over HTTP/1, since no head was accepted.
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let _ = respond.send_response(response, true);
        return;
    }
    let response = {
        let (of_stream, of_connection) = (Rc::clone(&client), Rc::clone(&context));
        let peer_state = move || match of_stream.reset.get() {
            true => PeerState::Disconnected,
            false => of_connection.io.peer_state(),
        };
        let inbound = Inbound {
            request: receive(request, &client, &open),
            connection: Rc::clone(&context.info),
            client: ClientProbe::multiplexed(context.settings.half_closed, peer_state),
            upgrade: None,
        };
        let mut response = pin!(Oneshot::new(service, inbound));
        poll_fn(|cx| {
            // The reset is polled first: nothing is done for a client that has cancelled.
            if client.poll_reset(&mut respond, cx).is_ready() {
                return Poll::Ready(None);
            }
            let polled = response.as_mut().poll(cx);
            // After the service, which may just have asked for the body.
            client.continue_if_wanted(&mut respond, cx);
            polled.map(|response| match response {
                Ok(response) => Some(response),
                Err(never) => match never {},
            })
        })
        .await
    };
    let Some(mut response) = response else { return context.streams.cancelled() };
    let observer = response.body_mut().take_observer();
    let limit = context.settings.send_timeout;
    let mut begun = false;
    let sent = send(response, is_head_request, respond, limit, &mut begun).await;
    match observer {
        Some(observer) if sent.is_ok() => observer.delivered(Delivery::Complete),
        Some(observer) => {
            if matches!(sent, Err(Unsent::Stalled)) {
                observer.stalled(limit);
            }
            if begun {
                observer.delivered(Delivery::Partial);
            }
        }
        None => {}
    }
    // Counted, since a client that cancels without end costs us work that it does not pay for.
    if matches!(sent, Err(Unsent::Cancelled)) {
        context.streams.cancelled();
    }
}

/// The client of a stream.
#[derive(Default)]
struct StreamClient {
    /// True once it has reset the stream, or its connection has ended.
    reset: Cell<bool>,
    /// True while it waits for `:status 100` (RFC 9110 section 10.1.1).
    expects_continue: Cell<bool>,
    /// True once the body that it holds back was asked for.
    body_wanted: Cell<bool>,
    /// The task that owns the stream.
    task: RefCell<Option<Waker>>,
}

impl StreamClient {
    fn poll_reset(&self, respond: &mut SendResponse<Bytes>, cx: &mut Context<'_>) -> Poll<()> {
        // An error is the end of the connection, which also ends the stream.
        let _reason = ready!(respond.poll_reset(cx));
        self.reset.set(true);
        Poll::Ready(())
    }

    /// Sends 100 if the body was asked for; otherwise asking for it wakes the task.
    fn continue_if_wanted(&self, respond: &mut SendResponse<Bytes>, cx: &Context<'_>) {
        if !self.expects_continue.get() {
            return;
        }
        if self.body_wanted.get() {
            self.expects_continue.set(false);
            let mut interim = Response::new(());
            *interim.status_mut() = StatusCode::CONTINUE;
            // An error means that the stream has ended.
            let _ = respond.send_informational(interim);
        } else {
            *self.task.borrow_mut() = Some(cx.waker().clone());
        }
    }

    /// Asks for the body. This may run in another task than the stream's, which is woken to send 100.
    fn want_body(&self) {
        if self.expects_continue.get()
            && !self.body_wanted.replace(true)
            && let Some(task) = self.task.borrow_mut().take()
        {
            task.wake();
        }
    }
}

/// Makes h2's stream the body of a request.
fn receive(
    request: Request<RecvStream>,
    client: &Rc<StreamClient>,
    open: &Rc<OpenStream>,
) -> Request<Body> {
    let expect = request.headers().get(EXPECT).map(HeaderValue::as_bytes);
    let expects_continue = expect.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
    client.expects_continue.set(expects_continue && !request.body().is_end_stream());
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
    /// Bytes still to come, if the head announced a length.
    length: Option<u64>,
    data_ended: bool,
    client: Rc<StreamClient>,
    /// A body may go on after its response: the connection is idle only when both have ended.
    _open: Rc<OpenStream>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        let Self { stream, length, data_ended, client, .. } = &mut *self;
        client.want_body();
        if !*data_ended {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The window opens at once: whatever polls for a frame has room for it, and a body
                    // that is not polled keeps the window closed.
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

/// The reason why a response was not sent to its end.
enum Unsent {
    /// The client has reset the stream.
    Cancelled,
    /// The client took none of it for `server.timeouts.send`.
    Stalled,
    /// The body failed, or the connection has ended.
    Failed,
}

impl From<h2::Error> for Unsent {
    fn from(_: h2::Error) -> Self {
        Self::Failed
    }
}

/// The fields of a connection, which HTTP/2 does not have (RFC 9113 section 8.2.2).
const CONNECTION_FIELDS: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Sends a response; the client has to read each piece of it within `limit`. Sets `begun` once h2 has
/// the head.
async fn send(
    response: Response<Body>,
    is_head_request: bool,
    mut respond: SendResponse<Bytes>,
    limit: Duration,
    begun: &mut bool,
) -> Result<(), Unsent> {
    let (mut parts, mut body) = response.into_parts();
    parts.version = Version::HTTP_2;
    for name in CONNECTION_FIELDS {
        parts.headers.remove(name);
    }
    let has_body = !is_head_request && !body.is_end_stream();
    add_length_and_date(&mut parts.headers, &body, has_body);
    let mut stream = respond.send_response(Response::from_parts(parts, ()), !has_body)?;
    *begun = true;
    if !has_body {
        return Ok(());
    }
    loop {
        let frame = poll_fn(|cx| {
            // The reset is polled first, and while the body is pending: no more of the body is read for a
            // client that has cancelled.
            if let Poll::Ready(reset) = stream.poll_reset(cx) {
                return Poll::Ready(Err(reset.map_or(Unsent::Failed, |_| Unsent::Cancelled)));
            }
            Pin::new(&mut body).poll_frame(cx).map(Ok)
        });
        match frame.await?.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => {
                let is_last = body.is_end_stream();
                let sent = send_data(&mut stream, data, is_last, limit).await;
                sent.inspect_err(|_| stream.send_reset(Reason::CANCEL))?;
                if is_last {
                    return Ok(());
                }
            }
            Some(Ok(Err(frame))) => {
                return Ok(stream.send_trailers(frame.into_trailers().unwrap_or_default())?);
            }
            Some(Err(_)) => {
                // A cut response must not look complete.
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Err(Unsent::Failed);
            }
            None => return Ok(stream.send_data(Bytes::new(), true)?),
        }
    }
}

/// Adds `Date` (RFC 9110 section 6.6.1), and the length of a body if it is known.
fn add_length_and_date(headers: &mut HeaderMap, body: &Body, has_body: bool) {
    if let (true, Some(length)) = (has_body, body.size_hint().exact()) {
        headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    if !headers.contains_key(DATE)
        && let Ok(now) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
    {
        headers.insert(DATE, now);
    }
}

/// Sends data as fast as the client's windows allow, and fails after `limit` without progress.
async fn send_data(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    is_last: bool,
    limit: Duration,
) -> Result<(), Unsent> {
    // An empty last piece needs no room in a window, but still ends the stream.
    let mut ended = false;
    while !data.is_empty() {
        // h2 grants what the windows of the stream and of the connection have room for.
        stream.reserve_capacity(data.len());
        let room = timeout(limit, poll_fn(|cx| stream.poll_capacity(cx))).await;
        let room = room.map_err(|_| Unsent::Stalled)?;
        let Some(Ok(room)) = room else { return Err(Unsent::Failed) };
        let piece = data.split_to(room.min(data.len()));
        ended = is_last && data.is_empty();
        stream.send_data(piece, ended)?;
    }
    if is_last && !ended {
        stream.send_data(data, true)?;
    }
    Ok(())
}
