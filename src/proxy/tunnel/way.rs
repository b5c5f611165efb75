//! One direction of a tunnel: what is read is written, and a Close or a Ping can be put between two frames.
//!
//! What is read stands on the stack until it is written; only what the slower side did not take yet is kept, at most
//! one read. After a Close of ours nothing more of the sender's is passed on (RFC 6455, 5.5.1); it is read all the
//! same, for the sender's own Close is in it. The Pong to a Ping of ours goes no further than here.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::SERVICE_RESTART;
use super::frames::{self, Frames, Writer};
use super::ping::{self, Found, Payload, Sieve};

/// Bytes of one read; also the most that is kept for a slow side.
const CHUNK: usize = 8 * 1024;

/// Which end of a way failed.
pub(super) enum Broken {
    From,
    To,
}

/// Whether the receiver is to be sent a Close of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    No,
    /// In place of the sender's own Close, so that everything the sender says before it still arrives.
    InPlace,
    /// At the next boundary.
    Next,
    Said,
}

/// One direction.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is true or not whatever the others are")]
pub(super) struct Way {
    /// What was read, or is ours to say, and was not yet written.
    kept: Vec<u8>,
    written: usize,
    unflushed: bool,
    eof: bool,
    pub(super) done: bool,
    pub(super) farewell: Farewell,
    /// What our Close says.
    pub(super) code: u16,
    /// A Ping that is to be put in at the next boundary.
    pub(super) ping: Option<Payload>,
    /// Waits for the Pong to a Ping that went the other way.
    pub(super) sieve: Option<Box<Sieve>>,
    /// The receiver takes nothing more at the moment.
    pub(super) blocked: bool,
    /// How often it took more after that.
    pub(super) relieved: u32,
    /// Who writes what goes this way.
    writer: Writer,
    /// All bytes that were read …
    pub(super) heard: u64,
    /// … and those of them that were meant for the receiver.
    pub(super) moved: u64,
    pub(super) frames: Frames,
}

impl Way {
    pub(super) fn new(writer: Writer) -> Self {
        Self {
            kept: Vec::new(),
            written: 0,
            unflushed: false,
            eof: false,
            done: false,
            farewell: Farewell::No,
            code: SERVICE_RESTART,
            ping: None,
            sieve: None,
            blocked: false,
            relieved: 0,
            writer,
            heard: 0,
            moved: 0,
            frames: Frames::new(writer),
        }
    }

    /// Moves what can be moved; ready when the sender is done and the receiver knows.
    pub(super) fn poll<R, W>(
        &mut self,
        from: &mut R,
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while !self.done {
            if self.frames.is_boundary() && self.is_due() {
                self.say_farewell();
            }
            if self.frames.is_boundary() && self.farewell == Farewell::No && !self.eof {
                self.say_ping();
            }
            ready!(self.poll_kept(to, cx))?;
            if self.farewell == Farewell::Said && (self.eof || self.frames.closed().is_some()) {
                ready!(self.poll_flush(to, cx))?;
                // The receiver's own Close may be on its way: it is shut when that is here.
                self.done = true;
                break;
            }
            if self.eof {
                // A receiver that is gone already needs no telling.
                drop(ready!(Pin::new(&mut *to).poll_shutdown(cx)));
                self.done = true;
                break;
            }
            let mut space = [const { MaybeUninit::uninit() }; CHUNK];
            let mut read = ReadBuf::uninit(&mut space);
            match Pin::new(&mut *from).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if read.filled().is_empty() => self.eof = true,
                Poll::Ready(Ok(())) => {
                    self.heard += u64::try_from(read.filled().len()).unwrap_or(u64::MAX);
                    self.pass(read.filled(), to, cx)?;
                }
                // TLS without its own end: the frames say whether something is missing.
                Poll::Ready(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                    self.eof = true;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::From)),
                Poll::Pending => {
                    ready!(self.poll_flush(to, cx))?;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush<W>(&mut self, to: &mut W, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>
    where
        W: AsyncWrite + Unpin,
    {
        if self.unflushed {
            if ready!(Pin::new(&mut *to).poll_flush(cx)).is_err() {
                return Poll::Ready(Err(Broken::To));
            }
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what was kept, and lets its memory go.
    fn poll_kept<W>(&mut self, to: &mut W, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>
    where
        W: AsyncWrite + Unpin,
    {
        while let Some(rest) = self.kept.get(self.written..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut *to).poll_write(cx, rest) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Broken::To)),
                Poll::Ready(Ok(count)) => {
                    self.written += count;
                    self.relieved =
                        self.relieved.wrapping_add(u32::from(std::mem::take(&mut self.blocked)));
                }
                Poll::Pending => {
                    self.blocked = true;
                    return Poll::Pending;
                }
            }
        }
        if !self.kept.is_empty() {
            self.kept = Vec::new();
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether our Close need not wait for more of the sender's.
    fn is_due(&self) -> bool {
        self.farewell == Farewell::Next || (self.farewell == Farewell::InPlace && self.eof)
    }

    /// Puts our Close behind everything that was passed on.
    fn say_farewell(&mut self) {
        let (bytes, length) = frames::close(self.writer, self.code);
        self.kept.extend(bytes.iter().take(length));
        self.unflushed = true;
        self.farewell = Farewell::Said;
    }

    /// Puts the Ping that is due behind everything that was passed on.
    fn say_ping(&mut self) {
        if let Some(payload) = self.ping.take() {
            let (bytes, length) = ping::ping(self.writer, payload);
            self.kept.extend(bytes.iter().take(length));
            self.unflushed = true;
        }
    }

    /// From here on nothing is passed on, and nothing said.
    pub(super) fn mute(&mut self) {
        (self.kept, self.written, self.unflushed) = (Vec::new(), 0, false);
        self.farewell = Farewell::Said;
    }

    /// Passes on what was just read, as far as it goes on.
    fn pass<W>(&mut self, data: &[u8], to: &mut W, cx: &mut Context<'_>) -> Result<(), Broken>
    where
        W: AsyncWrite + Unpin,
    {
        let joined = self.sieve.as_deref_mut().and_then(Sieve::release).map(|mut held| {
            held.extend_from_slice(data);
            held
        });
        let data = joined.as_deref().unwrap_or(data);
        // What lies between is followed and not yet written.
        let (mut written, mut passed) = (0, 0);
        while let Some(rest) = data.get(passed..).filter(|rest| !rest.is_empty()) {
            if self.leaves_before(rest) {
                self.write(data.get(written..passed).unwrap_or_default(), to, cx)?;
                self.say_farewell();
                self.swallow(rest);
                return Ok(());
            }
            if self.is_between() {
                let found = self.sieve.as_ref().map(|sieve| sieve.look(self.writer, rest));
                if self.ping.is_some() || !matches!(found, None | Some(Found::Other)) {
                    self.write(data.get(written..passed).unwrap_or_default(), to, cx)?;
                    written = passed;
                    self.say_ping();
                }
                match (found, &mut self.sieve) {
                    (Some(Found::Perhaps), Some(sieve)) => {
                        sieve.hold(rest);
                        return Ok(());
                    }
                    (Some(Found::Ours(length)), sieve) => {
                        // It stays for the answers to others.
                        sieve.take_if(|sieve| sieve.answered());
                        passed += length;
                        written = passed;
                        continue;
                    }
                    _ => {}
                }
            }
            passed += self.follow(rest);
        }
        if self.farewell == Farewell::Said {
            return Ok(());
        }
        self.write(data.get(written..).unwrap_or_default(), to, cx)
    }

    /// Whether something of ours may be put in or taken out here, and there is reason to look.
    fn is_between(&self) -> bool {
        (self.ping.is_some() || self.sieve.is_some())
            && self.farewell != Farewell::Said
            && self.frames.is_boundary()
    }

    /// Follows what is the receiver's to the end of a frame.
    fn follow(&mut self, rest: &[u8]) -> usize {
        let taken = self.frames.follow(rest);
        self.moved += u64::try_from(taken).unwrap_or(u64::MAX);
        taken
    }

    /// Whether our Close belongs before these bytes.
    fn leaves_before(&self, rest: &[u8]) -> bool {
        match self.farewell {
            Farewell::No | Farewell::Said => false,
            Farewell::Next => self.frames.is_boundary(),
            Farewell::InPlace => {
                self.frames.is_boundary() && rest.first().is_some_and(|b| Frames::begins_close(*b))
            }
        }
    }

    /// Follows what nobody gets any more.
    fn swallow(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            let taken = self.follow(rest);
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// Writes what was just read; what is not taken at once is kept.
    fn write<W>(&mut self, mut data: &[u8], to: &mut W, cx: &mut Context<'_>) -> Result<(), Broken>
    where
        W: AsyncWrite + Unpin,
    {
        if data.is_empty() {
            return Ok(());
        }
        self.unflushed = true;
        if !self.kept.is_empty() {
            self.kept.extend_from_slice(data);
            return Ok(());
        }
        while !data.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, data) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(Broken::To),
                Poll::Ready(Ok(count)) => data = data.get(count..).unwrap_or_default(),
                Poll::Pending => {
                    self.blocked = true;
                    self.kept.extend_from_slice(data);
                    break;
                }
            }
        }
        Ok(())
    }
}
