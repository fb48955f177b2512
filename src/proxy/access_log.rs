//! The access log: one line a request, as far as the settings ask for it, written when its fate is
//! known.
//!
//! No path, no query, no header values: the name and the pattern of the route say what was asked.

mod line;
mod outcome;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use tokio::time::Instant;

use super::headers::FieldClass;
use super::limits::body::LimitError;
use super::nearest_route::masked;
use super::policy::metrics::UpstreamErrorReason;
use super::policy::plan::{RoutePlan, UpstreamPlan};
use super::rejection::Code;
use super::request::retry::is_safe;
use super::request_id::RequestId;
use super::requests::{RequestInFlight, RequestPhase};
use crate::body::{BodyError, Delivery};
use crate::listen::peer::PeerAddress;
use crate::server::{ShutdownPhase, StopSignal};
use crate::telemetry::log::{BeginLog, RequestLog};
use crate::token::Bearer;
use crate::upstream::{Failure, Forwarded};

/// The words for an answer that the app did not get, where nothing else is known.
const UNDELIVERED: &str = "the app did not get the whole answer of the upstream: it closed or reset its connection, or \
                           did not read on";

/// The record of a request for its line in the access log. The line is written when the record is
/// dropped: then both bodies have ended, and the outcome of the request is known.
pub struct AccessRecord {
    started: Instant,
    method: Method,
    client: Option<Arc<str>>,
    /// The address of the app.
    peer: PeerAddress,
    /// Its masked path, if no route claims it.
    unclaimed_path: Option<Box<str>>,
    id: RequestId,
    log: RequestLog,
    stop: StopSignal,
    route: Option<(Arc<UpstreamPlan>, Arc<RoutePlan>)>,
    /// The fate of the request at the upstream, as far as it is known.
    forwarded: Forwarded,
    /// The fate of the attempts before the current one.
    forwarded_before: Forwarded,
    /// The phase of the request until it is sent.
    waits_for: RequestPhase,
    /// The begin of the present wait before it is sent; `None` while there is none.
    waits_since: Option<Instant>,
    /// Time spent in waits for a token.
    token_wait: Duration,
    /// Time spent in waits for a connection to the upstream, or a place on one.
    connect_wait: Duration,
    /// Status of the answer to the first attempt, if the request is to be sent again because of it.
    first_answer: Option<StatusCode>,
    /// Number of connections that got the request.
    attempts: u32,
    /// Time when the current attempt got its connection; `None` before and after an attempt.
    sent_at: Option<Instant>,
    /// Value of `app_time` at that moment.
    app_time_when_sent: Duration,
    /// Time spent waiting for the upstream, in all attempts.
    upstream_time: Duration,
    upstream_address: Option<SocketAddr>,
    /// The token that it carried last.
    bearer: Option<Arc<Bearer>>,
    /// Bytes of the request's body that were received from the app.
    bytes_in: u64,
    /// The begin of the present wait for more of that body; `None` while nobody waits for it.
    awaits_body_since: Option<Instant>,
    /// Time spent in such waits before the head of the response.
    app_time: Duration,
    /// Bytes of the response's body that were sent to the app.
    bytes_out: u64,
    answer: Option<AnswerRecord>,
    delivery: Option<Delivery>,
    /// True from the switch to another protocol until both sides have ended its stream.
    stream_open: bool,
}

/// The response that the app was given.
struct AnswerRecord {
    status: StatusCode,
    /// The code of a rejection.
    code: Option<Code>,
    /// The detail of the rejection, or the error that ended the response early.
    detail: Option<Cow<'static, str>>,
    /// Time from the head of the request to that of the response.
    after: Duration,
    /// True if the upstream's response was read to its end; `None` for a rejection, and if the app left
    /// before it got any of the response, which then was not read either.
    complete: Option<bool>,
    /// True if the upstream broke it off, or let it rest for too long. An app that leaves in the middle
    /// makes an answer incomplete too, and is no fault of anybody's.
    broke_off: bool,
    /// True if the upstream answered that it failed, that it does not accept the token, or that it wants
    /// fewer requests.
    refused: bool,
}

impl AnswerRecord {
    /// A response of our own.
    fn rejection(code: Code, detail: Cow<'static, str>, after: Duration) -> Self {
        Self {
            status: code.status(),
            code: Some(code),
            detail: Some(detail),
            after,
            complete: None,
            broke_off: false,
            refused: false,
        }
    }
}

impl AccessRecord {
    /// Opens a record; `fields` are the classes of the request's fields. `stop` tells whether a
    /// shutdown has ended a request early.
    pub fn new<B>(
        request: &Request<B>,
        peer: PeerAddress,
        fields: FieldClass,
        log: RequestLog,
        stop: StopSignal,
    ) -> Self {
        Self {
            started: Instant::now(),
            method: request.method().clone(),
            id: RequestId::of(request.headers(), fields),
            log,
            stop,
            client: None,
            peer,
            unclaimed_path: None,
            route: None,
            forwarded: Forwarded::No,
            forwarded_before: Forwarded::No,
            waits_for: RequestPhase::Received,
            waits_since: None,
            token_wait: Duration::ZERO,
            connect_wait: Duration::ZERO,
            first_answer: None,
            attempts: 0,
            sent_at: None,
            app_time_when_sent: Duration::ZERO,
            upstream_time: Duration::ZERO,
            upstream_address: None,
            bearer: None,
            bytes_in: 0,
            awaits_body_since: None,
            app_time: Duration::ZERO,
            bytes_out: 0,
            answer: None,
            delivery: None,
            stream_open: false,
        }
    }

    /// The request's method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The request's id.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// The request as operators see it while it is in flight.
    pub fn in_flight(&self) -> RequestInFlight {
        let phase = match (&self.answer, self.sent_at) {
            (Some(_), _) => RequestPhase::Answering,
            (None, Some(_)) if self.awaits_body_since.is_some() => RequestPhase::WaitingForBody,
            (None, Some(_)) => RequestPhase::Sent,
            (None, None) => self.waits_for,
        };
        let route = self.route.as_ref();
        RequestInFlight {
            request_id: self.id.as_str().to_owned(),
            method: self.method.as_str().to_owned(),
            upstream: route
                .map(|(upstream, _)| upstream.connection.name.to_string())
                .unwrap_or_default(),
            route: route.map(|(_, route)| route.name.to_string()).unwrap_or_default(),
            client: self.client.as_deref().unwrap_or_default().to_owned(),
            age: self.started.elapsed(),
            phase,
        }
    }

    /// The words for a client that has gone before anything was sent.
    pub fn left_unsent(&self) -> String {
        let mut wait = self.waits_for.as_wait().to_owned();
        let under_way = self.waits_since.map(|since| since.elapsed()).unwrap_or_default();
        let waited = under_way
            + match self.waits_for {
                RequestPhase::WaitingForToken => self.token_wait,
                RequestPhase::Connecting => self.connect_wait,
                _ => Duration::ZERO,
            };
        if !waited.is_zero() {
            wait += &format!(", for {:.1} s", waited.as_secs_f64());
        }
        match self.first_answer {
            None => format!("the client closed its connection before the request was sent{wait}"),
            Some(status) => format!(
                "the upstream answered {} to the first attempt; the client closed its connection before \
                 the second was sent{wait}",
                status.as_u16()
            ),
        }
    }

    /// Status of the answer to the first attempt, if the request is to be sent again because of it.
    pub fn first_answer(&self) -> Option<StatusCode> {
        self.first_answer
    }

    /// Notes what the request waits for before it is sent.
    pub fn waits_for(&mut self, phase: RequestPhase) {
        if phase != self.waits_for && self.waits_since.is_some() {
            self.wait_ended(Instant::now());
        }
        self.waits_for = phase;
        self.waits_since.get_or_insert_with(Instant::now);
    }

    /// Notes that what the request waited for has come, or never will.
    pub fn wait_ended(&mut self, now: Instant) {
        if let Some(since) = self.waits_since.take() {
            let waited = match self.waits_for {
                RequestPhase::WaitingForToken => &mut self.token_wait,
                _ => &mut self.connect_wait,
            };
            *waited += now.saturating_duration_since(since);
        }
    }

    /// Notes the client that sent the request.
    pub fn client(&mut self, name: &Arc<str>) {
        self.client = Some(Arc::clone(name));
    }

    /// Notes the path of a request that no route claims, as far as an operator may see it.
    pub fn unclaimed(&mut self, path: &str) {
        self.unclaimed_path = Some(masked(path).into());
    }

    /// Notes the route that claimed the request.
    pub fn routed(&mut self, upstream: &Arc<UpstreamPlan>, route: &Arc<RoutePlan>) {
        self.route = Some((Arc::clone(upstream), Arc::clone(route)));
    }

    /// Notes that the request is handed to a connection: from now on the upstream may see it.
    pub fn sending(&mut self, now: Instant, bearer: Option<&Arc<Bearer>>, to: Option<SocketAddr>) {
        // Before the first byte: should this task be dropped in the middle of the write, the record must
        // not claim that nothing was sent.
        self.forwarded = Forwarded::Unknown;
        self.wait_ended(now);
        self.attempts += 1;
        self.sent_at = Some(now);
        self.app_time_when_sent = self.app_time;
        self.bearer = bearer.cloned();
        self.upstream_address = to;
        if self.log.begin == BeginLog::Unsafe && !is_safe(&self.method) {
            self.write_begin();
        }
    }

    /// Notes that an attempt has ended, by an answer's head or otherwise.
    pub fn attempt_ended(&mut self, now: Instant) {
        if let Some(sent_at) = self.sent_at.take() {
            self.body_wait_ended(now);
            // The upstream need not answer before it has the whole request.
            let of_app = self.app_time - self.app_time_when_sent;
            self.upstream_time += now.saturating_duration_since(sent_at).saturating_sub(of_app);
        }
    }

    /// Notes that an attempt was answered with this status, and that the request is to be sent again.
    pub fn attempt_answered(&mut self, now: Instant, status: StatusCode) {
        self.attempt_ended(now);
        // Whatever becomes of the next attempt, the upstream has had the request.
        self.forwarded = Forwarded::Yes;
        self.forwarded_before = Forwarded::Yes;
        self.first_answer = Some(status);
    }

    /// Notes that an attempt got no answer, and whether the upstream may have seen the request.
    pub fn attempt_failed(&mut self, now: Instant, forwarded: Forwarded) {
        self.attempt_ended(now);
        // For `returned`: a second attempt that sent nothing does not undo what this one may have done.
        self.forwarded_before = forwarded;
    }

    /// Notes that hyper gave the request back: the connection had died, and this attempt sent nothing.
    pub fn returned(&mut self) {
        // An earlier attempt may have reached the upstream, which this one cannot undo.
        self.forwarded = self.forwarded_before;
        // Counted by `sending`, which came first for the reason given there.
        self.attempts -= 1;
        self.sent_at = None;
    }

    /// Counts bytes of the request's body that came at a time; `None`: now.
    pub fn received(&mut self, bytes: u64, at: Option<Instant>) {
        self.bytes_in += bytes;
        self.body_arrived(at);
    }

    /// Notes that the connection could send more of the request's body than the app has sent.
    pub fn awaits_body(&mut self, since: Instant) {
        if self.answer.is_none() {
            self.awaits_body_since.get_or_insert(since);
        }
    }

    /// Notes that the request's body is not awaited any more.
    pub fn body_arrived(&mut self, at: Option<Instant>) {
        // The clock is read only where a wait ends: most frames of a body are there at once.
        if self.awaits_body_since.is_some() {
            self.body_wait_ended(at.unwrap_or_else(Instant::now));
        }
    }

    /// The part of the time until the answer's head that is the proxy's own: nothing was waited for.
    fn own_time(&self, until_head: Duration) -> Duration {
        let waits = self.upstream_time + self.app_time + self.token_wait + self.connect_wait;
        until_head.saturating_sub(waits)
    }

    fn body_wait_ended(&mut self, now: Instant) {
        if let Some(since) = self.awaits_body_since.take() {
            self.app_time += now.saturating_duration_since(since);
        }
    }

    /// Counts bytes of the answer's body.
    pub fn answered(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    /// Notes that the upstream's answer came to its end.
    pub fn completed(&mut self) {
        if let Some(answer) = &mut self.answer {
            answer.complete = Some(true);
        }
    }

    /// Notes that the upstream's answer broke off, or was cut because it rested for too long, and counts it
    /// as an error of the upstream.
    pub fn cut(&mut self, kind: LimitError, error: &BodyError) {
        // The body of an answer is read only after its head was recorded.
        let Some(answer) = &mut self.answer else { return };
        answer.broke_off = true;
        let (code, reason, words) = match kind {
            LimitError::Idle => (
                Code::UpstreamTimeout,
                UpstreamErrorReason::Timeout,
                "bearer-proxy cut the upstream's answer",
            ),
            LimitError::TooLarge | LimitError::Aborted => {
                (Code::UpstreamReset, UpstreamErrorReason::Reset, "the upstream's answer broke off")
            }
        };
        let status = answer.status.as_u16();
        let detail = answer.detail.get_or_insert_with(|| {
            format!("{words} after its status {status}: {}", error.reason()).into()
        });
        if let Some((_, route)) = &self.route {
            route.metrics.upstream_error(reason);
            let failure = Failure {
                code: code.as_str(),
                detail,
                forwarded: Forwarded::Yes,
                status: None,
                hint: None,
            };
            route.metrics.failed(&self.method, &failure);
        }
    }

    /// Notes how much of the answer the app was given.
    pub fn delivered(&mut self, delivery: Delivery) {
        self.delivery = Some(delivery);
    }

    /// Notes that the app took no byte of the answer for the time after which the proxy cuts it.
    pub fn stalled(&mut self, limit: Duration) {
        self.cut_because(&format!(
            "bearer-proxy cut the answer: the app took no byte of it for server.timeouts.send, {limit:?}"
        ));
    }

    /// Notes that the protocol was switched: a stream has begun.
    pub fn stream_began(&mut self) {
        self.stream_open = true;
    }

    /// Notes that both sides have ended the stream.
    pub fn stream_completed(&mut self) {
        self.stream_open = false;
    }

    /// Notes why a stream is cut.
    pub fn stream_cut(&mut self, why: &str, by_upstream: bool) {
        self.cut_because(why);
        if let Some(answer) = &mut self.answer {
            answer.broke_off |= by_upstream;
        }
    }

    /// Adds the reason why an answer was cut to what its line says of it.
    fn cut_because(&mut self, why: &str) {
        if let Some(answer) = &mut self.answer {
            answer.detail = Some(match &answer.detail {
                Some(detail) => format!("{detail}; {why}").into(),
                None => why.to_owned().into(),
            });
        }
    }

    /// True if the upstream answered, and the app did not get the whole answer.
    fn is_undelivered(&self) -> bool {
        self.forwarded == Forwarded::Yes && self.delivery != Some(Delivery::Complete)
    }
}

/// Writes the line. In `drop`, so that each request leaves its line however it ends: the last holder
/// of the record is the body, the exchange or the connection, whichever is dropped last.
impl Drop for AccessRecord {
    fn drop(&mut self) {
        // An attempt whose task was dropped has waited for the upstream until now.
        self.attempt_ended(Instant::now());
        // Asked at the end and not when the response was made: a response that was complete for hyper may
        // still be in our buffers when a second signal ends the program.
        let aborting = self.stop.phase() == ShutdownPhase::Aborting;
        let mut answer = self.answer.take().unwrap_or_else(|| self.cut_short(aborting));
        // Only now: that a wait was under way says where the request was cut short.
        if self.waits_since.is_some() {
            self.wait_ended(Instant::now());
        }
        if self.stream_open {
            answer.complete = Some(false);
            self.delivery = self.delivery.map(|_| Delivery::Partial);
        }
        if self.delivery.is_none() && !answer.broke_off {
            // It was not read to its end because nobody was there to get it, which says nothing about it.
            answer.complete = answer.complete.filter(|complete| *complete);
        }
        // A shutdown has cut the response of an upstream.
        if aborting && answer.code.is_none() && self.delivery != Some(Delivery::Complete) {
            answer.code = Some(Code::CutByShutdown);
            answer.detail.get_or_insert_with(|| Code::CutByShutdown.title().into());
        }
        if let Some((_, route)) =
            self.route.as_ref().filter(|_| answer.code == Some(Code::CutByShutdown))
        {
            route.metrics.of_all().history().cut_by_shutdown(self.id.as_str());
        }
        self.count_unsettled(&answer);
        self.write(&answer);
    }
}
