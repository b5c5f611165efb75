//! The socket below HTTP/2, watched: what is written, whether a block of header fields is coming (RFC 9113, 4.1), and what
//! the codec refuses.
//!
//! A client may send the fields of a request over as many CONTINUATION frames and as slowly as it likes, and the codec
//! above does not say that one is under way; nor does it say which requests it turned away, before they became any. So the
//! frames' heads are looked at as they pass, both ways, and of what the codec sends also why it ends something.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::streams::{PROTOCOL_ERROR, Refusal, Streams};

/// What every connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
/// A GOAWAY's head with its last stream and its code.
const LONGEST: usize = FRAME_HEAD + 8;
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const GOAWAY: u8 = 0x7;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
/// Bytes of the fields of an answer that has nothing but its status; the service's all have an id.
const BARE: usize = 16;
/// The number of a stream; the bit before it means nothing.
const NUMBER: u32 = 0x7fff_ffff;

/// The beginning of a frame.
#[derive(Clone, Copy, Debug)]
struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
    /// Bytes of the payload.
    size: usize,
    /// Why something ends; 0 for frames that end nothing.
    code: u32,
}

/// Where in the frames the next byte is.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes that are of no interest.
    skip: usize,
    head: [u8; LONGEST],
    /// Bytes of the head that have come.
    filled: usize,
}

impl Frames {
    /// Takes what is of no interest from `bytes`. False, where there is still more of it to come.
    fn pass(&mut self, bytes: &mut &[u8]) -> bool {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        *bytes = bytes.get(skipped..).unwrap_or_default();
        self.skip == 0
    }

    /// Takes the beginning of the next frame from `bytes`, where it is there whole.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        loop {
            let (&byte, rest) = bytes.split_first()?;
            *bytes = rest;
            if let Some(place) = self.head.get_mut(self.filled) {
                *place = byte;
                self.filled += 1;
            }
            if self.filled < FRAME_HEAD {
                continue;
            }
            let [high, middle, low, kind, flags, rest @ ..] = self.head;
            let size = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            let word = |at: usize| {
                let bytes = rest.get(at..).and_then(|rest| rest.first_chunk());
                bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
            };
            let (wanted, code) = match kind {
                RST_STREAM => (4, word(4)),
                GOAWAY => (8, word(8)),
                _ => (0, 0),
            };
            let wanted = FRAME_HEAD + size.min(wanted);
            if self.filled >= wanted {
                self.skip = FRAME_HEAD + size - self.filled;
                self.filled = 0;
                return Some(Head { kind, flags, stream: word(0) & NUMBER, size, code });
            }
        }
    }
}

/// A block of fields that is coming.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// It begins a stream.
    is_request: bool,
    /// The frame that passes is the last of it.
    ends: bool,
}

/// What the client sends.
#[derive(Debug)]
struct Received {
    frames: Frames,
    /// What of the preface is still to come.
    preface: &'static [u8],
    /// No frame has come.
    is_first: bool,
    block: Option<Block>,
    /// The last stream that was begun.
    last: u32,
}

impl Default for Received {
    fn default() -> Self {
        Self { frames: Frames::default(), preface: PREFACE, is_first: true, block: None, last: 0 }
    }
}

impl Received {
    /// Looks at bytes that have come. False, where the client does not speak HTTP/2: settings are due first (RFC 9113, 3.4),
    /// and the codec does not ask for them.
    fn pass(&mut self, mut bytes: &[u8], streams: &Streams) -> bool {
        if !self.preface.is_empty() {
            let known = self.preface.len().min(bytes.len());
            let (due, later) = self.preface.split_at(known);
            let (come, rest) = bytes.split_at(known);
            if due != come {
                return false;
            }
            (self.preface, bytes) = (later, rest);
        }
        loop {
            if !self.frames.pass(&mut bytes) {
                return true;
            }
            if let Some(whole) = self.block.take_if(|block| block.ends) {
                streams.head_is_whole(whole.is_request);
            }
            let Some(head) = self.frames.next(&mut bytes) else { return true };
            if std::mem::take(&mut self.is_first) && head.kind != SETTINGS {
                return false;
            }
            self.begin(head, streams);
        }
    }

    fn begin(&mut self, head: Head, streams: &Streams) {
        match head.kind {
            RST_STREAM => drop(streams.answer_ends(head.stream)),
            GOAWAY => streams.leaves(),
            _ => {}
        }
        if !matches!(head.kind, HEADERS | CONTINUATION) {
            return;
        }
        let ends = head.flags & END_HEADERS != 0;
        let is_request = head.kind == HEADERS && head.stream > self.last;
        if is_request {
            self.last = head.stream;
        }
        if let Some(block) = &mut self.block {
            block.ends = ends;
        } else {
            streams.head_begins();
            self.block = Some(Block { is_request, ends });
        }
    }
}

/// What the codec sends.
#[derive(Debug, Default)]
struct Sent {
    frames: Frames,
    /// The stream of the last answer that was the codec's.
    bare: u32,
}

impl Sent {
    fn pass(&mut self, mut bytes: &[u8], streams: &Streams, mut tell: impl FnMut(Refusal)) {
        while self.frames.pass(&mut bytes) {
            let Some(head) = self.frames.next(&mut bytes) else { return };
            self.note(head, streams, &mut tell);
        }
    }

    fn note(&mut self, head: Head, streams: &Streams, tell: &mut impl FnMut(Refusal)) {
        let ends = head.flags & END_STREAM != 0;
        match head.kind {
            HEADERS if !ends => streams.answer_begins(head.stream),
            HEADERS | DATA if ends => {
                // Behind an answer they are its trailers, however few.
                let are_trailers = streams.answer_ends(head.stream);
                if head.kind == HEADERS && !are_trailers && head.size < BARE {
                    self.bare = head.stream;
                    tell(streams.is_too_large());
                }
            }
            RST_STREAM if streams.answer_ends(head.stream) => tell(Refusal::Stream(head.code)),
            // What is still to come of a request that the codec has answered is no second matter.
            RST_STREAM if head.stream != self.bare => tell(streams.has_reset(head.code)),
            GOAWAY if head.code != 0 => tell(Refusal::Connection(head.code)),
            _ => {}
        }
    }
}

/// A client's stream with what is known of it.
pub(super) struct WatchedIo<S, F> {
    stream: S,
    streams: Arc<Streams>,
    /// Told of what the codec turns away or ends.
    tell: F,
    received: Received,
    sent: Sent,
}

impl<S, F: FnMut(Refusal)> WatchedIo<S, F> {
    pub(super) fn new(stream: S, streams: Arc<Streams>, tell: F) -> Self {
        Self { stream, streams, tell, received: Received::default(), sent: Sent::default() }
    }

    fn note_write<'a>(
        &mut self,
        polled: &Poll<io::Result<usize>>,
        slices: impl IntoIterator<Item = &'a [u8]>,
    ) {
        match polled {
            Poll::Ready(Ok(bytes)) => {
                self.streams.has_written(*bytes);
                let mut left = *bytes;
                for slice in slices {
                    let taken = left.min(slice.len());
                    left -= taken;
                    let taken = slice.get(..taken).unwrap_or_default();
                    self.sent.pass(taken, &self.streams, &mut self.tell);
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.streams.cannot_write(),
        }
    }
}

impl<S: AsyncRead + Unpin, F: FnMut(Refusal) + Unpin> AsyncRead for WatchedIo<S, F> {
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
            if !this.received.pass(fresh, &this.streams) {
                (this.tell)(Refusal::Connection(PROTOCOL_ERROR));
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        } else if polled.is_ready() && buffer.remaining() > 0 {
            this.streams.leaves();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin, F: FnMut(Refusal) + Unpin> AsyncWrite for WatchedIo<S, F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note_write(&polled, [bytes]);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note_write(&polled, slices.iter().map(|slice| &**slice));
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
mod tests;
