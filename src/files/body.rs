//! The bytes of a file, or of parts of it, as many as the head of the answer states.
//!
//! A file may grow and shrink while it is sent. What it has grown by is left out, which over HTTP/2 would make the answer
//! malformed; where something is missing the answer breaks off, and is seen to.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http::Response;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};
use tower_http::services::fs::ServeFileSystemResponseBody;

/// What is read as it is sent.
pub(super) type Bits = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// The body of an answer.
#[derive(Default)]
pub struct FileBody {
    source: Source,
    /// Bytes that are still to come.
    left: u64,
}

#[derive(Default)]
enum Source {
    #[default]
    Nothing,
    File(ServeFileSystemResponseBody),
    Parts(Bits),
}

impl FileBody {
    /// Of a file's answer as tower-http made it to a GET or a HEAD.
    pub(super) fn of(
        response: Response<ServeFileSystemResponseBody>,
        is_head: bool,
    ) -> Response<Self> {
        let (head, body) = response.into_parts();
        let stated = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let left = stated.filter(|_| !is_head).and_then(|stated| stated.parse().ok());
        Response::from_parts(head, Self { source: Source::File(body), left: left.unwrap_or(0) })
    }

    /// What comes from `parts`, which is `length` bytes.
    pub(super) fn of_parts(parts: Bits, length: u64) -> Self {
        Self { source: Source::Parts(parts), left: length }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let polled = match &mut this.source {
            Source::Nothing => None,
            Source::File(body) => ready!(Pin::new(body).poll_frame(context))
                .map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default())),
            Source::Parts(parts) => ready!(parts.as_mut().poll_next(context)),
        };
        let Some(read) = polled else {
            this.left = 0;
            let why = "the file has become shorter while it was sent";
            return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, why))));
        };
        Poll::Ready(Some(read.map(|mut data| {
            data.truncate(usize::try_from(this.left).unwrap_or(usize::MAX));
            this.left = this.left.saturating_sub(data.len() as u64);
            Frame::data(data)
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl fmt::Debug for FileBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBody").field("left", &self.left).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use http_body_util::BodyExt as _;

    use super::*;

    fn body(chunks: &'static [&'static [u8]], length: u64) -> FileBody {
        let chunks = stream::iter(chunks).map(|chunk| Ok(Bytes::from_static(chunk)));
        FileBody::of_parts(chunks.boxed(), length)
    }

    #[tokio::test]
    async fn what_a_file_has_grown_by_is_left_out() {
        let body = body(&[b"0123", b"4567", b"89"], 6);
        assert_eq!(body.size_hint().exact(), Some(6));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "012345");
    }

    #[tokio::test]
    async fn where_something_is_missing_it_breaks_off() {
        let error = body(&[b"0123"], 6).collect().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
