//! One open connection: writes what the outbox has, reads frames, notices when the other side has gone silent.
//!
//! Invariants: everything is done by polls that keep their state here, so that whoever awaits may stop awaiting at
//! any moment and nothing is lost; nothing is sent before the welcome.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink as _, Stream as _};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::connect::Io;
use super::frames::{self, ServerFrame, Welcome};
use super::outbox::Outbox;

/// Before the welcome, and after the server's close frame, this is how long there may be silence.
const HANDSHAKE: Duration = Duration::from_secs(10);
const FAREWELL: Duration = Duration::from_secs(1);
/// On top of the interval of the server's pings.
const SLACK: Duration = Duration::from_secs(15);
/// What is believed of a server's word about that interval.
const PINGS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(10));
/// Typing notices and the like that may wait; one more is dropped.
const MOST_NOTICES: usize = 16;

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum Happened {
    Frame(ServerFrame),
    /// The connection is gone; the code is 1006 where the server sent none.
    Gone {
        code: u16,
        why: String,
    },
    /// The moment that the server named to connect again at has come.
    Planned,
}

/// How a connection ended, from the server's close frame.
#[derive(Debug)]
struct Closing {
    code: u16,
    reason: String,
}

pub(super) struct Link {
    socket: WebSocketStream<Box<dyn Io>>,
    pub(super) opened: Instant,
    welcomed: bool,
    /// The last sign of life.
    heard: Instant,
    /// A longer silence than this is the end.
    silence: Duration,
    /// When the server wants to be left; it closes by itself soon after.
    planned: Option<Instant>,
    /// Frames that are not messages; they go first.
    notices: VecDeque<Utf8Bytes>,
    closing: Option<Closing>,
    unflushed: bool,
    clock: Pin<Box<Sleep>>,
    /// The largest message that the server takes.
    pub(super) max_text: Option<usize>,
}

impl Link {
    pub(super) fn new(socket: WebSocketStream<Box<dyn Io>>) -> Self {
        let now = Instant::now();
        Self {
            socket,
            opened: now,
            welcomed: false,
            heard: now,
            silence: HANDSHAKE,
            planned: None,
            notices: VecDeque::new(),
            closing: None,
            unflushed: false,
            clock: Box::pin(sleep_until(now + HANDSHAKE)),
            max_text: None,
        }
    }

    pub(super) fn welcome(&mut self, welcome: &Welcome) {
        self.welcomed = true;
        self.max_text = welcome.max_text_bytes;
        let pings = welcome.ping_interval_ms.map_or(PINGS.1, Duration::from_millis);
        self.silence = pings.clamp(PINGS.0, PINGS.1) + SLACK;
    }

    pub(super) fn is_welcomed(&self) -> bool {
        self.welcomed
    }

    /// The server will close: connect again after this time.
    pub(super) fn plan(&mut self, after: Duration) {
        self.planned = Some(Instant::now() + after);
    }

    pub(super) fn planned(&self) -> Option<Instant> {
        self.planned
    }

    /// Sends a frame that is no message, as soon as it can be.
    pub(super) fn notice(&mut self, frame: Utf8Bytes) {
        if self.notices.len() < MOST_NOTICES {
            self.notices.push_back(frame);
        }
    }

    /// Awaits what happens next. Safe to stop awaiting.
    pub(super) async fn next(&mut self, outbox: &mut Outbox) -> Happened {
        std::future::poll_fn(|cx| self.poll(outbox, cx)).await
    }

    fn poll(&mut self, outbox: &mut Outbox, cx: &mut Context<'_>) -> Poll<Happened> {
        loop {
            let now = Instant::now();
            if let Err(error) = self.write(outbox, now, cx) {
                return Poll::Ready(self.gone(&error));
            }
            if let Poll::Ready(happened) = self.read(now, cx) {
                return Poll::Ready(happened);
            }
            if let Some(happened) = self.overdue(outbox, now) {
                return Poll::Ready(happened);
            }
            let deadline = self.deadline(outbox);
            if self.clock.deadline() != deadline {
                self.clock.as_mut().reset(deadline);
            }
            if self.clock.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn write(
        &mut self,
        outbox: &mut Outbox,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Result<(), Error> {
        while self.welcomed && self.closing.is_none() {
            if Pin::new(&mut self.socket).poll_ready(cx)?.is_pending() {
                return Ok(());
            }
            let Some(frame) = self.notices.pop_front().or_else(|| outbox.next(now)) else { break };
            Pin::new(&mut self.socket).start_send(Message::Text(frame))?;
            self.unflushed = true;
        }
        if self.unflushed && Pin::new(&mut self.socket).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        Ok(())
    }

    fn read(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<Happened> {
        loop {
            let message = match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(self.gone(&Error::ConnectionClosed)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(self.gone(&error)),
                Poll::Ready(Some(Ok(message))) => message,
            };
            self.heard = now;
            match message {
                Message::Text(text) => return Poll::Ready(Happened::Frame(frames::read(&text))),
                Message::Close(frame) => {
                    self.closing = Some(Closing::of(frame));
                    self.silence = FAREWELL;
                }
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
            // The library has queued a pong, or the answer to a close.
            self.unflushed = true;
            drop(Pin::new(&mut self.socket).poll_flush(cx));
        }
    }

    fn overdue(&mut self, outbox: &Outbox, now: Instant) -> Option<Happened> {
        if self.heard + self.silence <= now {
            let why = "nothing was heard from the gateway for too long";
            return Some(
                self.gone(&Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, why))),
            );
        }
        if outbox.is_overdue(now) {
            let why = "the gateway did not answer in time".to_owned();
            return Some(Happened::Gone { code: 1006, why });
        }
        self.planned.is_some_and(|planned| planned <= now).then_some(Happened::Planned)
    }

    fn deadline(&self, outbox: &Outbox) -> Instant {
        [self.planned, outbox.deadline()]
            .into_iter()
            .flatten()
            .fold(self.heard + self.silence, Instant::min)
    }

    fn gone(&mut self, error: &Error) -> Happened {
        if let Some(Closing { code, reason }) = self.closing.take() {
            let why = if reason.is_empty() { format!("closed with {code}") } else { reason };
            return Happened::Gone { code, why };
        }
        let why = match error {
            Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_) => {
                "the connection was cut".to_owned()
            }
            error => error.to_string(),
        };
        Happened::Gone { code: 1006, why }
    }

    /// Says goodbye, and waits a moment for the answer.
    pub(super) async fn close(mut self) {
        let farewell = async {
            let socket = &mut self.socket;
            if socket.close(None).await.is_ok() {
                let ended = std::future::poll_fn(|cx| {
                    while let Poll::Ready(next) = Pin::new(&mut *socket).poll_next(cx) {
                        if !matches!(next, Some(Ok(_))) {
                            return Poll::Ready(());
                        }
                    }
                    Poll::Pending
                });
                ended.await;
            }
        };
        // A server that does not answer is left without.
        drop(tokio::time::timeout(FAREWELL, farewell).await);
    }
}

impl Closing {
    fn of(frame: Option<CloseFrame>) -> Self {
        frame.map_or_else(
            || Self { code: 1005, reason: String::new() },
            |frame| Self { code: frame.code.into(), reason: frame.reason.to_string() },
        )
    }
}
