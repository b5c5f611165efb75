//! The streams of one HTTP/2 connection: which are open, which stand still, and who owns their tasks.
//!
//! hyper runs each stream in a task of its own and hands it to [`Owner`] right after the service was called for it, on the
//! same thread; so the stream that was begun last is that task's. The watchdog of the connection looks at all streams at
//! once, instead of a timer for each, and ends one whose reader takes nothing: the others go on.
//!
//! All of a connection runs on one thread; the atomics and locks are there for `Send`, and nobody waits for them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use crate::edge::slow::Pace;
use crate::proxy::Arrival;
use crate::shutdown::InFlight;

/// Requests that a client may give up before their answer, in a row; each that it waits for makes good for one. A page that
/// is left gives up what it was loading, tens at a time; whoever gives up hundreds wants the work and not the answer
/// (CVE-2023-44487).
const MAX_ABANDONED: u32 = 128;

/// Bytes of an answer that are handed over at a time, whatever came from the backend: how closely a reader is seen to move.
const PIECE: usize = 16 * 1024;

/// Answers under way that are told apart from what the codec says by itself; far more than a client may have at a time. A
/// reset that crosses the head of its answer leaves one behind.
const MOST_ANSWERS: usize = 4 * 1024;

/// RFC 9113, 7: what the codec resets a request with that it does not hand on.
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const REFUSED_STREAM: u32 = 7;

/// What the connection, its streams and its watchdog share.
#[derive(Debug, Default)]
pub(super) struct Streams {
    tasks: TaskTracker,
    open: Mutex<HashMap<u64, Arc<Stream>>>,
    /// Begun, and not yet with its task.
    newest: Mutex<Option<Arc<Stream>>>,
    begun: AtomicU64,
    /// Requests whose fields have come, and those that the codec has turned away.
    announced: AtomicU64,
    refused: AtomicU64,
    /// By the numbers of HTTP/2, the streams whose answer has begun and not ended.
    answers: Mutex<HashSet<u32>>,
    abandoned: AtomicU32,
    flooded: Notify,
    /// Bytes that went out, and whether the last write did not go through.
    written: AtomicU64,
    write_blocked: AtomicBool,
    /// Blocks of header fields that have begun to come, and those that have come whole.
    heads_begun: AtomicU64,
    heads_whole: AtomicU64,
    has_read: AtomicBool,
    has_left: AtomicBool,
    is_draining: AtomicBool,
    has_unsent: AtomicBool,
    /// The count of an answer that the system has not: a drain waits for it. One is enough, whoever's.
    unsent: Mutex<Option<InFlight>>,
}

/// What the codec has turned away or ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A request, for this reason (RFC 9113, 7).
    Request(u32),
    /// One whose fields were too large: it was answered.
    TooLarge,
    /// A stream whose request was not turned away: its own line tells of it.
    Stream(u32),
    /// The connection.
    Connection(u32),
}

/// One stream.
#[derive(Debug, Default)]
struct Stream {
    id: u64,
    arrival: Arc<Arrival>,
    /// There is something for the client, which takes nothing.
    waits: AtomicBool,
    /// How often more was asked for on the client's behalf.
    asked: AtomicU32,
    /// Bytes that were handed over, and those of them that the client must have had room for.
    offered: AtomicU64,
    taken: AtomicU64,
    pace: Mutex<Option<Pace>>,
    /// Of the last piece, what is handed over later.
    rest: Mutex<Bytes>,
    /// For the watchdog: `asked` when it last looked, and for how many looks it has been the same.
    seen: AtomicU32,
    looks: AtomicU32,
    task: OnceLock<AbortHandle>,
    /// It was ended, because its answer is not taken in time.
    is_slow_reader: AtomicBool,
}

/// A stream for its exchange.
#[derive(Debug)]
pub(in crate::edge) struct StreamWire {
    streams: Arc<Streams>,
    stream: Arc<Stream>,
}

/// What the watchdog compares with its last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    begun: u64,
    /// Streams that are being answered, and those that have left HTTP.
    pub(super) open: usize,
    written: u64,
    pub(super) write_blocked: bool,
    pub(super) has_read: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Streams {
    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>) -> StreamWire {
        let id = self.begun.fetch_add(1, Ordering::Relaxed);
        let stream = Arc::new(Stream { id, ..Stream::default() });
        lock(&self.open).insert(id, Arc::clone(&stream));
        *lock(&self.newest) = Some(Arc::clone(&stream));
        StreamWire { streams: Arc::clone(self), stream }
    }

    pub(super) fn sample(&self) -> Sample {
        let open = self.tasks.len();
        // What goes out without a stream answers pings, which keep nothing open.
        let written = if open > 0 { self.written.load(Ordering::Relaxed) } else { 0 };
        Sample {
            begun: self.begun.load(Ordering::Relaxed),
            open,
            written,
            write_blocked: self.write_blocked.load(Ordering::Relaxed),
            has_read: self.has_read.load(Ordering::Relaxed),
        }
    }

    /// Which block of header fields is coming, where one is.
    pub(super) fn head(&self) -> Option<u64> {
        let begun = self.heads_begun.load(Ordering::Relaxed);
        (begun > self.heads_whole.load(Ordering::Relaxed)).then_some(begun)
    }

    pub(super) fn head_begins(&self) {
        self.heads_begun.fetch_add(1, Ordering::Relaxed);
    }

    /// `is_request`: and not of trailers.
    pub(super) fn head_is_whole(&self, is_request: bool) {
        self.announced.fetch_add(u64::from(is_request), Ordering::Relaxed);
        self.heads_whole.store(self.heads_begun.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The head of an answer went out on this stream, and more is to follow.
    pub(super) fn answer_begins(&self, number: u32) {
        let mut answers = lock(&self.answers);
        if answers.len() >= MOST_ANSWERS {
            answers.clear();
        }
        answers.insert(number);
    }

    /// Nothing more goes out on this stream. True, where an answer had begun.
    pub(super) fn answer_ends(&self, number: u32) -> bool {
        lock(&self.answers).remove(&number)
    }

    /// What a reset by the codec is.
    ///
    /// It does not say whether the service has seen the stream. Where each request that has come was begun, it has. Else it
    /// is taken for one that has not: should several meet in one read, one may be told of as another, and none is missing.
    pub(super) fn has_reset(&self, code: u32) -> Refusal {
        let is_of_request = matches!(code, PROTOCOL_ERROR | REFUSED_STREAM);
        let begun = self.begun.load(Ordering::Relaxed);
        let refused = self.refused.load(Ordering::Relaxed);
        if !is_of_request || self.announced.load(Ordering::Relaxed) <= begun + refused {
            return Refusal::Stream(code);
        }
        self.refused.store(refused + 1, Ordering::Relaxed);
        Refusal::Request(code)
    }

    /// The codec has answered a request by itself, as it does with one whose fields are too large.
    pub(super) fn is_too_large(&self) -> Refusal {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Refusal::TooLarge
    }

    pub(super) fn has_read(&self) {
        self.has_read.store(true, Ordering::Relaxed);
    }

    /// The client has closed its side, or said goodbye.
    pub(super) fn leaves(&self) {
        self.has_left.store(true, Ordering::Relaxed);
    }

    /// Whether there is a request that nobody has seen, though its client has stayed.
    pub(super) fn has_unseen(&self) -> bool {
        let seen = self.begun.load(Ordering::Relaxed) + self.refused.load(Ordering::Relaxed);
        !self.has_left.load(Ordering::Relaxed) && self.announced.load(Ordering::Relaxed) > seen
    }

    pub(super) fn has_written(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
        self.write_blocked.store(false, Ordering::Relaxed);
    }

    pub(super) fn cannot_write(&self) {
        self.write_blocked.store(true, Ordering::Relaxed);
    }

    /// The process is to stop. From now on `flight`, or another, counts until the last frame of each answer went out: what
    /// the client has no room for yet waits in the codec, and would be lost with it.
    pub(super) fn drain(&self, flight: InFlight) {
        self.is_draining.store(true, Ordering::Relaxed);
        if !lock(&self.answers).is_empty() {
            self.hold(flight);
        }
    }

    fn hold(&self, flight: InFlight) {
        *lock(&self.unsent) = Some(flight);
        self.has_unsent.store(true, Ordering::Relaxed);
    }

    /// The system has everything that the codec has written.
    pub(super) fn all_sent(&self) {
        if !self.has_unsent.load(Ordering::Relaxed) {
            return;
        }
        // Before a drain nobody waits, and a tunnel would keep the count up for as long as it lives.
        if self.is_draining.load(Ordering::Relaxed) && !lock(&self.answers).is_empty() {
            return;
        }
        self.has_unsent.store(false, Ordering::Relaxed);
        lock(&self.unsent).take();
    }

    /// Ends the streams whose readers have taken nothing for `looks` looks, or less than `min_rate` bytes a second.
    pub(super) fn end_slow(&self, looks: u32, min_rate: u32) {
        for stream in lock(&self.open).values() {
            if (stream.is_stalled(looks) || stream.is_too_slow(min_rate))
                && let Some(task) = stream.task.get()
            {
                stream.is_slow_reader.store(true, Ordering::Relaxed);
                task.abort();
            }
        }
    }

    /// The connection is ended, because what is written to it is not taken in time.
    pub(super) fn give_up(&self) {
        for stream in lock(&self.open).values() {
            stream.is_slow_reader.store(true, Ordering::Relaxed);
        }
    }

    /// Ends when the client has given up too many requests.
    pub(super) async fn flooded(&self) {
        self.flooded.notified().await;
    }

    /// Ends when every task has; those of a connection that is gone do at once.
    pub(super) async fn closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn count(&self, abandoned: bool) {
        let before = self.abandoned.load(Ordering::Relaxed);
        let now = if abandoned { before.saturating_add(1) } else { before.saturating_sub(1) };
        self.abandoned.store(now, Ordering::Relaxed);
        if now > MAX_ABANDONED {
            self.flooded.notify_one();
        }
    }
}

impl Stream {
    fn is_stalled(&self, looks: u32) -> bool {
        let asked = self.asked.load(Ordering::Relaxed);
        let same = self.seen.swap(asked, Ordering::Relaxed) == asked;
        if !same || !self.waits.load(Ordering::Relaxed) {
            self.looks.store(0, Ordering::Relaxed);
            return false;
        }
        self.looks.fetch_add(1, Ordering::Relaxed) >= looks
    }

    fn is_too_slow(&self, min_rate: u32) -> bool {
        let keeps_waiting = self.waits.load(Ordering::Relaxed);
        let taken = self.taken.load(Ordering::Relaxed);
        let mut pace = lock(&self.pace);
        let pace = pace.get_or_insert_with(|| Pace::new(PIECE as u64));
        pace.falls_behind(keeps_waiting, taken, min_rate)
    }
}

impl StreamWire {
    pub(in crate::edge) fn arrival(&self) -> Arc<Arrival> {
        Arc::clone(&self.stream.arrival)
    }

    pub(in crate::edge) fn begin(&self, with_body: bool) {
        self.stream.arrival.begin(with_body);
    }

    pub(in crate::edge) fn received(&self) -> u64 {
        self.stream.arrival.received()
    }

    pub(in crate::edge) fn is_slow_reader(&self) -> bool {
        self.stream.is_slow_reader.load(Ordering::Relaxed)
    }

    /// So many bytes are ready for the client, or the head of its answer.
    pub(in crate::edge) fn offers(&self, bytes: usize) {
        self.stream.offered.fetch_add(bytes as u64, Ordering::Relaxed);
        self.stream.waits.store(true, Ordering::Relaxed);
    }

    /// What is handed over now of a piece; [`Self::rest`] has the rest.
    pub(in crate::edge) fn cut(&self, mut piece: Bytes) -> Bytes {
        if piece.len() > PIECE {
            *lock(&self.stream.rest) = piece.split_off(PIECE);
        }
        piece
    }

    /// The next part of a piece that was cut.
    pub(in crate::edge) fn rest(&self) -> Option<Bytes> {
        let mut rest = lock(&self.stream.rest);
        let size = rest.len().min(PIECE);
        let piece = rest.split_to(size);
        Some(piece).filter(|piece| !piece.is_empty())
    }

    pub(in crate::edge) fn has_rest(&self) -> bool {
        !lock(&self.stream.rest).is_empty()
    }

    /// The client has room for more.
    pub(in crate::edge) fn asks(&self) {
        self.stream.waits.store(false, Ordering::Relaxed);
        self.stream.taken.store(self.stream.offered.load(Ordering::Relaxed), Ordering::Relaxed);
        self.stream.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// The exchange is over; `abandoned`, the client went before there was an answer.
    pub(in crate::edge) fn finish(&self, flight: InFlight, abandoned: bool) {
        lock(&self.streams.open).remove(&self.stream.id);
        self.streams.hold(flight);
        self.streams.count(abandoned);
    }
}

/// Owner of the tasks that hyper begins for a connection.
#[derive(Clone, Debug)]
pub(super) struct Owner(pub(super) Arc<Streams>);

impl<F> hyper::rt::Executor<F> for Owner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let task = self.0.tasks.spawn(task);
        // A task that carries an upgraded stream comes when no stream is new.
        if let Some(stream) = lock(&self.0.newest).take() {
            stream.task.get_or_init(|| task.abort_handle());
        }
    }
}

#[cfg(test)]
mod tests;
