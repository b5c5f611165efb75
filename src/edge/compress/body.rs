//! A body on its way through an encoder.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::encoder::Encoder;
use crate::edge::body::{Content, ContentError};

/// A coded body.
pub(in crate::edge) struct CompressedBody {
    inner: Content,
    /// Gone with the last of the body.
    encoder: Option<Encoder>,
    /// Something was taken that has not been handed on.
    held: bool,
    trailers: Option<Frame<Bytes>>,
    _room: OwnedSemaphorePermit,
}

impl CompressedBody {
    pub(super) fn new(inner: Content, encoder: Encoder, room: OwnedSemaphorePermit) -> Self {
        Self { inner, encoder: Some(encoder), held: false, trailers: None, _room: room }
    }

    /// The next coded bytes; nothing at the end.
    fn poll_coded(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ContentError>>> {
        while let Some(encoder) = &mut self.encoder {
            let coded = match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.held = true;
                        encoder.write(&data)
                    }
                    Err(trailers) => {
                        self.trailers = Some(trailers);
                        continue;
                    }
                },
                Poll::Ready(Some(Err(error))) => {
                    self.encoder = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => match self.encoder.take() {
                    Some(encoder) => encoder.finish(),
                    None => return Poll::Ready(None),
                },
                // Nobody waits for the next part to read this one.
                Poll::Pending if self.held => {
                    self.held = false;
                    encoder.flush()
                }
                Poll::Pending => return Poll::Pending,
            };
            match coded {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(bytes))),
                Err(error) => {
                    self.encoder = None;
                    return Poll::Ready(Some(Err(ContentError::Io(error))));
                }
            }
        }
        Poll::Ready(None)
    }
}

impl Body for CompressedBody {
    type Data = Bytes;
    type Error = ContentError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ContentError>>> {
        let this = self.get_mut();
        let coded = ready!(this.poll_coded(cx));
        Poll::Ready(match coded {
            Some(coded) => Some(coded.map(Frame::data)),
            None => this.trailers.take().map(Ok),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl fmt::Debug for CompressedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompressedBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}
