//! The body of every answer: our own bytes, or what a backend sends; with the record of the exchange, which is
//! written when the last of it is gone.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};

use super::access::Access;
use super::compress::CompressedBody;
use crate::files::FileBody;
use crate::observability::Ending;
use crate::proxy;

/// What is sent.
pub(super) enum Content {
    Fixed(Bytes),
    Forwarded(proxy::Body),
    File(FileBody),
    Compressed(Box<CompressedBody>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed(_) => "Fixed",
            Self::Forwarded(_) => "Forwarded",
            Self::File(_) => "File",
            Self::Compressed(_) => "Compressed",
        })
    }
}

/// Why what is sent breaks off.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    #[error(transparent)]
    Backend(#[from] proxy::BodyError),
    /// A file that cannot be read on, or an encoder without memory.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Body for Content {
    type Data = Bytes;
    type Error = ContentError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ContentError>>> {
        match self.get_mut() {
            Self::Fixed(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Fixed(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Forwarded(body) => {
                Pin::new(body).poll_frame(context).map_err(ContentError::Backend)
            }
            Self::File(body) => Pin::new(body).poll_frame(context).map_err(ContentError::Io),
            Self::Compressed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Fixed(bytes) => bytes.is_empty(),
            Self::Forwarded(body) => body.is_end_stream(),
            Self::File(body) => body.is_end_stream(),
            Self::Compressed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Fixed(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Forwarded(body) => body.size_hint(),
            Self::File(body) => body.size_hint(),
            Self::Compressed(body) => body.size_hint(),
        }
    }
}

/// What is sent, and the record of it.
#[derive(Debug)]
pub struct AnswerBody {
    content: Content,
    access: Access,
}

impl AnswerBody {
    pub(super) fn new(response: Response<Content>, mut access: Access) -> Response<Self> {
        let (parts, content) = response.into_parts();
        if content.is_end_stream() {
            access.done();
        }
        Response::from_parts(parts, Self { content, access })
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = ContentError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ContentError>>> {
        let this = self.get_mut();
        this.access.asked();
        let wire = this.access.wire();
        let polled = match wire.rest() {
            Some(rest) => Poll::Ready(Some(Ok(Frame::data(rest)))),
            None => Pin::new(&mut this.content)
                .poll_frame(context)
                .map_ok(|frame| frame.map_data(|data| wire.cut(data))),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.access.sent(data.len());
                }
                // Nothing follows trailers, and hyper does not ask.
                if frame.is_trailers() || this.is_end_stream() {
                    this.access.done();
                }
            }
            Poll::Ready(Some(Err(ContentError::Backend(error)))) => {
                this.access.broken(error.ending());
            }
            Poll::Ready(Some(Err(ContentError::Io(_)))) => this.access.broken(Ending::Failed),
            Poll::Ready(None) => this.access.done(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream() && !self.access.wire().has_rest()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}
