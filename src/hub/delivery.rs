//! What one client is given of an inbox: the join, the replay, the live messages, and the holes between.
//!
//! Walk: a [`Delivery`] begins by joining (subscribe, wait until that is sure, read the inbox), while the
//! seat's outbox keeps what comes; the first answer is the welcome. Then the messages that were read are
//! given, then the outbox, each held against the [`Cursor`]; where that asks for it, the inbox is read
//! again and the outbox waits. An inbox that is too big to be held for one reader is read in pages.
//!
//! Invariants: nothing is given before the welcome; one read at a time; while a read has to wait (the bus
//! is away), live messages that do not follow are passed over, since the read will bring them; and so are all
//! between an interruption of the live path and the next read, whatever their positions. No socket is given a message
//! again that its [`Trail`] knows, also where the epoch changed.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::Place;
use super::cursor::{Cursor, Judgement, Verdict};
use super::outbox::{Item, Released};
use super::presence::Watching;
use super::relay::{self, Read, Replay, Seq, Subscription};
use super::trail::Trail;
use crate::protocol::outgoing;

/// A read that failed is tried again after this time and up to as much again, if no notice comes first; the
/// time doubles with each failure, so that a bus that is away for long is not asked by everybody all the time.
const RETRY: Duration = Duration::from_millis(100);
/// … up to about five seconds.
const DOUBLINGS: u8 = 5;

/// For this long after a read, the live path may still bring what was read.
const OVERLAP: Duration = Duration::from_secs(5);

/// What came live after it had been read is most likely the overlap of the two, but a history that began anew looks the
/// same; so the inbox is asked after this time and up to as much again.
const CONFIRM: Duration = Duration::from_secs(1);

/// After an interruption, all users of the process read their inboxes at this rate, spread at random.
const READS_A_SECOND: f64 = 20_000.0;
/// … unless so few are here that it is a matter of milliseconds.
const FEW_USERS: usize = 500;

/// The way from the inbox to one socket.
pub(super) struct Delivery {
    cursor: Cursor,
    /// What was given last; most sockets are given nothing for long.
    trail: Option<Box<Trail>>,
    phase: Phase,
    reading: Option<Pin<Box<dyn Future<Output = Read> + Send>>>,
    /// What a read brought to tell, and is not given yet.
    announced: Option<Utf8Bytes>,
    /// A read is due then; until it is done, live messages that do not follow are passed over.
    read_at: Option<Instant>,
    /// A read is due then, to make sure that the history is still the same; until it is done, all goes on.
    confirm_at: Option<Instant>,
    /// The live path was interrupted, or was never there: what it brings may belong to another history, however well it
    /// seems to follow, until the inbox has been read.
    in_doubt: bool,
    /// Reads that failed in a row, counted up to [`DOUBLINGS`].
    failures: u8,
    /// When the last read was done.
    read_done: Instant,
    /// Held for the life of the socket.
    subscription: Option<Subscription>,
    /// What was read and is not given yet.
    replay: std::vec::IntoIter<(Seq, Bytes)>,
    /// The inbox holds more than was read: it is read on when that is given.
    has_more: bool,
    /// What was taken from the outbox and is not given yet.
    batch: VecDeque<Item>,
    released: Released,
    /// Whom the client watches; most watch nobody.
    pub(super) watching: Option<Box<Watching>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before the welcome.
    Joining,
    /// Welcomed without a position, since the bus was away.
    Blind,
    Live,
}

/// One frame for the client.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) frame: Utf8Bytes,
    /// It is a message; a [`Given`] that is not is a notice of the hub's or another user's.
    pub(super) message: bool,
    /// When the sender's hub took it, in milliseconds since the Unix epoch; of a sample.
    pub(super) taken_ms: Option<u64>,
}

impl Given {
    pub(super) fn notice(frame: Utf8Bytes) -> Self {
        Self { frame, message: false, taken_ms: None }
    }
}

impl Delivery {
    /// Begins the join of `place`.
    pub(super) fn new(cursor: Cursor, place: &Place, now: Instant) -> Self {
        let join = place.hub.relay.join(&place.user, cursor.wants());
        Self {
            cursor,
            trail: None,
            phase: Phase::Joining,
            reading: Some(Box::pin(join)),
            announced: None,
            read_at: None,
            confirm_at: None,
            in_doubt: true,
            failures: 0,
            read_done: now,
            subscription: None,
            replay: Vec::new().into_iter(),
            has_more: false,
            batch: VecDeque::new(),
            released: Released::default(),
            watching: None,
        }
    }

    /// Whether the welcome was given.
    pub(super) fn has_joined(&self) -> bool {
        self.phase != Phase::Joining
    }

    /// When [`Delivery::wake`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.read_at, self.confirm_at].into_iter().flatten().min()
    }

    /// Begins the read that is due.
    pub(super) fn wake(&mut self, place: &Place, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.read(place, self.cursor.wants());
        }
    }

    /// Takes what a read brought. To be called whenever the task runs, also while nothing can be written: an
    /// answer that nobody takes would hold one of the few places of the bus.
    pub(super) fn advance(&mut self, place: &Place, now: Instant, cx: &mut Context<'_>) {
        while let Some(reading) = &mut self.reading {
            let Poll::Ready(read) = reading.as_mut().poll(cx) else { return };
            self.reading = None;
            // What a reader that is slow was not told yet is still true.
            self.announced = self.was_read(read, place, now).or_else(|| self.announced.take());
        }
    }

    /// Lets go of a read under way: the socket is about to close.
    pub(super) fn stop_reading(&mut self) {
        self.reading = None;
        self.read_at = None;
        self.confirm_at = None;
        self.has_more = false;
    }

    /// The next frame, where there is one. Otherwise the task is woken when there may be one: the caller has
    /// registered with the outbox.
    pub(super) fn next(
        &mut self,
        place: &Place,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Option<Given> {
        loop {
            if let Some(frame) = self.announced.take() {
                return Some(Given::notice(frame));
            }
            if self.reading.is_some() || !self.has_joined() {
                return None;
            }
            let given = match self.replayed(place) {
                None if std::mem::take(&mut self.has_more) => {
                    self.read(place, self.cursor.wants());
                    None
                }
                None => self.queued(place, now),
                given => given,
            };
            if given.is_some() || self.reading.is_none() {
                return given;
            }
            self.advance(place, now, cx);
        }
    }

    /// Gives the places of what was written back.
    pub(super) fn release(&mut self, place: &Place) {
        place.seat.outbox.release(&mut self.released);
    }

    /// Gives the memory of empty queues back.
    pub(super) fn shrink(&mut self, place: &Place) {
        self.release(place);
        if self.batch.is_empty() {
            self.batch = VecDeque::new();
        }
        place.seat.outbox.shrink();
    }

    fn read(&mut self, place: &Place, from: Seq) {
        self.read_at = None;
        self.confirm_at = None;
        self.reading = Some(Box::pin(place.hub.relay.read(&place.user, from)));
    }

    /// Reads the inbox, which will bring what came live. Where a read has to wait, it need not wait for long any more:
    /// the bus is there.
    fn read_soon(&mut self, place: &Place, now: Instant) {
        match &mut self.read_at {
            Some(read_at) => *read_at = (*read_at).min(now + RETRY),
            None => self.read(place, self.cursor.wants()),
        }
    }

    /// Takes what a read brought; gives the frame that tells the client of it.
    fn was_read(&mut self, read: Read, place: &Place, now: Instant) -> Option<Utf8Bytes> {
        if read.subscription.is_some() {
            self.subscription = read.subscription;
            // Whoever took the place before this was sure could not be heard to say so.
            if let Some(hold) = &place.hold {
                hold.confirm();
            }
        }
        match read.replay {
            Ok(replay) => self.judged(read.from, replay, place, now),
            Err(error) => {
                tracing::debug!(target: "Hub", "inbox of user={} not read: {error}", place.user);
                let pause = RETRY * (1 << self.failures);
                self.failures = DOUBLINGS.min(self.failures + 1);
                self.read_at = Some(now + pause.mul_f64(1.0 + fastrand::f64()));
                if self.has_joined() {
                    return None;
                }
                self.phase = Phase::Blind;
                Some(welcome(place, ("", 0), false))
            }
        }
    }

    fn judged(
        &mut self,
        from: Seq,
        mut replay: Replay,
        place: &Place,
        now: Instant,
    ) -> Option<Utf8Bytes> {
        self.failures = 0;
        let judgement = self.cursor.judge(from, &replay);
        if judgement == Judgement::ReadAll {
            self.read(place, 0);
            return None;
        }
        self.in_doubt = false;
        self.has_more = Read::has_more(&replay);
        if judgement == Judgement::Restart {
            self.pass_over_given(&mut replay);
        }
        self.replay = replay.messages.into_iter();
        self.read_done = now;
        let position = (self.cursor.epoch(), self.cursor.position());
        let frame = match (self.phase, judgement) {
            (Phase::Joining, _) => Some(welcome(place, position, judgement == Judgement::Continue)),
            (Phase::Live, Judgement::Continue) => None,
            (Phase::Live | Phase::Blind, _) => {
                place.region.metrics.resets.inc();
                Some(outgoing::reset(position.0, position.1))
            }
        };
        self.phase = Phase::Live;
        frame
    }

    /// Takes out what this socket was given under another epoch: a promoted replica has all but the last of it.
    fn pass_over_given(&mut self, replay: &mut Replay) {
        let trail = self.trail.take();
        if let Some(shared) = trail.as_ref().and_then(|trail| trail.shared(&replay.messages)) {
            replay.messages.retain(|(seq, _)| *seq > shared);
            self.cursor.gave(shared);
            self.trail = trail;
        }
    }

    fn gave(&mut self, seq: Seq, frame: &[u8]) {
        self.cursor.gave(seq);
        self.trail.get_or_insert_default().gave(seq, frame);
    }

    /// The next of the messages that were read.
    fn replayed(&mut self, place: &Place) -> Option<Given> {
        while let Some((seq, payload)) = self.replay.next() {
            self.gave(seq, &payload);
            if let Some(frame) = relay::text(&place.user, payload) {
                return Some(Given { frame, message: true, taken_ms: None });
            }
        }
        // The iterator would keep its memory for the life of the socket.
        self.replay = Vec::new().into_iter();
        None
    }

    /// The next of what came live; nothing also where a read was begun.
    fn queued(&mut self, place: &Place, now: Instant) -> Option<Given> {
        loop {
            if self.batch.is_empty() {
                self.release(place);
                place.seat.outbox.take(&mut self.batch);
            }
            let item = self.batch.pop_front()?;
            self.released.add(&item);
            match item {
                Item::Signal(frame) => return Some(Given::notice(frame)),
                Item::Presence { user, presence } => {
                    let watching = self.watching.as_deref_mut();
                    let told = watching.and_then(|watching| watching.tell(&user, presence));
                    if let Some(frame) = told {
                        return Some(Given::notice(frame));
                    }
                }
                Item::Gap => {
                    self.in_doubt = true;
                    self.cursor.interrupted();
                    self.interrupted(place, now);
                }
                Item::Message { seq: 0, taken_ms, frame } => {
                    return Some(Given { frame, message: true, taken_ms });
                }
                Item::Message { seq, taken_ms, frame } => {
                    let settled = now.saturating_duration_since(self.read_done) > OVERLAP;
                    match self.cursor.live(seq, settled) {
                        Verdict::Next if !self.in_doubt => {
                            self.gave(seq, frame.as_bytes());
                            return Some(Given { frame, message: true, taken_ms });
                        }
                        Verdict::Seen if !self.in_doubt => {
                            let spread = CONFIRM.mul_f64(1.0 + fastrand::f64());
                            self.confirm_at.get_or_insert(now + spread);
                        }
                        _ => self.read_soon(place, now),
                    }
                }
            }
            if self.reading.is_some() {
                return None;
            }
        }
    }

    /// Reads the inbox after an interruption of the live path: soon, and not with all others at once.
    fn interrupted(&mut self, place: &Place, now: Instant) {
        let users = place.hub.registry.users();
        if users <= FEW_USERS {
            self.read(place, self.cursor.wants());
        } else {
            #[expect(clippy::cast_precision_loss, reason = "a rough measure of a crowd")]
            let spread = users as f64 / READS_A_SECOND;
            self.read_at = Some(now + Duration::from_secs_f64(spread * fastrand::f64()));
        }
    }
}

fn welcome(place: &Place, position: (&str, Seq), resumed: bool) -> Utf8Bytes {
    let region = place.region.name.as_str();
    outgoing::welcome(&place.user, region, position, resumed, place.hub.limits.terms)
}

#[cfg(test)]
mod tests;
