//! How many bytes all inboxes of the embedded bus may hold together, and how many they do.
//!
//! Invariants: what is counted never goes over the bound by a message, only by users who come to listen,
//! whose number the hub bounds; no lock of a user or a shard is held by whoever waits for [`Room::last`].

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A pass over all users was worth its cost where it freed this part of the bound, which is then filled again.
const WORTH: usize = 16;

/// After one that was not, this long none is made; meanwhile some may stop listening.
const PAUSE: Duration = Duration::from_secs(1);

/// The bound, and what is counted against it.
pub(super) struct Room {
    max: usize,
    used: AtomicUsize,
    /// Held by the one who makes room, so that others who want some wait for it.
    pub(super) last: Mutex<Option<Pass>>,
}

/// One time that room was made.
pub(super) struct Pass {
    ended: Instant,
    /// Counted by the pass itself: what is in use by now, others may have filled meanwhile.
    freed: usize,
}

impl Room {
    pub(super) fn new(max: usize) -> Self {
        Self { max, used: AtomicUsize::new(0), last: Mutex::default() }
    }

    pub(super) fn used(&self) -> usize {
        // Only the number counts: nothing is published by it.
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn fits(&self, more: usize) -> bool {
        self.used().saturating_add(more) <= self.max
    }

    /// Counts `more` in the place of `less`; false, with nothing changed, where that goes over the bound.
    pub(super) fn replace(&self, less: usize, more: usize) -> bool {
        let next = |used: usize| {
            let next = used.saturating_sub(less).saturating_add(more);
            (next <= self.max || more <= less).then_some(next)
        };
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Counts what is not refused.
    pub(super) fn add(&self, more: usize) {
        self.used.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, less: usize) {
        self.used.fetch_sub(less, Ordering::Relaxed);
    }

    /// Down to what room is made, for `need` more: far enough that it is seldom made.
    pub(super) fn target(&self, need: usize) -> usize {
        (self.max - self.max / 4).min(self.max.saturating_sub(need))
    }

    /// Whether another pass may be worth its cost, after the `last` one.
    pub(super) fn is_worth_a_pass(&self, last: Option<&Pass>) -> bool {
        last.is_none_or(|last| last.freed >= self.max / WORTH || last.ended.elapsed() >= PAUSE)
    }
}

impl Pass {
    /// One that ends now.
    pub(super) fn ended(freed: usize) -> Self {
        Self { ended: Instant::now(), freed }
    }
}
