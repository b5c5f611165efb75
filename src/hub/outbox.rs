//! The bounded queue between the bus and one reader.
//!
//! Walk: the relay pushes from the task that reads the bus; the session takes all that waits in one swap
//! and gives the places back as it writes. Over the bound the queue is emptied and marked, and the session
//! closes: the reader can resume from the inbox, so nothing is lost.
//!
//! Invariants: pushing never waits; memory is grown by need and given back by [`Outbox::shrink`], so that an
//! idle socket holds none; what was taken counts until it is released.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::relay::{Presence, Seq};
use crate::settings::HubSettings;

/// What waits for a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A message of the user's inbox, or, at position 0, one that no inbox holds; `taken_ms` (since the Unix
    /// epoch) is set on those whose way is measured.
    Message { seq: Seq, taken_ms: Option<u64>, frame: Utf8Bytes },
    /// A passing frame.
    Signal(Utf8Bytes),
    /// How a user stands whom the reader may watch.
    Presence { user: Arc<str>, presence: Presence },
    /// Anything may be missing before what follows.
    Gap,
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Message { frame, .. } | Self::Signal(frame) => frame.len(),
            Self::Presence { user, .. } => user.len(),
            Self::Gap => 0,
        }
    }
}

/// How much may wait for one reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

impl Bounds {
    pub(super) fn new(settings: &HubSettings) -> Self {
        Self { items: settings.outbox_messages.get(), bytes: settings.outbox_bytes.get() }
    }
}

/// What was written of a taken batch, to be given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Released {
    items: usize,
    bytes: usize,
}

impl Released {
    pub(super) fn add(&mut self, item: &Item) {
        self.items += 1;
        self.bytes += item.bytes();
    }
}

/// The queue; shared by the relay, which pushes, and one session, which takes.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    overflowed: AtomicBool,
    session: AtomicWaker,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Item>,
    /// Queued, or taken and not yet released.
    items: usize,
    bytes: usize,
}

impl Outbox {
    /// Queues `item` and wakes the session.
    pub(super) fn push(&self, item: Item, bounds: Bounds) {
        let mut state = self.lock();
        if self.has_overflowed() || (item == Item::Gap && state.queue.back() == Some(&Item::Gap)) {
            return;
        }
        let bytes = state.bytes.saturating_add(item.bytes());
        // One that is over the bound by itself (a hub of a greater limit took it) passes where it is alone: closing
        // would change nothing, since it would come back with the resume.
        let alone = state.items == 0;
        if state.items >= bounds.items || (bytes > bounds.bytes && !alone) {
            state.queue = VecDeque::new();
            self.overflowed.store(true, Ordering::Release);
        } else {
            state.items += 1;
            state.bytes = bytes;
            state.queue.push_back(item);
        }
        drop(state);
        self.session.wake();
    }

    /// Wakes the session, which looks at more than the queue.
    pub(super) fn wake(&self) {
        self.session.wake();
    }

    /// Registers who is woken by the next push; to be called before [`Outbox::take`].
    pub(super) fn register(&self, waker: &Waker) {
        self.session.register(waker);
    }

    /// Moves everything queued into `batch`, which must be empty; its memory serves the next pushes.
    pub(super) fn take(&self, batch: &mut VecDeque<Item>) {
        let mut state = self.lock();
        if !state.queue.is_empty() {
            std::mem::swap(&mut state.queue, batch);
        }
    }

    /// Gives the places of written items back.
    pub(super) fn release(&self, released: &mut Released) {
        if released.items == 0 {
            return;
        }
        let mut state = self.lock();
        state.items = state.items.saturating_sub(released.items);
        state.bytes = state.bytes.saturating_sub(released.bytes);
        *released = Released::default();
    }

    /// The reader was too slow, and the queue is gone.
    pub(super) fn has_overflowed(&self) -> bool {
        self.overflowed.load(Ordering::Acquire)
    }

    /// Gives the memory of an empty queue back.
    pub(super) fn shrink(&self) {
        let mut state = self.lock();
        if state.queue.is_empty() {
            state.queue = VecDeque::new();
        }
    }

    /// A panic under this lock leaves no state that a reader could trip over.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { items: 3, bytes: 10 };

    fn message(seq: Seq, text: &'static str) -> Item {
        Item::Message { seq, taken_ms: None, frame: Utf8Bytes::from_static(text) }
    }

    fn taken(outbox: &Outbox) -> Vec<Item> {
        let mut batch = VecDeque::new();
        outbox.take(&mut batch);
        batch.into()
    }

    #[test]
    fn what_is_pushed_is_taken_in_order() {
        let outbox = Outbox::default();
        outbox.push(message(1, "a"), BOUNDS);
        outbox.push(Item::Gap, BOUNDS);
        outbox.push(Item::Gap, BOUNDS);
        outbox.push(message(2, "b"), BOUNDS);
        assert_eq!(taken(&outbox), [message(1, "a"), Item::Gap, message(2, "b")]);
        assert!(taken(&outbox).is_empty());
    }

    #[test]
    fn both_bounds_hold_and_the_queue_is_let_go() {
        for items in [vec!["a"; 4], vec!["123456", "78901"]] {
            let outbox = Outbox::default();
            for (seq, text) in (1..).zip(&items) {
                assert!(!outbox.has_overflowed());
                outbox.push(message(seq, text), BOUNDS);
            }
            assert!(outbox.has_overflowed());
            outbox.push(message(9, "x"), BOUNDS);
            assert!(taken(&outbox).is_empty());
        }
    }

    #[test]
    fn what_was_taken_counts_until_it_is_released() {
        let outbox = Outbox::default();
        for seq in 1..=3 {
            outbox.push(message(seq, "a"), BOUNDS);
        }
        let mut released = Released::default();
        for item in taken(&outbox) {
            released.add(&item);
        }
        outbox.release(&mut released);
        for seq in 4..=6 {
            outbox.push(message(seq, "a"), BOUNDS);
        }
        assert!(!outbox.has_overflowed());
        taken(&outbox);
        outbox.push(message(7, "a"), BOUNDS);
        assert!(outbox.has_overflowed(), "three were taken and not released");
    }

    #[test]
    fn one_that_is_too_big_by_itself_passes_alone() {
        let outbox = Outbox::default();
        outbox.push(message(1, "longer than ten"), BOUNDS);
        assert_eq!(taken(&outbox).len(), 1);
        assert!(!outbox.has_overflowed());
        outbox.push(message(2, "a"), BOUNDS);
        assert!(outbox.has_overflowed(), "the big one is not written yet");
    }

    #[test]
    fn an_idle_outbox_holds_no_memory() {
        let outbox = Outbox::default();
        outbox.push(message(1, "a"), BOUNDS);
        let mut batch = VecDeque::new();
        outbox.take(&mut batch);
        batch.clear();
        outbox.push(message(2, "a"), BOUNDS);
        outbox.take(&mut batch);
        outbox.shrink();
        assert_eq!(outbox.lock().queue.capacity(), 0);
    }
}
