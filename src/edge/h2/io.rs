//! The socket below HTTP/2, watched: what is written, and whether a block of header fields is coming (RFC 9113, 4.1).
//!
//! A client may send the fields of a request over as many CONTINUATION frames and as slowly as it likes, and the codec
//! above does not say that one is under way; so the nine bytes before each frame are looked at as they pass.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::streams::Streams;

/// What every connection begins with.
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// Where in the frames the next byte is.
#[derive(Debug)]
struct Frames {
    /// Bytes that are of no interest.
    skip: usize,
    head: [u8; FRAME_HEAD],
    /// Bytes of the head that have come.
    filled: usize,
    /// The frame that is skipped is of a block of fields, and the last of it.
    ends_block: bool,
    in_block: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self { skip: PREFACE, head: [0; FRAME_HEAD], filled: 0, ends_block: false, in_block: false }
    }
}

impl Frames {
    /// Looks at bytes that have come.
    fn pass(&mut self, mut bytes: &[u8], streams: &Streams) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if self.skip > 0 {
                return;
            }
            if std::mem::take(&mut self.ends_block) {
                self.in_block = false;
                streams.head_is_whole();
            }
            let Some((&byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            if let Some(place) = self.head.get_mut(self.filled) {
                *place = byte;
                self.filled += 1;
            }
            if self.filled == FRAME_HEAD {
                self.filled = 0;
                self.begin(streams);
            }
        }
    }

    fn begin(&mut self, streams: &Streams) {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if matches!(kind, HEADERS | CONTINUATION) {
            if !std::mem::replace(&mut self.in_block, true) {
                streams.head_begins();
            }
            self.ends_block = flags & END_HEADERS != 0;
        }
    }
}

/// A client's stream with what is known of it.
#[derive(Debug)]
pub(super) struct WatchedIo<S> {
    stream: S,
    streams: Arc<Streams>,
    frames: Frames,
}

impl<S> WatchedIo<S> {
    pub(super) fn new(stream: S, streams: Arc<Streams>) -> Self {
        Self { stream, streams, frames: Frames::default() }
    }

    fn note_write(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Ready(Ok(bytes)) => self.streams.has_written(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.streams.cannot_write(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        if let Some(fresh) = buffer.filled().get(before..)
            && !fresh.is_empty()
        {
            this.streams.has_read();
            this.frames.pass(fresh, &this.streams);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note_write(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note_write(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        match &polled {
            Poll::Ready(Ok(())) => self.streams.all_sent(),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.streams.cannot_write(),
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        let mut bytes = vec![size[1], size[2], size[3], kind, flags, 0, 0, 0, 1];
        bytes.extend(std::iter::repeat_n(0xff, length));
        bytes
    }

    fn after(parts: &[&[u8]]) -> Option<u64> {
        let (streams, mut frames) = (Streams::default(), Frames::default());
        frames.pass(&[0; PREFACE], &streams);
        for part in parts {
            frames.pass(part, &streams);
        }
        streams.head()
    }

    #[test]
    fn a_block_lasts_from_its_first_frame_to_the_end_of_its_last() {
        let (open, end) = (frame(HEADERS, 0, 300), frame(CONTINUATION, END_HEADERS, 5));
        assert_eq!(after(&[&frame(4, 0, 6)]), None);
        assert_eq!(after(&[&open]), Some(1));
        assert_eq!(after(&[&open, &frame(CONTINUATION, 0, 0)]), Some(1));
        assert_eq!(after(&[&open, &end]), None);
        assert_eq!(after(&[&open, &end[..13]]), Some(1));
        assert_eq!(after(&[&open, &end, &frame(0, 0, 70_000), &open]), Some(2));
        assert_eq!(after(&[&frame(HEADERS, END_HEADERS, 0)]), None);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_come(
            kinds in prop::collection::vec((0_u8..12, any::<u8>(), 0_usize..40), 0..20),
            sizes in prop::collection::vec(1_usize..30, 1..50),
        ) {
            let whole: Vec<u8> =
                kinds.iter().flat_map(|(kind, flags, length)| frame(*kind, *flags, *length)).collect();
            let mut rest = whole.as_slice();
            let mut parts = Vec::new();
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, behind) = rest.split_at((*size).min(rest.len()));
                parts.push(part);
                rest = behind;
            }
            prop_assert_eq!(after(&parts), after(&[&whole]));
        }
    }
}
