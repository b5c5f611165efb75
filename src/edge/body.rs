//! The body of every answer: our own bytes, or what a backend sends; with the record of the exchange, which is
//! written when the last of it is gone.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::access::{Access, End};
use crate::proxy;

/// What is sent.
#[derive(Debug)]
pub(super) enum Content {
    Fixed(Bytes),
    Forwarded(proxy::Body),
}

/// What is sent, and the record of it.
#[derive(Debug)]
pub struct AnswerBody {
    content: Content,
    access: Access,
}

impl AnswerBody {
    pub(super) fn new(content: Content, mut access: Access) -> Self {
        if is_end(&content) {
            access.ended(End::Complete);
        }
        Self { content, access }
    }
}

fn is_end(content: &Content) -> bool {
    match content {
        Content::Fixed(bytes) => bytes.is_empty(),
        Content::Forwarded(body) => body.is_end_stream(),
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = proxy::BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        match &mut this.content {
            Content::Fixed(bytes) => {
                this.access.ended(End::Complete);
                if bytes.is_empty() {
                    return Poll::Ready(None);
                }
                this.access.sent(bytes.len());
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Content::Forwarded(body) => {
                let polled = Pin::new(&mut *body).poll_frame(context);
                match &polled {
                    Poll::Ready(Some(Ok(frame))) => {
                        if let Some(data) = frame.data_ref() {
                            this.access.sent(data.len());
                        }
                        // Nothing follows trailers, and hyper does not ask.
                        if frame.is_trailers() || body.is_end_stream() {
                            this.access.ended(End::Complete);
                        }
                    }
                    Poll::Ready(Some(Err(_))) => this.access.ended(End::BackendAborted),
                    Poll::Ready(None) => this.access.ended(End::Complete),
                    Poll::Pending => {}
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        is_end(&self.content)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Fixed(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Forwarded(body) => body.size_hint(),
        }
    }
}
