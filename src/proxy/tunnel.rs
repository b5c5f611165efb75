//! Bytes both ways between a client and a backend after an upgrade, until one of them is done.
//!
//! An idle tunnel holds no buffer: what is read stands on the stack until it is written, and only what
//! the slower side did not take yet is kept, at most one read in each direction.
//!
//! A side that closes its half lets the other finish what it has to say, but not for ever.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes of one read; also the most that is kept for a slow side.
const CHUNK: usize = 8 * 1024;

/// How long nothing may move once a side has closed its half.
const FIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Who ended a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndedBy {
    Client,
    Backend,
    Idle,
    Drain,
}

impl EndedBy {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Idle => "idle",
            Self::Drain => "drain",
        }
    }
}

/// Bytes that went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// From the client to the backend.
    pub(super) up: u64,
    pub(super) down: u64,
}

/// Which end of a way failed.
enum Broken {
    From,
    To,
}

/// One direction.
#[derive(Default)]
struct Way {
    /// What was read and not yet written.
    kept: Vec<u8>,
    written: usize,
    unflushed: bool,
    eof: bool,
    done: bool,
    moved: u64,
}

impl Way {
    /// Moves what can be moved; ready when the sender is done and the receiver knows.
    fn poll<R, W>(
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
            ready!(self.poll_kept(to, cx))?;
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
                    self.moved += u64::try_from(read.filled().len()).unwrap_or(u64::MAX);
                    self.write(read.filled(), to, cx)?;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::From)),
                Poll::Pending => {
                    if self.unflushed {
                        let flushed = ready!(Pin::new(&mut *to).poll_flush(cx));
                        if flushed.is_err() {
                            return Poll::Ready(Err(Broken::To));
                        }
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what was kept, and lets its memory go.
    fn poll_kept<W>(&mut self, to: &mut W, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>
    where
        W: AsyncWrite + Unpin,
    {
        while let Some(rest) = self.kept.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *to).poll_write(cx, rest)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(Broken::To)),
                Ok(count) => self.written += count,
            }
        }
        if !self.kept.is_empty() {
            self.kept = Vec::new();
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what was just read; what is not taken at once is kept.
    fn write<W>(&mut self, mut data: &[u8], to: &mut W, cx: &mut Context<'_>) -> Result<(), Broken>
    where
        W: AsyncWrite + Unpin,
    {
        self.unflushed = true;
        while !data.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, data) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(Broken::To),
                Poll::Ready(Ok(count)) => data = data.get(count..).unwrap_or_default(),
                Poll::Pending => {
                    self.kept.extend_from_slice(data);
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Moves bytes both ways until both sides are done, one breaks, or nothing moves for `idle_timeout`.
/// `moved` is kept up to date, so that it stands when the caller gives up on its own.
pub(super) async fn run<C, B>(
    client: &mut C,
    backend: &mut B,
    idle_timeout: Duration,
    moved: &mut Moved,
) -> EndedBy
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Way::default(), Way::default());
    let mut first = None;
    let mut idle = Idle { limit: idle_timeout, last: Instant::now() };
    let mut sleep = pin!(sleep_until(idle.last + idle.limit));
    poll_fn(|cx| {
        let sent = up.poll(client, backend, cx);
        let received = down.poll(backend, client, cx);
        let now = Moved { up: up.moved, down: down.moved };
        let halves = u8::from(up.done) + u8::from(down.done);
        if now != *moved {
            *moved = now;
            idle.last = Instant::now();
        }
        if first.is_none() && halves > 0 {
            first = Some(if up.done { EndedBy::Client } else { EndedBy::Backend });
            idle = Idle { limit: idle.limit.min(FIN_TIMEOUT), last: Instant::now() };
            sleep.as_mut().reset(idle.last + idle.limit);
        }
        match (sent, received) {
            (Poll::Ready(Err(Broken::To)), _) | (_, Poll::Ready(Err(Broken::From))) => {
                Poll::Ready(first.unwrap_or(EndedBy::Backend))
            }
            (Poll::Ready(Err(Broken::From)), _)
            | (_, Poll::Ready(Err(Broken::To)))
            | (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                Poll::Ready(first.unwrap_or(EndedBy::Client))
            }
            _ => idle.poll(sleep.as_mut(), cx).map(|()| first.unwrap_or(EndedBy::Idle)),
        }
    })
    .await
}

struct Idle {
    limit: Duration,
    last: Instant,
}

impl Idle {
    /// The timer is moved on only when it fires.
    fn poll(&self, mut sleep: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(sleep.as_mut().poll(cx));
            let deadline = self.last + self.limit;
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests;
