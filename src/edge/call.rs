//! From a request to the API, and back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::access::Access;
use super::answer::Refused;
use super::body::Content;
use crate::api::Api;
use crate::proxy::Arrival;

/// Calls the API, which is mounted at `prefix`.
pub(super) async fn answer(
    api: &Api,
    prefix: &str,
    access: &mut Access,
    request: Request<Incoming>,
) -> Result<Response<Content>, Refused> {
    let arrival = access.arrival();
    let request = request.map(|inner| Arriving { inner, arrival });
    let answer = api.answer(prefix, request).await;
    access.key(answer.key);
    answer.outcome.map(|response| response.map(Content::Fixed)).map_err(Refused::Api)
}

/// A request body that tells its connection how far it is: with it, a client that breaks off in the middle is told
/// from one that has said all.
#[derive(Debug)]
struct Arriving {
    inner: Incoming,
    arrival: Arc<Arrival>,
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_frame(context);
        match &polled {
            Poll::Pending => this.arrival.starve(context.waker()),
            Poll::Ready(None) => this.arrival.complete(),
            Poll::Ready(Some(frame)) => {
                let data = frame.as_ref().ok().and_then(Frame::data_ref);
                this.arrival.arrived(data.map_or(0, Bytes::len));
                if this.inner.is_end_stream() {
                    this.arrival.complete();
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
