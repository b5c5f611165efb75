//! One socket: read, dispatch, write, ping, close.
//!
//! Walk: [`run`] lives through three phases: live; draining, until this socket's turn comes; and the
//! farewell, bounded in time. While live, one poll function drives everything of the socket: answers of
//! the bus ([`Sending`]), frames to the client ([`Delivery`]), frames from it, and one timer for all
//! deadlines. Nothing in it awaits, so a reader that does not read never keeps the session from ending.
//!
//! Invariants: the welcome is the first frame; a socket is not read while its answers cannot be written or
//! too many of its messages are under way; what is ready is written together and flushed once.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{FutureExt as _, Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::delivery::{Delivery, Given};
use super::ending::{End, Record};
use super::heartbeat::{Beat, Heartbeat};
use super::sending::Sending;
use super::{Admission, Limits, Place};
use crate::protocol::Close;
use crate::rate::Budget;

mod dispatch;
mod farewell;

/// Allocated with the socket and held for its life; frames that do not fit grow it for their time.
const READ_BUFFER: usize = 1024;
/// Bytes that are gathered before they are written without being flushed.
const WRITE_BUFFER: usize = 4 * 1024;
/// A JSON escape takes up to six bytes for one.
const ESCAPED: usize = 6;
/// Room in a frame for all that is not text: users, id, names of fields.
const FRAME_OVERHEAD: usize = 4 * 1024;
/// A write is begun only when the one before is through, so that one frame is the most that waits; this is more than the
/// largest that any hub, by its own settings, may have taken.
const LARGEST_WRITE: usize = 512 * 1024 * 1024;
/// A user in a list of them: the longest, quoted, each character escaped.
const LISTED: usize = 2 * 128 + 4;
/// Answers that may wait for one client before its frames are not read any more.
const MAX_REPLIES: usize = 64;
/// Frames read before what they gave rise to is written.
const READ_BATCH: usize = 16;

/// A frame over this leaves a read buffer behind that is too big to be kept.
const BIG_FRAME: usize = 2 * READ_BUFFER;

/// Serves one admitted socket to its end.
///
/// Not an `async fn`, whose state would hold the arguments beside the session that is made of them.
pub(super) fn run<S>(
    admission: Admission,
    socket: S,
    already_read: Bytes,
) -> impl Future<Output = ()> + Send + use<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let drain = admission.place.hub.drain.clone();
    let config = config(&admission.place.hub.limits);
    // Without a handshake there is nothing to wait for.
    let socket = if already_read.is_empty() {
        WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).now_or_never()
    } else {
        let part = already_read.into();
        WebSocketStream::from_partially_read(socket, part, Role::Server, Some(config))
            .now_or_never()
    };
    let mut session = socket.map(|socket| Session::new(admission, socket));
    async move {
        let Some(session) = &mut session else { return };
        let end = tokio::select! {
            biased;
            end = session.live(session.limits().retirement()) => Some(end),
            () = drain.draining() => None,
        };
        // Boxed, so that its memory is not held by every socket that is still alive.
        Box::pin(session.finish(end, &drain)).await;
    }
}

fn config(limits: &Limits) -> WebSocketConfig {
    let text = limits.terms.max_text_bytes.saturating_mul(ESCAPED);
    let list = limits.max_watched.saturating_mul(LISTED);
    let frame = text.max(list).saturating_add(FRAME_OVERHEAD);
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(LARGEST_WRITE)
        .max_message_size(Some(frame))
        .max_frame_size(Some(frame))
}

/// A big frame, held so that its memory is given back.
///
/// The socket reads into what is left behind the frame, and would then take all of its buffer over for good;
/// finding it in use, it takes a new one of the usual size.
struct Big {
    _frame: Utf8Bytes,
    /// Bytes that can still be read behind it.
    left: usize,
}

struct Session<S> {
    socket: WebSocketStream<S>,
    record: Record,
    delivery: Delivery,
    sending: Sending,
    /// Answers to the client's own frames; they pass by what is delivered.
    replies: VecDeque<Utf8Bytes>,
    heartbeat: Heartbeat,
    messages: Budget,
    bad_frames: Budget,
    refusals: Budget,
    /// Something was written and not flushed.
    unflushed: bool,
    /// The last write did not go through.
    blocked: bool,
    big: Option<Big>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    fn new(admission: Admission, socket: WebSocketStream<S>) -> Self {
        let Admission { place, cursor, accept_key: _, origin } = admission;
        let now = Instant::now();
        let heartbeat = Heartbeat::new(now, place.hub.limits.terms.ping_interval);
        Self {
            socket,
            delivery: Delivery::new(cursor, &place, now),
            record: Record::new(place, origin),
            sending: Sending::default(),
            replies: VecDeque::new(),
            heartbeat,
            messages: Budget::default(),
            bad_frames: Budget::default(),
            refusals: Budget::default(),
            unflushed: false,
            blocked: false,
            big: None,
        }
    }

    fn place(&self) -> &Place {
        &self.record.place
    }

    fn limits(&self) -> &Limits {
        &self.record.place.hub.limits
    }

    /// Serves until something ends the session, at the latest at `turn`.
    async fn live(&mut self, turn: Option<Instant>) -> End {
        let mut clock = pin!(sleep_until(self.deadline(turn)));
        std::future::poll_fn(|cx| self.poll(cx, clock.as_mut(), turn)).await
    }

    /// The next moment at which the clock has something to say.
    fn deadline(&self, turn: Option<Instant>) -> Instant {
        let beat = self.heartbeat.deadline();
        [turn, self.delivery.deadline()].into_iter().flatten().fold(beat, Instant::min)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut clock: Pin<&mut Sleep>,
        turn: Option<Instant>,
    ) -> Poll<End> {
        // Before anything is taken from it, so that no push goes unnoticed.
        self.place().seat.outbox.register(cx.waker());
        loop {
            let now = Instant::now();
            match self.step(cx, now, turn) {
                Err(end) => return Poll::Ready(end),
                Ok(true) => continue,
                Ok(false) => {}
            }
            let deadline = self.deadline(turn);
            if clock.deadline() != deadline {
                clock.as_mut().reset(deadline);
            }
            if clock.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Does what can be done now; true where there may be more at once.
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        turn: Option<Instant>,
    ) -> Result<bool, End> {
        if self.place().seat.outbox.has_overflowed() {
            return Err(End::Server(Close::TooSlow));
        }
        if self.place().seat.is_evicted() {
            return Err(End::Server(Close::Replaced));
        }
        self.on_time(now, turn)?;
        self.collect_answers(cx);
        self.delivery.advance(&self.record.place, now, cx);
        self.write(cx, now)?;
        self.read(cx, now)
    }

    fn on_time(&mut self, now: Instant, turn: Option<Instant>) -> Result<(), End> {
        if turn.is_some_and(|turn| turn <= now) {
            return Err(End::Server(Close::Restart));
        }
        self.delivery.wake(&self.record.place, now);
        let Limits { terms, pong_timeout, .. } = *self.limits();
        if self.waits_for_bus() {
            // Nothing is read meanwhile, however long the bus may take: silence is no fault of the client's.
            self.heartbeat.moved(now, pong_timeout);
        }
        match self.heartbeat.beat(now, terms.ping_interval, pong_timeout) {
            Beat::Quiet => Ok(()),
            Beat::Silent => Err(End::Server(Close::NoPong)),
            Beat::Ping => {
                // Where a write is stuck the ping queues up behind it.
                self.start_send(Message::Ping(Bytes::new()))?;
                self.delivery.shrink(&self.record.place);
                self.sending.shrink();
                if self.replies.is_empty() {
                    self.replies = VecDeque::new();
                }
                Ok(())
            }
        }
    }

    /// Writes all there is, as far as the connection takes it, and flushes once.
    fn write(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), End> {
        let mut messages = 0;
        let written = loop {
            match Pin::new(&mut self.socket).poll_ready(cx) {
                Poll::Pending => {
                    self.blocked = true;
                    self.delivery.release(&self.record.place);
                    break Ok(());
                }
                Poll::Ready(Err(error)) => break Err(End::from_error(&error)),
                Poll::Ready(Ok(())) => {}
            }
            if std::mem::take(&mut self.blocked) {
                let timeout = self.limits().pong_timeout;
                self.heartbeat.moved(now, timeout);
            }
            let Some(given) = self.next_frame(now, cx) else { break Ok(()) };
            if let Some(taken_ms) = given.taken_ms {
                self.place().region.metrics.lag.observe(seconds_since(taken_ms));
            }
            messages += u64::from(given.message);
            self.record.sent.count(given.frame.len());
            if let Err(end) = self.start_send(Message::Text(given.frame)) {
                break Err(end);
            }
        };
        if messages > 0 {
            self.place().region.metrics.delivered.inc_by(messages);
        }
        written?;
        if self.unflushed && !self.blocked {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Err(End::from_error(&error)),
            }
        }
        Ok(())
    }

    fn next_frame(&mut self, now: Instant, cx: &mut Context<'_>) -> Option<Given> {
        match self.replies.pop_front() {
            Some(frame) => Some(Given::notice(frame)),
            None => self.delivery.next(&self.record.place, now, cx),
        }
    }

    fn start_send(&mut self, message: Message) -> Result<(), End> {
        self.unflushed = true;
        Pin::new(&mut self.socket).start_send(message).map_err(|error| match error {
            // No frame of ours is that big; one from elsewhere cannot be given to this reader.
            Error::WriteBufferFull(_) => End::Server(Close::TooSlow),
            error => End::from_error(&error),
        })
    }

    /// Reads a few frames; true where there were any.
    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, End> {
        let mut count = 0;
        while count < READ_BATCH && self.may_read() {
            let polled = Pin::new(&mut self.socket).poll_next(cx);
            match polled {
                Poll::Pending => break,
                Poll::Ready(None) => return Err(End::Network),
                Poll::Ready(Some(Err(error))) => return Err(End::from_error(&error)),
                Poll::Ready(Some(Ok(message))) => {
                    self.note_size(&message);
                    self.on_message(message, cx, now)?;
                }
            }
            count += 1;
        }
        Ok(count > 0)
    }

    fn note_size(&mut self, message: &Message) {
        let size = message.len();
        if let Message::Text(frame) = message
            && size > BIG_FRAME
        {
            self.big = Some(Big { _frame: frame.clone(), left: READ_BUFFER });
        } else if let Some(big) = &mut self.big {
            big.left = big.left.saturating_sub(size);
            if big.left == 0 {
                self.big = None;
            }
        }
    }

    fn may_read(&self) -> bool {
        self.replies.len() < MAX_REPLIES && !self.waits_for_bus()
    }

    /// Whether the bus has to answer before the client is heard: to the join, or to as many messages as one
    /// connection may have under way.
    fn waits_for_bus(&self) -> bool {
        !self.delivery.has_joined() || self.sending.is_full()
    }
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// From a moment in milliseconds since the Unix epoch until now; clocks of two hubs may differ.
fn seconds_since(at_ms: u64) -> f64 {
    Duration::from_millis(now_ms().saturating_sub(at_ms)).as_secs_f64()
}

#[cfg(test)]
mod tests;
