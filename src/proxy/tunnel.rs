//! Bytes both ways between a client and a backend after an upgrade, until one of them is done, or the tunnel's turn
//! to leave comes.
//!
//! Walk: `owner` holds a tunnel and knows its turn, `record` what is told of it; [`run`] joins its two directions, each of which `way` moves and
//! `frames` follows. An idle tunnel holds no buffer.
//!
//! A side that closes its half lets the other finish what it has to say, but not for ever.
//!
//! At its turn a tunnel says goodbye as a WebSocket does (RFC 6455, 7): the client gets a Close 1012 between two
//! frames; everything that it says until it has answered still reaches the backend, which then gets a Close 1012 in
//! place of the client's; its answer ends the tunnel. Each step is bounded: a client that does not answer is not
//! waited for, a frame that does not end is cut. Bytes that are no frames are cut at once, for nothing can be put
//! between them.

mod frames;
mod owner;
mod record;
#[cfg(test)]
mod tests;
mod way;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use self::frames::Writer;
pub(super) use self::owner::{Count, Tunnel, Tunnels};
pub(super) use self::record::{Handshake, Record};
use self::way::{Broken, Farewell, Way};

/// The code of a Close that asks to connect anew (the registry of RFC 6455, 11.7).
const SERVICE_RESTART: u16 = 1012;

/// How long nothing may move once a side has closed its half.
const FIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to answer our Close before the backend is told without it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the whole goodbye may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// Who ended a tunnel, or what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndedBy {
    Client,
    Backend,
    Idle,
    /// The process goes down.
    Drain,
    /// An operator takes the backend out.
    BackendDrain,
    /// It was as old as a tunnel may become.
    Age,
}

impl EndedBy {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Idle => "idle",
            Self::Drain => "drain",
            Self::BackendDrain => "backend_drain",
            Self::Age => "age",
        }
    }
}

/// What went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Bytes from the client.
    pub(super) up: u64,
    pub(super) down: u64,
    /// Frames from the client, as far as there were any.
    pub(super) frames_up: u64,
    pub(super) frames_down: u64,
    /// The code of the first Close, whoever sent it.
    pub(super) close: Option<u16>,
}

/// Both directions.
struct Ways {
    up: Way,
    down: Way,
    /// Who was the first to end it.
    first: Option<EndedBy>,
}

impl Ways {
    fn new() -> Self {
        Self { up: Way::new(Writer::Client), down: Way::new(Writer::Server), first: None }
    }

    /// Moves what can be moved; ready when there is nothing more to come.
    fn poll<C, B>(&mut self, client: &mut C, backend: &mut B, cx: &mut Context<'_>) -> Poll<EndedBy>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        let sent = self.up.poll(client, backend, cx);
        let received = self.down.poll(backend, client, cx);
        let ended = match (sent, received) {
            (Poll::Ready(Err(Broken::To)), _) | (_, Poll::Ready(Err(Broken::From))) => {
                EndedBy::Backend
            }
            (Poll::Ready(Err(Broken::From)), _)
            | (_, Poll::Ready(Err(Broken::To)))
            | (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => EndedBy::Client,
            _ => return Poll::Pending,
        };
        Poll::Ready(self.first.unwrap_or(ended))
    }

    /// Writes down what has moved; whether anything has since the last time.
    fn note(&mut self, tally: &mut Tally) -> bool {
        let moved = (tally.up, tally.down) != (self.up.moved, self.down.moved);
        if moved {
            (tally.up, tally.down) = (self.up.moved, self.down.moved);
            tally.frames_up = self.up.frames.count();
            tally.frames_down = self.down.frames.count();
        }
        if self.first.is_none() {
            let up = self.up.frames.closed().map(|code| (EndedBy::Client, code));
            let down = || self.down.frames.closed().map(|code| (EndedBy::Backend, code));
            if let Some((by, code)) = up.or_else(down) {
                (self.first, tally.close) = (Some(by), Some(code));
            } else if self.up.done || self.down.done {
                self.first = Some(if self.up.done { EndedBy::Client } else { EndedBy::Backend });
            }
        }
        moved
    }

    fn halves_done(&self) -> bool {
        self.up.done || self.down.done
    }

    /// Begins the goodbye; false where nothing can be said.
    fn leave(&mut self, tally: &mut Tally) -> bool {
        if self.up.frames.is_broken() || self.down.frames.is_broken() {
            return false;
        }
        // Where the ends are closing already, nothing is to be added but the bound.
        let closing = self.up.frames.is_closing() || self.down.frames.is_closing();
        if !closing && !self.halves_done() {
            (self.down.farewell, self.up.farewell) = (Farewell::Next, Farewell::InPlace);
            tally.close = Some(SERVICE_RESTART);
        }
        true
    }

    /// The client did not answer: the backend is told without it.
    fn give_client_up(&mut self) {
        if self.up.farewell == Farewell::InPlace {
            self.up.farewell = Farewell::Next;
        }
    }
}

/// Moves bytes both ways until both sides are done, one breaks, nothing moves for `idle_timeout`, or `turn` ends and
/// the goodbye is said. `tally` is kept up to date, so that it stands when the caller gives up on its own.
pub(super) async fn run<C, B>(
    client: &mut C,
    backend: &mut B,
    idle_timeout: Duration,
    mut turn: Pin<&mut impl Future<Output = EndedBy>>,
    tally: &mut Tally,
) -> EndedBy
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut ways = Ways::new();
    let mut idle = Idle { limit: idle_timeout, last: Instant::now() };
    let mut half_closed = false;
    let mut sleep = pin!(sleep_until(idle.last + idle.limit));
    let ended = poll_fn(|cx| {
        let ended = ways.poll(client, backend, cx);
        if ways.note(tally) {
            idle.last = Instant::now();
        }
        if ways.halves_done() && !half_closed {
            half_closed = true;
            idle = Idle { limit: idle.limit.min(FIN_TIMEOUT), last: Instant::now() };
            sleep.as_mut().reset(idle.last + idle.limit);
        }
        if let Poll::Ready(by) = ended {
            return Poll::Ready(Step::Ended(ways.first.unwrap_or(by)));
        }
        if idle.poll(sleep.as_mut(), cx).is_ready() {
            return Poll::Ready(Step::Ended(ways.first.unwrap_or(EndedBy::Idle)));
        }
        turn.as_mut().poll(cx).map(Step::Leave)
    })
    .await;
    let why = match ended {
        Step::Ended(by) => return by,
        Step::Leave(why) => ways.first.unwrap_or(why),
    };
    if ways.leave(tally) {
        // Boxed: a tunnel should be no larger all its life for its last moments.
        Box::pin(goodbye(&mut ways, client, backend, sleep, tally)).await;
    }
    why
}

enum Step {
    Ended(EndedBy),
    Leave(EndedBy),
}

/// From the turn to the end of both, within the bound.
async fn goodbye<C, B>(
    ways: &mut Ways,
    client: &mut C,
    backend: &mut B,
    mut sleep: Pin<&mut Sleep>,
    tally: &mut Tally,
) where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let began = Instant::now();
    let close = tally.close;
    sleep.as_mut().reset(began + ANSWER_TIMEOUT);
    let mut given_up = false;
    poll_fn(|cx| {
        loop {
            let ended = ways.poll(client, backend, cx);
            ways.note(tally);
            tally.close = close.or(tally.close);
            if ended.is_ready() || (given_up && ways.down.done) {
                return Poll::Ready(());
            }
            ready!(sleep.as_mut().poll(cx));
            if given_up {
                return Poll::Ready(());
            }
            given_up = true;
            ways.give_client_up();
            sleep.as_mut().reset(began + GOODBYE_TIMEOUT);
        }
    })
    .await;
    // Told to both in order, where they still listen: TLS and HTTP/2 have an end of their own.
    let both = async { tokio::join!(client.shutdown(), backend.shutdown()) };
    drop(timeout(Duration::from_millis(100), both).await);
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
