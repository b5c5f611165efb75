//! Bytes both ways between a client and a backend after an upgrade, until one of them is done, or the tunnel's turn
//! to leave comes.
//!
//! Walk: `owner` holds a tunnel and knows its turn, `record` what is told of it; [`run`] joins its two directions, each of which `way` moves and
//! `frames` follows, until the [`Outcome`] is there that `goodbye` then says. Meanwhile `pulse` asks silent ends whether they are there, with the
//! Pings of `ping`, and `probation` judges a backend by the first seconds. An idle tunnel holds no buffer.
//!
//! A side that closes its half lets the other finish what it has to say, but not for ever.
//!
//! At its turn a tunnel says goodbye as a WebSocket does (RFC 6455, 7): the client gets a Close 1012 between two
//! frames; everything that it says until it has answered still reaches the backend, which then gets a Close 1012 in
//! place of the client's; its answer ends the tunnel. Each step is bounded: a client that does not answer is not
//! waited for, a frame that does not end is cut. Bytes that are no frames are cut at once, for nothing can be put
//! between them.

mod frames;
mod goodbye;
mod owner;
mod ping;
mod probation;
mod pulse;
mod record;
#[cfg(test)]
mod tests;
mod way;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};

use self::frames::Writer;
pub(super) use self::owner::{Count, Tunnel, Tunnels};
use self::probation::Probation;
pub(super) use self::pulse::Liveness;
use self::pulse::Pulse;
pub(super) use self::record::{Handshake, Record};
use self::way::{Broken, Way};

/// The code of a Close that asks to connect anew (the registry of RFC 6455, 11.7).
const SERVICE_RESTART: u16 = 1012;
/// … that an end is gone, and that it could not do what it should (RFC 6455, 7.4.1).
const GOING_AWAY: u16 = 1001;
const SERVER_ERROR: u16 = 1011;

/// How long nothing may move once a side has closed its half.
const FIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Who ended a tunnel, or what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndedBy {
    Client,
    Backend,
    Idle,
    /// It did not answer a Ping, or took nothing for as long.
    ClientLost,
    BackendLost,
    /// The process goes down.
    Drain,
    /// An operator takes the backend out.
    BackendDrain,
    /// It was as old as a tunnel may become.
    Age,
    /// Whoever should serve it can again.
    Rebalance,
}

impl EndedBy {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Idle => "idle",
            Self::ClientLost => "client_lost",
            Self::BackendLost => "backend_lost",
            Self::Drain => "drain",
            Self::BackendDrain => "backend_drain",
            Self::Age => "age",
            Self::Rebalance => "rebalance",
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
#[derive(Debug)]
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

    /// Whether a Close or a Ping can be put in still, apart from where the frames are.
    fn are_open(&self) -> bool {
        !self.are_broken()
            && !self.halves_done()
            && !self.up.frames.is_closing()
            && !self.down.frames.is_closing()
    }

    fn are_broken(&self) -> bool {
        self.up.frames.is_broken() || self.down.frames.is_broken()
    }
}

/// Why there is nothing more to move.
enum Outcome {
    Ended(EndedBy),
    Leave(EndedBy),
    /// One end is gone, and the other does not know.
    Lost(EndedBy),
}

/// Moves bytes both ways until both sides are done, one breaks or is gone, the clock's time is over, or the turn comes
/// and the goodbye is said. `tally` is kept up to date, so that it stands when the caller gives up on its own.
///
/// Not an `async fn`, whose state would hold the clock beside itself.
fn run<'a, C, B, T>(
    client: &'a mut C,
    backend: &'a mut B,
    mut clock: Clock<'a>,
    mut turn: Pin<&'a mut T>,
    tally: &'a mut Tally,
) -> impl Future<Output = EndedBy> + use<'a, C, B, T>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
    T: Future<Output = EndedBy>,
{
    let mut ways = Ways::new();
    async move {
        let mut sleep = pin!(sleep_until(clock.deadline()));
        let outcome = poll_fn(|cx| {
            loop {
                let ended = ways.poll(client, backend, cx);
                clock.note(&mut ways, tally);
                let ended = match ended {
                    Poll::Ready(by) => Some(ways.first.unwrap_or(by)),
                    Poll::Pending => None,
                };
                clock.judge(ended.or(ways.first), &ways, tally, cx);
                if let Some(by) = ended {
                    return Poll::Ready(Outcome::Ended(by));
                }
                let deadline = clock.deadline();
                if deadline < sleep.deadline() {
                    sleep.as_mut().reset(deadline);
                }
                if sleep.as_mut().poll(cx).is_pending() {
                    return turn.as_mut().poll(cx).map(Outcome::Leave);
                }
                if let Some(outcome) = clock.look(&mut ways) {
                    return Poll::Ready(outcome);
                }
                // A Ping may have come to be said.
                sleep.as_mut().reset(clock.deadline());
            }
        })
        .await;
        // Boxed: a tunnel should be no larger all its life for its last moments.
        match outcome {
            Outcome::Ended(by) => by,
            Outcome::Leave(why) => {
                let why = ways.first.unwrap_or(why);
                Box::pin(goodbye::leave(&mut ways, client, backend, tally)).await;
                why
            }
            Outcome::Lost(who) => {
                Box::pin(goodbye::mourn(&mut ways, client, backend, who, tally)).await;
                who
            }
        }
    }
}

/// When to look at a tunnel on which nothing moves. What few tunnels have, or not for long, is boxed.
struct Clock<'a> {
    /// Nothing may move for as long.
    idle: Duration,
    moved: Instant,
    half_closed: bool,
    pulse: Option<Box<Pulse>>,
    probation: Option<Box<Probation<'a>>>,
}

impl<'a> Clock<'a> {
    /// `liveness` says how the ends are asked whether they are there, if they are.
    fn new(
        idle: Duration,
        liveness: Option<Liveness>,
        probation: Option<Box<Probation<'a>>>,
    ) -> Self {
        let pulse = liveness.map(|liveness| Box::new(Pulse::new(liveness)));
        Self { idle, moved: Instant::now(), half_closed: false, pulse, probation }
    }

    /// Takes note of what the ways have moved.
    fn note(&mut self, ways: &mut Ways, tally: &mut Tally) {
        if ways.note(tally) {
            self.moved = Instant::now();
        }
        if ways.halves_done() && !self.half_closed {
            self.half_closed = true;
            (self.idle, self.moved) = (self.idle.min(FIN_TIMEOUT), Instant::now());
        }
        if !ways.are_open()
            && let Some(pulse) = self.pulse.take()
            && !ways.are_broken()
        {
            // No Ping may follow a Close; an end that is gone does not answer one either.
            (self.idle, self.moved) = (self.idle.min(pulse.patience()), Instant::now());
        }
        if let Some(pulse) = &mut self.pulse {
            pulse.note(ways);
        }
    }

    /// Has the backend judged by the first seconds: `first` has begun to end the tunnel.
    fn judge(&mut self, first: Option<EndedBy>, ways: &Ways, tally: &Tally, cx: &mut Context<'_>) {
        if let Some(probation) = &mut self.probation
            && probation.look(first, tally.close, ways.are_broken(), cx).is_ready()
        {
            self.probation = None;
        }
    }

    fn deadline(&self) -> Instant {
        let idle = self.moved + self.idle;
        self.pulse.as_ref().map_or(idle, |pulse| idle.min(pulse.deadline()))
    }

    /// The deadline may have come; the timer is moved on only when it fires.
    fn look(&mut self, ways: &mut Ways) -> Option<Outcome> {
        if self.moved + self.idle <= Instant::now() {
            return Some(Outcome::Ended(ways.first.unwrap_or(EndedBy::Idle)));
        }
        let pulse = self.pulse.as_mut()?;
        pulse.look(ways).map(Outcome::Lost)
    }
}
