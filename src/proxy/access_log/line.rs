//! The lines of a request: one before an unsafe request is sent, one when its fate is known.

use std::time::Duration;

use http::StatusCode;

use super::{AccessRecord, AnswerRecord, UNDELIVERED};
use crate::body::Delivery;
use crate::proxy::rejection::Code;
use crate::proxy::request::retry::is_safe;
use crate::telemetry::begin;
use crate::telemetry::log::AccessLog;
use crate::upstream::Forwarded;

impl AccessRecord {
    /// Puts on record that the request is about to be sent.
    pub(super) fn write_begin(&self) {
        let Some((upstream, route)) = &self.route else { return };
        tracing::info!(
            target: begin::TARGET,
            request_id = self.id.as_str(),
            method = self.method.as_str(),
            upstream = &*upstream.connection.name,
            route = &*route.name,
            path = &*route.path,
            client = self.client.as_deref().unwrap_or(""),
            attempt = self.attempts,
            upstream_addr = self.upstream_address.map(tracing::field::display),
            token = self.bearer.as_ref().map(|bearer| bearer.fingerprint()),
            "sending"
        );
    }

    /// Writes the line of the request, if the settings ask for it.
    pub(super) fn write(&self, answer: &AnswerRecord) {
        let AnswerRecord { status, code, detail, after, complete, broke_off, refused } = answer;
        let unsafe_method = !is_safe(&self.method);
        let client_left = *code == Some(Code::ClientLeft);
        // An answer that concerns the token which it carried, or a limit: no plain 4xx.
        let refused_us =
            *refused && (self.bearer.is_some() || *status == StatusCode::TOO_MANY_REQUESTS);
        let failed =
            status.is_server_error() || code.is_some() && !client_left || *broke_off || refused_us;
        let wanted = match self.log.access {
            AccessLog::Off => false,
            AccessLog::Errors => failed,
            AccessLog::ErrorsAndUnsafe => failed || unsafe_method,
            AccessLog::All => true,
        };
        if !wanted {
            return;
        }
        let (upstream, route) = match &self.route {
            Some((upstream, route)) => (&*upstream.connection.name, Some(route)),
            None => ("", None),
        };
        let delivered = match self.delivery {
            Some(Delivery::Complete) => "yes",
            Some(Delivery::Partial) => "partly",
            None => "no",
        };
        // The upstream has acted without the app knowing, or it is unknown whether it has acted.
        let unsettled =
            unsafe_method && (self.forwarded == Forwarded::Unknown || self.is_undelivered());
        let undelivered = self.is_undelivered();
        let detail = detail.as_deref().or_else(|| undelivered.then_some(UNDELIVERED));
        // A macro, since a `tracing` event has its level and its fields at compile time.
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "bearer_proxy::access",
                    request_id = self.id.as_str(),
                    method = self.method.as_str(),
                    upstream,
                    route = route.map_or("", |route| &*route.name),
                    path = route.map(|route| &*route.path),
                    client = self.client.as_deref().unwrap_or(""),
                    status = status.as_u16(),
                    code = code.map_or("", Code::as_str),
                    forwarded = self.forwarded.as_str(),
                    delivered,
                    complete = *complete,
                    bytes_in = self.bytes_in,
                    bytes_out = self.delivery.map_or(0, |_| self.bytes_out),
                    attempts = self.attempts,
                    upstream_addr = self.upstream_address.map(tracing::field::display),
                    token = self.bearer.as_ref().map(|bearer| bearer.fingerprint()),
                    upstream_ms = milliseconds(self.upstream_time),
                    app_ms = waited(self.app_time),
                    token_ms = waited(self.token_wait),
                    connect_ms = waited(self.connect_wait),
                    proxy_ms = milliseconds(self.own_time(*after)),
                    duration_ms = milliseconds(self.started.elapsed()),
                    detail,
                    "request"
                )
            };
        }
        if unsettled || *broke_off || *refused || code.is_some_and(Code::needs_operator) {
            line!(warn);
        } else {
            line!(info);
        }
    }
}

/// The milliseconds of a wait; `None`, which writes no field, if there was none: most requests wait for
/// nothing, and each number costs them time.
fn waited(wait: Duration) -> Option<f64> {
    (!wait.is_zero()).then(|| milliseconds(wait))
}

/// Milliseconds, rounded to microseconds.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
