//! Bodies of whose trailers only those on the route's list pass, in both directions; of a gRPC call
//! all but credentials, since its status and metadata are trailers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::headers;
use super::policy::plan::RoutePlan;
use crate::body::BodyError;
use crate::token::Bearer;

/// A body whose trailers are filtered.
pub struct TrailerFilter<B> {
    inner: B,
    route: Arc<RoutePlan>,
    /// The token that no trailer of an answer may tell.
    bearer: Option<Arc<Bearer>>,
    grpc: bool,
}

impl<B> TrailerFilter<B> {
    /// Filters a body of this route; `bearer` is the token that the request of an answer carried.
    pub fn new(inner: B, route: &Arc<RoutePlan>, bearer: Option<Arc<Bearer>>, grpc: bool) -> Self {
        Self { inner, route: Arc::clone(route), bearer, grpc }
    }

    fn filter(&self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let token = self.bearer.as_ref().map(|bearer| bearer.token_bytes());
        match frame.into_trailers() {
            Ok(all) => Frame::trailers(headers::trailers(
                all,
                &self.route.header_policy.trailers,
                token,
                self.grpc,
            )),
            Err(data) => data,
        }
    }
}

impl<B> HttpBody for TrailerFilter<B>
where
    B: HttpBody<Data = Bytes, Error = BodyError> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map(|frame| self.filter(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
